"""Probability from logits: temperature, label prior of a zero-shot round, and a bias per label where it pays.

Fit on the audit slice only. The numbers shown are cross-fitted, so that no answer judges a calibrator that it
helped to choose. A temperature cannot change which label is likeliest; it makes 0.9 mean nine in ten.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.model_selection import KFold

from annotator.metrics import Array, Labels

TRAINED_TEMPERATURE = 1.7  # between what adapters needed on 80 to 100 labels: 1.3 on SNIPS, 1.7 to 2.3 on TREC
ZERO_SHOT_TEMPERATURE = 1.0
SPREAD = 0.5  # of the log temperature around what is expected before any audit answer is seen
BIAS_SPREAD = 0.5  # of a label's bias, in nats: a label is seldom over-used by more than a factor of three
ROUGH, GOOD = 30, 100  # audit answers from which the temperature is known within about 0.5 and 0.25
BIAS_ANSWERS, BIAS_EACH = 300, 10  # audit answers, and of each label, below which a bias would fit noise


@dataclass(frozen=True)
class Calibrator:
    """The map from logits to probabilities: softmax((logits - prior) / temperature + bias)."""

    temperature: float
    prior: tuple[float, ...] | None = None  # log-probability that zero-shot answers give each label on the whole
    answers: int = 0  # audit answers it was fitted on
    bias: tuple[float, ...] | None = None  # nats a label

    def __call__(self, logits: Array) -> Array:
        """Return (n, k) probabilities; rows sum to one."""
        scaled = without_prior(logits, self.prior) / self.temperature
        return np.asarray(softmax(scaled if self.bias is None else scaled + np.asarray(self.bias), axis=1))

    @property
    def state(self) -> str:
        """Say how far the probabilities can be trusted: not yet, rough or good."""
        return "not yet" if self.answers < ROUGH else "rough" if self.answers < GOOD else "good"

    def as_dict(self) -> dict[str, Any]:
        """Return what is stored with the round."""
        return {**asdict(self), "state": self.state}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Read back what `as_dict` gave, now or before there was a bias."""
        prior, bias = (None if stored.get(name) is None else tuple(stored[name]) for name in ("prior", "bias"))
        return cls(stored["temperature"], prior, stored["answers"], bias)


@dataclass(frozen=True)
class Outset:
    """What is known of a round's calibrator before an audit answer is looked at."""

    expected: float = TRAINED_TEMPERATURE  # the last round's temperature, where it was trained
    prior: tuple[float, ...] | None = None  # for a zero-shot round only
    with_bias: bool = False


def label_prior(logits: Array) -> tuple[float, ...]:
    """Estimate the log-probability a zero-shot model gives each label whatever it reads, as its mean on a pool.

    Subtracting it is batch calibration (Zhou et al. 2024, arXiv 2309.17249). It assumes labels of like
    frequency, so it serves only before there are answers to learn from.
    """
    log_probabilities = log_softmax(logits, axis=1)
    return tuple(float(value) for value in logsumexp(log_probabilities, axis=0) - np.log(len(logits)))


def without_prior(logits: Array, prior: tuple[float, ...] | None) -> Array:
    """Return log-probabilities over the labels, less what the model gives each label whatever it reads."""
    return np.asarray(log_softmax(logits, axis=1) - (0.0 if prior is None else np.asarray(prior)))


def fit_temperature(logits: Array, labels: Labels, expected: float) -> float:
    """Choose the temperature that explains the labels best, held near the expected one while they are few.

    Maximum a posteriori: negative log-likelihood plus (log T - log expected)² / (2 · 0.5²). Guo et al. 2017
    (arXiv 1706.04599) for the likelihood. With no labels the expected temperature comes back.
    """

    def loss(log_temperature: float) -> float:
        return _loss(logits / np.exp(log_temperature), labels) + _held(log_temperature, expected)

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def fit_bias(logits: Array, labels: Labels, expected: float) -> tuple[float, tuple[float, ...]]:
    """Choose temperature and a bias per label together, each bias held near none: vector scaling's middle ground.

    The penalty is bias² / (2 · 0.5²) each. Returns the temperature and (k,) biases, in nats.
    """

    def loss(unknown: Array) -> float:
        bias = unknown[1:]
        held = _held(unknown[0], expected) + float((bias**2).sum()) / (2 * BIAS_SPREAD**2)
        return _loss(logits / np.exp(unknown[0]) + bias, labels) + held

    found = minimize(loss, np.array([np.log(expected), *np.zeros(logits.shape[1])]), method="L-BFGS-B")
    return float(np.exp(found.x[0])), tuple(float(value) for value in found.x[1:])


def _loss(scaled: Array, labels: Labels) -> float:
    return float(-log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].sum())


def _held(log_temperature: float, expected: float) -> float:
    return float((log_temperature - np.log(expected)) ** 2 / (2 * SPREAD**2))


def fit_calibrator(logits: Array, labels: Labels, outset: Outset) -> Calibrator:
    """Fit on audit answers: (n, k) logits and (n,) labels."""
    corrected = without_prior(logits, outset.prior)
    if not outset.with_bias:
        return Calibrator(fit_temperature(corrected, labels, outset.expected), outset.prior, len(labels))
    temperature, bias = fit_bias(corrected, labels, outset.expected)
    return Calibrator(temperature, outset.prior, len(labels), bias)


def cross_fitted(logits: Array, labels: Labels, outset: Outset) -> Array:
    """Return (n, k) probabilities of the audit answers, each from a calibrator fitted on the other folds."""
    probabilities = np.empty_like(logits)
    folds = KFold(min(5, len(labels)), shuffle=True, random_state=0)
    for others, fold in folds.split(logits):
        probabilities[fold] = fit_calibrator(logits[others], labels[others], outset)(logits[fold])
    return probabilities


def choose_outset(logits: Array, labels: Labels, outset: Outset) -> Outset:
    """Say whether a bias per label is worth it: with answers enough, and if it lowers the cross-fitted log-loss.

    By more than the standard error of the difference: a bias that does not clearly help is one more way to be wrong.
    """
    each = np.bincount(labels, minlength=logits.shape[1])
    if outset.prior is not None or len(labels) < BIAS_ANSWERS or each.min() < BIAS_EACH:
        return outset
    biased = replace(outset, with_bias=True)
    rows = np.arange(len(labels))
    losses = [-np.log(cross_fitted(logits, labels, one)[rows, labels]) for one in (outset, biased)]
    gain = losses[0] - losses[1]
    return biased if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)) else outset
