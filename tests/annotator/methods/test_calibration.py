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

from annotator.errors import NotFinite
from annotator.methods import calibration
from annotator.methods.calibration import (
    ADAPTER_OFFSET,
    SELECTION_SPREAD,
    TRAINED_TEMPERATURE,
    CalibrationPrior,
    Calibrator,
    ProbeEvidence,
    choose_prior,
    cross_fitted,
    estimate_label_prior,
    fit_calibrator,
)
from annotator.methods.metrics import evaluate, expected_calibration_error
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
    few, some, many = (fit_temperature(logits[:n], truth[:n], expected=1.0) for n in (5, 50, 5_000))
    assert 0.9 < few < some < many
    assert many == pytest.approx(4.0, rel=0.1)


@given(count=st.integers(0, 40), expected=st.floats(0.3, 5), seed=st.integers(0, 50))
def test_the_temperature_lies_between_what_is_expected_and_what_the_labels_say(count, expected, seed):
    logits, truth = overconfident(count, 2.0, seed=seed)
    held = fit_temperature(logits, truth, expected)
    free = fit_temperature(logits, truth, expected, spread=1e4)
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
    assert fit_calibrator(nothing, none, CalibrationPrior()).temperature == pytest.approx(TRAINED_TEMPERATURE, rel=1e-4)
    assert fit_calibrator(nothing, none, CalibrationPrior(0.6, label_prior=(-0.7, -0.7))).temperature == pytest.approx(
        0.6, rel=1e-4
    )


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
        fit_calibrator(pool[:0], np.empty(0, dtype=int), CalibrationPrior.trained(1.0, pool))(pool),
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
        calibration_prior = CalibrationPrior.trained(1.0, pool / temperature)
        assert calibration_prior.mean_entropy == pytest.approx(normalized_entropy(pool / temperature).mean())
        assert (
            fit_calibrator(pool[:9], np.zeros(9, dtype=int), calibration_prior).mean_entropy
            == calibration_prior.mean_entropy
        )


def test_a_slope_is_learned_from_audit_answers():
    rng = np.random.default_rng(0)
    said = rng.normal(size=(6_000, 4)) * rng.uniform(0.3, 4, size=(6_000, 1))
    calibrated = Calibrator(1.0, slope=-1.0, mean_entropy=0.5)(said)
    truth = (rng.random((6_000, 1)) > calibrated.cumsum(axis=1)[:, :-1]).sum(axis=1)
    calibration_prior = CalibrationPrior.trained(1.0, said)
    few, many = (fit_calibrator(said[:n], truth[:n], calibration_prior) for n in (20, 4_000))
    assert many.slope < few.slope < 0
    assert many.slope == pytest.approx(-1.0, abs=0.15)
    fresh = slice(4_000, None)
    losses = [evaluate(one(said[fresh]), truth[fresh]).nll for one in (Calibrator(many.temperature), many)]
    assert losses[1] < losses[0]


# The prior of a trained round


def test_a_round_more_confident_than_its_probe_gets_a_higher_temperature():
    probe_logits, _ = overconfident(300, 1.0)
    calm, loud = (
        CalibrationPrior.trained(0.6, probe_logits * sharper, ProbeEvidence(probe_logits, 2_000))
        for sharper in (1.5, 3.0)
    )
    assert calm.temperature < loud.temperature
    assert loud.temperature == pytest.approx(3.0 * np.exp(-0.4 * ADAPTER_OFFSET), rel=0.02)


def test_a_probe_alone_needs_no_temperature():
    pool, _ = overconfident(300, 1.0)
    for training_examples in (0, 5, 5_000):
        assert CalibrationPrior.trained(1.0, pool, ProbeEvidence(pool, training_examples)).temperature == pytest.approx(
            1
        )


def test_the_weight_of_the_probe_grows_with_its_training_examples():
    probe_logits, _ = overconfident(300, 1.0)
    nothing, few, many = (
        CalibrationPrior.trained(0.6, probe_logits * 4, ProbeEvidence(probe_logits, training_examples))
        for training_examples in (0, 20, 2_000)
    )
    alone = CalibrationPrior.trained(0.6, probe_logits * 4)
    assert nothing == alone
    assert alone.temperature == pytest.approx(TRAINED_TEMPERATURE**0.4)
    assert nothing.temperature < few.temperature < many.temperature
    assert nothing.spread > few.spread > many.spread


