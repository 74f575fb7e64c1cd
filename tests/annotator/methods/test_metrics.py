"""Test metrics against reference implementations, and the coverage of intervals and bands."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from annotator.methods.metrics import (
    LabelMetrics,
    Metrics,
    Uncalibrated,
    calibration_band,
    evaluate,
    expected_calibration_error,
    macro_f1_interval,
    proportion_interval,
    reliability,
    risk_coverage,
)


def calibrated(count: int, seed: int, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels from the very probabilities that are returned."""
    rng = np.random.default_rng(seed)
    rows = softmax(rng.normal(size=(count, labels)) * 1.5, axis=1)
    return rows, (rng.random((count, 1)) > rows.cumsum(axis=1)[:, :-1]).sum(axis=1)


def test_metrics_are_those_computed_by_hand():
    rows = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    truth = [0, 1, 1, 2]
    found = evaluate(rows, truth)
    assert found.n == 4
    assert found.accuracy == 0.75
    exact = binomtest(3, 4).proportion_ci(0.95, method="exact")
    assert found.accuracy_interval == pytest.approx([exact.low, exact.high])
    assert found.accuracy_interval == pytest.approx([0.1941, 0.9937], abs=1e-4)
    # label 0: precision 1/2, recall 1; label 1: precision 1, recall 1/2; label 2: both 1
    assert found.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found.nll == pytest.approx(-np.log([0.8, 0.5, 0.3, 0.7]).mean())
    squares = [0.04 + 0.01 + 0.01, 0.04 + 0.25 + 0.09, 0.36 + 0.49 + 0.01, 0.01 + 0.04 + 0.09]
    assert found.brier == pytest.approx(np.mean(squares))
    # one bin: mean confidence 0.65, accuracy 0.75
    assert found.ece == pytest.approx(0.1)


def test_two_labels_are_measured_on_the_same_scale_as_more():
    found = evaluate(np.array([[0.9, 0.1], [0.4, 0.6]]), [0, 0])
    assert found.brier == pytest.approx((0.02 + 0.72) / 2)
    assert found.nll == pytest.approx(-np.log([0.9, 0.4]).mean())
    assert found.macro_f1 == pytest.approx(2 / 3)  # label 1 does not occur, so it does not count


@given(st.lists(st.integers(0, 2), min_size=1, max_size=120))
def test_certain_and_right_is_perfect(truth):
    found = evaluate(np.eye(3)[truth], truth)
    assert (found.accuracy, found.macro_f1, found.ece) == (1, 1, 0)
    assert found.brier == pytest.approx(0)
    assert found.nll == pytest.approx(0, abs=1e-9)


def test_certain_and_wrong_is_as_bad_as_can_be():
    found = evaluate(np.eye(2)[[0, 0, 1]], [1, 1, 0])
    assert (found.accuracy, found.brier, found.ece) == (0, 2, 1)


def test_calibration_error_is_the_gap_in_bins_of_equal_mass():
    # 40 answers: two bins of 20, the less sure one at 0.5 and always right, the surer at 0.9 and half right
    rows = np.array([[0.5, 0.5]] * 20 + [[0.9, 0.1]] * 20)
    truth = np.array([0] * 20 + [0, 1] * 10)
    assert expected_calibration_error(rows, truth) == pytest.approx((0.5 + 0.4) / 2)


# Intervals and bands


def test_no_answers_leave_every_share_possible():
    assert proportion_interval(0, 0) == (0, 1)


def test_the_band_covers_the_error_of_calibrated_probabilities():
    inside = 0
    for seed in range(300):
        rows, truth = calibrated(60, seed)
        low, high = calibration_band(rows)
        inside += low <= expected_calibration_error(rows, truth) <= high
    assert 0.91 < inside / 300 < 0.985


def test_the_band_does_not_hold_the_error_of_overconfident_probabilities():
    rows, truth = calibrated(300, 0)
    sharp = rows**3 / (rows**3).sum(axis=1, keepdims=True)
    assert expected_calibration_error(sharp, truth) > calibration_band(sharp)[1]


def test_the_band_narrows_with_more_answers():
    assert calibration_band(calibrated(1000, 0)[0])[1] < calibration_band(calibrated(50, 0)[0])[1] / 2


