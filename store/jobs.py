"""Jobs: the one process that may work on a project beside the app, how far it is, and whether it lives."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from sqlite_utils import Database

from annotator.errors import RoundRunning
from store.database import fetch_one, fetch_value, immediate, now
from store.processes import find_process

START_GRACE = timedelta(seconds=60)  # from the row to the process that signs it; torch takes seconds to import
SILENT = timedelta(minutes=2)  # without a sign of life, which is due every few seconds: the process is stopped or stuck
STUCK = timedelta(minutes=30)  # alive without getting any further: longer than a step takes
CANCEL_GRACE = timedelta(seconds=10)  # from asking a job to stop to ending its process
TERM_GRACE = timedelta(seconds=5)  # from ending the process to killing it


def begin(db: Database, reason: str, last_annotation: int) -> int:
    """Reserve the project for a job and return its id. Raises RoundRunning if another is alive.

    `last_annotation` is the watermark that makes counting new labels idempotent: a second call for the same
    labels finds either this job active or its watermark taken.
    """
    with immediate(db):
        recover(db)
        if active(db):
            raise RoundRunning(
                "A round is running already.",
                "Wait for it, or cancel it on the Rounds page or with `annotator cancel`.",
            )
        cursor = db.execute(
            "INSERT INTO job (state, reason, last_annotation, started_at, heartbeat_at) VALUES ('active', ?, ?, ?, ?)",
            (reason, last_annotation, now(), now()),
        )
        return int(cursor.lastrowid or 0)


def sign(db: Database, job_id: int, pid: int | None = None) -> None:
    """Enter the process that does the job: this one, or a child just started."""
    process = psutil.Process(pid or os.getpid())
    with immediate(db):
        db.execute(
            "UPDATE job SET pid = ?, pid_started = ?, heartbeat_at = ? WHERE id = ?",
            (process.pid, process.create_time(), now(), job_id),
        )


def report(db: Database, job_id: int, stage: str, share: float, seconds_left: float | None) -> bool:
    """Write how far the job is; return whether it has to stop: a person has asked for it, or it was given up."""
    with immediate(db):
        moment = now()
        db.execute(
            "UPDATE job SET stage = ?, share = ?, seconds_left = ?, heartbeat_at = ?, progress_at = ? WHERE id = ?",
            (stage, share, seconds_left, moment, moment, job_id),
        )
        return bool(fetch_value(db, "SELECT cancel OR state != 'active' FROM job WHERE id = ?", (job_id,)))


def beat(db: Database, job_id: int) -> None:
    """Give a sign of life, however long a step takes."""
    with immediate(db):
        db.execute("UPDATE job SET heartbeat_at = ? WHERE id = ? AND state = 'active'", (now(), job_id))


def attach_round(db: Database, round_id: int, last_annotation: int) -> None:
    """Connect the active job, if this process does it, with the round it makes and the answers that round has seen."""
    with immediate(db):
        sql = """UPDATE job SET round_id = ?, last_annotation = ?
                 WHERE state = 'active' AND (pid IS NULL OR pid = ?)"""
        db.execute(sql, (round_id, last_annotation, os.getpid()))


def request_cancel(db: Database) -> None:
    """Ask the active job to stop at its next step. If it does not, `recover` ends its process."""
    with immediate(db):
        sql = "UPDATE job SET cancel = 1, cancelled_at = coalesce(cancelled_at, ?) WHERE state = 'active'"
        db.execute(sql, (now(),))


def finish(db: Database, job_id: int, state: str, error: str | None = None, hint: str | None = None) -> None:
    """End a job, once: a job that has been found dead stays interrupted. Its unfinished round ends with it."""
    with immediate(db):
        db.execute(
            "UPDATE job SET state = ?, error = ?, hint = ?, finished_at = ? WHERE id = ? AND state = 'active'",
            (state, error, hint, now(), job_id),
        )
        db.execute(
            """UPDATE round SET state = ?, finished_at = ? WHERE state = 'running'
               AND id = (SELECT round_id FROM job WHERE id = ?)""",
            ("failed" if state == "done" else state, now(), job_id),
        )


def active(db: Database) -> dict[str, Any] | None:
    """Return the job that is under way, if any."""
    return fetch_one(db, "SELECT * FROM job WHERE state = 'active'")


def is_learning(db: Database) -> bool:
    """Say whether the job under way learns from answers, or will, as far as its round has not begun."""
    sql = """SELECT coalesce(round.trained_on, job.last_annotation) > 0
             FROM job LEFT JOIN round ON round.id = job.round_id WHERE job.state = 'active'"""
    return bool(fetch_value(db, sql))


def last(db: Database) -> dict[str, Any] | None:
    """Return the newest job, under way or ended."""
    return fetch_one(db, "SELECT * FROM job ORDER BY id DESC LIMIT 1")


def last_watermark(db: Database) -> int:
    """Return the newest annotation that any job has taken into account."""
    return int(fetch_value(db, "SELECT max(last_annotation) FROM job") or 0)


def recover(db: Database) -> bool:
    """Mark the active job ended if its process is gone; say whether that was so. Only then does it write.

    A process that was asked to stop and has not is ended first, and killed if that does not help.
    """
    job = active(db)
    if job is not None and job["cancel"]:
        _press(job)
    if job is None or _lives(job):
        return False
    with immediate(db):
        job = active(db)
        if job is None or _lives(job):
            return False
        promoted = fetch_value(db, "SELECT state FROM round WHERE id = ?", (job["round_id"],)) == "promoted"
        if promoted:  # killed after its work was done, before it could say so
            finish(db, job["id"], "done")
        elif job["cancel"]:
            finish(db, job["id"], "cancelled", "The round was canceled.", "The round before it stays in use.")
        else:
            finish(
                db, job["id"], "interrupted", "The round's process ended without a word.", "Retrain to start it again."
            )
        return True


def _lives(job: Mapping[str, Any]) -> bool:
    if job["pid"] is None:
        return age(job["started_at"]) < (CANCEL_GRACE if job["cancel"] else START_GRACE)
    return find_process(job["pid"], job["pid_started"]) is not None


def _press(job: Mapping[str, Any]) -> None:
    """End the process of a job that has been asked to stop for long enough, with all that it has started."""
    asked = age(job["cancelled_at"]) if job["cancelled_at"] else CANCEL_GRACE  # by an earlier version
    process = find_process(job["pid"], job["pid_started"]) if job["pid"] else None
    if process is None or process.pid == os.getpid() or asked < CANCEL_GRACE:
        return
    last = asked >= CANCEL_GRACE + TERM_GRACE
    with suppress(ProcessLookupError, PermissionError):
        leads = os.getpgid(process.pid) == process.pid
        send = os.killpg if leads else os.kill
        send(process.pid, signal.SIGKILL if last else signal.SIGTERM)
        send(process.pid, signal.SIGCONT)  # one that is stopped hears of its end only when it goes on


def age(moment: str) -> timedelta:
    """Return how long ago a moment was. One to come was noted while the clock was wrong, and counts as long ago."""
    return abs(datetime.now(UTC) - datetime.fromisoformat(moment))


def silence(job: Mapping[str, Any]) -> timedelta | None:
    """Return for how long a job has given no sign of life; None if it gave one not long ago."""
    since = age(job["heartbeat_at"])
    return since if since > SILENT else None


def standstill(job: Mapping[str, Any]) -> timedelta | None:
    """Return for how long a job that lives has got no further; None if it got on not long ago."""
    since = age(job["progress_at"] or job["started_at"])
    return since if since > STUCK else None


def get(db: Database, job_id: int) -> dict[str, Any]:
    """Return a job by id."""
    row = fetch_one(db, "SELECT * FROM job WHERE id = ?", (job_id,))
    assert row is not None, f"no job {job_id}"
    return row
