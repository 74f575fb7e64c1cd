"""Prediction sets for large codebooks: the fewest labels that include the correct one 95 times in 100."""

from collections.abc import Sequence

import numpy as np

from annotator.methods.metrics import Array, Labels
from model.finite import check_finite

LEVEL = 0.95
LARGE = 9  # labels; up to this number every label has a number key, and no prediction set is needed


def fit_limit(probabilities: Array, truth: Labels, level: float = LEVEL) -> float | None:
    """Return the probability at or above which a label is in the prediction set, for a coverage of `level`.

    Split conformal prediction with least ambiguous sets (Sadinle, Lei and Wasserman 2019, arXiv 1609.00451). Takes the
    (n, k) probabilities and (n,) answers of the audit sample; coverage holds for utterances of the same distribution.
    None if there are too few answers for a set smaller than all labels: below 19 at 95 %.
    """
    count = len(truth)
    rank = int((count + 1) * (1 - level) + 1e-9)
    check_finite("probabilities", probabilities)
    return float(np.sort(probabilities[np.arange(count), truth])[rank - 1]) if rank >= 1 else None


def shortlist(probabilities: Sequence[float] | Array, limit: float) -> list[int]:
    """Return the columns of the prediction set, likeliest first; at least one."""
    row = np.asarray(probabilities)
    order = [int(i) for i in np.argsort(-row, kind="stable")]
    return [i for i in order if not row[i] < limit] or order[:1]  # all of them where a number is undefined
