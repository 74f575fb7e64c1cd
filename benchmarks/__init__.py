"""Claims about speed and quality, measured: one command each, the alternative in the same run."""
