"""The `annotator` command: create projects, import, train, export and score without the app."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from annotator import __version__
from annotator.cli.backbones import backbones, fetch
from annotator.cli.doctor import doctor
from annotator.cli.plan import plan
from annotator.cli.simulate import simulate
from annotator.cli.terminal import FILE, FOLDER, console, progress_bar
from annotator.codebook.definition import create_project
from annotator.codebook.draft import draft_from_names, read_codebook
from annotator.config import RoundConfig, changed, settings_of
from annotator.errors import AnnotatorError, BadInput, UnknownName
from annotator.exchange.export import ExportContext, ExportPlan, default_filename, export_project, left_out
from annotator.exchange.imports import import_file
from annotator.exchange.samples import SAMPLES, create_sample, workspace
from annotator.gate import EXPOSED, checked_names, exposed, refuse_open_address
from annotator.labeling.session import standing
from annotator.project import Project
from annotator.rounds.lifecycle import recover
from annotator.rounds.prediction import Labeler, format_of
from annotator.rounds.statuses import added_up, statuses
from annotator.rounds.summaries import about_weights, summaries
from annotator.rounds.worker import start_round
from store import jobs
from store import settings as stored
from store.files.exporters import FORMATS, write_text
from store.files.importers import ImportPlan, detect_columns, labels_in, parse_filter
from store.files.readers import Rejected, read_header

LISTED = 50  # lines of an import report shown on screen
F = TypeVar("F", bound=Callable[..., Any])


class Commands(click.Group):
    """Command group that prints `AnnotatorError` as message and hint; other errors keep their traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(context)
        except AnnotatorError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands)
@click.version_option(__version__)
def main() -> None:
    """Label utterances with a language model that learns from the answers, and export the dataset."""


@main.command()
@click.argument("project", type=FOLDER)
@click.option("--sample", type=click.Choice(sorted(SAMPLES)), help="Start from a sample instead of a codebook.")
@click.option("--codebook", type=FILE, help="YAML file with the labels.")
@click.option("--labels-from", type=FILE, help="Create the codebook from the labels in this file.")
@click.option("--only", help="With --labels-from: use only these rows, such as speaker=client.")
@click.option("--if-missing", is_flag=True, help="Do nothing if the project exists.")
def new(
    project: Path,
    sample: str | None,
    codebook: Path | None,
    labels_from: Path | None,
    only: str | None,
    if_missing: bool,
) -> None:
    """Create a project."""
    if only and not labels_from:
        raise BadInput("--only filters the rows of --labels-from.", "Give both options, or neither.")
    if if_missing and (project / "project.db").exists():
        return
    if sample:
        create_sample(sample, project).close()
    elif codebook:
        create_project(project, read_codebook(codebook)).close()
    elif labels_from:
        header = read_header(labels_from)
        wanted = parse_filter(only, header) if only else None
        found = labels_in(labels_from, ImportPlan(detect_columns(header), label_only=wanted))
        create_project(project, draft_from_names(sorted(found), project.name)).close()
    else:
        raise BadInput("A project needs labels.", "Give --codebook, --labels-from or --sample.")
    console.print(f"Created {project}.")


@main.command("import")
@click.argument("project", type=FOLDER)
@click.argument("file", type=FILE)
@click.option("--text", help="Column with the utterance; default: detected by its name.")
@click.option("--only", help="Rows to label, such as speaker=client; other rows become context.")
@click.option("--no-labels", is_flag=True, help="Do not import labels from the file.")
@click.option("--keep-copies", is_flag=True, help="Import every copy of duplicate texts.")
@click.option("--whole-conversations", is_flag=True, help="Draw the audit sample by conversation, not by utterance.")
@click.option("--encoding", default="utf-8", show_default=True)
@click.option("--report", type=FILE, help="Write all skipped rows to this CSV file; the first are also printed.")
def import_(
    project: Path,
    file: Path,
    text: str | None,
    only: str | None,
    no_labels: bool,
    keep_copies: bool,
    whole_conversations: bool,
    encoding: str,
    report: Path | None,
) -> None:
    """Import utterances from a CSV, TSV, JSONL, Parquet or Excel file."""
    header = read_header(file, encoding)
    # "text" is added so that a file whose text column has another name passes; reading refuses a wrong name.
    columns = replace(detect_columns([*header, "text"]), text=text) if text else detect_columns(header)
    plan = ImportPlan(
        columns,
        label_only=parse_filter(only, header) if only else None,
        with_labels=not no_labels,
        keep_copies=keep_copies,
        encoding=encoding,
    )
    with Project.open(project) as opened:
        done = import_file(opened, file, plan, whole_conversations)
    console.print(done.summary(), highlight=False)
    _list_rejected(done.rejected)
    if report:
        report.write_text(done.table(), encoding="utf-8")


