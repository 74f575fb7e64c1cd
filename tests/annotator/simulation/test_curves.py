"""Curves are compared seed by seed, and what a strategy saves is counted in labels."""

from __future__ import annotations

import numpy as np
import pytest

from annotator.simulation.curves import Point, area, compare, curve_of, mean_interval, needed, reached, saved

LABELS = np.array([50, 100, 200])


def runs(strategy, *curves):
    return [
        Point(strategy, seed, int(count), value)
        for seed, curve in enumerate(curves)
        for count, value in zip(LABELS, curve, strict=True)
    ]


def test_the_area_is_the_mean_height():
    assert area(LABELS, np.array([0.5, 0.5, 0.5])) == pytest.approx(0.5)
    assert area(LABELS, np.array([0.0, 0.5, 1.0])) == pytest.approx((0.25 * 50 + 0.75 * 100) / 150)
    assert area(LABELS[:1], np.array([0.3])) == pytest.approx(0.3)


def test_labels_needed_are_read_between_two_counts():
    curve = np.array([0.5, 0.7, 0.9])
    assert needed(LABELS, curve, 0.8) == pytest.approx(150)
    assert needed(LABELS, curve, 0.4) == 50
    assert needed(LABELS, curve, 0.95) == np.inf


def test_what_is_saved_is_counted_against_the_end_of_the_other_curve():
    slow, quick = np.array([0.4, 0.6, 0.8]), np.array([0.6, 0.8, 0.9])
    assert saved(LABELS, quick, slow) == pytest.approx(0.5)
    assert saved(LABELS, slow, quick) == pytest.approx(-0.5)
    assert saved(LABELS, slow, slow) == 0


def test_strategies_are_compared_seed_by_seed():
    hard_and_easy = (0.2, 0.3, 0.4), (0.7, 0.8, 0.9)
    better = [tuple(value + gain for value in curve) for curve, gain in zip(hard_and_easy, (0.05, 0.06), strict=True)]
    all_runs = runs("random", *hard_and_easy) + runs("margin", *better)
    found = compare(curve_of(all_runs, "margin"), curve_of(all_runs, "random"))
    assert found.area == pytest.approx(0.055)
    assert found.verdict == "as good"  # two seeds tell little …
    assert found.area_interval[1] - found.area_interval[0] < 0.15  # … but not nothing, although they lie far apart
    assert found.saved > 0


def test_only_counts_that_every_seed_has_reached_are_in_a_curve():
    short = runs("margin", (0.1, 0.2, 0.3), (0.1, 0.2, 0.3))[:-1]
    assert curve_of(short, "margin").labels.tolist() == [50, 100]


def test_one_seed_tells_nothing_of_the_spread():
    assert mean_interval(np.array([0.3])) == (-np.inf, np.inf)
    low, high = mean_interval(np.array([0.1, 0.2, 0.3]))
    assert low < 0.2 < high


def test_labels_to_reach_a_score_have_an_interval_over_the_seeds():
    curve = curve_of(runs("margin", (0.4, 0.6, 0.8), (0.6, 0.8, 1.0)), "margin")
    labels, low, high = reached(curve, 0.7)
    assert (labels, low, high) == pytest.approx((100, 75, 150))
    assert reached(curve, 0.85)[:2] == pytest.approx((175, 125))
    assert reached(curve, 0.85)[2] == np.inf, "one of the seeds alone never gets there"
    assert reached(curve, 0.95)[0] == np.inf
