"""Answers that may be slips: each is judged by a scout that was fitted without it.

A model fitted to wrong answers too finds most of them, since it cannot learn what follows no rule. What looks wrong is
asked again, never changed: it may be the utterance that is odd.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from annotator.codebook.definition import codebook_of
from annotator.methods.query_strategies import Scores
from annotator.project import Project
from annotator.rounds.cache import Cache, grounds
from annotator.rounds.candidates import probe_in_use, training_states
from annotator.rounds.snapshot import training_labels
from model.finite import check_finite
from model.probe.probe import out_of_fold
from model.types import Logits

LEAST = 20  # answers; fewer cannot judge one another
FORESEEN = 2 / 3  # of the answers must be what the scout expects, or it cannot say how many are wrong
Columns = NDArray[np.int64]


@dataclass(frozen=True)
class Doubts:
    """Answers with the chance that a model without them gives them, the least likely first."""

    chances: Mapping[int, float]  # utterance id -> probability of the label that was given
    wrong: float | None  # answers that are expected to be wrong; None where that cannot be judged

    def first(self, share: float) -> list[int]:
        """Return the share of the answers that is most worth a second look."""
        return list(self.chances)[: round(share * len(self.chances))]


_cache: Cache[Doubts] = Cache()


def recent_doubts(project: Project) -> Doubts:
    """Judge the answers anew for every round and every few answers: it takes a second."""
    order = codebook_of(project).ids
    answers = training_labels(project, order)
    found = _cache.of(grounds(project, len(answers)), lambda: entropies(project, order))
    return Doubts({i: chance for i, chance in found.chances.items() if i in answers}, found.wrong)


def entropies(project: Project, order: tuple[int, ...]) -> Doubts:
    """Judge all answers that teach, of utterances that the backbone has read; nothing while they are few."""
    ids, vectors, columns = training_states(project, order)
    if len(ids) < LEAST or len(set(columns)) < 2:
        return Doubts({}, None)
    labels = np.array(columns, dtype=np.int64)
    heard = out_of_fold(vectors, columns, probe_in_use(project, order, vectors.shape[1]).label_states)
    chances = np.exp(heard[np.arange(len(ids)), labels])
    ranked = np.argsort(chances, kind="stable")
    return Doubts({ids[i]: float(chances[i]) for i in ranked}, expected_wrong(heard, labels))


def expected_wrong(heard: Logits, labels: Columns) -> float | None:
    """Estimate how many answers are wrong; None where the scout foresees too few of them to judge the others.

    Two numbers are fitted together by maximum likelihood: how far the scout's (n, k) log-probabilities are to be
    sharpened, and the share of answers that another label, any of them, has taken the place of. So a scout that is
    unsure is not laid at the answers' door: confident learning (Northcutt et al. 2021, arXiv 1911.00068) counts several
    times too many here (`python -m benchmarks.mistakes`).
    """
    check_finite("logits of the probe", heard)
    rows, others = np.arange(len(labels)), heard.shape[1] - 1
    if not (heard.argmax(axis=1) == labels).mean() >= FORESEEN:
        return None

    def chances(fit: Scores) -> tuple[Scores, Scores]:
        sharpness, share = fit
        right = softmax(heard * sharpness, axis=1)[rows, labels]
        return right * (1 - share), (1 - right) * share / others

    def surprise(fit: Scores) -> float:
        return -float(np.log(np.add(*chances(fit))).sum())

    found = minimize(surprise, x0=(1.0, 0.05), bounds=((0.25, 4.0), (1e-6, 0.5)))
    right, wrong = chances(found.x)
    return float((wrong / (right + wrong)).sum())
