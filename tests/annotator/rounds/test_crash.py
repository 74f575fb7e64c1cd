"""Kill processes at random moments: no stored answer is lost, and no round is partly in use."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.lifecycle import recover, roll_back
from annotator.rounds.progress import Report
from annotator.rounds.snapshot import take_snapshot
from store import annotations, jobs, queue, rounds
from store.database import fetch_value, wait_at_most
from store.rounds import Round
from tests.annotator import doomed
from tests.annotator.scenes import another_writes, change, classifier_of, label_pool, new_project, work_through

# Each process is forked from a server that has done the imports: real processes, but started in milliseconds.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.annotator.doomed"])

STAGES = ("load", "learn", "save", "score", "calibrate", "promote")


@dataclass
class Doomed:
    """A process and the messages it has sent so far."""

    process: Any
    told: Connection

    @classmethod
    def start(cls, target: Callable[..., None], *arguments: object) -> Doomed:
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=target, args=(*arguments, theirs))
        process.start()
        theirs.close()
        return cls(process, ours)

    def wait_for(self, wanted: object = None) -> list[Any]:
        """Read messages until one arrives, or `wanted` arrives, or the process has ended."""
        messages: list[Any] = []
        while not messages or (wanted is not None and messages[-1] not in (wanted, "done")):
            try:
                messages.append(self.told.recv())
            except EOFError:
                break
        return messages

    def kill(self) -> list[Any]:
        """Send SIGKILL, wait for the end, and return the unread messages."""
        self.process.kill()
        self.process.join()
        messages = []
        while True:
            try:
                messages.append(self.told.recv())
            except (EOFError, OSError):  # OSError: killed in the middle of telling
                break
        self.told.close()
        return messages


def sound(project: Project) -> bool:
    return fetch_value(project.db, "PRAGMA integrity_check") == "ok"


def test_no_answer_that_was_taken_is_lost_when_labelling_is_killed(tmp_path):
    rng = np.random.default_rng(20)
    folder: Path = tmp_path / "p"
    new_project(folder, 2500).close()
    told: list[int] = []
    for number in range(20):
        doomed_one = Doomed.start(doomed.label, folder)
        if number % 5:  # every fifth is killed while it starts
            first = doomed_one.wait_for()
            assert first, "the process ended by itself: it did not go on where the one before was killed"
            told += first
        time.sleep(rng.uniform(0, 0.15))
        told += doomed_one.kill()
        assert doomed_one.process.exitcode == -signal.SIGKILL
        with Project.open(folder) as project:
            assert sound(project)
            stored = [row.id for row in annotations.answers(project.db)]
            assert set(told) <= set(stored)
            assert len(stored) - len(told) <= number + 1  # at most the last one of each was stored and not yet reported
    assert len(told) == len(set(told)) > 40
    with Project.open(folder) as project:
        assert len(work_through(project, 5, "ben")) == 5


def test_no_round_is_half_in_use_when_it_is_killed(tmp_path):
    rng = np.random.default_rng(21)
    folder: Path = tmp_path / "p"
    with new_project(folder, 400) as project:
        change(project, score_limit=150)
        label_pool(project, 12)
        run_round(project, classifier_of(project), project.config)
    killed = []
    for number in range(15):
        stage = STAGES[number % len(STAGES)]
        with Project.open(folder) as project:
            label_pool(project, 2)
            killed.append(kill_a_round(project, stage, rng.uniform(0, 0.03)))
    assert killed.count(False) >= 8, "most were to be killed before they had ended"


def kill_a_round(project: Project, stage: str, delay: float) -> bool:
    """Kill a round so long after a stage has begun, check what is left, go on; return whether it was promoted."""
    before, batch = rounds.promoted(project.db), sorted(queue.queued_ids(project.db))
    scored = len(take_snapshot(project, project.config, np.random.default_rng(0)).scored)
    job = jobs.begin(project.db, "test", annotations.last_id(project.db))
    doomed_one = Doomed.start(doomed.make_round, project.folder, job)
    jobs.sign(project.db, job, doomed_one.process.pid)
    doomed_one.wait_for(stage)
    time.sleep(delay)
    doomed_one.kill()
    with Project.open(project.folder) as opened:
        ended = jobs.get(opened.db, job).state == "done"
        assert recover(opened) is not ended
        promoted = is_whole(opened)
        in_use = promoted.id != before.id  # also if it was killed before it could report its end
        assert jobs.get(opened.db, job).state == ("done" if in_use else "interrupted")
        if not in_use:
            assert promoted == before
            assert sorted(queue.queued_ids(opened.db)) == batch
        else:
            kept = "SELECT count(*) FROM prediction WHERE round_id = ?"
            assert fetch_value(opened.db, kept, (promoted.id,)) == scored
        run_round(opened, classifier_of(opened), opened.config)
        assert is_whole(opened).number > promoted.number
        return in_use


def is_whole(project: Project) -> Round:
    """Return the round in use, having checked that all of it is there and nothing of any other."""
    assert sound(project)
    assert {row.state for row in rounds.history(project.db)} <= {"promoted", "interrupted"}
    promoted = rounds.promoted(project.db)
    assert promoted is not None
    adapters = project.folder / "adapters"
    assert classifier_of(project).load(adapters / promoted.folder)
    assert not list(adapters.glob("tmp-*"))
    ended = {f"round-{row.number:04d}" for row in rounds.history(project.db) if row.state == "promoted"}
    assert {path.name for path in adapters.glob("round-*")} == ended
    assert {row["round_id"] for row in project.db.query("SELECT round_id FROM queue")} == {promoted.id}
    stray = """SELECT count(*) FROM prediction JOIN round ON round.id = prediction.round_id
               WHERE round.state != 'promoted'"""
    assert fetch_value(project.db, stray) == 0
    assert len(rounds.predictions_of(project.db, promoted).utterance_ids) > 0
    return promoted


@pytest.mark.parametrize("moment", ["before it is signed", "after it is signed"])
def test_a_process_that_never_came_to_life_leaves_the_project_usable(tmp_path, moment):
    with new_project(tmp_path / "p", 30) as project:
        job = jobs.begin(project.db, "test", 0)
        if moment == "after it is signed":
            gone = processes.Process(target=int)
            gone.start()
            jobs.sign(project.db, job, gone.pid)
            gone.join()
        else:
            project.db.execute("UPDATE job SET started_at = '2020-01-01T00:00:00+00:00'")
        assert recover(project)
        assert jobs.active(project.db) is None
        assert run_round(project, classifier_of(project), project.config).row.number == 0


def test_a_half_written_adapter_goes_also_when_the_next_job_came_first(tmp_path):
    with new_project(tmp_path / "p", 30) as project:
        half = project.folder / "adapters" / "tmp-round-0007"
        half.mkdir()
        job = jobs.begin(project.db, "test", 0)
        jobs.sign(project.db, job)
        assert not recover(project)
        assert half.exists()  # a job is under way: it may be the one that is writing this
        jobs.finish(project.db, job, "done")
        recover(project)
        assert not half.exists()


def test_the_adapter_of_a_round_that_was_never_promoted_goes_and_all_others_stay(tmp_path, monkeypatch):
    with new_project(tmp_path / "p", 60) as project:
        adapters = project.folder / "adapters"
        label_pool(project, 12)
        for _ in range(2):
            label_pool(project, 1)
            run_round(project, classifier_of(project), project.config)
        roll_back(project, rounds.history(project.db)[1].id, "ada")
        unknown = adapters / "round-0099"  # of a database that was replaced by an older copy of itself
        unknown.mkdir()
        kept = {path.name for path in adapters.iterdir()}

        monkeypatch.setattr(rounds, "promote", stop)
        job = jobs.begin(project.db, "test", annotations.last_id(project.db))
        jobs.sign(project.db, job)
        with pytest.raises(KeyboardInterrupt):
            run_round(project, classifier_of(project), project.config)
        left = adapters / "round-0003"
        recover(project)
        assert left.is_dir(), "a job is under way: it may be about to promote this"
        jobs.finish(project.db, job, "interrupted")
        recover(project)
        assert {path.name for path in adapters.iterdir()} == kept
        assert kept == {"round-0001", "round-0002", "round-0099"}


def test_the_adapter_of_a_round_that_runs_without_a_job_stays(tmp_path, monkeypatch):
    with new_project(tmp_path / "p", 60) as project:
        monkeypatch.setattr(rounds, "promote", lambda *_: recover(project) or stop())
        with pytest.raises(KeyboardInterrupt):
            run_round(project, classifier_of(project), project.config)
        assert (project.folder / "adapters" / "round-0000").is_dir()


def stop(*_: object) -> None:
    raise KeyboardInterrupt


# A round that a person runs by hand, without a job


def by_hand(folder: Path, told: Any) -> None:
    with Project.open(folder) as project:

        def listen(stage: str, *_: object) -> None:
            told.send(stage)
            time.sleep(0.2)

        run_round(project, classifier_of(project, 0.05), project.config, Report(listen))


def test_a_round_by_hand_is_closed_once_its_process_was_killed_and_not_before(tmp_path):
    folder = tmp_path / "p"
    with new_project(folder, 60) as project:
        running = Doomed.start(by_hand, folder)
        assert running.wait_for("score")
        assert [row.state for row in rounds.history(project.db)] == ["running"]
        assert not recover(project)
        assert [row.state for row in rounds.history(project.db)] == ["running"], "it is made right now"
        running.kill()
        assert recover(project)
        assert [row.state for row in rounds.history(project.db)] == ["interrupted"]
        assert not list((folder / "adapters").iterdir())
        assert not recover(project)
        assert run_round(project, classifier_of(project), project.config).row.number == 1


@pytest.mark.parametrize(("started", "closed"), [("2020-01-01T00:00:00+00:00", True), (None, False)])
def test_of_a_round_whose_process_was_not_noted_the_age_decides(tmp_path, monkeypatch, started, closed):
    with new_project(tmp_path / "p", 60) as project:
        monkeypatch.setattr(rounds, "promote", stop)
        with pytest.raises(KeyboardInterrupt):
            run_round(project, classifier_of(project), project.config)
        sql = "UPDATE round SET pid = NULL, pid_started = NULL, started_at = coalesce(?, started_at)"
        project.db.execute(sql, (started,))
        assert recover(project) is closed
        assert rounds.history(project.db)[0].state == ("interrupted" if closed else "running")


def test_the_job_of_another_process_neither_takes_nor_closes_a_round_by_hand(tmp_path, monkeypatch):
    with new_project(tmp_path / "p", 60) as project:
        job = jobs.begin(project.db, "test", 0)
        jobs.sign(project.db, job, os.getppid())
        monkeypatch.setattr(rounds, "promote", lambda *_: jobs.finish(project.db, job, "done") or stop())
        with pytest.raises(KeyboardInterrupt):
            run_round(project, classifier_of(project), project.config)
        assert jobs.get(project.db, job).round_id is None
        assert rounds.history(project.db)[0].state == "running"


# What a round reads


def test_a_snapshot_does_not_wait_for_who_writes_and_writes_nothing(tmp_path):
    with new_project(tmp_path / "p", 60) as project:
        label_pool(project, 12)
        wait_at_most(project.db, 0)
        asked: list[str] = []
        project.db.conn.set_trace_callback(asked.append)
        with another_writes(project.folder):
            snapshot = take_snapshot(project, project.config, np.random.default_rng(0))
        project.db.conn.set_trace_callback(None)
        assert len(snapshot.train) >= 12
        assert {sql.split()[0] for sql in asked} <= {"BEGIN", "SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK"}
        assert asked.count("BEGIN DEFERRED") == 1


def test_a_snapshot_is_of_one_moment(tmp_path, monkeypatch):
    with new_project(tmp_path / "p", 60) as project, Project.open(tmp_path / "p") as other:
        answers = annotations.answers

        def answered_meanwhile(db: Any) -> list[dict[str, Any]]:
            found = answers(db)
            monkeypatch.undo()
            label_pool(other, 3)
            return found

        monkeypatch.setattr(annotations, "answers", answered_meanwhile)
        assert take_snapshot(project, project.config, np.random.default_rng(0)).last_annotation == 0
        assert annotations.last_id(project.db) > 0
