"""Parts shared by all commands: the console, the progress bar and path types."""

from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(markup=False)  # names and labels may hold brackets
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


def progress_bar() -> Progress:
    """Return a progress bar with the remaining time."""
    return Progress(TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn(), console=console)
