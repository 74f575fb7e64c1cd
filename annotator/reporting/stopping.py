"""Whether another round is worth it: advice with its reason, never an automatic stop.

Rules are best chosen before labelling starts, so there is one rule, and simulations tell when it would have spoken:
the last rounds say the same of the same utterances, and their measured accuracies cannot be told apart. The first is
Bloodgood and Vijay-Shanker's (2009, aclanthology W09-1107), who wait for a kappa of 0.99. What another batch is
expected to give is told beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from annotator.i18n import say
from annotator.project import Project
from annotator.reporting import summary
from annotator.reporting.gain import recent_gain
from annotator.reporting.summary import Measured
from annotator.rounds.batch import AUDIT, Candidates
from annotator.rounds.candidates import candidates
from model.finite import check_finite
from store import rounds, utterances

STEADY = 0.97  # kappa between two rounds from which on they say the same, see docs/label-efficiency.md
ROUNDS = 3  # trained rounds in a row that must agree
LEAST = 30  # utterances on which their agreement is worth anything


@dataclass(frozen=True)
class Advice:
    """What speaks for going on and what against; None where it is not known."""

    kappas: tuple[float, ...]  # between each two of the last rounds, newest first, on the audit slice
    overlap: bool | None  # whether the intervals of the last rounds' accuracies all overlap
    wrong: float | None  # suggestions expected to be wrong among those that nobody has answered
    open: int  # utterances that nobody has answered
    gain: float | None = None  # suggestions that another batch is expected to put right
    batch: int = 0  # answers in it

    @property
    def is_steady(self) -> bool:
        """Whether another round is likely to change little."""
        agree = all(kappa >= STEADY for kappa in self.kappas)
        return len(self.kappas) == ROUNDS - 1 and agree and bool(self.overlap)


def advise(project: Project, rest: Candidates | None = None) -> Advice:
    """Weigh the last rounds against each other, and what is `left`. For what another batch gives see `with_gain`."""
    trained = [row for row in rounds.history(project.db) if row["state"] == "promoted" and row["trained_on"]]
    last = trained[:ROUNDS]
    measured = [summary.measured(row) for row in last]
    said = [_likeliest(project, row) for row in last]
    kappas = [_kappa(new, old) for new, old in pairwise(said)]
    rest = rest or left(project)
    wrong = None if rest.view is None else float((1 - rest.view.probabilities.max(axis=1)).sum())
    check_finite("probabilities", wrong)
    known = tuple(kappa for kappa in kappas if kappa is not None)
    return Advice(known, _overlap(measured), wrong, len(rest.pool))


def with_gain(project: Project, advice: Advice, wait: bool = True) -> Advice:
    """Weigh another batch too. That takes seconds after a new round or ten answers; not if there is no `wait`."""
    gain = recent_gain(project, wait)
    if gain is None or advice.wrong is None:
        return advice
    return replace(advice, gain=min(gain * advice.open, advice.wrong), batch=project.config.batch_size)


def left(project: Project) -> Candidates:
    """Return what nobody has answered, as the round in use sees it."""
    promoted = rounds.promoted(project.db)
    return candidates(project, rounds.predictions_of(project.db, promoted) if promoted else None)


def sentence(advice: Advice) -> str:
    """Say it in a sentence or two."""
    if not advice.open:
        return say("Everything has an answer.")
    return " ".join(filter(None, (_worth(advice), _rest(advice))))


def _worth(advice: Advice) -> str:
    if len(advice.kappas) < ROUNDS - 1:
        return say("Go on: whether more labels still help can be told after {n} rounds.", n=ROUNDS)
    if advice.is_steady:
        return say(
            "More labels are likely to change little: the last rounds say the same of nearly all utterances, and are "
            "as often right, as far as the audit answers tell."
        )
    if not all(kappa >= STEADY for kappa in advice.kappas):
        return say(
            "Go on: the last rounds still differ (agreement {kappa:.2f}; {steady:.2f} would be steady).",
            kappa=min(advice.kappas),
            steady=STEADY,
        )
    return say("Go on: the last rounds differ in how often they are right.")


def _rest(advice: Advice) -> str:
    if advice.wrong is None:
        return ""
    left = say(
        "Of the {n:,} without an answer the model expects to be wrong about {wrong:,.0f}.",
        n=advice.open,
        wrong=advice.wrong,
    )
    return " ".join(filter(None, (left, _next(advice))))


def _next(advice: Advice) -> str:
    if advice.gain is None:
        return ""
    if advice.gain < 1:
        return say("Another {batch} answers are not likely to change that.", batch=advice.batch)
    return say(
        "Another {batch} answers are likely to put about {gain:,.0f} of them right.",
        batch=advice.batch,
        gain=advice.gain,
    )


def _likeliest(project: Project, row: Any) -> dict[int, int]:
    """Return the likeliest label of each audit utterance, which are a random sample and scored in every round."""
    known = rounds.predictions_of(project.db, row)
    audit = set(utterances.ids_in(project.db, AUDIT))
    best = np.array(known.label_ids)[known.probabilities.argmax(axis=1)] if len(known.utterance_ids) else []
    return {int(i): int(label) for i, label in zip(known.utterance_ids, best, strict=True) if int(i) in audit}


def _kappa(one: dict[int, int], other: dict[int, int]) -> float | None:
    shared = sorted(one.keys() & other.keys())
    if len(shared) < LEAST:
        return None
    first, second = (np.array([said[i] for i in shared]) for said in (one, other))
    if (first == second).all():
        return 1.0  # also where both say one label throughout, for which kappa is not defined
    return float(cohen_kappa_score(first, second))


def _overlap(measured: Sequence[Measured]) -> bool | None:
    intervals = [one.accuracy_interval for one in measured if one.accuracy_interval]
    if len(intervals) < ROUNDS:
        return None
    edges: NDArray[np.float64] = np.array(intervals)
    return bool(edges[:, 0].max() <= edges[:, 1].min())
