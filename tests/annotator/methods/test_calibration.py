"""Test calibrators: known temperatures are recovered, and no answer evaluates a calibrator it was used to fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax
from scipy.stats import norm
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from annotator.methods import calibration
from annotator.methods.calibration import (
    CalibrationPrior,
    Calibrator,
    cross_fitted,
    estimate_label_prior,
    fit_calibrator,
)
from annotator.methods.metrics import evaluate, expected_calibration_error
from model import constants
from model.probe.scaling import fit_temperature, normalized_entropy

logits_of_any_size = st.tuples(st.integers(1, 10), st.integers(2, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-40, 0))
)


def overconfident(count: int, temperature: float, labels: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels from calibrated logits; return the logits multiplied by the temperature."""
    rng = np.random.default_rng(seed)
    calibrated = rng.normal(size=(count, labels)) * 1.5
    cumulative = softmax(calibrated, axis=1).cumsum(axis=1)
    truth = (rng.random((count, 1)) > cumulative[:, :-1]).sum(axis=1)
    return calibrated * temperature, truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_a_known_temperature_is_found_again(temperature):
    logits, truth = overconfident(20_000, temperature)
    assert fit_temperature(logits, truth, expected=1.0) == pytest.approx(temperature, rel=0.04)


@pytest.mark.parametrize("expected", [0.5, 1.0, 2.0])
def test_without_labels_the_expected_temperature_comes_back(expected):
    assert fit_temperature(np.empty((0, 3)), np.empty(0, dtype=int), expected) == pytest.approx(expected, rel=1e-4)


def test_few_labels_move_the_temperature_less_than_many():
    logits, truth = overconfident(5_000, 4.0)
    few, some, many = (fit_temperature(logits[:n], truth[:n], spread=0.3) for n in (5, 50, 5_000))
    assert 0.9 < few < some < many
    assert many == pytest.approx(4.0, rel=0.1)


@given(count=st.integers(0, 40), expected=st.floats(0.3, 5), seed=st.integers(0, 50))
def test_the_temperature_lies_between_what_is_expected_and_what_the_labels_say(count, expected, seed):
    logits, truth = overconfident(count, 2.0, seed=seed)
    held = fit_temperature(logits, truth, expected)
    free = fit_temperature(logits, truth, expected, spread=10)
    assert min(expected, free) - 1e-3 <= held <= max(expected, free) + 1e-3


def test_a_flat_prior_gives_the_temperature_of_scikit_learn():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(1200, 5))
    truth = (features @ rng.normal(size=(5, 3)) + rng.gumbel(size=(1200, 3))).argmax(axis=1)
    model = LogisticRegression(C=100).fit(features[:100], truth[:100])
    reference = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(features[100:], truth[100:])
    logits = model.decision_function(features[100:])
    found = Calibrator(fit_temperature(logits, truth[100:], expected=1.0, spread=1e6))
    np.testing.assert_allclose(found(logits), reference.predict_proba(features[100:]), atol=1e-3)


def test_much_data_gives_the_temperature_of_scikit_learn_under_our_prior_too():
    rng = np.random.default_rng(2)
    logits, truth = overconfident(4_000, 3.0)
    noise = rng.normal(size=logits.shape) * 0.1
    model = LogisticRegression().fit(logits + noise, truth)  # any estimator will do: its outputs are what is scaled
    reference = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(logits, truth)
    beta = reference.calibrated_classifiers_[0].calibrators[0].beta_
    found = fit_temperature(model.decision_function(logits), truth, expected=2.0)
    assert found == pytest.approx(1 / float(beta), abs=1e-2)


@given(
    logits=logits_of_any_size,
    temperature=st.floats(0.05, 20),
    shift=st.lists(st.floats(-3, 0), min_size=5, max_size=5),
)
def test_rows_sum_to_one(logits, temperature, shift):
    prior = tuple(shift[: logits.shape[1]])
    for calibrator in (Calibrator(temperature), Calibrator(temperature, prior)):
        rows = calibrator(logits)
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)
        assert (rows >= 0).all()


