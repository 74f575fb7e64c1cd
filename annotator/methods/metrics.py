"""Evaluate probabilities: accuracy, macro-F1, log-loss and calibration, with their intervals and n.

The input should be the audit sample, which is random. On utterances selected for their uncertainty the same metrics
describe the selection, not the data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from scipy.stats import binom, binomtest
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss, precision_recall_fscore_support

from model.finite import check_finite

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Interval = tuple[float, float]

DRAWS = 1000  # of bootstraps and simulations: gives the ends of a 95 % interval to within a twentieth of its width
LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@dataclass(frozen=True)
class Bin:
    """A bin of the reliability diagram: mean confidence, accuracy, and the 95 % interval of the accuracy."""

    n: int
    confidence: float
    accuracy: float
    low: float
    high: float

    @property
    def band(self) -> tuple[float, float]:
        """The 95 % range of the accuracy of n answers if the confidence were exact."""
        low, high = (float(binom.ppf(tail, self.n, self.confidence)) / self.n for tail in TAILS)
        return low, high


@dataclass(frozen=True)
class LabelMetrics:
    """Metrics of one label, which `n` of the answers have."""

    precision: float
    recall: float
    f1: float
    n: int


@dataclass(frozen=True)
class Uncalibrated:
    """Metrics of a round's probabilities before calibration."""

    nll: float
    brier: float
    ece: float


@dataclass(frozen=True)
class Metrics:
    """Metrics of probabilities on `n` answers.

    `accuracy_interval` is Clopper and Pearson's, `macro_f1_interval` a bootstrap's, and `ece_band` the range that
    exactly correct probabilities would show at this n. Macro-F1 is over the labels that occur. The Brier score is a sum
    over labels, 0 to 2. `aurc` is the area under the risk-coverage curve: the error rate among the most confident
    predictions, averaged over all coverages (Geifman and El-Yaniv 2017, arXiv 1705.08500).

    They are stored under the names of the fields. Rounds of earlier versions lack those that have a default.
    """

    n: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    nll: float
    brier: float
    ece: float
    macro_f1_interval: Interval | None = None
    ece_band: Interval | None = None
    aurc: float | None = None
    each_label: tuple[LabelMetrics, ...] = ()  # in the order of the columns
    reliability: tuple[Bin, ...] = ()
    # Of rounds alone
    raw: Uncalibrated | None = None
    shortlist_limit: float | None = None  # of the prediction sets; None with too few answers

    @staticmethod
    def from_dict(stored: Mapping[str, object]) -> "Metrics | None":
        """Read stored metrics; None if one without a default is missing. Names that are not fields are ignored."""
        needed = {one.name for one in fields(Metrics) if one.default is MISSING}
        return _STORED.validate_python(stored) if needed <= stored.keys() else None


_STORED = TypeAdapter(Metrics)


def evaluate(probabilities: Array, labels: Sequence[int] | Labels) -> Metrics:
    """Evaluate (n, k) probabilities against (n,) true columns. Raises NotFinite."""
    check_finite("probabilities", probabilities)
    truth, columns = np.asarray(labels, dtype=np.int64), list(range(probabilities.shape[1]))
    best = probabilities.argmax(axis=1)
    precision, recall, f1, count = precision_recall_fscore_support(truth, best, labels=columns, zero_division=0)
    return Metrics(
        n=len(truth),
        accuracy=float(accuracy_score(truth, best)),
        accuracy_interval=proportion_interval(int((best == truth).sum()), len(truth)),
        macro_f1=float(f1_score(truth, best, labels=np.unique(truth), average="macro", zero_division=0)),
        macro_f1_interval=macro_f1_interval(truth, best, len(columns)),
        nll=float(log_loss(truth, probabilities, labels=columns)),
        brier=float(brier_score_loss(truth, probabilities, labels=columns, scale_by_half=False)),
        ece=expected_calibration_error(probabilities, truth),
        ece_band=calibration_band(probabilities),
        aurc=float(risk_coverage(probabilities, truth).mean()),
        each_label=tuple(map(LabelMetrics, precision.tolist(), recall.tolist(), f1.tolist(), count.tolist())),
        reliability=tuple(reliability(probabilities, truth)),
    )


def proportion_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a proportion (Clopper and Pearson); (0, 1) if n is 0."""
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(hits, n).proportion_ci(LEVEL, method="exact")
    return float(interval.low), float(interval.high)


def macro_f1_interval(truth: Labels, best: Labels, labels: int) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of macro-F1.

    Resampling n pairs of truth and prediction is the same as drawing the confusion matrix from a multinomial, which
    vectorizes over all draws.
    """
    cells = np.bincount(truth * labels + best, minlength=labels * labels)
    drawn = np.random.default_rng(0).multinomial(len(truth), cells / len(truth), size=DRAWS)
    matrices = drawn.reshape(DRAWS, labels, labels)
    hits, actual, predicted = np.einsum("dii->di", matrices), matrices.sum(axis=2), matrices.sum(axis=1)
    f1 = 2 * hits / np.maximum(actual + predicted, 1)
    means = (f1 * (actual > 0)).sum(axis=1) / (actual > 0).sum(axis=1)
    return _ends(means)


def expected_calibration_error(probabilities: Array, labels: Labels) -> float:
    """Return the expected calibration error over five bins of equal mass, fewer below 100 answers.

    A few bins of equal mass are the least biased choice at these sizes (Roelofs et al. 2022, arXiv 2012.08668).
    """
    return float(_error(probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels)[None])[0])


def calibration_band(probabilities: Array) -> tuple[float, float]:
    """Return the 95 % range of the calibration error of exactly correct probabilities in samples of this size.

    At 100 answers even perfect probabilities have an error of about 0.05, so an error within the range is no
    evidence of miscalibration.
    """
    confidence = probabilities.max(axis=1)
    correct = np.random.default_rng(0).random((DRAWS, len(confidence))) < confidence
    return _ends(_error(confidence, correct))


def _error(confidence: Array, correct: NDArray[np.bool_]) -> Array:
    """Return (draws,) calibration errors from (n,) confidences and (draws, n) hits."""
    gaps = [abs((correct[:, part] - confidence[part]).sum(axis=1)) for part in equal_mass(confidence)]
    return np.asarray(np.sum(gaps, axis=0) / len(confidence))


def equal_mass(confidence: Array) -> list[NDArray[np.int64]]:
    """Split rows by confidence into up to five bins of similar size, with at least 20 rows each where possible."""
    return np.array_split(np.argsort(confidence, kind="stable"), max(1, min(5, len(confidence) // 20)))


def reliability(probabilities: Array, labels: Labels) -> list[Bin]:
    """Return the bins of the reliability diagram, from the lowest confidence to the highest."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return [
        Bin(
            len(part),
            float(confidence[part].mean()),
            float(correct[part].mean()),
            *proportion_interval(int(correct[part].sum()), len(part)),
        )
        for part in equal_mass(confidence)
    ]


def risk_coverage(probabilities: Array, labels: Labels) -> Array:
    """Return (n,) error rates among the 1, 2, …, n most confident predictions; ties share their mean."""
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != labels
    levels, where = np.unique(-confidence, return_inverse=True)
    shared = np.bincount(where, weights=wrong, minlength=len(levels)) / np.bincount(where, minlength=len(levels))
    return np.asarray(np.cumsum(shared[np.sort(where)]) / np.arange(1, len(wrong) + 1))


def _ends(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, TAILS)
    return float(low), float(high)
