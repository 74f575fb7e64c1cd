"""The scout: what can be said of an utterance at once, by a linear map of what the untrained backbone makes of it.

It has several voices (see `voices`), which learn from the same answers as the adapter and err elsewhere, so the two
together know more than either. How much each voice is worth is fitted to answers that it has not seen, which makes them
honest together (docs/decisions 0012, 0015 and 0016). Alone it is the quick way where fine-tuning takes too long, and
between two rounds it says at once what the latest answers change. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from model.finite import check_finite
from model.probe.heads import ASPECTS, HEADS, Array, TrainingExamples, combine_heads, make_comparisons, make_heads
from model.probe.scaling import fit_pool, fit_temperature

if TYPE_CHECKING:
    from model.types import Logits, States

FOLDS, POOLS = 5, 10  # in which voices are fitted anew, and in which their shares are: that takes next to no time
USUAL = np.full(HEADS, 1 / ASPECTS)  # shares while nothing is known: the heads together as much as an honest one
SPREAD = 1.0  # of the log of a share around that: some voices are worth three times what others are, and some nothing
UNTAUGHT = np.array([1.0, 0.5])  # shares of the comparisons before there is an answer to fit them to
PROBE_FILE = "scout.safetensors"


@dataclass(frozen=True)
class Probe:
    """A linear map from states to a log-probability for each of k labels, and what it keeps when it is fitted anew."""

    weights: Array  # (width, k)
    bias: Array  # (k,)
    shares: Array  # (voices,): how much each counts
    leaning: Array  # (k,): what is added to each label's log-probability
    described: States  # (k, width): what the backbone makes of the codebook's words for each label; zeros: not known

    def loglik(self, states: States) -> Logits:
        """Return (n, k) log-probabilities; rows sum to one. Raises NotFinite."""
        found = np.asarray(log_softmax(states @ self.weights + self.bias, axis=1))
        check_finite("logits of the scout", found)
        return found

    def refitted(self, states: States, labels: Sequence[int]) -> Probe:
        """Fit the voices to other answers, and leave it at what each is worth: to fit that takes five times as long."""
        return _probe(TrainingExamples(states, np.asarray(labels), self.described), self.shares, self.leaning)

    def for_labels(self, columns: Sequence[int | None]) -> Probe:
        """Say where the labels of another codebook are in this one, None if nowhere; to be refitted."""
        kept = blank(len(self.weights), len(columns))
        for place, column in enumerate(columns):
            if column is not None:
                kept.leaning[place], kept.described[place] = self.leaning[column], self.described[column]
        return Probe(kept.weights, kept.bias, self.shares, kept.leaning, kept.described)

    def save(self, folder: Path) -> None:
        """Write it beside the adapter."""
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(array) for name, array in vars(self).items()}, folder / PROBE_FILE)

    @classmethod
    def load(cls, folder: Path) -> Probe | None:
        """Read what `save` wrote; None where there is none, or one that an earlier version has left."""
        from safetensors.numpy import load_file

        stored = load_file(folder / PROBE_FILE) if (folder / PROBE_FILE).is_file() else {}
        return cls(**stored) if stored.keys() == {field.name for field in fields(cls)} else None


def blank(width: int, size: int) -> Probe:
    """Return one that has heard nothing, not even what the codebook says: all labels are equally likely."""
    described = np.zeros((size, width), dtype=np.float32)
    return Probe(np.zeros((width, size)), np.zeros(size), USUAL, np.zeros(size), described)


def fit_probe(states: States, labels: Sequence[int], described: States) -> Probe:
    """Fit a scout to (n, width) states of answered utterances and (k, width) of the labels, and make it honest.

    It is as sure, and of each label as fond, as answers ask for that its heads have not seen. A handful of answers
    cannot tell: then every voice counts the same.
    """
    training_examples = TrainingExamples(states, np.asarray(labels), described)
    if len(labels) < FOLDS:
        return _probe(training_examples, USUAL, np.zeros(len(described)))
    return _probe(training_examples, *_shares(_out_of_fold(training_examples), training_examples.labels))


def compare_only(states: States, described: States) -> Probe:
    """Say what can be said before any answer: how like what the codebook says of each label an utterance is.

    `states` are those of the pool, (n, width): they tell on which scale to compare.
    """
    heads = make_comparisons(TrainingExamples(states, np.empty(0, dtype=np.int64), described))
    return Probe(*combine_heads(heads, UNTAUGHT, states.shape[1]), USUAL, np.zeros(len(described)), described)


def out_of_fold(states: States, labels: Sequence[int], described: States) -> Logits:
    """Return (n, k) log-probabilities of answered utterances, each by heads that have not seen its answer.

    They are made honest on the whole, so that those of frequent and rare labels can be compared.
    """
    training_examples = TrainingExamples(states, np.asarray(labels), described)
    said = _out_of_fold(training_examples)
    shares, leaning = _shares(said, training_examples.labels)
    return np.asarray(log_softmax(np.tensordot(shares, said, 1) + leaning, axis=1))


def blend(logits: Logits, logits_of: Logits, weight: float) -> Logits:
    """Mix an adapter's (n, k) log-likelihoods with a scout's: geometric, the adapter's mass on the labels kept.

    Raises NotFinite.
    """
    mass = logsumexp(logits, axis=1, keepdims=True)
    check_finite("logits", mass, logits_of, weight)  # a label that a round does not know has no mass, and may
    return np.asarray(log_softmax((1 - weight) * (logits - mass) + weight * logits_of, axis=1) + mass)


def _probe(training_examples: TrainingExamples, shares: Array, leaning: Array) -> Probe:
    weights, bias = combine_heads(make_heads(training_examples), shares, training_examples.states.shape[1])
    return Probe(weights, bias + leaning, shares, leaning, training_examples.described)


def _shares(said: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
    """Fit what each voice is worth, and (k,) biases, to (voices, n, k) log-probabilities of answers not seen by them.

    So many numbers fitted to few answers explain these too well, so they are taken for less sure by as much as pools
    need that were fitted without the answers they are judged on.
    """
    held_out = np.empty(said.shape[1:])
    for rest, fold in _folds(POOLS, len(labels)):
        shares, leaning = fit_pool(said[:, rest], labels[rest], USUAL, SPREAD)
        held_out[fold] = np.tensordot(shares, said[:, fold], 1) + leaning
    temperature = fit_temperature(held_out, labels)
    shares, leaning = fit_pool(said, labels, USUAL, SPREAD)
    return shares / temperature, leaning / temperature


def _out_of_fold(training_examples: TrainingExamples) -> Array:
    """Return (voices, n, k) log-probabilities of answered utterances, each by voices that have not seen its answer."""
    said = np.empty((HEADS, len(training_examples.labels), len(training_examples.described)))
    for rest, fold in _folds(FOLDS, len(training_examples.labels)):
        for head, logits_of in enumerate(make_heads(training_examples.of(rest))):
            said[head, fold] = logits_of.loglik(training_examples.states[fold])
    return said


def _folds(count: int, size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import KFold

    yield from KFold(min(count, size), shuffle=True, random_state=0).split(np.empty(size))
