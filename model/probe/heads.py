"""The voices of the scout: linear maps from one aspect of an utterance's state to a log-probability for each label.

A head is a logistic regression on answers, in which the codebook's words for a label are its first example. A
comparison asks how like those words an utterance is, and needs no answer. Imports no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from model.finite import check_finite

if TYPE_CHECKING:
    from model.types import Logits, States

ASPECTS = 3  # of a state, side by side and equally wide: what the words mean, where they lead, how they are spelt
SPELLING = 2  # the last of them
COMPARED = (0, SPELLING)  # those in which an utterance can be compared with the words for a label
HEADS = ASPECTS + len(COMPARED)
PENALTY = 20.0  # inverse: 10 to 80 are equally good on four data sets at 80 and 160 answers
RARE = 0.02  # deviation of a dimension of spelling below which a few letters would count too much
SAME = 1e-5  # deviation of a dimension, of its size, up to which it is rounding: utterances do not differ in it
NEAR = 1e-3  # a distance or deviation, of what is on one scale, up to which it is none
Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrainingExamples:
    """What there is to learn from: answers, and the codebook."""

    states: States  # (n, width)
    labels: NDArray[np.int64]  # (n,)
    described: States  # (k, width): of the codebook's words for each label

    def __post_init__(self) -> None:
        """Raise NotFinite for states that nothing can be learned from."""
        check_finite("hidden states", self.states, self.described)

    def of(self, rows: NDArray[np.int64]) -> TrainingExamples:
        """Take some of the answers."""
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
    """Say where in a state of this width each aspect is."""
    each = width // ASPECTS
    return [slice(i * each, (i + 1) * each) for i in range(ASPECTS)]


def meanings(states: States) -> States:
    """Return the part of (n, width) states in which utterances of like meaning are near each other."""
    return states[:, aspects(states.shape[1])[0]]


def make_heads(training_examples: TrainingExamples) -> list[Head]:
    """Fit a head to each aspect, and compare where that tells something."""
    return [
        _head(_seen(training_examples, aspect), training_examples.labels) for aspect in range(ASPECTS)
    ] + make_comparisons(training_examples)


def make_comparisons(training_examples: TrainingExamples) -> list[Head]:
    """Compare utterances with the words for each label. Of the answers only the utterances count, for their scale."""
    return [_comparison(_seen(training_examples, aspect)) for aspect in COMPARED]


def combine_heads(heads: Sequence[Head], shares: Array, width: int) -> tuple[Array, Array]:
    """Return (width, k) weights and (k,) bias of a weighted sum of what voices say.

    What each lacks to log-probabilities is the same for all labels, so softmax makes up for it in the end.
    """
    weights, bias = np.zeros((width, len(heads[0].bias))), np.zeros(len(heads[0].bias))
    for head, share in zip(heads, shares, strict=True):
        weights[head.part] += share * head.weights
        bias += share * head.bias
    return weights, bias


@dataclass(frozen=True)
class _Seen:
    """One aspect of utterances and labels, on one scale: a distance of one from the mean on average."""

    part: slice
    mean: Array
    scale: Array
    utterances: Array  # (n, width of the aspect)
    words: Array  # (k, width of the aspect)

    def head(self, weights: Array, bias: Array) -> Head:
        """Turn weights for what is on one scale into a voice for states as they are."""
        plain = weights / self.scale[:, None]
        return Head(self.part, plain, bias - self.mean @ plain)


def _seen(training_examples: TrainingExamples, aspect: int) -> _Seen:
    """Put the dimensions of an aspect on one scale, that of the utterances.

    Of spelling by the root of the deviation: rare letters count more than common ones, but not as much more as they are
    rare. What the words for all labels have in common is taken away: they are no utterances. A dimension in which the
    utterances do not differ, as where all are copies of one, keeps its size: what differs there later would count
    without bound.
    """
    part = aspects(training_examples.states.shape[1])[aspect]
    vectors, words = (
        rows[:, part].astype(np.float64) for rows in (training_examples.states, training_examples.described)
    )
    deviation, size = vectors.std(axis=0), np.sqrt((vectors**2).mean(axis=0))
    scale = np.maximum(np.where(deviation > SAME * size, deviation, size), 1e-6)
    if aspect == SPELLING:
        scale = np.sqrt(np.maximum(deviation, RARE))
    mean = vectors.mean(axis=0)
    scale = scale * _distance((vectors - mean) / scale)
    apart = (words - words.mean(axis=0)) / scale
    return _Seen(part, mean, scale, (vectors - mean) / scale, apart / _distance(apart))


def _distance(vectors: Array) -> float:
    """Return how far (n, width) vectors are from zero, as a root mean square; one where they are all next to it."""
    found = float(np.sqrt((vectors**2).sum(axis=1).mean()))
    return found if found > NEAR else 1.0


def _head(seen: _Seen, labels: NDArray[np.int64]) -> Head:
    """Fit a logistic regression: good at order, too sure or too unsure."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    given, size = np.concatenate([seen.utterances, seen.words]), len(seen.words)
    with threadpool_limits(1), warnings.catch_warnings():  # threads that wait for one another take ten times as long
        warnings.filterwarnings("ignore", "The number of unique classes")  # few answers to many labels are usual here
        head = LogisticRegression(C=PENALTY, max_iter=500).fit(given, np.concatenate([labels, np.arange(size)]))
    if size == 2:  # one score stands for both
        return seen.head(np.concatenate([-head.coef_, head.coef_]).T / 2, np.array([-0.5, 0.5]) * head.intercept_)
    return seen.head(head.coef_.T, head.intercept_)


def _comparison(seen: _Seen) -> Head:
    """Say how like the words for each label an utterance is: a cosine but for the utterance's own length."""
    towards = seen.words / np.maximum(np.linalg.norm(seen.words, axis=1, keepdims=True), 1e-6)
    likeness = seen.utterances @ towards.T
    spread = float(likeness.std())
    return seen.head(towards.T / (spread if spread > NEAR else 1.0), np.zeros(len(towards)))
