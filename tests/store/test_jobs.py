"""At most one process works on a project, a dead one blocks nobody, and the end of a job is stored once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import psutil
import pytest
from sqlite_utils import Database

from annotator.errors import RoundRunning
from store import jobs, rounds
from store.database import open_database
from tests.store.rows import begin_round


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def start(db: Database, pid: int | None = None) -> int:
    """Begin a job in the name of a process, with a round attached to it."""
    job = jobs.begin(db, "asked", last_annotation=3)
    jobs.attach_round(db, begin_round(db, [1]).id, 3)  # as the process would: this one may not for another
    jobs.sign(db, job, pid)
    return job


def states(db: Database, job: int) -> tuple[str, str]:
    return jobs.get(db, job).state, rounds.history(db)[0].state


INTERRUPTED, LIVING = ("interrupted", "interrupted"), ("active", "running")


def test_a_second_job_is_refused_while_one_is_active(db: Database) -> None:
    job = start(db)
    with pytest.raises(RoundRunning):
        jobs.begin(db, "asked", last_annotation=4)
    active = jobs.active(db)
    assert active is not None
    assert (active.id, active.last_annotation, jobs.last_watermark(db)) == (job, 3, 3)
    jobs.finish(db, job, "done")
    assert jobs.active(db) is None
    assert jobs.begin(db, "asked", last_annotation=4) > job


def test_the_database_itself_refuses_a_second_active_job(db: Database) -> None:
    start(db)
    with pytest.raises(sqlite3.IntegrityError, match=r"job\.state"):
        db.execute(
            """INSERT INTO job (state, reason, last_annotation, started_at, heartbeat_at)
               VALUES ('active', '', 0, '', '')"""
        )


def test_of_several_that_begin_at_once_one_may(db: Database, tmp_path: Path) -> None:
    together = Barrier(4)

    def begin(_: int) -> bool:
        with closing(open_database(tmp_path / "project")) as mine:
            together.wait(60)
            try:
                jobs.begin(mine, "asked", last_annotation=0)
            except RoundRunning:
                return False
            return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(begin, range(4))) == [False, False, False, True]


def test_a_job_of_a_living_process_is_left_alone(db: Database, child: subprocess.Popen[bytes]) -> None:
    job = start(db, child.pid)
    assert not jobs.recover(db)
    assert states(db, job) == LIVING


def test_a_job_of_a_dead_process_is_interrupted_with_its_round(db: Database, child: subprocess.Popen[bytes]) -> None:
    job = start(db, child.pid)
    child.kill()
    child.wait()
    assert jobs.recover(db)
    assert states(db, job) == INTERRUPTED
    assert jobs.get(db, job).error
    assert not jobs.recover(db)


def test_a_process_that_ended_and_was_not_waited_for_counts_as_dead(
    db: Database, child: subprocess.Popen[bytes]
) -> None:
    job = start(db, child.pid)
    child.kill()
    deadline = time.monotonic() + 60
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert jobs.recover(db)
    assert states(db, job) == INTERRUPTED


def test_a_pid_that_another_process_has_by_now_counts_as_dead(db: Database) -> None:
    job = start(db, os.getpid())
    db.execute("UPDATE job SET pid_started = pid_started - 60")
    assert jobs.recover(db)
    assert states(db, job) == INTERRUPTED


def test_a_job_that_nobody_has_signed_lives_for_the_time_it_takes_to_start(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.begin(db, "asked", last_annotation=0)
    assert not jobs.recover(db)
    monkeypatch.setattr(jobs, "START_GRACE", timedelta(0))
    assert jobs.begin(db, "asked", last_annotation=0) > job
    assert jobs.get(db, job).state == "interrupted"


def test_a_job_ends_once(db: Database) -> None:
    job = start(db)
    jobs.finish(db, job, "failed", "The disk is full.", "Make room.")
    ended = jobs.get(db, job)
    jobs.finish(db, job, "done")
    assert jobs.get(db, job) == ended == jobs.last(db)
    assert (ended.state, ended.error, ended.hint) == ("failed", "The disk is full.", "Make room.")
    assert states(db, job) == ("failed", "failed")


def test_a_job_that_is_done_leaves_a_promoted_round_and_closes_an_unfinished_one(db: Database) -> None:
    job = start(db)
    rounds.promote(db, rounds.history(db)[0].id, "round-0001", {}, {})
    jobs.finish(db, job, "done")
    assert states(db, job) == ("done", "promoted")
    jobs.finish(db, job := start(db), "done")
    assert states(db, job) == ("done", "failed")


def test_a_report_is_written_and_says_whether_to_stop(db: Database, tmp_path: Path) -> None:
    job = start(db)
    assert not jobs.report(db, job, "train", 0.25, 12.5)
    reported = jobs.get(db, job)
    assert (reported.stage, reported.share, reported.seconds_left) == ("train", 0.25, 12.5)
    with closing(open_database(tmp_path / "project")) as page:
        jobs.request_cancel(page)
    assert jobs.report(db, job, "train", 0.5, 6.0)


def test_a_cancelled_job_does_not_cancel_the_next(db: Database) -> None:
    job = start(db)
    jobs.request_cancel(db)
    jobs.finish(db, job, "cancelled")
    jobs.request_cancel(db)  # with nothing to cancel
    assert not jobs.report(db, start(db), "train", 0.0, None)


# A job that hangs


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the grace periods of canceling a job to zero."""
    monkeypatch.setattr(jobs, "CANCEL_GRACE", timedelta(seconds=0.2))
    monkeypatch.setattr(jobs, "TERM_GRACE", timedelta(seconds=0.2))


