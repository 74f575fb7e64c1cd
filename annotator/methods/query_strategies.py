"""Query strategies: how urgently each utterance should be asked, from what the round knows of it.

A strategy is a pure function of arrays and returns (n,) acquisition scores: higher means ask sooner, always. Ties are
broken at random, from the round's own generator. `choose` turns scores into the candidates of a batch; a strategy
that spreads takes them from different regions of what the backbone makes of the utterances.
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
from model.finite import check_finite
from model.types import States

Probabilities = NDArray[np.float64]
Scores = NDArray[np.float64]
Rows = NDArray[np.int64]

NEIGHBOURS = 20  # whose distance says how typical an utterance is (Hacohen et al. 2022, arXiv 2202.02794)
SAMPLE = 5_000  # utterances among which the typical ones are looked for


@dataclass(frozen=True)
class View:
    """What is known of the pool: n utterances in order, k labels."""

    probabilities: Probabilities  # (n, k), calibrated
    states: Callable[[Rows], States] | None = None  # what the backbone makes of these rows
    answered: Callable[[], States] | None = None  # what it makes of those that have taught the round
    committee: NDArray[np.float64] | None = None  # (m, n, k): what several rounds say
    given: Sequence[int] | None = None  # (k,) answers so far

    def __len__(self) -> int:
        """Count the utterances."""
        return len(self.probabilities)


@dataclass(frozen=True)
class Strategy:
    """A way to choose. `name` is stored with every answer it led to, `shown` and `reason` are for people."""

    name: str
    shown: str
    reason: str
    source: str
    score: Callable[[View], Scores]
    needs: str = ""  # the part of a view without which it cannot score
    spread: float = 0.0  # how many times as many candidates as are wanted it chooses diverse ones from; 0: it does not

    def can(self, view: View) -> bool:
        """Whether the view has what it needs."""
        return not self.needs or getattr(view, self.needs) is not None


def least_confidence(view: View) -> Scores:
    """Score by how improbable the likeliest label is."""
    return np.asarray(1 - view.probabilities.max(axis=1))


def margin(view: View) -> Scores:
    """Score by how close the two likeliest labels are."""
    second, first = np.partition(view.probabilities, -2, axis=1)[:, -2:].T
    return np.asarray(1 - (first - second))


def entropy(view: View) -> Scores:
    """Score by how spread the probability is over all labels, 0 to 1."""
    return np.asarray(shannon_entropy(view.probabilities, axis=1) / np.log(view.probabilities.shape[1]))


def at_random(view: View) -> Scores:
    """Score all the same, so that the tie break decides."""
    return np.zeros(len(view))


def typical(view: View) -> Scores:
    """Score by how near the nearest neighbours are; utterances beyond a sample come last."""
    from sklearn.neighbors import NearestNeighbors

    assert view.states is not None
    rows = _sample(len(view))
    scores = np.zeros(len(view))
    if len(rows) > 1:
        directions = as_directions(view.states(rows))
        near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(rows) - 1)).fit(directions)
        scores[rows] = 1 / (1e-6 + near.kneighbors()[0].mean(axis=1))
    return scores


def balanced_margin(view: View) -> Scores:
    """Score by the margin, and higher where labels are likely that have few answers yet."""
    assert view.given is not None
    weights = 1 / np.sqrt(1 + np.asarray(view.given, dtype=np.float64))
    return np.asarray(margin(view) * (view.probabilities @ weights))


def disagreement(view: View) -> Scores:
    """Score by how far the rounds are apart: the entropy of their mean above the mean of their entropies.

    On rounds of the scout alone it was worse than drawing at random on TREC (0.61, not 0.67), and no better on SNIPS
    (0.90, by the margin 0.93): rounds differ most on what is odd (`python -m benchmarks.committee`).
    """
    assert view.committee is not None
    mean = view.committee.mean(axis=0)
    return np.asarray(shannon_entropy(mean, axis=1) - shannon_entropy(view.committee, axis=2).mean(axis=0))


def none_fits(view: View) -> Scores:
    """Score by how little sure the model is, and how unlike all that has an answer: the mean of the two ranks.

    With one label left out of the codebook and a hundred answers to the others, the area under the ROC curve of finding
    its utterances was 0.63 on TREC and 0.90 on SNIPS, by least confidence alone 0.54 and 0.89 (`python -m
    benchmarks.none_fits --learners scout`). Utterances beyond a sample come last.
    """
    assert view.states
    assert view.answered
    rows, answered = _sample(len(view)), view.answered()
    states = view.states(rows)
    answered = answered.reshape(-1, states.shape[1])  # (0, 0) as long as people are divided on all they have answered
    directions = as_directions(np.concatenate([answered, states]))
    unlike = -(directions[len(answered) :] @ directions[: len(answered)].T).max(axis=1, initial=-1.0)
    scores = np.zeros(len(view))
    scores[rows] = (rankdata(least_confidence(view)[rows]) + rankdata(unlike.round(6))) / (2 * len(rows))
    return scores


DEFAULT, COLD = "margin_diverse", "typical"
_BREAKING_TIES = "Scheffer, Decomain and Wrobel 2001; breaking ties in Schröder et al. 2022, arXiv 2107.05687"
STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "margin_diverse",
            later("Closest calls, all different"),
            later("The model wavers between two labels here, and nothing like it is in this batch."),
            f"{_BREAKING_TIES}; clustered as in Zhdanov 2019, arXiv 1901.05954",
            margin,
            spread=5,
        ),
        Strategy(
            "margin",
            later("Closest call"),
            later("The model wavers between two labels here."),
            _BREAKING_TIES,
            margin,
        ),
        Strategy(
            "least_confidence",
            later("Least sure"),
            later("The model is least sure of its best label here."),
            "Lewis and Gale 1994",
            least_confidence,
        ),
        Strategy(
            "entropy",
            later("Most spread"),
            later("The model spreads its probability over many labels here."),
            "Settles 2009, section 3.1",
            entropy,
        ),
        Strategy(
            "typical",
            later("Typical ones"),
            later("Typical of many others: one answer here teaches the model about all of them."),
            "TypiClust in Hacohen, Dekel and Weinshall 2022, arXiv 2202.02794",
            typical,
            needs="states",
            spread=math.inf,
        ),
        Strategy(
            "label_balanced",
            later("Rare labels first"),
            later("The model wavers, and a label that has few answers may be the right one."),
            "the margin, weighed as classes are in King and Zeng 2001",
            balanced_margin,
            needs="given",
        ),
        Strategy(
            "disagreement",
            later("Rounds disagree"),
            later("The last rounds of the model disagree here."),
            "query by committee; Jensen-Shannon divergence as in McCallum and Nigam 1998",
            disagreement,
            needs="committee",
        ),
        Strategy(
            "none_fits",
            later("None may fit"),
            later("The model is not sure of any label here, and nothing like it has been answered yet."),
            "least confidence and distance to the nearest neighbour, a rank sum; compared in benchmarks/none_fits.py",
            none_fits,
            needs="answered",
        ),
        Strategy("random", later("At random"), later("Drawn at random."), "the baseline", at_random),
    )
}


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
    """Return candidates for a batch of `count`, best first and more than are wanted, and the (n,) scores.

    Raises PoolExhausted if there is nothing to choose from, NotFinite for scores that are no numbers.
    """
    if not len(view):
        raise PoolExhausted("Nothing is left to choose from.", "Import more utterances.")
    check_finite("probabilities", view.probabilities, view.committee)
    scores = strategy.score(view)
    check_finite("acquisition scores", scores)
    if strategy.spread and view.states:
        rows = rank(scores, rng, math.ceil(min(strategy.spread * count, SAMPLE, len(view))))
        return _spread(rows, view.states(rows), count, rng), scores
    return rank(scores, rng, min(2 * count, len(view))), scores


def as_directions(states: States) -> NDArray[np.float64]:
    """Put every dimension on one scale and every utterance at one distance: only directions compare.

    Raises NotFinite.
    """
    check_finite("hidden states", states)
    scaled = (states - states.mean(axis=0)) / np.maximum(states.std(axis=0), 1e-6)
    return np.asarray(scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-6), dtype=np.float64)


def _spread(rows: Rows, states: States, count: int, rng: np.random.Generator) -> Rows:
    """Reorder rows, best first: the best of each of `count` clusters, then all others."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if len(rows) <= count:
        return rows
    with threadpool_limits(1):  # see model/probe/probe.py
        clusters = KMeans(count, n_init=1, random_state=int(rng.integers(2**31))).fit_predict(as_directions(states))
    is_first = np.zeros(len(rows), dtype=np.bool_)
    is_first[np.unique(clusters, return_index=True)[1]] = True  # rows are in order: the first of a cluster is its best
    return np.concatenate([rows[is_first], rows[~is_first]])


def _sample(size: int) -> Rows:
    """Take every row of a small pool, else so many that are spread over it: the same ones each time."""
    return np.arange(size) if size <= SAMPLE else np.linspace(0, size - 1, SAMPLE).astype(np.int64)
