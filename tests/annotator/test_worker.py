"""A job's row tells how it ended: done, failed with stage and message, or cancelled."""

from __future__ import annotations

import os

import pytest

from annotator.errors import BackboneMissing, RoundRunning, TooFewAnswers
from annotator.history import summaries
from annotator.session import answer, next_question
from annotator.worker import start_round, start_round_if_due, work
from model import classifier
from store import annotations, jobs, rounds
from tests.annotator.scenes import change, label_pool, new_project, right
from tests.fake import FakeAdapter, FakeClassifier


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "load_classifier", lambda backbone, task, recipe, template: FakeClassifier(task))
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
    assert (row["state"], row["error"], row["hint"]) == ("done", None, None)
    assert row["share"] == pytest.approx(1)
    assert row["finished_at"]
    assert row["round_id"] == rounds.promoted(project.db)["id"]
    assert jobs.active(project.db) is None


def test_what_a_job_is_made_with_are_the_settings_of_the_project(project, monkeypatch):
    asked = []
    change(project, backbone="some-model", template="bare")
    fake = lambda *about: asked.append(about) or FakeClassifier(about[1])  # noqa: E731
    monkeypatch.setattr(classifier, "load_classifier", fake)
    work(project, begin(project))
    assert asked == [("some-model", project.codebook().task(), project.config.recipe, "bare")]


def test_what_is_learned_for_the_first_time_is_learned_by_the_scout_alone_and_then_by_the_model_too(
    project, monkeypatch
):
    shares = []
    fake = lambda _, task, recipe, __: shares.append(recipe.scout) or FakeClassifier(task)  # noqa: E731
    monkeypatch.setattr(classifier, "load_classifier", fake)
    for count in (0, 9, 9):
        label_pool(project, count)
        work(project, begin(project))
    share = project.config.recipe.scout
    assert shares == [share, 1.0, share, share]
    assert [row["trained_on"] for row in reversed(rounds.history(project.db))] == [0, 9, 9, 18]
    assert [one.learner for one in summaries(project)] == ["fine-tuned", "fine-tuned", "scout alone", ""]


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
    assert row["state"] == "failed"
    assert row["error"] == f"The round failed at “{stage}”: RuntimeError: out of something"
    assert "worker.log" in row["hint"]
    assert rounds.history(project.db)[0]["state"] == "failed"
    assert rounds.promoted(project.db) is None


def test_a_backbone_that_cannot_be_loaded_fails_the_job_with_message_and_hint(project, monkeypatch):
    def missing(*_):
        raise BackboneMissing("It is not here.", "Fetch it.")

    monkeypatch.setattr(classifier, "load_classifier", missing)
    job = begin(project)
    with pytest.raises(BackboneMissing):
        work(project, job)
    row = jobs.get(project.db, job)
    assert (row["state"], row["stage"], row["error"], row["hint"]) == ("failed", "load", "It is not here.", "Fetch it.")
    assert row["round_id"] is None


def test_too_few_answers_fail_the_job_with_both_numbers(project):
    work(project, begin(project))
    label_pool(project, 2)
    job = begin(project)
    with pytest.raises(TooFewAnswers):
        work(project, job)
    assert "2 labels can be trained on, 4 are needed" in jobs.get(project.db, job)["error"]


def test_a_job_cancelled_before_it_has_loaded_ends_cancelled(project):
    job = begin(project)
    jobs.request_cancel(project.db)
    work(project, job)
    assert jobs.get(project.db, job)["state"] == "cancelled"
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
    assert (row["state"], row["error"]) == ("cancelled", "The round was cancelled.")
    assert rounds.history(project.db)[0]["state"] == "cancelled"
    assert rounds.promoted(project.db) == before


def test_labelling_goes_on_after_a_job_has_failed(project, monkeypatch):
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
    monkeypatch.setattr("annotator.worker.subprocess.Popen", Process)
    monkeypatch.setattr(Process, "started", [])
    return lambda: Process.started


def test_starting_a_round_names_the_project_and_the_job_and_signs_it(project, started):
    job = start_round(project, "the button")
    ((*_, folder, number),) = started()
    assert (folder, number) == (str(project.folder.resolve()), str(job))
    row = jobs.get(project.db, job)
    assert (row["state"], row["reason"], row["pid"]) == ("active", "the button", os.getpid())


def test_a_second_round_is_refused_while_one_is_under_way(project, started):
    start_round(project, "the button")
    with pytest.raises(RoundRunning):
        start_round(project, "the button")
    assert len(started()) == 1


def test_a_due_round_is_started_once_however_often_the_page_reloads(project, started):
    first = start_round_if_due(project)
    assert [start_round_if_due(project) for _ in range(3)] == [None] * 3
    jobs.finish(project.db, first, "done")
    assert start_round_if_due(project) is None
    label_pool(project, 10)
    assert start_round_if_due(project)
    assert start_round_if_due(project) is None
    assert len(started()) == 2
