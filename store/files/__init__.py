"""Files: rows read from them, and rows written to them whole or not at all."""
