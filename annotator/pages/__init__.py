"""The pages of the app, one module each. They describe the screen; every decision lives in `annotator`."""
