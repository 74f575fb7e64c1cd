"""Test the contract of query strategies: pure functions of arrays, higher scores are asked first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from annotator.errors import PoolExhausted, UnknownName
from annotator.methods.query_strategies import (
    STRATEGIES,
    View,
    choose,
    entropy,
    least_confidence,
    margin,
    rank,
    strategy_named,
)

ALL = pytest.mark.parametrize("name", sorted(STRATEGIES))
UNSURE = ("margin_diverse", "margin", "least_confidence", "entropy", "label_balanced")
INFORMED = pytest.mark.parametrize("name", UNSURE)
TABLE = np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [1.0, 0.0, 0.0]])

probabilities = (
    st.tuples(st.integers(1, 12), st.integers(2, 6))
    .flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(0.001, 1)))
    .map(lambda weights: weights / weights.sum(axis=1, keepdims=True))
)


def view(rows: np.ndarray, order: np.ndarray | None = None) -> View:
    """Return a complete view of these rows, with fields that do not depend on their order."""
    n, k = rows.shape
    order = np.arange(n) if order is None else order
    made_up = np.random.default_rng(0)
    states = made_up.normal(size=(n, 8)).astype(np.float32)[order]
    answered = made_up.normal(size=(5, 8)).astype(np.float32)
    return View(rows, lambda wanted: states[wanted], lambda: answered, [3] * k)


@ALL
@given(rows=probabilities, seed=st.integers(0, 99))
def test_a_score_is_one_finite_number_a_row_and_moves_with_its_row(name, rows, seed):
    score = STRATEGIES[name].score
    order = np.random.default_rng(seed).permutation(len(rows))
    scores = score(view(rows))
    assert scores.shape == (len(rows),)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(score(view(rows[order], order)), scores[order], atol=1e-6)


@ALL
@given(rows=probabilities, seed=st.integers(0, 99))
def test_the_order_of_the_labels_does_not_matter(name, rows, seed):
    columns = np.random.default_rng(seed).permutation(rows.shape[1])
    score = STRATEGIES[name].score
    np.testing.assert_allclose(score(view(rows[:, columns])), score(view(rows)), atol=1e-6)


@INFORMED
@given(rows=probabilities)
def test_an_even_row_is_asked_first_and_a_certain_one_last(name, rows):
    count = rows.shape[1]
    scores = STRATEGIES[name].score(view(np.vstack([rows, np.full(count, 1 / count), np.eye(count)])))
    assert scores[len(rows)] >= scores.max() - 1e-12
    assert scores[len(rows) + 1 :].max() <= scores.min() + 1e-12
    assert np.ptp(scores[len(rows) + 1 :]) == 0


@ALL
def test_no_utterances_have_no_scores(name):
    assert STRATEGIES[name].score(view(np.empty((0, 3)))).shape == (0,)
    with pytest.raises(PoolExhausted, match="left"):
        choose(STRATEGIES[name], view(np.empty((0, 3))), 5, np.random.default_rng(0))


@ALL
def test_the_probabilities_are_left_as_they_are(name):
    rows = TABLE.copy()
    STRATEGIES[name].score(view(rows))
    np.testing.assert_array_equal(rows, TABLE)


@ALL
def test_a_strategy_says_what_it_is_called_why_it_asks_and_where_it_comes_from(name):
    strategy = STRATEGIES[name]
    assert strategy.name == name
    assert strategy.shown
    assert strategy.source
    assert strategy.reason.endswith(".")


def test_scores_are_those_computed_by_hand():
    np.testing.assert_allclose(least_confidence(View(TABLE)), [0.3, 0.5, 0.6, 0.0])
    np.testing.assert_allclose(margin(View(TABLE)), [0.5, 1.0, 0.9, 0.0])
    half = np.log(2) / np.log(3)
    spread = [0.7, 0.2, 0.1], [0.4, 0.3, 0.3]
    first, third = (-sum(p * np.log(p) for p in row) / np.log(3) for row in spread)
    np.testing.assert_allclose(entropy(View(TABLE)), [first, half, third, 0.0])


def test_random_scores_all_the_same():
    assert np.ptp(strategy_named("random").score(View(TABLE))) == 0


def test_the_highest_score_comes_first():
    assert rank(np.array([0.1, 0.9, 0.5]), np.random.default_rng(0)).tolist() == [1, 2, 0]


def test_ties_are_broken_by_the_seed_and_not_by_place():
    scores = np.zeros(50)
    one, same, other = (rank(scores, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert one != sorted(one)


def test_ties_do_not_disturb_what_is_not_tied():
    scores = np.array([0.5, 0.9, 0.5, 0.1])
    for seed in range(10):
        order = rank(scores, np.random.default_rng(seed)).tolist()
        assert (order[0], order[3]) == (1, 3)


def test_an_unknown_strategy_is_refused_with_those_there_are():
    with pytest.raises(UnknownName, match="guesswork") as caught:
        strategy_named("guesswork")
    assert all(name in caught.value.hint for name in STRATEGIES)


def test_the_first_few_in_order_are_the_first_of_the_whole_order():
    scores = np.random.default_rng(0).random(200)
    whole, few = rank(scores, np.random.default_rng(1)), rank(scores, np.random.default_rng(1), 7)
    assert few.tolist() == whole[:7].tolist()
    assert rank(scores, np.random.default_rng(1), 0).tolist() == []


def test_a_strategy_that_spreads_takes_from_every_region():
    regions = np.repeat(np.eye(5), 40, axis=0)
    states = (10 * regions + np.random.default_rng(0).normal(size=regions.shape)).astype(np.float32)
    sure = np.where(np.arange(200) < 40, 0.5, 0.9)  # the closest calls are all in the first region
    seen = View(np.stack([sure, 1 - sure], axis=1), lambda rows: states[rows])
    spread = {row // 40 for row in choose(STRATEGIES["typical"], seen, 5, np.random.default_rng(0))[0][:5]}
    assert spread == set(range(5))
    plain = {row // 40 for row in choose(STRATEGIES["margin"], seen, 5, np.random.default_rng(0))[0][:5]}
    assert plain == {0}


def test_the_typical_ones_lie_in_the_thick_of_it():
    near, far = np.random.default_rng(0).normal(size=(60, 4)), 30 + 20 * np.random.default_rng(1).normal(size=(5, 4))
    states = np.concatenate([near, far]).astype(np.float32)
    scores = STRATEGIES["typical"].score(View(np.full((65, 2), 0.5), lambda rows: states[rows]))
    assert scores[:60].mean() > scores[60:].mean()


def test_labels_with_few_answers_come_first_where_they_are_as_likely():
    rows = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])
    scores = STRATEGIES["label_balanced"].score(View(rows, label_counts=[50, 10, 0]))
    assert scores[1] > scores[0]


@pytest.mark.parametrize("name", ["typical", "label_balanced", "none_fits"])
def test_a_strategy_knows_when_it_lacks_what_it_needs(name):
    assert not STRATEGIES[name].can(View(TABLE))
    assert STRATEGIES[name].can(view(TABLE))


def test_none_may_fit_where_the_model_is_unsure_and_nothing_like_it_was_answered():
    rows = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    states = np.array([[4, 0.1], [0, 4], [4, -0.1], [0.1, 4]], dtype=np.float32)
    answered = np.array([[4, 0], [4, 0.2], [-4, 0], [0, -4]], dtype=np.float32)
    scores = STRATEGIES["none_fits"].score(View(rows, lambda wanted: states[wanted], lambda: answered))
    assert scores.argmax() == 3
    assert scores.argmin() == 0