@main.command()
@click.option("--port", default=8501, show_default=True)
@click.option("--projects", type=FOLDER, help="Folder with all projects; default: ./projects.")
@click.option("--browser/--no-browser", default=False, help="Open a browser window.")
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; any but this machine's own needs --expose.",
)
@click.option(
    "--expose",
    multiple=True,
    metavar="NAME",
    help="Accept requests from other machines to this host name, such as lab.example.org or 10.0.0.5:8501. There is no "
    "sign-in: anyone who can reach this machine can read and change all projects. Repeatable.",
)
def serve(port: int, projects: Path | None, browser: bool, address: str, expose: Sequence[str]) -> None:
    """Open the app on this machine."""
    names = checked_names([*expose, *exposed()])
    refuse_open_address(address, names)
    os.environ["ANNOTATOR_PROJECTS"] = str(projects.resolve() if projects else workspace())
    os.environ[EXPOSED] = ",".join(sorted(names))
    script = Path(__file__).resolve().parents[2] / "streamlit_app.py"
    options = {"server.port": port, "server.address": address, "server.headless": not browser}
    flags = [f"--{name}={str(value).lower()}" for name, value in options.items()]
    os.chdir(script.parent)  # the folder of .streamlit/config.toml
    console.print(f"Annotator is starting at http://{address}:{port}. Press Ctrl+C to stop it; all answers are saved.")
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(script), *flags])


@main.command()
@click.argument("project", type=FOLDER)
@click.option("--wait/--no-wait", default=True, help="Wait for the round and show its progress.")
def retrain(project: Path, wait: bool) -> None:
    """Train a round on the answers so far and compose the next batch."""
    with Project.open(project) as opened:
        recover(opened)
        job = start_round(opened, "the command line")
        if wait:
            _watch(opened, job)


def _watch(project: Project, job: int) -> None:
    import time

    with progress_bar() as bar:
        task = bar.add_task("starting", total=1.0)
        while True:
            recover(project)
            row = jobs.get(project.db, job)
            bar.update(task, completed=row.share, description=row.stage or "starting")
            if row.state != "active":
                break
            time.sleep(0.5)
    if row.state != "done":
        raise AnnotatorError(row.error or f"The round is {row.state}.", row.hint)
    console.print(_round_table(project))


@main.command()
@click.argument("project", type=FOLDER)
def cancel(project: Path) -> None:
    """Cancel the running round, even if it hangs; the round before stays in use."""
    import time

    with Project.open(project) as opened:
        jobs.request_cancel(opened.db)
        while jobs.active(opened.db):
            recover(opened)
            time.sleep(0.2)
    console.print("No round is running.")