def test_a_probe_with_few_errors_is_less_informative():
    probe_logits, _ = overconfident(300, 1.0)
    hard, easy = (
        CalibrationPrior.trained(0.6, said * 2, ProbeEvidence(said, 100)) for said in (probe_logits, probe_logits * 9)
    )
    assert easy.spread > 1.3 * hard.spread


def test_selected_answers_have_a_bounded_precision():
    said, _ = overconfident(300, 1.0)
    drawn, some, chosen = (ProbeEvidence(said, 100, share).precision for share in (0.0, 0.5, 1.0))
    assert drawn > some > chosen
    assert ProbeEvidence(said, 10**9, 1.0).precision == pytest.approx(SELECTION_SPREAD**-2)
    assert ProbeEvidence(said, 0, 1.0).precision == 0


def test_training_examples_are_half_as_informative_as_fresh_answers():
    said, truth = overconfident(300, 1.0)
    fresh = fit_calibrator(said, truth, CalibrationPrior(1.0, 1e3)).spread ** -2
    assert ProbeEvidence(said, 300).precision == pytest.approx(fresh / 2, rel=0.1)


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


def test_a_bias_is_taken_where_the_model_leans_and_answers_are_enough():
    logits, truth = leaning(400, [0.8, 0.0, -0.8])
    assert choose_prior(logits, truth, CalibrationPrior()).with_bias
    calibrator = fit_calibrator(logits, truth, CalibrationPrior(with_bias=True))
    fresh, labels = leaning(4_000, [0.8, 0.0, -0.8], seed=1)
    plain = fit_calibrator(logits, truth, CalibrationPrior())
    assert evaluate(calibrator(fresh), labels).nll < evaluate(plain(fresh), labels).nll - 0.02


def test_no_bias_is_taken_where_it_would_fit_noise():
    logits, truth = overconfident(400, 2.0)
    assert not choose_prior(logits, truth, CalibrationPrior()).with_bias


@pytest.mark.parametrize(("count", "rare"), [(299, False), (400, True)])
def test_no_bias_is_taken_with_too_few_answers_in_all_or_of_one_label(count, rare):
    logits, truth = leaning(600, [1.5, 0.0, -1.5])
    if rare:
        logits, truth = (part[np.argsort(truth == 2, kind="stable")] for part in (logits, truth))
        count = int((truth < 2).sum()) + calibration.BIAS_EACH - 1
    logits, truth = logits[:count], truth[:count]
    assert not choose_prior(logits, truth, CalibrationPrior()).with_bias


def test_exactly_300_answers_and_10_of_a_label_are_enough_for_a_bias():
    logits, truth = leaning(900, [1.5, 0.0, -1.5])
    rows = np.concatenate([np.flatnonzero(truth == 2)[:10], np.flatnonzero(truth != 2)[:290]])
    assert choose_prior(logits[rows], truth[rows], CalibrationPrior()).with_bias
    assert not choose_prior(logits[rows[1:]], truth[rows[1:]], CalibrationPrior()).with_bias


def test_an_answer_that_was_impossible_is_refused_when_losses_are_compared():
    logits, truth = leaning(400, [0.8, 0.0, -0.8])
    logits[7, truth[7]] = -1e7
    with pytest.raises(NotFinite, match="log-loss"), np.errstate(divide="ignore", invalid="ignore"):
        choose_prior(logits, truth, CalibrationPrior())


def test_no_bias_is_taken_while_a_label_has_no_answer():
    logits, truth = leaning(900, [1.5, 0.0, -1.5])
    assert choose_prior(logits[truth < 2, :2], truth[truth < 2], CalibrationPrior()).with_bias
    assert not choose_prior(logits[truth < 2], truth[truth < 2], CalibrationPrior()).with_bias


def test_a_zero_shot_round_has_a_flat_slope_and_its_own_mean_entropy():
    pool, _ = overconfident(300, 1.0)
    calibration_prior = CalibrationPrior.untrained(pool)
    assert calibration_prior.slope == 0
    assert calibration_prior.temperature == 1
    assert calibration_prior.label_prior == estimate_label_prior(pool)
    assert calibration_prior.mean_entropy == pytest.approx(
        normalized_entropy(pool - np.asarray(calibration_prior.label_prior)).mean()
    )


def test_a_zero_shot_round_takes_no_bias_besides_its_prior():
    logits, truth = leaning(600, [1.5, 0.0, -1.5])
    assert not choose_prior(logits, truth, CalibrationPrior(1.0, label_prior=estimate_label_prior(logits))).with_bias
