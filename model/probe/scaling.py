"""Fit temperatures, label biases and the weights of an opinion pool to log-probabilities, by maximum a posteriori.

Bias-corrected temperature scaling (Alexandari, Kundaje and Shrikumar 2020, arXiv 1901.06852) with a temperature that
depends on the entropy of a row (after Balanya, Maroñas and Ramos 2022, arXiv 2208.00461), and the logarithmic opinion
pool (Genest and Zidek 1986, Statistical Science 1). Priors keep all parameters near expected values while answers are
few. A temperature alone also flattens the base rates of the labels; the bias restores them. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import entr, log_softmax, softmax

from model.finite import check_finite

SPREAD = 0.5  # prior deviation of the log temperature
SLOPE_SPREAD = 0.2  # prior deviation of the slope, as observed over fine-tuned rounds (docs/calibration.md)
BIAS_SPREAD = 0.5  # prior deviation of a label's bias, in nats: overuse by a factor above three is rare
REACH = (np.log(0.05), np.log(20))  # bounds of the log temperature
Array = NDArray[np.float64]


def normalized_entropy(logits: Array) -> Array:
    """Return the (n,) entropy of each row over that of the uniform distribution, 0 to 1."""
    return np.asarray(entr(softmax(logits, axis=1)).sum(axis=1) / np.log(logits.shape[1]))


def temperature_at(entropy: float, logits: Array) -> float:
    """Return the temperature at which (n, k) logits have this mean normalized entropy, or the nearest bound.

    Raises NotFinite.
    """
    check_finite("logits", entropy, logits)

    def above(log_temperature: float) -> float:
        return float(normalized_entropy(logits / np.exp(log_temperature)).mean()) - entropy

    low, high = REACH
    log_temperature = low if above(low) >= 0 else high if above(high) <= 0 else brentq(above, low, high)
    return float(np.exp(log_temperature))


def information(logits: Array) -> float:
    """Return the Fisher information of one answer about the log temperature of calibrated (n, k) logits, in nats².

    It is the variance of a label's log-probability, averaged over the rows; with hardly any errors it is close to
    zero. With n answers the standard error is 1 / sqrt(n · information).
    """
    log_probs = log_softmax(logits, axis=1)
    probs = np.exp(log_probs)
    return float(((probs * log_probs**2).sum(axis=1) - (probs * log_probs).sum(axis=1) ** 2).mean())


@dataclass(frozen=True)
class Scaling:
    """A calibration map: softmax(logits / (temperature · e^(slope · entropies)) + bias)."""

    temperature: float
    slope: float = 0.0  # of a row's log temperature over its centered entropy
    bias: tuple[float, ...] | None = None  # nats, for each label

    def __post_init__(self) -> None:
        """Raise NotFinite for parameters that are not finite."""
        check_finite("temperature", np.log(np.maximum(self.temperature, 0)), self.slope, self.bias)

    def __call__(self, logits: Array, entropies: Array) -> Array:
        """Scale (n, k) logits; `entropies` are the (n,) normalized entropies of the rows, centered."""
        scaled = logits * np.exp(-self.slope * entropies)[:, None] / self.temperature
        return scaled if self.bias is None else scaled + np.asarray(self.bias)


def fit_scaling(
    logits: Array,
    labels: NDArray[np.int64],
    entropies: Array,
    expected: Scaling,
    spread: float = SPREAD,
    with_bias: bool = False,
) -> Scaling:
    """Fit a scaling to (n,) labels, (n, k) logits and (n,) centered normalized entropies.

    Maximum a posteriori: log-loss plus (log T - log expected)² / (2 · spread²), the same for the slope with its own
    spread, and bias² / (2 · 0.5²) for each label. Without answers `expected` is returned. Raises NotFinite.
    """
    check_finite("logits", logits, entropies, 1 / np.float64(spread))
    rows, size = np.arange(len(labels)), logits.shape[1] if with_bias else 0
    start = np.array([np.log(expected.temperature), expected.slope, *np.zeros(size)])
    precision = 1 / np.array([spread, SLOPE_SPREAD, *np.full(size, BIAS_SPREAD)]) ** 2

    def loss(parameters: Array) -> tuple[float, Array]:
        scaled = logits * np.exp(-parameters[0] - parameters[1] * entropies)[:, None]
        log_probs = log_softmax(scaled + parameters[2:] if with_bias else scaled, axis=1)
        residuals = np.exp(log_probs)
        residuals[rows, labels] -= 1
        by_row = (residuals * scaled).sum(axis=1)
        gradient = np.array([-by_row.sum(), -(entropies * by_row).sum(), *residuals.sum(axis=0)[:size]])
        shift = parameters - start
        return float((precision * shift**2).sum() / 2 - log_probs[rows, labels].sum()), gradient + precision * shift

    fitted = minimize(loss, start, jac=True, method="L-BFGS-B").x.tolist()
    return Scaling(float(np.exp(fitted[0])), fitted[1], tuple(fitted[2:]) if with_bias else None)


def fit_pool(logits: Array, labels: NDArray[np.int64], expected: Array, spread: float = SPREAD) -> tuple[Array, Array]:
    """Fit (h,) shares s and (k,) biases b of softmax(Σ s logits + b) to (n,) labels.

    `logits` is (h, n, k), one layer for each of h heads. Maximum a posteriori: log-loss plus
    (log s - log expected)² / (2 · spread²) for each share plus each bias² / (2 · 0.5²). Raises NotFinite.
    """
    check_finite("logits of the probe", logits, np.log(expected), 1 / np.float64(spread))
    rows, heads = np.arange(len(labels)), len(logits)

    def loss(parameters: Array) -> tuple[float, Array]:
        log_ratio, bias = parameters[:heads] - np.log(expected), parameters[heads:]
        shares = np.exp(parameters[:heads])
        log_probs = log_softmax(np.tensordot(shares, logits, 1) + bias, axis=1)
        residuals = np.exp(log_probs)
        residuals[rows, labels] -= 1
        penalty = (log_ratio**2).sum() / (2 * spread**2) + (bias**2).sum() / (2 * BIAS_SPREAD**2)
        by_share = log_ratio / spread**2 + shares * np.tensordot(logits, residuals, 2)
        gradient = np.concatenate([by_share, residuals.sum(axis=0) + bias / BIAS_SPREAD**2])
        return float(penalty - log_probs[rows, labels].sum()), gradient

    start = np.concatenate([np.log(expected), np.zeros(logits.shape[2])])
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return np.exp(fitted[:heads]), fitted[heads:]


def fit_temperature(logits: Array, labels: NDArray[np.int64], expected: float = 1.0, spread: float = SPREAD) -> float:
    """Fit a temperature to the labels, near the expected one while they are few.

    Maximum a posteriori: negative log-likelihood plus (log T - log expected)² / (2 · spread²). Guo et al. 2017
    (arXiv 1706.04599) for the likelihood. Without labels `expected` is returned. Raises NotFinite.
    """
    check_finite("logits", logits, np.log(expected), 1 / np.float64(spread))

    def loss(log_temperature: float) -> float:
        log_probs = log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels]
        return float((log_temperature - np.log(expected)) ** 2 / (2 * spread**2) - log_probs.sum())

    return float(np.exp(minimize_scalar(loss, bounds=REACH, method="bounded").x))
