"""The heads of the probe: linear maps from one aspect of an utterance's state to a log-probability for each label.

A trained head is a logistic regression on answers, in which the codebook's words for a label are its first example. A
similarity head compares an utterance with those words, and needs no answers. Imports no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from model import constants
from model.finite import check_finite

if TYPE_CHECKING:
    from model.types import Logits, States

ASPECTS = 3  # of a state, equally wide and concatenated: mean of the own tokens, last token, spelling
SPELLING = 2  # index of the last aspect
COMPARABLE = (0, SPELLING)  # aspects in which utterances can be compared with the words for a label
HEADS = ASPECTS + len(COMPARABLE)
SAME = 1e-5  # deviation of a dimension, relative to its size, that is only rounding
NEAR = 1e-3  # standardized distance or deviation that counts as zero
Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrainingExamples:
    """Answered utterances, and the states of the labels."""

    states: States  # (n, width)
    labels: NDArray[np.int64]  # (n,)
    label_states: States  # (k, width): of the codebook's words for each label

    def __post_init__(self) -> None:
        """Raise NotFinite for states that are not finite."""
        check_finite("hidden states", self.states, self.label_states)

    def of(self, rows: NDArray[np.int64]) -> TrainingExamples:
        """Select answers."""
        return replace(self, states=self.states[rows], labels=self.labels[rows])


@dataclass(frozen=True)
class Head:
    """A linear map from one aspect of states to a log-probability for each label."""

    part: slice
    weights: Array  # (width of the aspect, k)
    bias: Array  # (k,)

    def loglik(self, states: States) -> Logits:
        """Return (n, k) log-probabilities; rows sum to one."""
        return np.asarray(log_softmax(states[:, self.part] @ self.weights + self.bias, axis=1))


def aspects(width: int) -> list[slice]:
    """Return the slice of each aspect in a state of this width."""
    each = width // ASPECTS
    return [slice(i * each, (i + 1) * each) for i in range(ASPECTS)]


def semantic_states(states: States) -> States:
    """Return the aspect of (n, width) states in which utterances of similar meaning are close to each other."""
    return states[:, aspects(states.shape[1])[0]]


def make_heads(training_examples: TrainingExamples) -> list[Head]:
    """Fit a trained head to each aspect; return these, followed by the similarity heads."""
    standardized = [_standardize(training_examples, aspect) for aspect in range(ASPECTS)]
    trained = [_trained_head(one, training_examples.labels) for one in standardized]
    return trained + make_similarity_heads(training_examples)


def make_similarity_heads(training_examples: TrainingExamples) -> list[Head]:
    """Return the similarity heads. The answers' labels are not used, only their states, to estimate the scale."""
    return [_similarity_head(_standardize(training_examples, aspect)) for aspect in COMPARABLE]


def combine_heads(heads: Sequence[Head], shares: Array, width: int) -> tuple[Array, Array]:
    """Return (width, k) weights and (k,) bias of the weighted sum of the heads' logits.

    The normalizing constants, equal for all labels, are left out; a softmax restores them.
    """
    weights, bias = np.zeros((width, len(heads[0].bias))), np.zeros(len(heads[0].bias))
    for head, share in zip(heads, shares, strict=True):
        weights[head.part] += share * head.weights
        bias += share * head.bias
    return weights, bias


@dataclass(frozen=True)
class _Standardized:
    """One aspect of utterances and labels, standardized: the root mean square distance from the mean is one."""

    part: slice
    mean: Array
    scale: Array
    utterances: Array  # (n, width of the aspect)
    words: Array  # (k, width of the aspect)

    def head(self, weights: Array, bias: Array) -> Head:
        """Turn weights for standardized vectors into a head for plain states."""
        plain = weights / self.scale[:, None]
        return Head(self.part, plain, bias - self.mean @ plain)


def _standardize(training_examples: TrainingExamples, aspect: int) -> _Standardized:
    """Scale the dimensions of an aspect by their deviation over the utterances.

    Spelling is scaled by the root of the deviation, or of the mean deviation for rare letters: they count more than
    common ones, but not in proportion to their rarity. Label words are centered on their own mean, because they are not
    utterances. A dimension without deviation, as when all utterances are copies of one, is scaled by its size:
    otherwise later differences in it would count without bound.
    """
    part = aspects(training_examples.states.shape[1])[aspect]
    vectors, words = (
        rows[:, part].astype(np.float64) for rows in (training_examples.states, training_examples.label_states)
    )
    deviation, size = vectors.std(axis=0), np.sqrt((vectors**2).mean(axis=0))
    scale = np.maximum(np.where(deviation > SAME * size, deviation, size), 1e-6)
    if aspect == SPELLING:
        scale = np.sqrt(np.maximum(deviation, max(deviation.mean(), NEAR)))
    mean = vectors.mean(axis=0)
    scale = scale * _distance((vectors - mean) / scale)
    centered = (words - words.mean(axis=0)) / scale
    return _Standardized(part, mean, scale, (vectors - mean) / scale, centered / _distance(centered))


def _distance(vectors: Array) -> float:
    """Return the root mean square norm of (n, width) vectors; one if it is near zero."""
    norm = float(np.sqrt((vectors**2).sum(axis=1).mean()))
    return norm if norm > NEAR else 1.0


def _trained_head(aspect: _Standardized, labels: NDArray[np.int64]) -> Head:
    """Fit a logistic regression, which ranks well but is not calibrated."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    features, size = np.concatenate([aspect.utterances, aspect.words]), len(aspect.words)
    with threadpool_limits(1), warnings.catch_warnings():  # with several threads it takes ten times as long
        warnings.filterwarnings("ignore", "The number of unique classes")  # few answers for many labels are normal here
        head = LogisticRegression(C=constants.PENALTY, max_iter=500).fit(
            features, np.concatenate([labels, np.arange(size)])
        )
    if size == 2:  # scikit-learn fits one score for both
        return aspect.head(np.concatenate([-head.coef_, head.coef_]).T / 2, np.array([-0.5, 0.5]) * head.intercept_)
    return aspect.head(head.coef_.T, head.intercept_)


def _similarity_head(aspect: _Standardized) -> Head:
    """Return a head whose logits are projections on label words: cosines times the length of the utterance's vector."""
    directions = aspect.words / np.maximum(np.linalg.norm(aspect.words, axis=1, keepdims=True), 1e-6)
    spread = float((aspect.utterances @ directions.T).std())
    return aspect.head(directions.T / (spread if spread > NEAR else 1.0), np.zeros(len(directions)))
