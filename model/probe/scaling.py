"""How sharp log-probabilities are to be, how far each label's is to be moved, and how much each of several counts.

Bias-corrected temperature scaling (Alexandari, Kundaje and Shrikumar 2020, arXiv 1901.06852) with a temperature that
depends on how unsure a row is (after Balanya, Maroñas and Ramos 2022, arXiv 2208.00461), and the logarithmic opinion
pool (Genest and Zidek 1986, Statistical Science 1), all held near what is expected while answers are few. A temperature
alone also flattens what is known of how common labels are; the bias gives it back. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import entr, log_softmax, softmax

from model.finite import check_finite

SPREAD = 0.5  # of the log temperature around what is expected before any answer is seen
SLOPE_SPREAD = 0.2  # of the slope around what is expected: what fine-tuned rounds ask for differs by that (0020)
BIAS_SPREAD = 0.5  # of a label's bias, in nats: a label is seldom over-used by more than a factor of three
REACH = (np.log(0.05), np.log(20))  # between which a log temperature is looked for
Array = NDArray[np.float64]


def normalized_entropy(logits: Array) -> Array:
    """Return (n,) how unsure each row is, 0 to 1: its entropy over that of knowing nothing."""
    return np.asarray(entr(softmax(logits, axis=1)).sum(axis=1) / np.log(logits.shape[1]))


def temperature_at(wanted: float, logits: Array) -> float:
    """Return the temperature at which (n, k) rows are unsure by so much on average, or the nearest within reach.

    Raises NotFinite.
    """
    check_finite("logits", wanted, logits)

    def above(log_temperature: float) -> float:
        return float(normalized_entropy(logits / np.exp(log_temperature)).mean()) - wanted

    low, high = REACH
    found = low if above(low) >= 0 else high if above(high) <= 0 else brentq(above, low, high)
    return float(np.exp(found))


def information(logits: Array) -> float:
    """Return how much an answer tells of the log temperature of honest (n, k) logits, on average over the rows.

    Its Fisher information, the variance of a label's log-probability in nats²: where next to nothing goes wrong, an
    answer tells next to nothing. So many answers n leave a standard error of 1 / sqrt(n · telling).
    """
    said = log_softmax(logits, axis=1)
    chances = np.exp(said)
    return float(((chances * said**2).sum(axis=1) - (chances * said).sum(axis=1) ** 2).mean())


@dataclass(frozen=True)
class Scaling:
    """From what is said to what is to be believed: softmax(logits / (temperature · e^(slope · doubts)) + bias)."""

    temperature: float
    slope: float = 0.0  # of a row's log temperature over its doubt
    bias: tuple[float, ...] | None = None  # nats a label

    def __post_init__(self) -> None:
        """Raise NotFinite for numbers that would make any probability of any logit."""
        check_finite("temperature", np.log(np.maximum(self.temperature, 0)), self.slope, self.bias)

    def __call__(self, logits: Array, entropies: Array) -> Array:
        """Scale (n, k) logits of rows with (n,) doubts, these less what is usual."""
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
    """Choose the scaling that explains the (n,) labels best, finite (n, k) logits and (n,) doubts given.

    Maximum a posteriori: log-loss plus (log T - log expected)² / (2 · spread²), the same of the slope with its own
    spread, and bias² / (2 · 0.5²) for each label. Without answers what is expected comes back. Raises NotFinite.
    """
    check_finite("logits", logits, entropies, 1 / np.float64(spread))
    rows, size = np.arange(len(labels)), logits.shape[1] if with_bias else 0
    start = np.array([np.log(expected.temperature), expected.slope, *np.zeros(size)])
    tightness = 1 / np.array([spread, SLOPE_SPREAD, *np.full(size, BIAS_SPREAD)]) ** 2

    def loss(unknown: Array) -> tuple[float, Array]:
        scaled = logits * np.exp(-unknown[0] - unknown[1] * entropies)[:, None]
        said = log_softmax(scaled + unknown[2:] if with_bias else scaled, axis=1)
        excess = np.exp(said)  # of what is said over what was given
        excess[rows, labels] -= 1
        sharper = (excess * scaled).sum(axis=1)
        slope = np.array([-sharper.sum(), -(entropies * sharper).sum(), *excess.sum(axis=0)[:size]])
        away = unknown - start
        return float((tightness * away**2).sum() / 2 - said[rows, labels].sum()), slope + tightness * away

    found = minimize(loss, start, jac=True, method="L-BFGS-B").x.tolist()
    return Scaling(float(np.exp(found[0])), found[1], tuple(found[2:]) if with_bias else None)


def fit_pool(logits: Array, labels: NDArray[np.int64], expected: Array, spread: float = SPREAD) -> tuple[Array, Array]:
    """Choose (v,) shares s and (k,) biases b so that softmax(Σ s logits + b) explains the (n,) labels best.

    `logits` is (v, n, k). Maximum a posteriori: log-loss plus (log s - log expected)² / (2 · spread²) for each share
    plus each bias² / (2 · 0.5²). Raises NotFinite.
    """
    check_finite("logits of the scout", logits, np.log(expected), 1 / np.float64(spread))
    rows, heads = np.arange(len(labels)), len(logits)

    def loss(unknown: Array) -> tuple[float, Array]:
        log_ratio, bias = unknown[:heads] - np.log(expected), unknown[heads:]
        shares = np.exp(unknown[:heads])
        said = log_softmax(np.tensordot(shares, logits, 1) + bias, axis=1)
        excess = np.exp(said)  # of what is said over what was given
        excess[rows, labels] -= 1
        held = (log_ratio**2).sum() / (2 * spread**2) + (bias**2).sum() / (2 * BIAS_SPREAD**2)
        towards = log_ratio / spread**2 + shares * np.tensordot(logits, excess, 2)
        slope = np.concatenate([towards, excess.sum(axis=0) + bias / BIAS_SPREAD**2])
        return float(held - said[rows, labels].sum()), slope

    start = np.concatenate([np.log(expected), np.zeros(logits.shape[2])])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return np.exp(found[:heads]), found[heads:]


def fit_temperature(logits: Array, labels: NDArray[np.int64], expected: float = 1.0, spread: float = SPREAD) -> float:
    """Choose the temperature that explains the labels best, held near the expected one while they are few.

    Maximum a posteriori: negative log-likelihood plus (log T - log expected)² / (2 · spread²). Guo et al. 2017
    (arXiv 1706.04599) for the likelihood. With no labels the expected temperature comes back. Raises NotFinite.
    """
    check_finite("logits", logits, np.log(expected), 1 / np.float64(spread))

    def loss(log_temperature: float) -> float:
        said = log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels]
        return float((log_temperature - np.log(expected)) ** 2 / (2 * spread**2) - said.sum())

    found = minimize_scalar(loss, bounds=REACH, method="bounded")
    return float(np.exp(found.x))
