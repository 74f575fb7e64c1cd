"""Command line: every act of the product without the app."""
