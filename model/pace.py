"""Measure how fast a backbone trains and scores on this machine, with the code a round uses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from model.adapter import LanguageModelClassifier
from model.types import Utterance

_TRAINING, _SCORING = 7.0, 3.0  # seconds
_STEPS = 2  # at least so many are timed, however long they take
_FOREVER = 1000  # epochs, of which the clock ends the training


@dataclass(frozen=True)
class Pace:
    """Utterances a second."""

    trained: float
    scored: float


class _TimeIsUp(Exception):
    """Ends the work that is timed."""


@dataclass
class _Clock:
    """A progress function that ends the work when its time is up, counted from the first call, which is warm-up."""

    seconds: float
    began: float = field(default_factory=time.perf_counter)
    calls: list[tuple[float, float]] = field(default_factory=list)  # share of the work, seconds

    def __call__(self, share: float) -> None:
        """Note how much is done. Raises _TimeIsUp, but not before some steps have been timed."""
        self.calls.append((share, time.perf_counter() - self.began))
        if len(self.calls) > _STEPS and self.calls[-1][1] - self.calls[0][1] > self.seconds:
            raise _TimeIsUp

    @property
    def rate(self) -> float:
        """The share done in a second. If the work ends with the first call, its warm-up is included."""
        (first, began), (last, ended) = self.calls[0], self.calls[-1]
        return (last - first) / (ended - began) if len(self.calls) > 1 else last / ended


def take_pace(classifier: LanguageModelClassifier, utterances: Sequence[Utterance]) -> Pace:
    """Train and score on some utterances until the time is up; the labels do not matter for the time.

    A step or a row is never cut short, so a slow machine takes longer.
    """
    recipe = replace(classifier.recipe, probe_weight=0.0, epochs=_FOREVER, holdout=0.0)
    measured = LanguageModelClassifier(
        classifier.backbone, classifier.task, recipe, classifier.tokens.template, classifier.tokens.frame
    )
    labels = [place % len(classifier.task.labels) for place in range(len(utterances))]
    training = _Clock(_TRAINING)
    with suppress(_TimeIsUp):
        measured.fit(utterances, labels, training)
    scoring = _Clock(_SCORING)
    with suppress(_TimeIsUp):
        measured.zero_shot().logits(utterances, scoring)
    return Pace(training.rate * len(utterances) * _FOREVER, scoring.rate * len(utterances))
