"""The scout: a logistic head on what the untrained backbone makes of an utterance. Refitted in a fraction of a second.

It learns from the same answers as the adapter and errs elsewhere, so the two together know more than either (see
docs/decisions/0012). Alone it is the quick way where fine-tuning takes too long, and between two rounds it says at
once what the latest answers change. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from model.scaling import fit_scaling

if TYPE_CHECKING:
    from model.classifier import Logits, States

PENALTY = 20.0  # inverse, per width: 10 to 100 are equally good on four data sets at 80 and 200 labels
FOLDS = 5
SCOUT_FILE = "scout.safetensors"


@dataclass(frozen=True)
class Scout:
    """A linear map from states to a log-probability for each of k labels."""

    weights: NDArray[np.float64]  # (width, k)
    bias: NDArray[np.float64]  # (k,)

    def loglik(self, states: States) -> Logits:
        """Return (n, k) log-probabilities; rows sum to one."""
        pull = states @ self.weights if len(self.weights) else np.zeros((len(states), len(self.bias)))
        return np.asarray(log_softmax(pull + self.bias, axis=1))

    def scaled(self, temperature: float, bias: NDArray[np.float64]) -> Scout:
        """Return it with its log-probabilities divided by a temperature and moved by (k,) biases."""
        return Scout(self.weights / temperature, self.bias / temperature + bias)

    @classmethod
    def untaught(cls, size: int) -> Scout:
        """Find all labels equally likely."""
        return cls(np.zeros((0, size)), np.zeros(size))

    def save(self, folder: Path) -> None:
        """Write it beside the adapter."""
        from safetensors.numpy import save_file

        save_file({"weights": self.weights, "bias": self.bias}, folder / SCOUT_FILE)

    @classmethod
    def load(cls, folder: Path) -> Scout | None:
        """Read what `save` wrote; None where there is none."""
        from safetensors.numpy import load_file

        return cls(**load_file(folder / SCOUT_FILE)) if (folder / SCOUT_FILE).is_file() else None


def fit_scout(states: States, labels: Sequence[int], size: int) -> Scout:
    """Fit a head and make it honest: as sure, and of each label as fond, as answers ask for that it has not seen."""
    head = fit_head(states, labels, size)
    if len(labels) < FOLDS:
        return head
    return head.scaled(*fit_scaling(_out_of_fold(states, labels, size), np.asarray(labels)))


def fit_head(states: States, labels: Sequence[int], size: int) -> Scout:
    """Fit a head for `size` labels to (n, width) states of answered utterances: good at order, too sure or too unsure.

    Labels that nobody has given yet get together the chance that one more answer is one of them.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    vectors, given = states.astype(np.float64), np.asarray(labels)
    mean, width = vectors.mean(axis=0), vectors.shape[1]
    scale = np.maximum(vectors.std(axis=0), 1e-6)
    seen = np.unique(given)
    weights, bias = np.zeros((width, size)), np.full(size, np.nan)
    if len(seen) > 1:
        with threadpool_limits(1):  # so small a problem is ten times slower where threads wait for one another
            head = LogisticRegression(C=PENALTY / width, max_iter=500).fit((vectors - mean) / scale, given)
        two = len(seen) == 2
        coefficients = np.concatenate([-head.coef_, head.coef_]) / 2 if two else head.coef_
        start = np.concatenate([-head.intercept_, head.intercept_]) / 2 if two else head.intercept_
        weights[:, seen] = (coefficients / scale).T
        bias[seen] = start - (coefficients / scale) @ mean
    else:
        bias[seen] = 0.0
    return Scout(weights, bias) if len(seen) == size else _with_unseen(Scout(weights, bias), vectors, given)


def out_of_fold(states: States, labels: Sequence[int], size: int) -> Logits:
    """Return (n, size) log-probabilities of answered utterances, each by a head that has not seen its answer.

    They are made honest on the whole, so that those of frequent and rare labels can be compared.
    """
    said, given = _out_of_fold(states, labels, size), np.asarray(labels)
    temperature, bias = fit_scaling(said, given)
    return np.asarray(log_softmax(said / temperature + bias, axis=1))


def _out_of_fold(states: States, labels: Sequence[int], size: int) -> Logits:
    from sklearn.model_selection import KFold

    given, said = np.asarray(labels), np.empty((len(labels), size))
    for rest, fold in KFold(min(FOLDS, len(given)), shuffle=True, random_state=0).split(states):
        said[fold] = fit_head(states[rest], given[rest].tolist(), size).loglik(states[fold])
    return said


def _with_unseen(scout: Scout, states: NDArray[np.float64], given: NDArray[np.int64]) -> Scout:
    """Give labels without an answer a constant score, so that together they get the chance of something new.

    That chance is the share of answers whose label was given only once (Good 1953, Biometrika 40), at least 1 in n + 1.
    """
    seen, times = np.unique(given, return_counts=True)
    new = min(max(int((times == 1).sum()), 1) / (len(given) + 1), 0.5)
    reached = float(logsumexp(states @ scout.weights[:, seen] + scout.bias[seen], axis=1).mean())
    bias = scout.bias.copy()
    bias[np.isnan(bias)] = reached + np.log(new / (1 - new) / (len(bias) - len(seen)))
    return Scout(scout.weights, bias)


def blend(logits: Logits, heard: Logits, weight: float) -> Logits:
    """Mix an adapter's (n, k) log-likelihoods with a scout's: geometric, the adapter's mass on the labels kept."""
    mass = logsumexp(logits, axis=1, keepdims=True)
    return np.asarray(log_softmax((1 - weight) * (logits - mass) + weight * heard, axis=1) + mass)