@given(logits=logits_of_any_size, temperature=st.floats(0.05, 20), slope=st.floats(-2, 2), mean_entropy=st.floats(0, 1))
def test_a_temperature_never_changes_which_label_is_likeliest(logits, temperature, slope, mean_entropy):
    rows = Calibrator(temperature, slope=slope, mean_entropy=mean_entropy)(logits)
    best = logits.argmax(axis=1)
    assert (rows[np.arange(len(rows)), best] >= rows.max(axis=1) - 1e-12).all()


@given(logits=logits_of_any_size, shift=st.floats(-30, 30))
def test_only_differences_between_logits_count(logits, shift):
    np.testing.assert_allclose(Calibrator(2.0)(logits + shift), Calibrator(2.0)(logits), atol=1e-9)


@given(logits=logits_of_any_size)
def test_the_label_prior_is_the_log_of_the_mean_probability(logits):
    prior = np.array(estimate_label_prior(logits))
    np.testing.assert_allclose(np.exp(prior), softmax(logits, axis=1).mean(axis=0), rtol=1e-9)
    assert np.exp(prior).sum() == pytest.approx(1)


@given(logits=logits_of_any_size)
def test_divided_by_the_prior_the_probabilities_of_every_label_are_one_on_average(logits):
    corrected = log_softmax(logits, axis=1) - np.array(estimate_label_prior(logits))
    np.testing.assert_allclose(np.exp(corrected).mean(axis=0), 1, rtol=1e-9)


def test_the_prior_takes_away_a_constant_preference_for_one_label():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(4_000, 3)) * 0.2
    preferring = logits + np.array([3.0, 0.0, 0.0])
    assert (Calibrator(1.0)(preferring).argmax(axis=1) == 0).mean() > 0.99
    shares = np.bincount(Calibrator(1.0, estimate_label_prior(preferring))(preferring).argmax(axis=1)) / 4_000
    np.testing.assert_allclose(shares, 1 / 3, atol=0.1)  # even in mean probability, not in argmax


def test_without_answers_what_is_expected_comes_back():
    nothing, none = np.empty((0, 2)), np.empty(0, dtype=int)
    for prior in (CalibrationPrior(1.7), CalibrationPrior(0.6, label_prior=(-0.7, -0.7))):
        found = fit_calibrator(nothing, none, prior)
        assert (found.temperature, found.spread, found.bias) == (pytest.approx(prior.temperature), 1, (0, 0))


@pytest.mark.parametrize(
    ("answers", "state"), [(0, "not yet"), (29, "not yet"), (30, "rough"), (99, "rough"), (100, "good")]
)
def test_the_state_says_how_many_answers_it_rests_on(answers, state):
    assert Calibrator(1.0, answers=answers).state == state


@pytest.mark.parametrize("prior", [None, (-0.2, -1.7)])
@pytest.mark.parametrize("bias", [None, (0.1, -0.1)])
def test_a_calibrator_is_read_back_as_it_was_stored(prior, bias):
    calibrator = Calibrator(1.7, prior, 31, bias, -0.3, 0.4, 0.1)
    assert Calibrator.from_dict(calibrator.as_dict()) == calibrator
    assert calibrator.as_dict()["state"] == "rough"


def test_a_calibrator_is_stored_under_the_names_of_the_first_version():
    stored = Calibrator(1.7, (-0.7, -0.7), 31, (0.1, -0.1), -0.3, 0.4, 0.1).as_dict()
    assert set(stored) == {"temperature", "prior", "answers", "bias", "slope", "usual", "spread", "state"}
    assert Calibrator.from_dict({"temperature": 2.0, "usual": 0.3}) == Calibrator(2.0, mean_entropy=0.3, spread=0.2)


@pytest.mark.parametrize("more", [{}, {"prior": None, "answers": 5, "state": "not yet"}])
def test_a_calibrator_stored_when_there_was_little_more_than_a_temperature_is_read(more):
    assert Calibrator.from_dict({"temperature": 2.0, **more}) == Calibrator(2.0, answers=more.get("answers", 0))


