"""Find answers that may be wrong: each is evaluated by a quick classifier fitted without it.

A model fitted on wrong answers as well finds most of them, because random errors cannot be learned. Suspected errors
are asked again and never changed: the utterance itself may be unusual.
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
from annotator.rounds.cache import Cache, cache_key
from annotator.rounds.candidates import probe_in_use, training_states
from annotator.rounds.snapshot import training_labels
from model.finite import check_finite
from model.probe.probe import out_of_fold
from model.types import Logits

LEAST = 20  # answers; with fewer the quick classifier is too weak
LEAST_ACCURACY = 2 / 3  # of the quick classifier on the answers, to estimate how many are wrong
Columns = NDArray[np.int64]


@dataclass(frozen=True)
class LabelErrors:
    """Answers with their out-of-fold probability, the least probable first."""

    probabilities: Mapping[int, float]  # utterance id -> probability of the given label
    expected_wrong: float | None  # estimated number of wrong answers; None if it cannot be estimated

    def first(self, share: float) -> list[int]:
        """Return the utterances of the given share of answers that are most likely wrong."""
        return list(self.probabilities)[: round(share * len(self.probabilities))]


_cache: Cache[LabelErrors] = Cache()


def recent_label_errors(project: Project) -> LabelErrors:
    """Return the label errors, recomputed for every round and every few answers, which takes a second."""
    order = codebook_of(project).ids
    answers = training_labels(project, order)
    found = _cache.get(cache_key(project, len(answers)), lambda: find_label_errors(project, order))
    return LabelErrors({i: one for i, one in found.probabilities.items() if i in answers}, found.expected_wrong)


def find_label_errors(project: Project, order: tuple[int, ...]) -> LabelErrors:
    """Rank all training examples that have hidden states; empty while there are too few."""
    ids, vectors, columns = training_states(project, order)
    if len(ids) < LEAST or len(set(columns)) < 2:
        return LabelErrors({}, None)
    labels = np.array(columns, dtype=np.int64)
    probe_logits = out_of_fold(vectors, columns, probe_in_use(project, order, vectors.shape[1]).label_states)
    given = np.exp(probe_logits[np.arange(len(ids)), labels])
    ranked = np.argsort(given, kind="stable")
    return LabelErrors({ids[i]: float(given[i]) for i in ranked}, expected_wrong(probe_logits, labels))


def expected_wrong(probe_logits: Logits, labels: Columns) -> float | None:
    """Estimate how many answers are wrong; None if the accuracy of the quick classifier on them is too low.

    Two parameters are fitted by maximum likelihood: an inverse temperature of the (n, k) log-probabilities, and the
    share of answers that were replaced by any other label. Low confidence of the quick classifier is thus not counted
    as errors: confident learning (Northcutt et al. 2021, arXiv 1911.00068) counts several times too many here
    (`python -m benchmarks.mistakes`).
    """
    check_finite("logits of the quick classifier", probe_logits)
    rows, others = np.arange(len(labels)), probe_logits.shape[1] - 1
    if not (probe_logits.argmax(axis=1) == labels).mean() >= LEAST_ACCURACY:
        return None

    def likelihoods(fit: Scores) -> tuple[Scores, Scores]:
        inverse_temperature, share = fit
        correct = softmax(probe_logits * inverse_temperature, axis=1)[rows, labels]
        return correct * (1 - share), (1 - correct) * share / others

    def loss(fit: Scores) -> float:
        return -float(np.log(np.add(*likelihoods(fit))).sum())

    found = minimize(loss, x0=(1.0, 0.05), bounds=((0.25, 4.0), (1e-6, 0.5)))
    correct, wrong = likelihoods(found.x)
    return float((wrong / (correct + wrong)).sum())
