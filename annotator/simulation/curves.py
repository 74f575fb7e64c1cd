"""Compare learning curves of simulated sessions: area under the curve, and answers saved over a baseline.

Curves with the same seed share their pool, test set and oracle errors, so strategies are compared seed by seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from annotator.methods.query_strategies import Scores

DRAWS = 2_000  # bootstrap samples of seeds for an interval


@dataclass(frozen=True)
class Point:
    """The score of a strategy in one session after a number of answers."""

    strategy: str
    seed: int
    labels: int
    score: float


@dataclass(frozen=True)
class Curve:
    """One strategy's scores by number of answers: (m,) labels, (seeds, m) values."""

    strategy: str
    labels: NDArray[np.int64]
    values: NDArray[np.float64]
    seeds: tuple[int, ...]

    @property
    def mean(self) -> Scores:
        """(m,) mean over the seeds."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def areas(self) -> Scores:
        """(seeds,) area under the curve, as the mean score over all numbers of answers."""
        return area(self.labels, self.values)


@dataclass(frozen=True)
class Comparison:
    """A strategy's gain over a baseline, with 95 % intervals over the seeds."""

    strategy: str
    area: float
    area_interval: tuple[float, float]  # of the difference in area
    saved: float  # share of answers saved to reach the baseline's final score; negative where it takes more
    saved_interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        """“better” or “worse” where the interval of the difference in area excludes 0, otherwise “as good”."""
        low, high = self.area_interval
        return "better" if low > 0 else "worse" if high < 0 else "as good"


def curve_of(points: Sequence[Point], strategy: str) -> Curve:
    """Return a strategy's curve over the numbers of answers that every seed has reached."""
    found = {(one.seed, one.labels): one.score for one in points if one.strategy == strategy}
    seeds = tuple(sorted({seed for seed, _ in found}))
    labels = sorted({count for _, count in found if all((seed, count) in found for seed in seeds)})
    values = [[found[seed, count] for count in labels] for seed in seeds]
    return Curve(strategy, np.array(labels), np.array(values).reshape(len(seeds), len(labels)), seeds)


def area(labels: NDArray[np.int64], values: NDArray[np.float64]) -> Scores:
    """Return the mean height of curves (…, m) between the first and the last number of answers."""
    if len(labels) < 2:
        return np.asarray(values.mean(axis=-1))
    return np.asarray(np.trapezoid(values, labels, axis=-1) / (labels[-1] - labels[0]))


def needed(labels: NDArray[np.int64], values: Scores, target: float) -> float:
    """Return the number of answers at which a curve (m,) first reaches a score, by linear interpolation.

    Infinite if it never does.
    """
    above = np.flatnonzero(values >= target)
    if not len(above):
        return float("inf")
    first = int(above[0])
    if first == 0:
        return float(labels[0])
    part = (target - values[first - 1]) / (values[first] - values[first - 1])
    return float(labels[first - 1] + part * (labels[first] - labels[first - 1]))


def saved(labels: NDArray[np.int64], ours: Scores, baseline: Scores) -> float:
    """Return the share of answers that the better of two mean curves saves to reach the other's final score.

    Negative where the baseline is the better one.
    """
    if ours.max() >= baseline[-1]:
        return 1 - needed(labels, ours, float(baseline[-1])) / float(labels[-1])
    return -(1 - needed(labels, baseline, float(ours[-1])) / float(labels[-1]))


def reached(curve: Curve, target: float) -> tuple[float, float, float]:
    """Return the number of answers at which the mean curve reaches a score, with its 95 % interval over the seeds.

    Each is infinite where the curve does not reach the score.
    """
    rng = np.random.default_rng(0)
    draws = rng.integers(len(curve.seeds), size=(DRAWS, len(curve.seeds)))
    found = [needed(curve.labels, curve.values[draw].mean(axis=0), target) for draw in draws]
    low, high = np.quantile(found, (0.025, 0.975), method="inverted_cdf")  # infinity cannot be interpolated
    return needed(curve.labels, curve.mean, target), float(low), float(high)


def compare(ours: Curve, baseline: Curve) -> Comparison:
    """Compare two strategies seed by seed, over the numbers of answers and the seeds that both have."""
    seeds = [seed for seed in ours.seeds if seed in baseline.seeds]
    labels = np.intersect1d(ours.labels, baseline.labels)
    one, other = (_part(curve, seeds, labels) for curve in (ours, baseline))
    gains = area(labels, one) - area(labels, other)
    rng = np.random.default_rng(0)
    draws = rng.integers(len(seeds), size=(DRAWS, len(seeds)))
    savings = [saved(labels, one[draw].mean(axis=0), other[draw].mean(axis=0)) for draw in draws]
    low, high = np.quantile(savings, (0.025, 0.975))
    return Comparison(
        ours.strategy,
        float(gains.mean()),
        mean_interval(gains),
        saved(labels, one.mean(axis=0), other.mean(axis=0)),
        (float(low), float(high)),
    )


def mean_interval(values: Scores) -> tuple[float, float]:
    """Return the 95 % interval of a mean over seeds (Student's t); infinite for a single seed."""
    if len(values) < 2:
        return float("-inf"), float("inf")
    half = float(student.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _part(curve: Curve, seeds: Sequence[int], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    rows = [curve.seeds.index(seed) for seed in seeds]
    return curve.values[rows][:, np.isin(curve.labels, labels)]
