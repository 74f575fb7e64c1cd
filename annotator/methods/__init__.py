"""Statistics as pure functions of arrays: strategies, calibration, metrics, guarantees, agreement. No database."""
