"""Advise whether another round is worth it, with the reason; the loop never stops by itself.

A stopping rule should be chosen before labeling starts, so there is one rule, which simulations evaluate: the
predictions of the last rounds agree, and their measured accuracies do not differ significantly. The first condition is
from Bloodgood and Vijay-Shanker (2009, aclanthology W09-1107), who wait for a kappa of 0.99. The advice also gives the
expected gain of another batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from annotator.i18n import say
from annotator.methods.metrics import Metrics
from annotator.project import Project
from annotator.reporting.gain import recent_gain
from annotator.reporting.summary import Answers
from annotator.rounds.batch import AUDIT, Candidates
from annotator.rounds.candidates import candidates
from model import constants
from model.finite import check_finite
from store import rounds, utterances
from store.rounds import Round

ROUNDS = 3  # trained rounds in a row that must agree
LEAST = 30  # utterances that a kappa must be based on


@dataclass(frozen=True)
class Advice:
    """Evidence for another round and against it; None where it is not known."""

    kappas: tuple[float, ...]  # between each two of the last rounds, newest first, on the audit sample
    overlap: bool | None  # whether the intervals of the last rounds' accuracies all overlap
    wrong: float | None  # expected number of wrong suggestions for unanswered utterances
    open: int  # unanswered utterances
    gain: float | None = None  # suggestions that another batch is expected to correct
    batch: int = 0  # answers in that batch

    @property
    def is_steady(self) -> bool:
        """Whether another round is likely to change little."""
        agree = all(kappa >= constants.STEADY for kappa in self.kappas)
        return len(self.kappas) == ROUNDS - 1 and agree and bool(self.overlap)


def advise(project: Project, rest: Candidates | None = None) -> Advice:
    """Compare the last rounds and estimate the errors in what is `left`. `with_gain` adds the gain of another batch."""
    last = [row for row in rounds.finished(project.db) if row.trained_on][:ROUNDS]
    measured = [Metrics.from_dict(row.metrics) for row in last]
    predictions = [_likeliest(project, row) for row in last]
    kappas = [_kappa(new, old) for new, old in pairwise(predictions)]
    rest = rest or left(project)
    wrong = None if rest.view is None else float((1 - rest.view.probabilities.max(axis=1)).sum())
    check_finite("probabilities", wrong)
    known = tuple(kappa for kappa in kappas if kappa is not None)
    return Advice(known, _overlap(measured), wrong, len(rest.pool))


def with_gain(project: Project, advice: Advice, wait: bool = True, answers: Answers | None = None) -> Advice:
    """Add the gain of another batch. It takes seconds after a new round or ten answers, when `wait=False` skips it."""
    gain = recent_gain(project, wait, answers)
    if gain is None or advice.wrong is None:
        return advice
    return replace(advice, gain=min(gain * advice.open, advice.wrong), batch=project.config.batch_size)


def left(project: Project) -> Candidates:
    """Return the unanswered utterances with the predictions of the round in use."""
    promoted = rounds.promoted(project.db)
    return candidates(project, rounds.predictions_of(project.db, promoted) if promoted else None)


def sentence(advice: Advice) -> str:
    """Describe the advice in a sentence or two."""
    if not advice.open:
        return say("Every utterance has an answer.")
    return " ".join(filter(None, (_verdict(advice), _expected_errors(advice))))


def _verdict(advice: Advice) -> str:
    if len(advice.kappas) < ROUNDS - 1:
        return say("Keep labeling: it takes {n} rounds to see whether more answers still help.", n=ROUNDS)
    if advice.is_steady:
        return say(
            "More answers are likely to change little: the last rounds agree on nearly all utterances, and their "
            "accuracies on the audit answers do not clearly differ."
        )
    if not all(kappa >= constants.STEADY for kappa in advice.kappas):
        return say(
            "Keep labeling: predictions still change from round to round (agreement {kappa:.2f}; stable from "
            "{steady:.2f}).",
            kappa=min(advice.kappas),
            steady=constants.STEADY,
        )
    return say("Keep labeling: the accuracy still changes from round to round.")


def _expected_errors(advice: Advice) -> str:
    if advice.wrong is None:
        return ""
    left = say(
        "Of the suggestions for {n:,} unanswered utterances, about {wrong:,.0f} are expected to be wrong.",
        n=advice.open,
        wrong=advice.wrong,
    )
    return " ".join(filter(None, (left, _next_batch(advice))))


def _next_batch(advice: Advice) -> str:
    if advice.gain is None:
        return ""
    if advice.gain < 1:
        return say("Another {batch} answers are unlikely to change that.", batch=advice.batch)
    return say(
        "Another {batch} answers are likely to correct about {gain:,.0f} of them.",
        batch=advice.batch,
        gain=advice.gain,
    )


def _likeliest(project: Project, row: Round) -> dict[int, int]:
    """Return the predicted label of each audit utterance: a random sample that every round scores."""
    known = rounds.predictions_of(project.db, row)
    audit = set(utterances.ids_in(project.db, AUDIT))
    best = np.array(known.label_ids)[known.probabilities.argmax(axis=1)] if len(known.utterance_ids) else []
    return {int(i): int(label) for i, label in zip(known.utterance_ids, best, strict=True) if int(i) in audit}


def _kappa(one: dict[int, int], other: dict[int, int]) -> float | None:
    shared = sorted(one.keys() & other.keys())
    if len(shared) < LEAST:
        return None
    first, second = (np.array([labels[i] for i in shared]) for labels in (one, other))
    if (first == second).all():
        return 1.0  # also where both predict one label throughout, for which kappa is not defined
    return float(cohen_kappa_score(first, second))


def _overlap(measured: Sequence[Metrics | None]) -> bool | None:
    intervals = [one.accuracy_interval for one in measured if one]
    if len(intervals) < ROUNDS:
        return None
    edges: NDArray[np.float64] = np.array(intervals)
    return bool(edges[:, 0].max() <= edges[:, 1].min())
