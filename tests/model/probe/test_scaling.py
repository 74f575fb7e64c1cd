"""Temperature and bias are recovered from enough data, and otherwise stay near their priors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from model import constants
from model.probe import scaling
from model.probe.scaling import fit_pool, fit_temperature, information, normalized_entropy, temperature_at

BIAS = (0.6, 0.0, -0.6)


def leaning(count: int, temperature: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels from calibrated log-probabilities; return overconfident and biased logits, and the labels."""
    rng = np.random.default_rng(0)
    calibrated = log_softmax(rng.normal(size=(count, 3)) * 2, axis=1)
    labels = np.array([rng.choice(3, p=np.exp(row)) for row in calibrated])
    return temperature * (calibrated - np.array(BIAS)), labels


def fitted(logits: np.ndarray, labels: np.ndarray, spread: float = 0.5) -> tuple[float, np.ndarray]:
    """Return a temperature and biases."""
    shares, bias = fit_pool(logits[None], labels, 1.0, spread)
    return 1 / shares[0], bias


@pytest.mark.parametrize("temperature", [0.5, 1.5, 3.0])
def test_a_known_temperature_and_bias_are_found_again(temperature: float) -> None:
    found, bias = fitted(*leaning(20_000, temperature))
    assert found == pytest.approx(temperature, rel=0.05)
    np.testing.assert_allclose(bias - bias.mean(), BIAS, atol=0.05)


def test_normalized_entropy_is_zero_where_one_label_is_sure_and_one_where_none_is_likelier() -> None:
    rows = np.array([[0.0, -np.inf, -np.inf], [1.0, 1.0, 1.0], [0.0, 0.0, -np.inf]])
    np.testing.assert_allclose(normalized_entropy(rows), [0, 1, np.log(2) / np.log(3)], atol=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
def test_a_temperature_is_found_again_by_how_unsure_the_rows_are_at_it(temperature: float) -> None:
    logits, _ = leaning(300)
    assert temperature_at(normalized_entropy(logits / temperature).mean(), logits) == pytest.approx(temperature)


def test_rows_that_cannot_be_as_unsure_as_is_wanted_come_as_near_as_they_can() -> None:
    logits, _ = leaning(300)
    assert temperature_at(1.0, logits) == pytest.approx(20)
    assert temperature_at(0.0, logits) == pytest.approx(0.05)
    assert temperature_at(0.5, np.zeros((9, 3))) == pytest.approx(0.05)  # no temperature makes a difference


def test_what_an_answer_tells_is_how_far_temperatures_fitted_to_many_samples_lie_apart() -> None:
    logits, _ = leaning(20_000, temperature=1.0)
    rng = np.random.default_rng(1)
    labels = (rng.random((len(logits), 1)) > softmax(logits, axis=1).cumsum(axis=1)[:, :-1]).sum(axis=1)
    parts = zip(np.split(logits, 100), np.split(labels, 100), strict=True)
    found = [np.log(fit_temperature(rows, given, spread=9.0)) for rows, given in parts]
    assert np.std(found) == pytest.approx(1 / np.sqrt(200 * information(logits)), rel=0.2)


def test_sure_rows_and_even_ones_tell_nothing() -> None:
    assert information(np.array([[0.0, -80.0], [1.0, 1.0]])) == pytest.approx(0, abs=1e-9)


def test_without_answers_what_is_expected_comes_back() -> None:
    shares, bias = fit_pool(np.zeros((2, 0, 3)), np.zeros(0, dtype=np.int64), np.array([0.4, 0.7]))
    np.testing.assert_allclose(shares, [0.4, 0.7])
    np.testing.assert_array_equal(bias, np.zeros(3))
    np.testing.assert_allclose(fit_pool(np.zeros((4, 0, 3)), np.zeros(0, dtype=np.int64))[0], 0.25)


def test_a_narrow_expectation_gives_way_less() -> None:
    logits, labels = leaning(40, temperature=3.0)
    narrow, wide = (fitted(logits, labels, spread)[0] for spread in (0.05, 1.0))
    assert 1.0 < narrow < wide


def test_without_penalty_it_is_the_logistic_regression_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = leaning(2_000)
    keep = labels < 2  # with two labels, temperature and bias are slope and intercept of a logistic regression
    logits, labels = logits[keep][:, :2], labels[keep]
    monkeypatch.setattr(constants, "BIAS_SPREAD", 1e3)
    found, bias = fitted(logits, labels, spread=1e3)
    reference = LogisticRegression(C=1e9).fit((logits[:, 1] - logits[:, 0])[:, None], labels)
    assert 1 / found == pytest.approx(float(reference.coef_[0, 0]), rel=1e-2)
    assert bias[1] - bias[0] == pytest.approx(float(reference.intercept_[0]), abs=1e-2)


def test_the_slope_that_the_pool_follows_is_that_of_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr(scaling, "minimize", lambda loss, start, **_: asked.setdefault("loss", loss) and Found(start))
    logits, labels = leaning(50)
    fit_pool(np.stack([logits, logits[:, ::-1]]), labels, np.array([0.5, 0.3]), 0.7)
    loss, somewhere = asked["loss"], np.array([0.4, -0.1, 0.3, -0.2, 0.1])
    assert check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], somewhere) < 1e-4


class Found:
    """The result of an optimizer that does not move."""

    def __init__(self, start: np.ndarray) -> None:
        self.x = start