# How far a temperature may be off


def test_without_answers_a_temperature_is_as_far_off_as_is_expected_and_with_each_it_is_less():
    logits, truth = overconfident(4_000, 1.0)
    none, few, many = (fit_calibrator(logits[:n], truth[:n], CalibrationPrior(1.0, 0.3)).spread for n in (0, 40, 4_000))
    assert none == pytest.approx(0.3)
    assert none > few > many


def test_a_temperature_is_within_its_spread_as_often_as_is_said():
    off = []
    for seed in range(200):
        drawn = np.random.default_rng(seed).normal(
            0.4, 0.3
        )  # log temperatures differ between rounds as the prior assumes
        logits, truth = overconfident(60, float(np.exp(drawn)), seed=seed)
        found = fit_calibrator(logits, truth, CalibrationPrior(float(np.exp(0.4)), 0.3))
        off.append((drawn - np.log(found.temperature)) / found.spread)
    assert np.std(off) == pytest.approx(1, abs=0.15)
    assert np.mean(np.array(off) < norm.ppf(0.95)) == pytest.approx(0.95, abs=0.04)


def test_a_probability_lies_between_what_it_is_at_the_temperatures_that_are_possible():
    logits = np.array([[2.0, 0.0], [-1.0, 0.0]])
    found = Calibrator(1.0, spread=0.2)
    lower, higher = (Calibrator(float(np.exp(z * 0.2)))(logits)[:, 0] for z in norm.ppf([0.975, 0.025]))
    for row, probability in enumerate(found(logits)[:, 0]):
        assert found.within(probability) == pytest.approx(sorted((lower[row], higher[row])))


# A temperature that falls with the normalized entropy


def test_a_trained_round_is_expected_to_be_too_sure_where_it_is_sure_and_too_unsure_where_it_is_not():
    pool, _ = overconfident(300, 1.0)
    said, plain = (
        fit_calibrator(pool[:0], np.empty(0, dtype=int), CalibrationPrior.trained(pool, pool))(pool),
        softmax(pool, 1),
    )
    sure = plain.max(axis=1) > 0.9
    unsure = plain.max(axis=1) < 0.45
    assert sure.any()
    assert unsure.any()
    assert (said.max(axis=1) < plain.max(axis=1))[sure].all()
    assert (said.max(axis=1) > plain.max(axis=1))[unsure].all()


def test_the_mean_entropy_is_that_of_the_pool():
    pool, _ = overconfident(300, 1.0)
    for temperature in (0.5, 3.0):
        calibration_prior = CalibrationPrior.trained(pool / temperature)
        assert calibration_prior.mean_entropy == pytest.approx(normalized_entropy(pool / temperature).mean())
        assert (
            fit_calibrator(pool[:9], np.zeros(9, dtype=int), calibration_prior).mean_entropy
            == calibration_prior.mean_entropy
        )


# The prior of a trained round


def test_a_round_is_expected_to_need_the_temperature_that_makes_it_as_unsure_as_its_probe():
    probe_logits, _ = overconfident(300, 1.0)
    for sharper in (0.5, 1.0, 3.0):
        prior = CalibrationPrior.trained(probe_logits * sharper, probe_logits, 10**9, 0.4)
        assert prior.temperature == pytest.approx(sharper)
        assert prior.spread == pytest.approx(0.4 * constants.ADAPTER_SPREAD, abs=1e-3)
        assert prior.slope == constants.SLOPE


def test_the_more_examples_the_probe_has_and_the_more_errors_the_surer_the_temperature():
    hard, _ = overconfident(300, 1.0)
    none, few, many = (CalibrationPrior.trained(hard, hard, count).spread for count in (0, 20, 200))
    assert none > few > many
    assert CalibrationPrior.trained(hard * 9, hard * 9, 200).spread > 1.3 * many


