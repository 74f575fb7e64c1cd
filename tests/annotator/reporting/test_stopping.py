"""Advice to stop is given only when the last rounds agree, and always with its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotator.loop import run_round
from annotator.reporting.stopping import Advice, advise, sentence, with_gain
from tests.annotator.scenes import change, classifier_of, label_pool, new_project, work_through

STILL = Advice((0.99, 0.98), True, 12.0, 300)


@pytest.fixture
def project(tmp_path):
    with new_project(tmp_path / "p", 240) as made:
        change(made, retrain_every=0)
        yield made


def go_round(project, labels: int = 12) -> None:
    label_pool(project, labels)
    run_round(project, classifier_of(project), project.config)


def test_before_three_rounds_nothing_can_be_told(project):
    for _ in range(2):
        go_round(project)
        assert not advise(project).is_steady
    assert sentence(advise(project)).startswith("Keep labeling: it takes 3 rounds to see")


def test_rounds_that_say_the_same_are_steady(project):
    for _ in range(5):
        go_round(project, 25)
    found = advise(project)
    assert len(found.kappas) == 2
    assert found.is_steady
    assert sentence(found).startswith("More answers are likely to change little")


def test_what_is_left_is_counted_with_what_is_expected_to_be_wrong(project):
    go_round(project)
    found = advise(project)
    assert 0 < found.open < 240
    assert found.wrong is not None
    assert 0 < found.wrong < found.open
    assert f"{found.open:,} unanswered utterances" in sentence(found)


def test_where_everything_has_an_answer_there_is_nothing_to_advise(tmp_path):
    with new_project(tmp_path / "q", 20) as project:
        change(project, retrain_every=0)
        work_through(project, 20)
        assert sentence(advise(project)) == "Every utterance has an answer."


def test_what_another_batch_is_expected_to_give_is_no_more_than_is_wrong(project):
    go_round(project)
    assert with_gain(project, advise(project)).gain is None, "twelve answers do not tell"
    change(project, batch_size=40)
    for _ in range(2):
        go_round(project, 40)
    found = with_gain(project, advise(project))
    assert found.gain is not None
    assert 0 <= found.gain <= found.wrong
    assert "Another 40 answers are" in sentence(found)


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (None, "about 12 are expected to be wrong."),
        (0.4, "about 12 are expected to be wrong. Another 25 answers are unlikely to change that."),
        (3.2, "about 12 are expected to be wrong. Another 25 answers are likely to correct about 3 of them."),
    ],
)
def test_another_batch_is_weighed_in_suggestions_put_right(gain, said):
    assert sentence(replace(STILL, gain=gain, batch=25)).endswith(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "More answers are likely to change little"),
        (
            {"kappas": (0.98, 0.8)},
            "Keep labeling: predictions still change from round to round (agreement 0.80; stable from 0.97)",
        ),
        ({"overlap": False}, "Keep labeling: the accuracy still changes from round to round."),
        ({"kappas": (0.99,)}, "Keep labeling: it takes 3 rounds"),
        ({"open": 0}, "Every utterance has an answer."),
    ],
)
def test_the_advice_gives_its_reason(changes, said):
    assert sentence(replace(STILL, **changes)).startswith(said)
