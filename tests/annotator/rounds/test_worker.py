"""A job's row records how it ended: done, failed with stage and message, or canceled."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from annotator.codebook.definition import codebook_of
from annotator.errors import BackboneMissing, RoundRunning, TooFewAnswers
from annotator.labeling.after_answer import follow_up
from annotator.labeling.session import answer, next_question
from annotator.rounds.lifecycle import recover
from annotator.rounds.summaries import summaries
from annotator.rounds.worker import start_round, work
from model import load
from model.prompts.lengths import Lengths
from store import annotations, jobs, rounds
from store.database import wait_at_most
from tests.annotator.scenes import another_writes, change, label_pool, new_project, right
from tests.fake import FakeAdapter, FakeClassifier


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "load_classifier", lambda backbone, task, recipe, template, cache: FakeClassifier(task))
    with new_project(tmp_path / "p") as project:
        yield project


def begin(project) -> int:
    job = jobs.begin(project.db, "test", annotations.last_id(project.db))
    jobs.sign(project.db, job)
    return job


def test_a_job_that_is_done_has_promoted_its_round(project):
    job = begin(project)
    work(project, job)
    row = jobs.get(project.db, job)
    assert (row.state, row.error, row.hint) == ("done", "", "")
    assert row.share == pytest.approx(1)
    assert row.finished_at
    assert row.round_id == rounds.promoted(project.db).id
    assert jobs.active(project.db) is None


def test_what_a_job_is_made_with_are_the_settings_of_the_project(project, monkeypatch):
    asked = []
    change(project, backbone="some-model", template="bare")
    monkeypatch.setattr(load, "measure_texts", lambda *_: (None, Lengths()))  # of an unknown architecture
    fake = lambda *about: asked.append(about) or FakeClassifier(about[1])  # noqa: E731
    monkeypatch.setattr(load, "load_classifier", fake)
    work(project, begin(project))
    assert asked == [("some-model", codebook_of(project).task(), project.config.recipe, "bare", project.cache)]


def test_the_first_answers_train_the_probe_alone_and_then_the_model_too(project, monkeypatch):
    shares = []
    fake = lambda _, task, recipe, *__: shares.append(recipe.probe_weight) or FakeClassifier(task)  # noqa: E731
    monkeypatch.setattr(load, "load_classifier", fake)
    for count in (0, 9, 9):
        label_pool(project, count)
        work(project, begin(project))
    share = project.config.recipe.probe_weight
    assert shares == [share, 1.0, share, share]
    assert [row.trained_on for row in reversed(rounds.history(project.db))] == [0, 9, 9, 18]
    assert [one.learner for one in summaries(project)] == ["fine-tuned", "fine-tuned", "quick classifier alone", ""]


@pytest.mark.parametrize(
    ("owner", "name", "stage"),
    [(FakeClassifier, "fit", "learn"), (FakeAdapter, "save", "save"), (FakeAdapter, "logits", "score")],
)
def test_a_fault_is_recorded_with_its_stage_and_raised_again(project, monkeypatch, owner, name, stage):
    label_pool(project, 9)

    def fail(*_):
        raise RuntimeError("out of something")

    monkeypatch.setattr(owner, name, fail)
    job = begin(project)
    with pytest.raises(RuntimeError, match="out of something"):
        work(project, job)
    row = jobs.get(project.db, job)
    assert row.state == "failed"
    assert row.error == f"The round failed at “{stage}”: RuntimeError: out of something"
    assert "worker.log" in row.hint
    assert rounds.history(project.db)[0].state == "failed"
    assert rounds.promoted(project.db) is None


def test_a_backbone_that_cannot_be_loaded_fails_the_job_with_message_and_hint(project, monkeypatch):
    def missing(*_):
        raise BackboneMissing("It is not here.", "Fetch it.")

    monkeypatch.setattr(load, "load_classifier", missing)
    job = begin(project)
    with pytest.raises(BackboneMissing):
        work(project, job)
    row = jobs.get(project.db, job)
    assert (row.state, row.stage, row.error, row.hint) == ("failed", "load", "It is not here.", "Fetch it.")
    assert row.round_id is None


def test_too_few_answers_fail_the_job_with_both_numbers(project):
    work(project, begin(project))
    label_pool(project, 2)
    job = begin(project)
    with pytest.raises(TooFewAnswers):
        work(project, job)
    assert "2 labels can be trained on, 4 are needed" in jobs.get(project.db, job).error


def test_a_job_cancelled_before_it_has_loaded_ends_cancelled(project):
    job = begin(project)
    jobs.request_cancel(project.db)
    work(project, job)
    assert jobs.get(project.db, job).state == "cancelled"
    assert rounds.history(project.db) == []


def test_a_job_cancelled_in_the_middle_ends_cancelled_and_its_round_with_it(project, monkeypatch):
    work(project, begin(project))
    label_pool(project, 9)
    before = rounds.promoted(project.db)
    fit = FakeClassifier.fit

    def cancelled_meanwhile(*arguments):
        jobs.request_cancel(project.db)
        return fit(*arguments)

    monkeypatch.setattr(FakeClassifier, "fit", cancelled_meanwhile)
    job = begin(project)
    work(project, job)
    row = jobs.get(project.db, job)
    assert (row.state, row.error) == ("cancelled", "The round was canceled.")
    assert rounds.history(project.db)[0].state == "cancelled"
    assert rounds.promoted(project.db) == before


def test_labeling_goes_on_after_a_job_has_failed(project, monkeypatch):
    monkeypatch.setattr(FakeAdapter, "logits", None)
    with pytest.raises(TypeError):
        work(project, begin(project))
    question = next_question(project, "ada")
    assert answer(project, question, "ada", right(project, question))


# Starting one


class Process:
    """Stands in for the process of a round: it is this one."""

    started: list[list[str]] = []  # noqa: RUF012

    def __init__(self, command, **_):
        Process.started.append(command)
        self.pid = os.getpid()


@pytest.fixture
def started(monkeypatch):
    monkeypatch.setattr("annotator.rounds.worker.subprocess.Popen", Process)
    monkeypatch.setattr(Process, "started", [])
    return lambda: Process.started


def test_starting_a_round_names_the_project_and_the_job_and_signs_it(project, started):
    job = start_round(project, "the button")
    ((*_, folder, number),) = started()
    assert (folder, number) == (str(project.folder.resolve()), str(job))
    row = jobs.get(project.db, job)
    assert (row.state, row.reason, row.pid) == ("active", "the button", os.getpid())


def test_a_second_round_is_refused_while_one_is_under_way(project, started):
    start_round(project, "the button")
    with pytest.raises(RoundRunning):
        start_round(project, "the button")
    assert len(started()) == 1


def test_a_due_round_is_started_once_however_often_the_page_reloads(project, started):
    assert follow_up(project).round
    assert [follow_up(project).round for _ in range(3)] == [None] * 3
    jobs.finish(project.db, 1, "done")
    assert follow_up(project).round is None
    label_pool(project, 10)
    assert follow_up(project).round
    assert follow_up(project).round is None
    assert len(started()) == 2


# One that hangs


@pytest.fixture
def hanging(project, monkeypatch):
    """Let rounds hang in their own processes, and lose no time in ending them."""
    popen = subprocess.Popen
    begun = []

    def start(command, **options):
        command = [*command[:2], "tests.annotator.hanging", *command[3:], "0.1"]
        begun.append(popen(command, **options))
        return begun[-1]

    monkeypatch.setattr("annotator.rounds.worker.subprocess.Popen", start)
    for name in ("CANCEL_GRACE", "TERM_GRACE"):
        monkeypatch.setattr(jobs, name, timedelta(seconds=0.3))
    yield begun
    for process in begun:
        process.kill()
        process.wait()


def until(met: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_round_that_hangs_gives_signs_of_life_until_it_is_stopped_and_can_be_cancelled(project, hanging, stopped):
    job = start_round(project, "the button")
    until(lambda: jobs.get(project.db, job).stage == "load")
    first = jobs.get(project.db, job)
    until(lambda: jobs.get(project.db, job).heartbeat_at > first.heartbeat_at)
    assert jobs.get(project.db, job).progress_at == first.progress_at, "it lives, and gets no further"
    if stopped:
        os.kill(hanging[0].pid, signal.SIGSTOP)
        time.sleep(0.3)
        last = jobs.get(project.db, job).heartbeat_at
        time.sleep(0.5)
        assert jobs.get(project.db, job).heartbeat_at == last
    with pytest.raises(RoundRunning):
        start_round(project, "the button")
    jobs.request_cancel(project.db)
    until(lambda: recover(project))
    assert jobs.get(project.db, job).state == "cancelled"
    hanging[0].wait(60)
    assert start_round(project, "the button") > job


def test_a_round_starts_although_another_program_keeps_us_from_signing_it(project, hanging, monkeypatch):
    wait_at_most(project.db, 0.05)
    popen = subprocess.Popen

    def start_while_another_writes(command, **options):
        holding.__enter__()
        return popen([*command[:2], "tests.annotator.hanging", *command[3:], "0.1"], **options)

    holding = another_writes(project.folder)
    monkeypatch.setattr("annotator.rounds.worker.subprocess.Popen", start_while_another_writes)
    job = start_round(project, "the button")
    assert jobs.get(project.db, job).pid is None
    holding.__exit__(None, None, None)
    until(lambda: jobs.get(project.db, job).pid)
    jobs.request_cancel(project.db)
    until(lambda: recover(project) or not jobs.active(project.db))  # it may have been quicker to heed it
