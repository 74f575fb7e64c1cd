"""The tour: which step comes next follows from what has been done, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from annotator.exchange.samples import create_sample
from annotator.labeling import onboarding
from annotator.labeling.session import Answer, answer, next_question, undo
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.snapshot import take_snapshot
from store import annotations, jobs
from tests.annotator.scenes import change, classifier_of


@pytest.fixture
def sample(tmp_path: Path) -> Iterator[Project]:
    with create_sample("client_talk", tmp_path / "sample") as project:
        change(project, retrain_every=0)
        yield project


def say(project: Project, count: int, annotator: str = "ada", kind: str = "label", labels: int = 3) -> None:
    for _ in range(count):
        question = next_question(project, annotator)
        label = project.db["annotation"].count % labels + 1
        answer(project, question, annotator, Answer(kind, label if kind == "label" else None))


def enough(project: Project) -> None:
    """Answer until a round can be trained and measured, and no further."""
    undo_once(project)
    while onboarding.next_step(project, "ada").number == 3:
        say(project, 1)


def undo_once(project: Project) -> None:
    say(project, 1)
    undo(project, "ada")


def step(project: Project, annotator: str = "ada") -> onboarding.Step | None:
    return onboarding.next_step(project, annotator)


def test_it_leads_from_the_first_answer_to_a_trained_round(sample):
    assert step(sample) == onboarding.ANSWER
    say(sample, 1)
    assert step(sample) == onboarding.TAKE_BACK
    undo(sample, "ada")
    assert step(sample).text.endswith("0 of 10 training and 0 of 2 audit answers.")
    enough(sample)
    assert step(sample) == onboarding.RETRAIN
    job = jobs.begin(sample.db, "the button", annotations.last_id(sample.db))
    assert step(sample) == onboarding.WAIT
    run_round(sample, classifier_of(sample), sample.config)
    assert step(sample) == onboarding.LOOK
    jobs.finish(sample.db, job, "done")
    assert step(sample) == onboarding.LOOK
    onboarding.end(sample, "ada")
    assert step(sample) is None


def test_it_asks_for_no_more_answers_than_a_round_needs(sample):
    enough(sample)
    found = take_snapshot(sample, sample.config, None)
    assert min(len(found.train) - sample.config.minimum_labels, len(found.audit) - onboarding.AUDIT_ANSWERS) == 0
    run_round(sample, classifier_of(sample), sample.config)
    assert step(sample) == onboarding.LOOK


def test_one_label_alone_cannot_be_learned_from(sample):
    while (found := step(sample)) != onboarding.VARY:
        assert found != onboarding.RETRAIN
        say(sample, 1, labels=1)
    question = next_question(sample, "ada")
    while question.is_audit:
        say(sample, 1)
        question = next_question(sample, "ada")
    answer(sample, question, "ada", Answer("label", 2))
    assert step(sample) == onboarding.RETRAIN


def test_who_never_takes_an_answer_back_is_led_on(sample):
    say(sample, onboarding.FAMILIAR - 1)
    assert step(sample) == onboarding.TAKE_BACK
    say(sample, 1)
    assert step(sample).number == 3


def test_who_skips_has_seen_what_there_is_to_do_with_what_is_unclear(sample):
    say(sample, 1, kind="skip")
    assert step(sample).number == 3


def test_taking_every_answer_back_does_not_begin_the_tour_anew(sample):
    say(sample, 3)
    while undo(sample, "ada"):
        assert step(sample).number == 3


def test_taking_answers_back_while_the_model_learns_or_has_learned_changes_nothing(sample):
    enough(sample)
    jobs.begin(sample.db, "the button", annotations.last_id(sample.db))
    undo(sample, "ada")
    undo(sample, "ada")
    assert step(sample) == onboarding.WAIT
    say(sample, 4)
    run_round(sample, classifier_of(sample), sample.config)
    while undo(sample, "ada"):
        assert step(sample) == onboarding.LOOK


def test_the_first_look_which_learns_nothing_is_no_trained_round(sample):
    job = jobs.begin(sample.db, "a first look", 0)
    assert step(sample) == onboarding.ANSWER
    undo_once(sample)
    assert step(sample).number == 3, "it is no reason to wait"
    run_round(sample, classifier_of(sample), replace(sample.config, minimum_labels=1000))
    assert step(sample).number == 3
    enough(sample)
    assert step(sample) == onboarding.WAIT, "as long as it runs no other can be started"
    jobs.finish(sample.db, job, "done")
    assert step(sample) == onboarding.RETRAIN


def test_a_round_that_failed_is_started_again(sample):
    enough(sample)
    job = jobs.begin(sample.db, "the button", annotations.last_id(sample.db))
    jobs.finish(sample.db, job, "failed", "It failed.")
    assert step(sample) == onboarding.RETRAIN


def test_each_annotator_has_his_own(sample):
    enough(sample)
    run_round(sample, classifier_of(sample), sample.config)
    onboarding.end(sample, "ada")
    assert step(sample, "ben") == onboarding.ANSWER
    say(sample, 1, "ben")
    undo(sample, "ben")
    assert step(sample, "ben") == onboarding.LOOK


def test_what_was_dismissed_stays_dismissed(sample):
    onboarding.end(sample, "ada")
    say(sample, 2)
    with Project.open(sample.folder) as again:
        assert step(again) is None
        assert step(again, "ben") == onboarding.ANSWER


def test_started_again_it_counts_only_what_is_done_from_then_on(sample):
    enough(sample)
    run_round(sample, classifier_of(sample), sample.config)
    onboarding.end(sample, "ada")
    onboarding.begin(sample, "ada")
    assert step(sample) == onboarding.ANSWER
    undo_once(sample)
    assert step(sample) == onboarding.RETRAIN, "what the model needs, it has"
    run_round(sample, classifier_of(sample), sample.config)
    assert step(sample) == onboarding.LOOK


def test_there_is_none_in_a_project_of_ones_own(project):
    assert step(project) is None
    onboarding.begin(project, "ada")
    assert step(project) is None
