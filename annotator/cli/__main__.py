"""Run the command line as `python -m annotator.cli.main`."""

from annotator.cli.main import main

main()