@pytest.fixture
def deaf() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ignores SIGTERM, with a child, in a session of its own like that of a round."""
    script = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE); "
        "print(child.pid, flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.kill()


def recovers(db: Database) -> bool:
    """Call recover repeatedly, as pages do, until the job has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if jobs.recover(db):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("stopped", [False, True])
def test_a_job_that_does_not_stop_when_asked_is_ended_and_another_can_begin(
    db: Database, child: subprocess.Popen[bytes], quick: None, stopped: bool
) -> None:
    job = start(db, child.pid)
    if stopped:
        os.kill(child.pid, signal.SIGSTOP)
    jobs.request_cancel(db)
    assert not jobs.recover(db), "it is given a moment"
    assert recovers(db)
    assert states(db, job) == ("cancelled", "cancelled")
    assert child.wait(60) < 0
    assert jobs.begin(db, "asked", last_annotation=4) > job


def test_what_heeds_nothing_is_killed_with_all_that_it_has_started(
    db: Database, deaf: subprocess.Popen[bytes], quick: None
) -> None:
    assert deaf.stdout
    grandchild = psutil.Process(int(deaf.stdout.readline()))
    start(db, deaf.pid)
    jobs.request_cancel(db)
    assert recovers(db)
    assert deaf.wait(60) == -signal.SIGKILL
    grandchild.wait(60)


def test_a_process_that_merely_has_the_pid_is_never_ended(
    db: Database, child: subprocess.Popen[bytes], quick: None
) -> None:
    job = start(db, child.pid)
    db.execute("UPDATE job SET pid_started = pid_started - 60")
    jobs.request_cancel(db)
    db.execute("UPDATE job SET cancelled_at = '2020-01-01T00:00:00+00:00'")
    assert jobs.recover(db)
    assert states(db, job) == ("cancelled", "cancelled")
    assert child.poll() is None


def test_who_looks_never_ends_himself(db: Database, quick: None) -> None:
    start(db)
    jobs.request_cancel(db)
    db.execute("UPDATE job SET cancelled_at = '2020-01-01T00:00:00+00:00'")
    assert not jobs.recover(db)


def test_a_job_that_was_cancelled_before_its_process_signed_it_blocks_nobody(db: Database, quick: None) -> None:
    job = jobs.begin(db, "asked", last_annotation=0)
    jobs.request_cancel(db)
    assert recovers(db)
    assert jobs.get(db, job).state == "cancelled"


def test_a_job_that_was_given_up_is_told_to_stop_should_it_wake(db: Database) -> None:
    job = start(db)
    jobs.finish(db, job, "cancelled")
    assert jobs.report(db, job, "learn", 0.5, None)
    jobs.beat(db, job)
    assert jobs.get(db, job).state == "cancelled"


def ago(**time: float) -> str:
    return (datetime.now(UTC) - timedelta(**time)).isoformat(timespec="milliseconds")


def test_a_job_without_a_sign_of_life_and_one_that_gets_no_further_are_told_apart(db: Database) -> None:
    job = start(db)
    jobs.report(db, job, "learn", 0.5, None)
    assert (jobs.get(db, job).silence, jobs.get(db, job).standstill) == (None, None)
    for heartbeat in (ago(minutes=3), ago(days=-365)):  # one to come was given while the clock was ahead
        db.execute("UPDATE job SET heartbeat_at = ?", (heartbeat,))
        assert jobs.get(db, job).silence
    db.execute("UPDATE job SET progress_at = ?", (ago(minutes=31),))
    jobs.beat(db, job)
    assert jobs.get(db, job).silence is None
    assert jobs.get(db, job).standstill


def test_a_job_that_nobody_signed_while_the_clock_was_ahead_blocks_nobody(db: Database) -> None:
    jobs.begin(db, "asked", last_annotation=0)
    db.execute("UPDATE job SET started_at = ?", (ago(days=-365),))
    assert jobs.recover(db)
