"""Read rows from files, and write them to files atomically."""
