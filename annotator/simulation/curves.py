"""Learning curves of simulated sessions: what one more label is worth, and what a strategy saves against another.

Curves of one seed share their pool, their test and the oracle's mistakes, so strategies are compared seed by seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from annotator.methods.query_strategies import Scores

DRAWS = 2_000  # of seeds, for an interval


@dataclass(frozen=True)
class Curve:
    """One strategy's scores over the labels given: (m,) labels, (seeds, m) values."""

    strategy: str
    labels: NDArray[np.int64]
    values: NDArray[np.float64]
    seeds: tuple[int, ...]

    @property
    def mean(self) -> Scores:
        """(m,) over the seeds."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def areas(self) -> Scores:
        """(seeds,) area under the curve, as a mean score: what one has on the way, not only at the end."""
        return area(self.labels, self.values)


@dataclass(frozen=True)
class Comparison:
    """What a strategy gains over a baseline, each with its 95 % interval over the seeds."""

    strategy: str
    area: float
    area_interval: tuple[float, float]  # of the difference in area
    saved: float  # share of the labels, to be as good as the baseline is in the end; negative: it takes more
    saved_interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        """Say whether it is “better”, “worse” or “as good”, as far as the seeds tell."""
        low, high = self.area_interval
        return "better" if low > 0 else "worse" if high < 0 else "as good"


def curve_of(runs: Sequence[Mapping[str, Any]], strategy: str, score: str = "accuracy") -> Curve:
    """Collect the runs of a strategy; only label counts that every seed has reached."""
    mine = [run for run in runs if run["strategy"] == strategy]
    seeds = tuple(sorted({run["seed"] for run in mine}))
    found = {(run["seed"], run["labels"]): float(run[score]) for run in mine}
    labels = sorted({run["labels"] for run in mine if all((seed, run["labels"]) in found for seed in seeds)})
    values = [[found[seed, count] for count in labels] for seed in seeds]
    return Curve(strategy, np.array(labels), np.array(values).reshape(len(seeds), len(labels)), seeds)


def area(labels: NDArray[np.int64], values: NDArray[np.float64]) -> Scores:
    """Return the mean height of curves (…, m) between the first and the last count of labels."""
    if len(labels) < 2:
        return np.asarray(values.mean(axis=-1))
    return np.asarray(np.trapezoid(values, labels, axis=-1) / (labels[-1] - labels[0]))


def needed(labels: NDArray[np.int64], values: Scores, target: float) -> float:
    """Return after how many labels a curve (m,) first reaches a score, between two counts in proportion.

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
    """Return the share of labels that the better of two mean curves saves to end up as good as the other.

    Negative where it is the baseline that saves.
    """
    if ours.max() >= baseline[-1]:
        return 1 - needed(labels, ours, float(baseline[-1])) / float(labels[-1])
    return -(1 - needed(labels, baseline, float(ours[-1])) / float(labels[-1]))


def reached(curve: Curve, target: float) -> tuple[float, float, float]:
    """Return after how many labels the mean curve reaches a score, and the 95 % interval over the seeds.

    Each is infinite where the curve does not get there.
    """
    rng = np.random.default_rng(0)
    draws = rng.integers(len(curve.seeds), size=(DRAWS, len(curve.seeds)))
    found = [needed(curve.labels, curve.values[draw].mean(axis=0), target) for draw in draws]
    low, high = np.quantile(found, (0.025, 0.975), method="inverted_cdf")  # between two labels and infinity is nothing
    return needed(curve.labels, curve.mean, target), float(low), float(high)


def compare(ours: Curve, baseline: Curve) -> Comparison:
    """Compare two strategies seed by seed, over the label counts and seeds that both have."""
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
    """Return the 95 % interval of a mean over few seeds (Student's t); of one seed, everything."""
    if len(values) < 2:
        return float("-inf"), float("inf")
    half = float(student.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _part(curve: Curve, seeds: Sequence[int], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    rows = [curve.seeds.index(seed) for seed in seeds]
    return curve.values[rows][:, np.isin(curve.labels, labels)]