def test_without_a_probe_hardly_anything_is_expected():
    pool, truth = overconfident(300, 3.0)
    prior = CalibrationPrior.trained(pool)
    assert (prior.temperature, prior.spread) == (1, 1)
    assert fit_calibrator(pool[:60], truth[:60], prior).temperature > 2


# No answer evaluates a temperature that it was used to fit


@pytest.mark.parametrize("count", [2, 3, 7, 40])
def test_a_changed_answer_leaves_its_own_probabilities_as_they_were(count):
    logits, truth = overconfident(count, 3.0)
    before = cross_fitted(logits, truth, CalibrationPrior())
    for changed in range(count):
        others = truth.copy()
        others[changed] = (truth[changed] + 1) % 3
        after = cross_fitted(logits, others, CalibrationPrior())
        np.testing.assert_array_equal(after[changed], before[changed])
    assert not np.array_equal(before, after)


def test_cross_fitted_probabilities_are_close_to_those_of_the_whole():
    logits, truth = overconfident(300, 3.0)
    whole = fit_calibrator(logits, truth, CalibrationPrior())(logits)
    np.testing.assert_allclose(cross_fitted(logits, truth, CalibrationPrior()), whole, atol=0.06)


def test_a_fitted_temperature_lowers_the_calibration_error_of_fresh_data():
    logits, truth = overconfident(2_000, 4.0)
    calibrator = fit_calibrator(logits[:1_000], truth[:1_000], CalibrationPrior())
    raw, calibrated = (
        expected_calibration_error(one(logits[1_000:]), truth[1_000:]) for one in (Calibrator(1.0), calibrator)
    )
    assert calibrated < 0.05 < raw


def test_answers_are_evaluated_in_five_folds_or_one_by_one_if_they_are_fewer(monkeypatch):
    logits, truth = overconfident(20, 3.0)
    first = cross_fitted(logits, truth, CalibrationPrior())
    np.testing.assert_array_equal(cross_fitted(logits, truth, CalibrationPrior()), first)
    fitted_on = []

    def fit(some, labels, prior):
        fitted_on.append(len(labels))
        return fit_calibrator(some, labels, prior)

    monkeypatch.setattr(calibration, "fit_calibrator", fit)
    for count in (20, 3):
        cross_fitted(logits[:count], truth[:count], CalibrationPrior())
    assert fitted_on == [16] * 5 + [2] * 3


# A bias per label


def leaning(count: int, bias: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels from calibrated logits; return the logits with a bias toward some labels."""
    logits, truth = overconfident(count, 1.5, seed=seed)
    return logits - 1.5 * np.array(bias), truth


def test_a_bias_restores_labels_that_the_model_neglects():
    logits, truth = leaning(400, [0.8, 0.0, -0.8])
    calibrator = fit_calibrator(logits, truth, CalibrationPrior())
    assert calibrator.bias[0] > 0.4
    assert calibrator.bias[2] < -0.4
    fresh, labels = leaning(4_000, [0.8, 0.0, -0.8], seed=1)
    plain = Calibrator(fit_temperature(logits, truth))
    assert evaluate(calibrator(fresh), labels).nll < evaluate(plain(fresh), labels).nll - 0.02


def test_few_answers_move_a_bias_little():
    logits, truth = overconfident(20, 1.0)
    few, many = (
        np.abs(fit_calibrator(*data, CalibrationPrior()).bias).max()
        for data in ((logits, truth), overconfident(5_000, 1.0))
    )
    assert few < 0.5
    assert many < 0.1


def test_a_zero_shot_round_has_a_flat_slope_and_its_own_mean_entropy():
    pool, _ = overconfident(300, 1.0)
    calibration_prior = CalibrationPrior.untrained(pool)
    assert calibration_prior.slope == 0
    assert calibration_prior.temperature == 1
    assert calibration_prior.label_prior == estimate_label_prior(pool)
    assert calibration_prior.mean_entropy == pytest.approx(
        normalized_entropy(pool - np.asarray(calibration_prior.label_prior)).mean()
    )
