"""Processes that are meant to be killed: one labels, one makes a round as the worker does, one imports."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from annotator.exchange.imports import import_file
from annotator.labeling.session import answer, next_question
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.progress import Report
from store import jobs
from store.files.importers import ImportPlan, detect_columns
from tests.annotator.scenes import classifier_of, right

PAUSE = 0.01  # seconds between the steps of a round, so that a kill falls between them too


def label(folder: Path, told: Connection) -> None:
    """Answer one question after the other; print the id of every answer once `answer` has returned."""
    with Project.open(folder) as project:
        while question := next_question(project, "ada"):
            told.send(answer(project, question, "ada", right(project, question)))


def make_round(folder: Path, job: int, told: Connection) -> None:
    """Do a job; print every stage as it begins."""
    with Project.open(folder) as project:
        jobs.sign(project.db, job)
        told.send("load")

        def listen(stage: str, share: float, seconds_left: float | None) -> None:
            jobs.report(project.db, job, stage, share, seconds_left)
            told.send(stage)

        run_round(project, classifier_of(project, PAUSE), project.config, Report(listen))
        jobs.finish(project.db, job, "done")
        told.send("done")


def take_file(folder: Path, path: Path, told: Connection) -> None:
    """Import a file; print when it begins and when it has ended."""
    with Project.open(folder) as project:
        told.send("begin")
        import_file(project, path, ImportPlan(detect_columns(["id", "text", "label"])))
        told.send("done")
