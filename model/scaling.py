"""Bias-corrected temperature scaling: how sharp log-probabilities are to be, and how far each label's is to be moved.

Alexandari, Kundaje and Shrikumar 2020 (arXiv 1901.06852), held near what is expected while answers are few. A
temperature alone also flattens what is known of how common labels are; the bias gives it back. Imports no torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

SPREAD = 0.5  # of the log temperature around what is expected before any answer is seen
BIAS_SPREAD = 0.5  # of a label's bias, in nats: a label is seldom over-used by more than a factor of three
Array = NDArray[np.float64]


def fit_scaling(
    logits: Array, labels: NDArray[np.int64], expected: float = 1.0, spread: float = SPREAD
) -> tuple[float, Array]:
    """Choose temperature T and (k,) biases b so that softmax(logits / T + b) explains the (n,) labels best.

    Maximum a posteriori: log-loss plus (log T - log expected)² / (2 · spread²) plus each bias² / (2 · 0.5²).
    """
    rows = np.arange(len(labels))

    def loss(unknown: Array) -> tuple[float, Array]:
        log_ratio, bias = unknown[0] - np.log(expected), unknown[1:]
        scaled = logits / np.exp(unknown[0])
        said = log_softmax(scaled + bias, axis=1)
        excess = np.exp(said)  # of what is said over what was given
        excess[rows, labels] -= 1
        held = log_ratio**2 / (2 * spread**2) + (bias**2).sum() / (2 * BIAS_SPREAD**2)
        slope = np.array(
            [log_ratio / spread**2 - (excess * scaled).sum(), *(excess.sum(axis=0) + bias / BIAS_SPREAD**2)]
        )
        return float(held - said[rows, labels].sum()), slope

    start = np.array([np.log(expected), *np.zeros(logits.shape[1])])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return float(np.exp(found[0])), found[1:]
