"""Store jobs: the one background process of a project, its progress, and whether it is alive."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import psutil
from sqlite_utils import Database

from annotator.errors import Message, RoundRunning
from store.database import fetch_value, immediate, now, select
from store.processes import find_process

State = Literal["active", "done", "failed", "cancelled", "interrupted"]
START_GRACE = timedelta(seconds=60)  # from the row to the registration of the process; importing torch takes seconds
SILENT = timedelta(minutes=2)  # without a heartbeat, due every few seconds: the process is stopped or stuck
STUCK = timedelta(minutes=30)  # alive without progress: longer than any step takes
CANCEL_GRACE = timedelta(seconds=10)  # from the cancel request to SIGTERM
TERM_GRACE = timedelta(seconds=5)  # from SIGTERM to SIGKILL


@dataclass(frozen=True)
class Job:
    """A background process that works on a project, or did."""

    id: int
    state: State
    reason_json: str
    pid: int | None  # None until the process is registered, as is the next
    pid_started: float | None
    stage: str
    share: float  # of the work that is done, 0 to 1
    seconds_left: float | None
    cancel: int  # 1 if it was asked to stop, else 0
    cancelled_at: str | None  # time of the cancel request; None in jobs of earlier versions, as is the next
    progress_at: str | None
    last_annotation: int
    round_id: int | None
    error_json: str | None
    hint_json: str | None
    started_at: str
    heartbeat_at: str
    finished_at: str | None

    @property
    def reason(self) -> Message:
        """Why it was started."""
        return Message.load(self.reason_json)

    @property
    def error(self) -> Message:
        """Why it ended without a result; empty if it did not."""
        return Message.load(self.error_json or "")

    @property
    def hint(self) -> Message:
        """What to do about the error."""
        return Message.load(self.hint_json or "")

    @property
    def process(self) -> psutil.Process | None:
        """Its process, if registered and still running."""
        if self.pid is None or self.pid_started is None:
            return None
        return find_process(self.pid, self.pid_started)

    @property
    def silence(self) -> timedelta | None:
        """The time since the last heartbeat; None if recent."""
        since = age(self.heartbeat_at)
        return since if since > SILENT else None

    @property
    def standstill(self) -> timedelta | None:
        """The time since the last progress; None if recent."""
        since = age(self.progress_at or self.started_at)
        return since if since > STUCK else None


def begin(db: Database, reason: str, last_annotation: int) -> int:
    """Reserve the project for a job and return its id. Raises RoundRunning if another is alive.

    `last_annotation` is the watermark that makes automatic retraining idempotent: a second call for the same labels
    finds this job active, or its watermark recorded.
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
            (Message.of(reason).dump(), last_annotation, now(), now()),
        )
        return int(cursor.lastrowid or 0)


def sign(db: Database, job_id: int, pid: int | None = None) -> None:
    """Register the process of the job: this one, or a child just started."""
    process = psutil.Process(pid or os.getpid())
    with immediate(db):
        db.execute(
            "UPDATE job SET pid = ?, pid_started = ?, heartbeat_at = ? WHERE id = ?",
            (process.pid, process.create_time(), now(), job_id),
        )


def report(db: Database, job_id: int, stage: str, share: float, seconds_left: float | None) -> bool:
    """Store the progress of a job; return whether it must stop, because it was canceled or given up."""
    with immediate(db):
        moment = now()
        db.execute(
            "UPDATE job SET stage = ?, share = ?, seconds_left = ?, heartbeat_at = ?, progress_at = ? WHERE id = ?",
            (stage, share, seconds_left, moment, moment, job_id),
        )
        return bool(fetch_value(db, "SELECT cancel OR state != 'active' FROM job WHERE id = ?", (job_id,)))


def beat(db: Database, job_id: int) -> None:
    """Store a heartbeat, however long a step takes."""
    with immediate(db):
        db.execute("UPDATE job SET heartbeat_at = ? WHERE id = ? AND state = 'active'", (now(), job_id))


def attach_round(db: Database, round_id: int, last_annotation: int) -> None:
    """Store with the active job, if any, its round and the last annotation of the round's snapshot."""
    with immediate(db):
        sql = """UPDATE job SET round_id = ?, last_annotation = ?
                 WHERE state = 'active' AND (pid IS NULL OR pid = ?)"""
        db.execute(sql, (round_id, last_annotation, os.getpid()))


