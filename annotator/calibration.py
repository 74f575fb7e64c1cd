"""Probability from logits, and how good it is: temperature, label prior, and the metrics that judge them.

Fit on the audit slice only. The numbers shown are cross-fitted, so that no answer judges a temperature that it
helped to choose. A temperature cannot change which label is likeliest; it makes 0.9 mean nine in ten.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss
from sklearn.model_selection import KFold

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

TRAINED_TEMPERATURE = 1.7  # between what adapters needed on 80 to 100 labels: 1.3 on SNIPS, 1.7 to 2.3 on TREC
ZERO_SHOT_TEMPERATURE = 1.0
SPREAD = 0.5  # of the log temperature around what is expected before any audit answer is seen
ROUGH, GOOD = 30, 100  # audit answers from which the temperature is known within about 0.5 and 0.25


@dataclass(frozen=True)
class Calibrator:
    """The map from logits to probabilities: softmax((logits - prior) / temperature)."""

    temperature: float
    prior: tuple[float, ...] | None = None  # log-probability that zero-shot answers give each label on the whole
    answers: int = 0  # audit answers it was fitted on

    def __call__(self, logits: Array) -> Array:
        """Return (n, k) probabilities; rows sum to one."""
        shifted = log_softmax(logits, axis=1) - (0.0 if self.prior is None else np.asarray(self.prior))
        return np.asarray(softmax(shifted / self.temperature, axis=1))

    @property
    def state(self) -> str:
        """Say how far the probabilities can be trusted: not yet, rough or good."""
        return "not yet" if self.answers < ROUGH else "rough" if self.answers < GOOD else "good"

    def as_dict(self) -> dict[str, Any]:
        """Return what is stored with the round."""
        return {**asdict(self), "state": self.state}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Read back what `as_dict` gave."""
        prior = stored["prior"]
        return cls(stored["temperature"], None if prior is None else tuple(prior), stored["answers"])


def label_prior(logits: Array) -> tuple[float, ...]:
    """Estimate the log-probability a zero-shot model gives each label whatever it reads, as its mean on a pool.

    Subtracting it is batch calibration (Zhou et al. 2024, arXiv 2309.17249). It assumes labels of like
    frequency, so it serves only before there are answers to learn from.
    """
    log_probabilities = log_softmax(logits, axis=1)
    return tuple(float(value) for value in logsumexp(log_probabilities, axis=0) - np.log(len(logits)))


def fit_temperature(logits: Array, labels: Labels, expected: float) -> float:
    """Choose the temperature that explains the labels best, held near the expected one while they are few.

    Maximum a posteriori: negative log-likelihood plus (log T - log expected)² / (2 · 0.5²). Guo et al. 2017
    (arXiv 1706.04599) for the likelihood. With no labels the expected temperature comes back.
    """

    def loss(log_temperature: float) -> float:
        chosen = log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels]
        return float(-chosen.sum() + (log_temperature - np.log(expected)) ** 2 / (2 * SPREAD**2))

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def fit_calibrator(logits: Array, labels: Labels, prior: tuple[float, ...] | None) -> Calibrator:
    """Fit on audit answers: (n, k) logits and (n,) labels. `prior` is given for a zero-shot round only."""
    expected = TRAINED_TEMPERATURE if prior is None else ZERO_SHOT_TEMPERATURE
    corrected = log_softmax(logits, axis=1) - (0.0 if prior is None else np.asarray(prior))
    return Calibrator(fit_temperature(corrected, labels, expected), prior, len(labels))


def cross_fitted(logits: Array, labels: Labels, prior: tuple[float, ...] | None) -> Array:
    """Return (n, k) probabilities of the audit answers, each from a temperature fitted on the other folds."""
    probabilities = np.empty_like(logits)
    folds = KFold(min(5, len(labels)), shuffle=True, random_state=0)
    for others, fold in folds.split(logits):
        probabilities[fold] = fit_calibrator(logits[others], labels[others], prior)(logits[fold])
    return probabilities


def expected_calibration_error(probabilities: Array, labels: Labels) -> float:
    """Compare confidence with accuracy in five bins of equal mass, fewer below 100 answers.

    Few bins of equal mass are the least biased choice at these sizes (Roelofs et al. 2022, arXiv 2012.08668).
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.array_split(np.argsort(confidence, kind="stable"), max(1, min(5, len(labels) // 20)))
    gaps = [len(part) * abs(confidence[part].mean() - right[part].mean()) for part in bins]
    return float(sum(gaps) / len(labels))


def evaluate(probabilities: Array, labels: Sequence[int] | Labels) -> dict[str, Any]:
    """Judge probabilities by known labels: accuracy with its 95 % interval, macro-F1, NLL, Brier, ECE, n.

    The interval is Clopper and Pearson's. Macro-F1 is over the labels that occur. Brier is summed over labels,
    0 to 2.
    """
    truth, count = np.asarray(labels, dtype=np.int64), probabilities.shape[1]
    best = probabilities.argmax(axis=1)
    right = int((best == truth).sum())
    interval = binomtest(right, len(truth)).proportion_ci(0.95, method="exact")
    columns = list(range(count))
    return {
        "n": len(truth),
        "accuracy": float(accuracy_score(truth, best)),
        "accuracy_interval": [float(interval.low), float(interval.high)],
        "macro_f1": float(f1_score(truth, best, labels=np.unique(truth), average="macro", zero_division=0)),
        "nll": float(log_loss(truth, probabilities, labels=columns)),
        "brier": float(brier_score_loss(truth, probabilities, labels=columns, scale_by_half=False)),
        "ece": expected_calibration_error(probabilities, truth),
    }
