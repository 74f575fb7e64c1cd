"""Jobs: the one process that may work on a project beside the app, how far it is, and whether it lives."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from sqlite_utils import Database

from annotator.errors import RoundRunning
from store.database import fetch_one, fetch_value, immediate, now

START_GRACE = timedelta(seconds=60)  # from the row to the process that signs it; torch takes seconds to import


def begin(db: Database, reason: str, last_annotation: int) -> int:
    """Reserve the project for a job and return its id. Raises RoundRunning if another is alive.

    `last_annotation` is the watermark that makes counting new labels idempotent: a second call for the same
    labels finds either this job active or its watermark taken.
    """
    with immediate(db):
        recover(db)
        if active(db):
            raise RoundRunning("A round is running already.", "Wait for it, or cancel it on the Rounds page.")
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
    """Write how far the job is; return whether a person has asked for it to be cancelled."""
    with immediate(db):
        db.execute(
            "UPDATE job SET stage = ?, share = ?, seconds_left = ?, heartbeat_at = ? WHERE id = ?",
            (stage, share, seconds_left, now(), job_id),
        )
        return bool(fetch_value(db, "SELECT cancel FROM job WHERE id = ?", (job_id,)))


def attach_round(db: Database, round_id: int, last_annotation: int) -> None:
    """Connect the active job, if there is one, with the round it makes and the answers that round has seen."""
    with immediate(db):
        sql = "UPDATE job SET round_id = ?, last_annotation = ? WHERE state = 'active'"
        db.execute(sql, (round_id, last_annotation))


def request_cancel(db: Database) -> None:
    """Ask the active job to stop at its next step."""
    with immediate(db):
        db.execute("UPDATE job SET cancel = 1 WHERE state = 'active'")


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
    """Mark the active job interrupted if its process is gone; say whether that was so."""
    with immediate(db):
        job = active(db)
        if job is None or _lives(job):
            return False
        promoted = fetch_value(db, "SELECT state FROM round WHERE id = ?", (job["round_id"],)) == "promoted"
        if promoted:  # killed after its work was done, before it could say so
            finish(db, job["id"], "done")
        else:
            finish(
                db, job["id"], "interrupted", "The round's process ended without a word.", "Retrain to start it again."
            )
        return True


def _lives(job: dict[str, Any]) -> bool:
    if job["pid"] is None:
        return datetime.now(UTC) - datetime.fromisoformat(job["started_at"]) < START_GRACE
    try:
        process = psutil.Process(job["pid"])
        same = abs(process.create_time() - job["pid_started"]) < 1  # a pid is reused, a start time is not
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def get(db: Database, job_id: int) -> dict[str, Any]:
    """Return a job by id."""
    row = fetch_one(db, "SELECT * FROM job WHERE id = ?", (job_id,))
    assert row is not None, f"no job {job_id}"
    return row
