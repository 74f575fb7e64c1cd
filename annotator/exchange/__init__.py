"""Data in and out: import, export, the data card and the sample projects."""
