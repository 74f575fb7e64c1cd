"""Query strategies: how urgently each utterance should be asked, from the round's probabilities.

A strategy is a pure function of an (n, k) array and returns (n,) acquisition scores: higher means ask sooner,
always. Ties are broken at random by `rank`, from the round's own generator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy as shannon_entropy

from annotator.errors import UnknownName

Probabilities = NDArray[np.float64]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Strategy:
    """A way to choose. `name` is stored with every answer it led to, `shown` and `reason` are for people."""

    name: str
    shown: str
    reason: str
    source: str
    score: Callable[[Probabilities], Scores]


def least_confidence(probabilities: Probabilities) -> Scores:
    """Score by how improbable the likeliest label is."""
    return np.asarray(1 - probabilities.max(axis=1))


def margin(probabilities: Probabilities) -> Scores:
    """Score by how close the two likeliest labels are."""
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return np.asarray(1 - (first - second))


def entropy(probabilities: Probabilities) -> Scores:
    """Score by how spread the probability is over all labels, 0 to 1."""
    return np.asarray(shannon_entropy(probabilities, axis=1) / np.log(probabilities.shape[1]))


def at_random(probabilities: Probabilities) -> Scores:
    """Score all the same, so that the tie break decides."""
    return np.zeros(len(probabilities))


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "margin",
            "Closest call",
            "The model wavers between two labels here.",
            "Scheffer, Decomain and Wrobel 2001; breaking ties in Schröder et al. 2022, arXiv 2107.05687",
            margin,
        ),
        Strategy(
            "least_confidence",
            "Least sure",
            "The model is least sure of its best label here.",
            "Lewis and Gale 1994",
            least_confidence,
        ),
        Strategy(
            "entropy",
            "Most spread",
            "The model spreads its probability over many labels here.",
            "Settles 2009, section 3.1",
            entropy,
        ),
        Strategy("random", "At random", "Drawn at random.", "the baseline", at_random),
    )
}


def strategy_named(name: str) -> Strategy:
    """Return a registered strategy. Raises UnknownName."""
    if name not in STRATEGIES:
        raise UnknownName.among("strategy", name, sorted(STRATEGIES))
    return STRATEGIES[name]


def rank(scores: Scores, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return row numbers from the highest score to the lowest, equal scores in random order."""
    return np.lexsort((rng.random(len(scores)), -scores))