def request_cancel(db: Database) -> None:
    """Ask the active job to stop at its next step. If it does not, `recover` ends its process."""
    with immediate(db):
        sql = "UPDATE job SET cancel = 1, cancelled_at = coalesce(cancelled_at, ?) WHERE state = 'active'"
        db.execute(sql, (now(),))


def finish(db: Database, job_id: int, state: State, error: str | None = None, hint: str | None = None) -> None:
    """End a job and its unfinished round, once: a job already marked interrupted stays so."""
    with immediate(db):
        db.execute(
            "UPDATE job SET state = ?, error = ?, hint = ?, finished_at = ? WHERE id = ? AND state = 'active'",
            (state, *(text and Message.of(text).dump() for text in (error, hint)), now(), job_id),
        )
        db.execute(
            """UPDATE round SET state = ?, finished_at = ? WHERE state = 'running'
               AND id = (SELECT round_id FROM job WHERE id = ?)""",
            ("failed" if state == "done" else state, now(), job_id),
        )


def active(db: Database) -> Job | None:
    """Return the active job, if any."""
    return next(select(db, Job, "FROM job WHERE state = 'active'"), None)


def is_learning(db: Database) -> bool:
    """Return whether the active job trains on answers, or will once its round begins."""
    sql = """SELECT coalesce(round.trained_on, job.last_annotation) > 0
             FROM job LEFT JOIN round ON round.id = job.round_id WHERE job.state = 'active'"""
    return bool(fetch_value(db, sql))


def last(db: Database) -> Job | None:
    """Return the newest job, active or ended."""
    return next(select(db, Job, "FROM job ORDER BY id DESC LIMIT 1"), None)


def last_watermark(db: Database) -> int:
    """Return the newest annotation taken into account by any job."""
    return int(fetch_value(db, "SELECT max(last_annotation) FROM job") or 0)


def recover(db: Database) -> bool:
    """Mark the active job as ended if its process is gone; return whether it was. Writes only in that case.

    A process that ignored a cancel request is terminated first, and then killed.
    """
    job = active(db)
    if job is not None and job.cancel:
        _terminate(job)
    if job is None or _is_alive(job):
        return False
    with immediate(db):
        job = active(db)
        if job is None or _is_alive(job):
            return False
        promoted = fetch_value(db, "SELECT state FROM round WHERE id = ?", (job.round_id,)) == "promoted"
        if promoted:  # killed after promotion, before it finished the job
            finish(db, job.id, "done")
        elif job.cancel:
            finish(
                db,
                job.id,
                "cancelled",
                Message("The round was canceled."),
                Message("The round before it stays in use."),
            )
        else:
            finish(
                db,
                job.id,
                "interrupted",
                Message("The round stopped unexpectedly."),
                Message("Retrain to start it again."),
            )
        return True


def _is_alive(job: Job) -> bool:
    if job.pid is None:
        return age(job.started_at) < (CANCEL_GRACE if job.cancel else START_GRACE)
    return job.process is not None


def _terminate(job: Job) -> None:
    """Terminate the process group of a job after the grace period of a cancel request."""
    waited = age(job.cancelled_at) if job.cancelled_at else CANCEL_GRACE  # by an earlier version
    process = job.process
    if process is None or process.pid == os.getpid() or waited < CANCEL_GRACE:
        return
    last = waited >= CANCEL_GRACE + TERM_GRACE
    with suppress(ProcessLookupError, PermissionError):
        leads = os.getpgid(process.pid) == process.pid
        send = os.killpg if leads else os.kill
        send(process.pid, signal.SIGKILL if last else signal.SIGTERM)
        send(process.pid, signal.SIGCONT)  # a stopped process handles signals only when continued


def age(moment: str) -> timedelta:
    """Return the time since a moment. Future moments, stored while the clock was wrong, count by their distance."""
    return abs(datetime.now(UTC) - datetime.fromisoformat(moment))


def get(db: Database, job_id: int) -> Job:
    """Return a job by id."""
    (job,) = select(db, Job, "FROM job WHERE id = ?", (job_id,))
    return job
