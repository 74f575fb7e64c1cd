"""Query strategies: compute acquisition scores for utterances and choose the candidates of a batch.

A strategy is a pure function of arrays and returns (n,) scores; utterances with higher scores are asked first. Ties are
broken at random with the round's generator. `choose` turns scores into candidates; for a diverse strategy these come
from different clusters of hidden states.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy as shannon_entropy
from scipy.stats import rankdata

from annotator.errors import PoolExhausted, UnknownName
from annotator.i18n import later
from model import constants
from model.finite import check_finite
from model.types import States

Probabilities = NDArray[np.float64]
Scores = NDArray[np.float64]
Rows = NDArray[np.int64]

NEIGHBORS = 20  # nearest neighbors whose mean distance defines typicality (Hacohen et al. 2022, arXiv 2202.02794)
SAMPLE = 5_000  # utterances that are scored by hidden states in a larger pool


@dataclass(frozen=True)
class View:
    """The input of a strategy: n utterances of the pool, in order, and k labels."""

    probabilities: Probabilities  # (n, k), calibrated
    states: Callable[[Rows], States] | None = None  # hidden states of these rows
    answered_states: Callable[[], States] | None = None  # hidden states of the training examples
    label_counts: Sequence[int] | None = None  # (k,) answers so far

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.probabilities)


@dataclass(frozen=True)
class Strategy:
    """A query strategy. `name` is stored with every answer it led to; `shown` and `reason` are displayed."""

    name: str
    shown: str
    reason: str
    source: str
    score: Callable[[View], Scores]
    needs: str = ""  # the field of View that it requires
    spread: float = 0.0  # candidates, as a multiple of the batch, from which diverse ones are chosen; 0: not diverse

    def can(self, view: View) -> bool:
        """Return whether the view has the required field."""
        return not self.needs or getattr(view, self.needs) is not None


def least_confidence(view: View) -> Scores:
    """Return one minus the probability of the likeliest label."""
    return np.asarray(1 - view.probabilities.max(axis=1))


def margin(view: View) -> Scores:
    """Return one minus the difference between the two highest probabilities."""
    second, first = np.partition(view.probabilities, -2, axis=1)[:, -2:].T
    return np.asarray(1 - (first - second))


def entropy(view: View) -> Scores:
    """Return the normalized entropy of the probabilities, 0 to 1."""
    return np.asarray(shannon_entropy(view.probabilities, axis=1) / np.log(view.probabilities.shape[1]))


def at_random(view: View) -> Scores:
    """Return equal scores, so that ties are broken at random."""
    return np.zeros(len(view))


def typical(view: View) -> Scores:
    """Return the inverse mean distance to the nearest neighbors; 0 for utterances outside the sample."""
    from sklearn.neighbors import NearestNeighbors

    assert view.states is not None
    rows = _sample(len(view))
    scores = np.zeros(len(view))
    if len(rows) > 1:
        directions = as_unit_vectors(view.states(rows))
        neighbors = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(rows) - 1)).fit(directions)
        scores[rows] = 1 / (1e-6 + neighbors.kneighbors()[0].mean(axis=1))
    return scores


def balanced_margin(view: View) -> Scores:
    """Return the margin score, weighted up where labels with few answers are likely."""
    assert view.label_counts is not None
    weights = 1 / np.sqrt(1 + np.asarray(view.label_counts, dtype=np.float64))
    return np.asarray(margin(view) * (view.probabilities @ weights))


def none_fits(view: View) -> Scores:
    """Return the mean rank of least confidence and of the distance to the nearest answered utterance.

    With one label left out of the codebook and a hundred answers to the others, the area under the ROC curve of finding
    its utterances was 0.63 on TREC and 0.90 on SNIPS; by least confidence alone it was 0.54 and 0.89 (`python -m
    benchmarks.none_fits --learners scout`). Utterances outside the sample score 0.
    """
    assert view.states
    assert view.answered_states
    rows, answered = _sample(len(view)), view.answered_states()
    states = view.states(rows)
    answered = answered.reshape(-1, states.shape[1])  # (0, 0) while no answered utterance has a consensus
    directions = as_unit_vectors(np.concatenate([answered, states]))
    distances = -(directions[len(answered) :] @ directions[: len(answered)].T).max(axis=1, initial=-1.0)
    scores = np.zeros(len(view))
    scores[rows] = (rankdata(least_confidence(view)[rows]) + rankdata(distances.round(6))) / (2 * len(rows))
    return scores


DEFAULT, COLD = "margin_diverse", "typical"
_BREAKING_TIES = "Scheffer, Decomain and Wrobel 2001; breaking ties in Schröder et al. 2022, arXiv 2107.05687"
STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "margin_diverse",
            later("Closest calls, all different"),
            later("The model is undecided between two labels, and nothing else in this batch is similar."),
            f"{_BREAKING_TIES}; clustered as in Zhdanov 2019, arXiv 1901.05954",
            margin,
            spread=constants.DIVERSE,
        ),
        Strategy(
            "margin",
            later("Closest call"),
            later("The model is undecided between two labels."),
            _BREAKING_TIES,
            margin,
        ),
        Strategy(
            "least_confidence",
            later("Least sure"),
            later("The model is not sure of its top label."),
            "Lewis and Gale 1994",
            least_confidence,
        ),
        Strategy(
            "entropy",
            later("Most spread out"),
            later("The probability is spread over many labels."),
            "Settles 2009, section 3.1",
            entropy,
        ),
        Strategy(
            "typical",
            later("Typical utterances"),
            later("Similar to many others, so one answer helps the model with all of them."),
            "TypiClust in Hacohen, Dekel and Weinshall 2022, arXiv 2202.02794",
            typical,
            needs="states",
            spread=math.inf,
        ),
        Strategy(
            "label_balanced",
            later("Rare labels first"),
            later("The model is undecided, and a label with few answers may be the right one."),
            "the margin, weighed as classes are in King and Zeng 2001",
            balanced_margin,
            needs="label_counts",
        ),
        Strategy(
            "none_fits",
            later("None may fit"),
            later("The model is not sure of any label, and no similar utterance has an answer yet."),
            "least confidence and distance to the nearest neighbor, a rank sum; compared in benchmarks/none_fits.py",
            none_fits,
            needs="answered_states",
        ),
        Strategy("random", later("Random"), later("Drawn at random."), "the baseline", at_random),
    )
}

CHOSEN = sorted({*STRATEGIES, "disagreement"} - {"random"})  # names stored with queried answers, old ones included


def strategy_named(name: str) -> Strategy:
    """Return a registered strategy. Raises UnknownName."""
    if name not in STRATEGIES:
        raise UnknownName.among("strategy", name, sorted(STRATEGIES))
    return STRATEGIES[name]


def rank(scores: Scores, rng: np.random.Generator, count: int | None = None) -> Rows:
    """Return row numbers from the highest score to the lowest, equal scores in random order; the first `count`."""
    rows = np.arange(len(scores))
    if count is not None and count < len(scores):
        rows = np.flatnonzero(scores >= np.partition(scores, -count)[-count]) if count else rows[:0]
    order = np.lexsort((rng.random(len(rows)), -scores[rows]))
    return np.asarray(rows[order][:count])


def choose(strategy: Strategy, view: View, count: int, rng: np.random.Generator) -> tuple[Rows, Scores]:
    """Return candidates for a batch of `count`, best first and more than needed, and the (n,) scores.

    Raises PoolExhausted if the pool is empty, NotFinite for scores that are infinite or undefined.
    """
    if not len(view):
        raise PoolExhausted("Nothing is left to choose from.", "Import more utterances.")
    check_finite("probabilities", view.probabilities)
    scores = strategy.score(view)
    check_finite("acquisition scores", scores)
    if strategy.spread and view.states:
        rows = rank(scores, rng, math.ceil(min(strategy.spread * count, SAMPLE, len(view))))
        return _spread(rows, view.states(rows), count, rng), scores
    return rank(scores, rng, min(2 * count, len(view))), scores


def as_unit_vectors(states: States) -> NDArray[np.float64]:
    """Standardize each dimension, then scale each row to unit length. Raises NotFinite."""
    check_finite("hidden states", states)
    scaled = (states - states.mean(axis=0)) / np.maximum(states.std(axis=0), 1e-6)
    return np.asarray(scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-6), dtype=np.float64)


def _spread(rows: Rows, states: States, count: int, rng: np.random.Generator) -> Rows:
    """Reorder rows: first the best row of each of `count` clusters, best first, then the others."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if len(rows) <= count:
        return rows
    with threadpool_limits(1):  # see model/probe/probe.py
        clusters = KMeans(count, n_init=1, random_state=int(rng.integers(2**31))).fit_predict(as_unit_vectors(states))
    is_first = np.zeros(len(rows), dtype=np.bool_)
    is_first[np.unique(clusters, return_index=True)[1]] = True  # rows are sorted, so the first of a cluster is its best
    return np.concatenate([rows[is_first], rows[~is_first]])


def _sample(size: int) -> Rows:
    """Return all rows of a small pool, otherwise SAMPLE evenly spaced ones."""
    return np.arange(size) if size <= SAMPLE else np.linspace(0, size - 1, SAMPLE).astype(np.int64)
