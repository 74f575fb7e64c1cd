"""The probe, in the app the quick classifier: a linear classifier on hidden states of the untrained backbone.

It combines several heads (see `heads`). They are trained on the same answers as the adapter but make different errors,
so the blend of both is better than either. The weight of each head is fitted to held-out answers, which calibrates the
combination (docs/decisions 0012 and 0016, docs/calibration.md). Alone, the probe is the quick option where fine-tuning
takes too long, and between rounds it reflects the latest answers at once. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from model import constants
from model.finite import check_finite
from model.probe.heads import HEADS, Array, TrainingExamples, combine_heads, make_heads, make_similarity_heads
from model.probe.scaling import fit_pool, fit_temperature

if TYPE_CHECKING:
    from model.types import Logits, States

FOLDS = 5
EVEN_SHARES = np.full(HEADS, 1 / HEADS)  # without enough answers to fit them
PROBE_FILE = "scout.safetensors"
_STORED = {"label_bias": "leaning", "label_states": "described"}  # names in the file, where they differ


@dataclass(frozen=True)
class Probe:
    """A linear map from states to log-probabilities of k labels, with what is needed to refit it."""

    weights: Array  # (width, k)
    bias: Array  # (k,)
    shares: Array  # (heads,): weight of each head
    label_bias: Array  # (k,): added to each label's log-probability, contained in `bias`
    label_states: States  # (k, width): states of the codebook's words for each label; zeros where unknown

    def loglik(self, states: States) -> Logits:
        """Return (n, k) log-probabilities; rows sum to one. Raises NotFinite."""
        logits = np.asarray(log_softmax(states @ self.weights + self.bias, axis=1))
        check_finite("logits of the probe", logits)
        return logits

    def refitted(self, states: States, labels: Sequence[int]) -> Probe:
        """Refit the heads to other answers, keeping the shares, whose fit takes five times as long."""
        return _probe(TrainingExamples(states, np.asarray(labels), self.label_states), self.shares, self.label_bias)

    def for_labels(self, columns: Sequence[int | None]) -> Probe:
        """Return a probe, to be refitted, for another codebook; `columns` maps its labels to these, None if new."""
        new = blank(len(self.weights), len(columns))
        for place, column in enumerate(columns):
            if column is not None:
                new.label_bias[place], new.label_states[place] = self.label_bias[column], self.label_states[column]
        return Probe(new.weights, new.bias, self.shares, new.label_bias, new.label_states)

    def save(self, folder: Path) -> None:
        """Write the probe next to the adapter."""
        from safetensors.numpy import save_file

        arrays = {_STORED.get(name, name): np.ascontiguousarray(array) for name, array in vars(self).items()}
        save_file(arrays, folder / PROBE_FILE)

    @classmethod
    def load(cls, folder: Path) -> Probe | None:
        """Read what `save` wrote; None if there is no file, or one of an earlier version."""
        from safetensors.numpy import load_file

        stored = load_file(folder / PROBE_FILE) if (folder / PROBE_FILE).is_file() else {}
        names = {_STORED.get(field.name, field.name): field.name for field in fields(cls)}
        return cls(**{names[key]: array for key, array in stored.items()}) if stored.keys() == names.keys() else None


def blank(width: int, size: int) -> Probe:
    """Return an untrained probe without label states, for which all labels are equally likely."""
    label_states = np.zeros((size, width), dtype=np.float32)
    return Probe(np.zeros((width, size)), np.zeros(size), EVEN_SHARES, np.zeros(size), label_states)


def fit_probe(states: States, labels: Sequence[int], label_states: States) -> Probe:
    """Fit and calibrate a probe on (n, width) states of answered utterances and (k, width) label states.

    Shares and label biases are fitted to out-of-fold predictions. With fewer than FOLDS answers the shares are
    even.
    """
    training_examples = TrainingExamples(states, np.asarray(labels), label_states)
    if len(labels) < FOLDS:
        return _probe(training_examples, EVEN_SHARES, np.zeros(len(label_states)))
    return _probe(training_examples, *_shares(_out_of_fold(training_examples), training_examples.labels))


def zero_shot_probe(states: States, label_states: States) -> Probe:
    """Return a probe that needs no answers: it measures the similarity of utterances to the codebook's words.

    `states` are those of the pool, (n, width), from which the scale of each dimension is estimated.
    """
    heads = make_similarity_heads(TrainingExamples(states, np.empty(0, dtype=np.int64), label_states))
    combined = combine_heads(heads, np.array(constants.ZERO_SHOT_SHARES), states.shape[1])
    return Probe(*combined, EVEN_SHARES, np.zeros(len(label_states)), label_states)


def out_of_fold(states: States, labels: Sequence[int], label_states: States) -> Logits:
    """Return (n, k) log-probabilities of answered utterances, each by heads trained without its answer.

    They are calibrated overall, so that frequent and rare labels can be compared.
    """
    training_examples = TrainingExamples(states, np.asarray(labels), label_states)
    held_out = _out_of_fold(training_examples)
    shares, label_bias = _shares(held_out, training_examples.labels)
    return np.asarray(log_softmax(np.tensordot(shares, held_out, 1) + label_bias, axis=1))


def blend(logits: Logits, probe_logits: Logits, weight: float) -> Logits:
    """Return the geometric mixture of an adapter's (n, k) log-likelihoods and a probe's, with the adapter's mass.

    Raises NotFinite.
    """
    mass = logsumexp(logits, axis=1, keepdims=True)
    check_finite("logits", mass, probe_logits, weight)  # single labels may be -inf: those a round was not trained on
    return np.asarray(log_softmax((1 - weight) * (logits - mass) + weight * probe_logits, axis=1) + mass)


def _probe(training_examples: TrainingExamples, shares: Array, label_bias: Array) -> Probe:
    weights, bias = combine_heads(make_heads(training_examples), shares, training_examples.states.shape[1])
    return Probe(weights, bias + label_bias, shares, label_bias, training_examples.label_states)


def _shares(held_out: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
    """Fit (heads,) shares and (k,) biases to (heads, n, k) out-of-fold log-probabilities.

    That many parameters overfit few answers, so both are divided by the temperature that fits cross-validated pools.
    """
    cross_fitted = np.empty(held_out.shape[1:])
    for rest, fold in _folds(len(labels)):
        shares, label_bias = fit_pool(held_out[:, rest], labels[rest])
        cross_fitted[fold] = np.tensordot(shares, held_out[:, fold], 1) + label_bias
    temperature = fit_temperature(cross_fitted, labels)
    shares, label_bias = fit_pool(held_out, labels)
    return shares / temperature, label_bias / temperature


def _out_of_fold(training_examples: TrainingExamples) -> Array:
    """Return (heads, n, k) log-probabilities of answered utterances, each by heads trained without its answer."""
    held_out = np.empty((HEADS, len(training_examples.labels), len(training_examples.label_states)))
    for rest, fold in _folds(len(training_examples.labels)):
        for i, head in enumerate(make_heads(training_examples.of(rest))):
            held_out[i, fold] = head.loglik(training_examples.states[fold])
    return held_out


def _folds(size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import KFold

    yield from KFold(min(FOLDS, size), shuffle=True, random_state=0).split(np.empty(size))
