"""Data in and out: import, export, the dataset card and the sample projects."""
