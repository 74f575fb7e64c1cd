"""`annotator doctor`: show what this machine can run, or check the files of a project."""

from pathlib import Path

import click
from rich.table import Table

from annotator.cli.terminal import FOLDER, console
from annotator.doctor import examine, problems_of
from annotator.errors import Message, ProjectDamaged


@click.command()
@click.argument("project", type=FOLDER, required=False)
def doctor(project: Path | None) -> None:
    """Show what this machine can run, and why; with a project, check its files."""
    if project:
        _examine(project)
        return
    table = Table("", "supported", "reason")
    for finding in examine():
        table.add_row(finding.subject, "yes" if finding.can else "no", finding.reason)
    console.print(table)


def _examine(project: Path) -> None:
    found = problems_of(project)
    for one in found:
        console.print(f"  {one}", highlight=False, markup=False)
    if found:
        hint = "Restore the folder from a backup. `sqlite3 project.db .recover` extracts what is still readable."
        raise ProjectDamaged(Message("{n} problem{n2} found.", n=len(found), n2="s" * (len(found) > 1)), hint)
    console.print(f"No problems found in {project}.")
