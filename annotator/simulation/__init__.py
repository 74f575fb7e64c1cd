"""Simulated sessions on a labeled file: oracle, runner, curves and report."""
