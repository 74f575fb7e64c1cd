"""Answers that may be slips: each is judged by a scout that was fitted without it.

A model fitted to wrong answers too finds most of them, since it cannot learn what follows no rule. What looks wrong is
asked again, never changed: it may be the utterance that is odd.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.pool import lessons_read
from annotator.project import Project
from annotator.query import Probabilities, Scores
from model.scout import out_of_fold
from store import rounds

LEAST = 20  # answers; fewer cannot judge one another
FEW = 10  # answers that change little
Columns = NDArray[np.int64]


@dataclass(frozen=True)
class Doubts:
    """Answers with the chance that a model without them gives them, the least likely first."""

    chances: Mapping[int, float]  # utterance id -> probability of the label that was given
    wrong: float  # answers that are expected to be wrong

    def first(self, share: float) -> list[int]:
        """Return the share of the answers that is most worth a second look."""
        return list(self.chances)[: round(share * len(self.chances))]


_recent: dict[tuple[object, ...], Doubts] = {}  # the last ones: to judge anew takes a second


def recent_doubts(project: Project) -> Doubts:
    """Judge the answers anew for every round and every few answers, so that a page need not wait each time."""
    order = project.codebook().ids
    promoted = rounds.promoted(project.db)
    answers = project.lessons(order)
    key = str(project.folder.resolve()), promoted["id"] if promoted else None, len(answers) // FEW, order
    if key not in _recent:
        _recent.clear()
        _recent[key] = doubts(project, order)
    found = _recent[key]
    return Doubts({i: chance for i, chance in found.chances.items() if i in answers}, found.wrong)


def doubts(project: Project, order: tuple[int, ...]) -> Doubts:
    """Judge all answers that teach, of utterances that the backbone has read; nothing while they are few."""
    ids, vectors, columns = lessons_read(project, order)
    if len(ids) < LEAST or len(set(columns)) < 2:
        return Doubts({}, 0.0)
    labels = np.array(columns, dtype=np.int64)
    said = np.exp(out_of_fold(vectors, columns, len(order)))
    chances = said[np.arange(len(ids)), labels]
    ranked = np.argsort(chances, kind="stable")
    return Doubts({ids[i]: float(chances[i]) for i in ranked}, expected_wrong(said, labels))


def expected_wrong(said: Probabilities, labels: Columns) -> float:
    """Estimate how many answers are wrong by confident learning (Northcutt et al. 2021, arXiv 1911.00068).

    An answer counts where another label is as probable as that label is on average where it was given.
    """
    size = said.shape[1]
    given = [said[labels == label, label] for label in range(size)]
    usual: Scores = np.array([chances.mean() if len(chances) else np.inf for chances in given])
    confident = np.where(said >= usual, said, -1.0)
    best = confident.argmax(axis=1)
    return float(((confident.max(axis=1) >= 0) & (best != labels)).sum())