@main.command()
@click.argument("project", type=FOLDER)
@click.argument("changes", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--reset", multiple=True, metavar="NAME", help="Restore the default of a stored setting, such as config.")
def settings(project: Path, changes: Sequence[str], reset: Sequence[str]) -> None:
    """List or change the settings of rounds: language model, training recipe, query strategy.

    Example: annotator settings my-project backbone=llama-3.2-1b-instruct recipe.quantization=nf4 recipe.epochs=4
    """
    with Project.open(project) as opened:
        for name in reset:
            if not stored.reset(opened.db, name):
                raise UnknownName.among("stored setting", name, stored.keys(opened.db))
        if changes:
            opened.config = changed(opened.config, changes)
        current, defaults = settings_of(opened.config), settings_of(RoundConfig())
    table = Table("setting", "value", "default")
    for name, value in current.items():
        table.add_row(name, str(value), "" if value == defaults[name] else str(defaults[name]))
    console.print(table)
    if changes:
        console.print("The changes take effect with the next round.")


@main.command()
@click.argument("project", type=FOLDER)
def status(project: Path) -> None:
    """Show a project's progress and rounds."""
    with Project.open(project) as opened:
        recover(opened)
        done = standing(opened, "")
        console.print(f"{opened.name}: {done.labeled} of {done.to_label} utterances are answered.")
        console.print(f"Utterances: {added_up(statuses(opened).counts())}.")
        job = jobs.active(opened.db)
        console.print(f"A round is running: “{job.stage}”, {job.share:.0%}." if job else "No round is running.")
        if job and (silent := job.silence):
            minutes = round(silent.total_seconds() / 60)
            console.print(f"It has not reported progress for {minutes} minutes. `annotator cancel` ends it.")
        console.print(_round_table(opened))
        refused, notes = about_weights(opened)
        for line in filter(None, (refused, *notes)):
            console.print(line, highlight=False)


def _round_table(project: Project) -> Table:
    table = Table("round", "state", "trained on", "audit answers", "accuracy", "95 % interval", "calibrated", "memory")
    for one in summaries(project):
        counts = (str(count) for count in (one.number, one.state, one.trained_on, one.audited_on))
        table.add_row(*counts, one.accuracy, one.interval, one.calibrated, one.memory)
    return table


@main.command()
@click.argument("project", type=FOLDER)
@click.option("--format", "format_", type=click.Choice(sorted(FORMATS)), default="csv", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Output file; default: named after the project.")
@click.option("--rows", type=click.Choice(["utterances", "answers"]), default="utterances", show_default=True)
@click.option("--with-model", is_flag=True, help="Also export rows labeled only by the model.")
def export(project: Path, format_: str, out: Path | None, rows: Any, with_model: bool) -> None:
    """Export the labeled dataset with its data card."""
    plan = ExportPlan(format_, rows, with_model)
    with Project.open(project) as opened:
        target, known = out or Path(default_filename(opened, plan)), ExportContext(opened, plan)
        console.print(f"{export_project(opened, target, plan, known)} rows in {target}.")
        counts = known.statuses.counts()
    if rows == "answers":
        console.print("Each row is one answer; an utterance may have several.")
    console.print(f"Utterances: {added_up(counts)}.")
    if note := left_out(counts, with_model):
        console.print(note)


@main.command()
@click.argument("project", type=FOLDER)
@click.option("--out", type=FILE, help="Output file; default: named after the project, with -report.html.")
def report(project: Path, out: Path | None) -> None:
    """Write the report of a project as one HTML file, to print or share."""
    from annotator.reporting.html import report as write_report  # slow to import, and only needed here

    with Project.open(project) as opened:
        target = out or Path(f"{opened.folder.resolve().name}-report.html")
        write_text(target, write_report(opened))
    console.print(f"Report written to {target}.")


@main.command()
@click.argument("file", type=FILE)
@click.option("--project", type=FOLDER, required=True, help="Project whose round in use scores the file.")
@click.option("--out", type=FILE, required=True, help="Output file; its ending sets the format, as in scored.parquet.")
@click.option("--only", help="Rows to score, such as speaker=client; other rows become context.")
@click.option("--encoding", default="utf-8", show_default=True)
def score(file: Path, project: Path, out: Path, only: str | None, encoding: str) -> None:
    """Write the calibrated probability of each label for every utterance of a file."""
    header = read_header(file, encoding)
    label_only = parse_filter(only, header) if only else None
    plan = ImportPlan(detect_columns(header), label_only, with_labels=False, keep_copies=True, encoding=encoding)
    format_of(out)  # refuse a wrong ending before the work
    with progress_bar() as bar:
        task = bar.add_task("loading the model", total=1.0)
        labeler = Labeler.of(project)
        progress = lambda share: bar.update(task, completed=share, description="scoring")  # noqa: E731
        count, rejected = labeler.score_file(file, plan, out, progress)
    console.print(f"{count} rows in {out}, scored by round {labeler.round_number}.")
    _list_rejected(rejected)


def _list_rejected(rejected: Sequence[Rejected]) -> None:
    for one in rejected[:LISTED]:
        console.print(f"  row {one.row}: {one.reason}", highlight=False)
    if len(rejected) > LISTED:
        console.print(f"  … and {len(rejected) - LISTED:,} more.", highlight=False)


for command in (simulate, backbones, fetch, doctor, plan):
    main.add_command(command)


if __name__ == "__main__":
    main()
