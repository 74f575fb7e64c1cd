"""What all commands share: where they write, how they show progress, what a path may be."""

from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(markup=False)  # names and labels may hold brackets
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


def progress_bar() -> Progress:
    """Show a bar with the time left while something runs."""
    return Progress(TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn(), console=console)
