"""Temperature and bias are found again where they are known, and held near what is expected where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from model import scaling
from model.scaling import fit_scaling

BIAS = (0.6, 0.0, -0.6)


def leaning(count: int, temperature: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels from honest log-probabilities; return these as a model would that is too sure and leans."""
    rng = np.random.default_rng(0)
    honest = log_softmax(rng.normal(size=(count, 3)) * 2, axis=1)
    labels = np.array([rng.choice(3, p=np.exp(row)) for row in honest])
    return temperature * (honest - np.array(BIAS)), labels


@pytest.mark.parametrize("temperature", [0.5, 1.5, 3.0])
def test_a_known_temperature_and_bias_are_found_again(temperature: float) -> None:
    found, bias = fit_scaling(*leaning(20_000, temperature))
    assert found == pytest.approx(temperature, rel=0.05)
    np.testing.assert_allclose(bias - bias.mean(), BIAS, atol=0.05)


def test_without_answers_what_is_expected_comes_back() -> None:
    found, bias = fit_scaling(np.zeros((0, 3)), np.zeros(0, dtype=np.int64), expected=1.7)
    assert found == pytest.approx(1.7)
    np.testing.assert_array_equal(bias, 0)


def test_a_narrow_expectation_gives_way_less() -> None:
    logits, labels = leaning(40, temperature=3.0)
    narrow, wide = (fit_scaling(logits, labels, 1.0, spread)[0] for spread in (0.05, 1.0))
    assert 1.0 < narrow < wide


def test_without_penalty_it_is_the_logistic_regression_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = leaning(2_000)
    keep = labels < 2  # with two labels, temperature and bias are slope and intercept of a logistic regression
    logits, labels = logits[keep][:, :2], labels[keep]
    monkeypatch.setattr(scaling, "BIAS_SPREAD", 1e6)
    temperature, bias = fit_scaling(logits, labels, spread=1e6)
    reference = LogisticRegression(C=1e9).fit((logits[:, 1] - logits[:, 0])[:, None], labels)
    assert 1 / temperature == pytest.approx(float(reference.coef_[0, 0]), rel=1e-2)
    assert bias[1] - bias[0] == pytest.approx(float(reference.intercept_[0]), abs=1e-2)


def test_the_slope_it_follows_is_that_of_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr(scaling, "minimize", lambda loss, start, **_: asked.setdefault("loss", loss) and Found(start))
    fit_scaling(*leaning(50), expected=1.3)
    loss, somewhere = asked["loss"], np.array([0.4, 0.3, -0.2, 0.1])
    assert check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], somewhere) < 1e-4


class Found:
    """What an optimiser returns that does not move."""

    def __init__(self, start: np.ndarray) -> None:
        self.x = start