def test_macro_f1_lies_in_its_interval_which_is_the_bootstrap_of_scikit_learn():
    rows, truth = calibrated(150, 1)
    best = rows.argmax(axis=1)
    low, high = macro_f1_interval(truth, best, 3)
    assert low < f1_score(truth, best, average="macro") < high
    rng = np.random.default_rng(5)
    drawn = [rng.integers(0, 150, 150) for _ in range(1000)]
    by_hand = np.quantile([f1_score(truth[i], best[i], average="macro") for i in drawn], [0.025, 0.975])
    np.testing.assert_allclose([low, high], by_hand, atol=0.02)


# Each label, each bin, each coverage


def test_each_label_has_its_precision_recall_and_count():
    rows = np.eye(3)[[0, 0, 1, 1]]
    zero, one, two = evaluate(rows, [0, 1, 1, 1]).each_label
    assert (zero.precision, zero.recall, zero.n) == (0.5, 1, 1)
    assert (one.precision, one.recall, one.n) == (1, pytest.approx(2 / 3), 3)
    assert two == LabelMetrics(precision=0, recall=0, f1=0, n=0)


def test_the_bins_of_the_reliability_diagram_share_out_all_answers():
    rows, truth = calibrated(110, 2)
    bins = reliability(rows, truth)
    assert [one.n for one in bins] == [22] * 5
    assert sorted(one.confidence for one in bins) == [one.confidence for one in bins]
    hits = (rows.argmax(axis=1) == truth).sum()
    assert sum(one.n * one.accuracy for one in bins) == pytest.approx(hits)
    assert all(one.low <= one.accuracy <= one.high for one in bins)
    gap = sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / 110
    assert gap == pytest.approx(expected_calibration_error(rows, truth))


def test_risk_is_the_error_rate_among_the_surest():
    rows = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.7, 0.3]])
    np.testing.assert_allclose(risk_coverage(rows, np.array([0, 0, 1, 0])), [0, 1 / 2, 1 / 3, 1 / 4])


def test_equally_sure_utterances_share_their_risk_whatever_their_order():
    rows = np.array([[0.9, 0.1]] * 2 + [[0.6, 0.4]])
    for truth in ([0, 1, 0], [1, 0, 0]):
        np.testing.assert_allclose(risk_coverage(rows, np.array(truth)), [0.5, 0.5, 1 / 3])


def of_a_round() -> Metrics:
    raw = Uncalibrated(nll=0.5, brier=0.3, ece=0.1)
    return replace(evaluate(*calibrated(60, 3)), raw=raw, shortlist_limit=0.2)


def test_metrics_are_read_back_as_they_were_stored():
    stored = json.dumps(asdict(of_a_round()), allow_nan=False)
    assert Metrics.from_dict(json.loads(stored)) == of_a_round()


def test_metrics_are_stored_under_the_names_that_earlier_versions_read():
    assert asdict(of_a_round()).keys() == {
        *("n", "accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval", "nll", "brier", "ece", "ece_band"),
        *("aurc", "each_label", "reliability", "raw", "shortlist_limit"),
    }


FIRST = {"n": 9, "accuracy": 1, "accuracy_interval": [0.7, 1], "macro_f1": 1, "nll": 0.1, "brier": 0.1, "ece": 0.1}


def test_metrics_of_the_first_version_are_read_and_what_it_did_not_measure_is_none():
    found = Metrics.from_dict(FIRST)
    assert (found.n, found.accuracy_interval, found.ece) == (9, (0.7, 1.0), 0.1)
    assert (found.ece_band, found.macro_f1_interval, found.raw, found.shortlist_limit) == (None, None, None, None)
    assert (found.each_label, found.reliability) == ((), ())


def test_what_a_later_version_stores_besides_is_ignored():
    assert Metrics.from_dict({**FIRST, "kappa": 0.5}) == Metrics.from_dict(FIRST)


@pytest.mark.parametrize("stored", [{}, {"n": 1}, {"accuracy": 0.5}])
def test_metrics_that_are_not_whole_count_as_not_measured(stored):
    assert Metrics.from_dict(stored) is None
