"""Sessions replayed from known labels: oracle, runner, curves and report."""
