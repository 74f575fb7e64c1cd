"""Questions and labels: their definition, changes to them, and the history of those changes."""
