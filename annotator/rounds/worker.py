"""Run the rounds that are due in a process of their own: `python -m annotator.rounds.worker FOLDER JOB`.

The process and the app communicate through the database. A page that reloads cannot start a second round, the memory is
freed when the process ends, and labeling continues in the meantime.
"""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from annotator.codebook.definition import codebook_of
from annotator.errors import AnnotatorError, Message, ProjectBusy, RoundCancelled
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.planning import planned
from annotator.rounds.progress import Listener, Report
from annotator.rounds.schedule import due
from model.backbones.fingerprint import pinned
from store import annotations, jobs, rounds

LOG = "worker.log"
_QUIET_SECONDS = 0.5  # minimum between two progress reports
_BEAT_SECONDS = 10.0  # between two heartbeats, also during long steps
_PATIENCE = 600.0  # seconds to wait for a lock of another program, because failing would lose minutes of work


def start_round(project: Project, reason: str) -> int:
    """Start a round in its own process and return the id of the job. Raises RoundRunning if one is running."""
    job = jobs.begin(project.db, reason, annotations.last_id(project.db))
    command = [sys.executable, "-m", "annotator.rounds.worker", str(project.folder.resolve()), str(job)]
    with (project.folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env=patient()
        )
    with suppress(ProjectBusy):  # the process also signs the job itself
        jobs.sign(project.db, job, process.pid)
    return job


def patient() -> dict[str, str]:
    """Return the environment for a process that computes next to the app.

    OpenMP threads then wait without spinning, which would take processor time from the app.
    """
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}


def work(project: Project, job: int) -> None:
    """Run the rounds of a job and record how it ended. An error is recorded and raised again."""
    from model.load import load_classifier  # here, so that starting a round imports no torch

    listener = _listener(project, job)
    try:
        listener("load", 0.0, None)
        for config in due(project, planned(project, project.config)):
            report = Report(listener)
            report.stage("load")
            backbone = pinned(config.backbone, rounds.revision_of(project.db, config.backbone))
            task = codebook_of(project).task()
            classifier = load_classifier(backbone, task, config.recipe, config.template, project.cache)
            run_round(project, classifier, config, report)
    except RoundCancelled as stop:
        jobs.finish(project.db, job, "cancelled", stop.message, stop.hint)
    except AnnotatorError as error:
        jobs.finish(project.db, job, "failed", error.message, error.hint)
        raise
    except Exception as error:  # everything is caught here, so that the failure is shown in the app
        last = jobs.last(project.db)
        stage = last.stage if last else ""
        hint = Message(
            "The details are in {log} in the project's folder. No answer is lost; retrain to try again.", log=LOG
        )
        jobs.finish(
            project.db,
            job,
            "failed",
            Message(
                "The round failed at “{stage}”: {name}: {error}", stage=stage, name=type(error).__name__, error=error
            ),
            hint,
        )
        raise
    else:
        jobs.finish(project.db, job, "done")


def _listener(project: Project, job: int) -> Listener:
    """Return a listener that writes progress to the job's row, and raises RoundCancelled if the job is canceled."""
    reported: tuple[str, float] = ("", 0.0)

    def listen(stage: str, share: float, seconds_left: float | None) -> None:
        nonlocal reported
        if stage == reported[0] and time.monotonic() - reported[1] < _QUIET_SECONDS:
            return
        reported = (stage, time.monotonic())
        if jobs.report(project.db, job, stage, share, seconds_left):
            raise RoundCancelled("The round was canceled.", "The round before it stays in use.")

    return listen


def main() -> None:
    """Run the job named on the command line."""
    folder, job = Path(sys.argv[1]), int(sys.argv[2])
    os.nice(10)  # the label page has priority
    with Project.open(folder, _PATIENCE) as project:
        jobs.sign(project.db, job)
        threading.Thread(target=_live, args=(folder, job), name="heartbeat", daemon=True).start()
        work(project, job)


def _live(folder: Path, job: int) -> None:
    """Write a heartbeat to the job's row every few seconds, as long as this process runs."""
    with Project.open(folder) as project:
        while True:
            with suppress(ProjectBusy):  # the next one comes soon
                jobs.beat(project.db, job)
            time.sleep(_BEAT_SECONDS)


if __name__ == "__main__":
    main()
