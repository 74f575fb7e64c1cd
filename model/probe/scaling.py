"""Fit temperatures, label biases and the weights of an opinion pool to log-probabilities, by maximum a posteriori.

Bias-corrected temperature scaling (Alexandari, Kundaje and Shrikumar 2020, arXiv 1901.06852) is a logarithmic opinion
pool (Genest and Zidek 1986, Statistical Science 1) of one head, whose share is the inverse of the temperature; so both
are fitted by one function. Priors keep all parameters near expected values while answers are few. A temperature alone
also flattens the base rates of the labels; the bias restores them. Imports no torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import entr, log_softmax, softmax

from model import constants
from model.finite import check_finite

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


def fit_pool(
    logits: Array,
    labels: NDArray[np.int64],
    expected: Array | float | None = None,
    spread: float = 1.0,
    bias_spread: float | None = None,
) -> tuple[Array, Array]:
    """Fit (h,) shares s and (k,) biases b of softmax(Σ s logits + b) to (n,) labels.

    `logits` is (h, n, k), one layer for each of h heads. Maximum a posteriori: the log of a share is normal around that
    of the `expected` share, 1 / h if none is given, with standard deviation `spread`; a bias is normal around 0 with
    `bias_spread`, in nats. Without answers the expected shares and no bias are returned. Raises NotFinite.
    """
    heads = len(logits)
    center = np.log(1 / heads if expected is None else expected)
    check_finite("logits", logits, center, 1 / np.float64(spread))
    width = constants.BIAS_SPREAD if bias_spread is None else bias_spread
    rows = np.arange(len(labels))

    def loss(drawn: Array) -> tuple[float, Array]:  # the parameters in standard deviations from their prior means
        shares = np.exp(center + spread * drawn[:heads])
        log_probs = log_softmax(np.tensordot(shares, logits, 1) + width * drawn[heads:], axis=1)
        residuals = np.exp(log_probs)
        residuals[rows, labels] -= 1
        by_share = spread * shares * np.tensordot(logits, residuals, 2)
        gradient = np.concatenate([by_share, width * residuals.sum(axis=0)]) + drawn
        return float((drawn**2).sum() / 2 - log_probs[rows, labels].sum()), gradient

    drawn = minimize(loss, np.zeros(heads + logits.shape[2]), jac=True, method="L-BFGS-B").x
    return np.exp(center + spread * drawn[:heads]), width * drawn[heads:]


def fit_temperature(logits: Array, labels: NDArray[np.int64], expected: float = 1.0, spread: float = 1.0) -> float:
    """Fit a temperature alone, near the expected one while labels are few (Guo et al. 2017, arXiv 1706.04599).

    Raises NotFinite.
    """
    shares, _ = fit_pool(logits[None], labels, 1 / np.float64(expected), spread, bias_spread=0.0)
    return float(1 / shares[0])
