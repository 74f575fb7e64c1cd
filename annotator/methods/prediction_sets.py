"""The short-list of a large codebook: the fewest labels that hold the right one 95 times in 100."""

from collections.abc import Sequence

import numpy as np

from annotator.methods.metrics import Array, Labels
from model.finite import check_finite

LEVEL = 0.95
LARGE = 9  # labels from which on a list is worth having: up to here every label has a number key


def fit_limit(probabilities: Array, truth: Labels, level: float = LEVEL) -> float | None:
    """Return the probability from which a label belongs on the short-list, so that it holds the right one so often.

    Split conformal prediction with the least ambiguous sets (Sadinle, Lei and Wasserman 2019, arXiv 1609.00451):
    over utterances like the audit slice's, 95 lists in 100 hold the right label. (n, k) probabilities and (n,)
    answers of the audit slice; None below 19 answers, too few for any list shorter than all labels.
    """
    count = len(truth)
    rank = int((count + 1) * (1 - level) + 1e-9)
    check_finite("probabilities", probabilities)
    return float(np.sort(probabilities[np.arange(count), truth])[rank - 1]) if rank >= 1 else None


def shortlist(probabilities: Sequence[float] | Array, limit: float) -> list[int]:
    """Return the columns on the short-list, likeliest first; never none."""
    row = np.asarray(probabilities)
    order = [int(i) for i in np.argsort(-row, kind="stable")]
    return [i for i in order if row[i] >= limit] or order[:1]
