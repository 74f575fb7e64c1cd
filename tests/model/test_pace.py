"""The pace of training and scoring is measured with a round's own code, and ends when the time is up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from model import pace
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone
from model.recipe import Recipe
from tests.model.tiny import LABEL_SETS, Utterance

TASK = LABEL_SETS["words that begin one another"]
TEXTS = [Utterance(f"{number} is a number") for number in range(32)]


def test_the_pace_is_that_of_steps_and_rows(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_TRAINING", 1.0)
    monkeypatch.setattr(pace, "_SCORING", 0.3)
    ours = LanguageModelClassifier(backbone, TASK, Recipe(row_tokens=64), "definitions")
    found = pace.take_pace(ours, TEXTS)
    assert 0 < found.trained < 2 * found.scored  # backward passes take longer; the machine may be busy
    assert backbone.model.training is False


def clock_at(monkeypatch: pytest.MonkeyPatch, seconds: float, *times: float) -> pace._Clock:
    given = iter(times)
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: next(given)))
    return pace._Clock(seconds, began=0.0)


def test_a_rate_leaves_out_the_first_call_which_is_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clock_at(monkeypatch, 1.5, 5.0, 6.0, 7.0)
    clock(0.1)
    clock(0.3)
    with pytest.raises(pace._TimeIsUp):
        clock(0.5)
    assert clock.rate == pytest.approx(0.2)


def test_two_slow_steps_are_timed_behind_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clock_at(monkeypatch, 7.0, 50.0, 60.0, 75.0)
    clock(0.1)
    clock(0.2)
    with pytest.raises(pace._TimeIsUp):
        clock(0.3)
    assert clock.rate == pytest.approx(0.2 / 25)


def test_work_that_ends_with_its_first_call_counts_with_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clock_at(monkeypatch, 7.0, 50.0)
    clock(1.0)
    assert clock.rate == pytest.approx(0.02)
