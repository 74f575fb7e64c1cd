"""Every strategy keeps one contract: a pure function of probabilities, higher means ask sooner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from annotator.errors import UnknownName
from annotator.query import STRATEGIES, entropy, least_confidence, margin, rank, strategy_named

ALL = pytest.mark.parametrize("name", sorted(STRATEGIES))
INFORMED = pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"random"}))
TABLE = np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [1.0, 0.0, 0.0]])

probabilities = (
    st.tuples(st.integers(1, 12), st.integers(2, 6))
    .flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(0.001, 1)))
    .map(lambda weights: weights / weights.sum(axis=1, keepdims=True))
)


@ALL
@given(rows=probabilities, seed=st.integers(0, 99))
def test_a_score_is_one_finite_number_a_row_and_moves_with_its_row(name, rows, seed):
    score = STRATEGIES[name].score
    order = np.random.default_rng(seed).permutation(len(rows))
    assert score(rows).shape == (len(rows),)
    assert np.isfinite(score(rows)).all()
    np.testing.assert_allclose(score(rows[order]), score(rows)[order], atol=1e-12)


@ALL
@given(rows=probabilities, seed=st.integers(0, 99))
def test_the_order_of_the_labels_does_not_matter(name, rows, seed):
    columns = np.random.default_rng(seed).permutation(rows.shape[1])
    np.testing.assert_allclose(STRATEGIES[name].score(rows[:, columns]), STRATEGIES[name].score(rows), atol=1e-12)


@INFORMED
@given(rows=probabilities)
def test_an_even_row_is_asked_first_and_a_certain_one_last(name, rows):
    count = rows.shape[1]
    scores = STRATEGIES[name].score(np.vstack([rows, np.full(count, 1 / count), np.eye(count)]))
    assert scores[len(rows)] >= scores.max() - 1e-12
    assert scores[len(rows) + 1 :].max() <= scores.min() + 1e-12
    assert np.ptp(scores[len(rows) + 1 :]) == 0


@ALL
def test_no_utterances_have_no_scores(name):
    assert STRATEGIES[name].score(np.empty((0, 3))).shape == (0,)


@ALL
def test_the_probabilities_are_left_as_they_are(name):
    rows = TABLE.copy()
    STRATEGIES[name].score(rows)
    np.testing.assert_array_equal(rows, TABLE)


@ALL
def test_a_strategy_says_what_it_is_called_why_it_asks_and_where_it_comes_from(name):
    strategy = STRATEGIES[name]
    assert strategy.name == name
    assert strategy.shown
    assert strategy.source
    assert strategy.reason.endswith(".")


def test_scores_are_those_computed_by_hand():
    np.testing.assert_allclose(least_confidence(TABLE), [0.3, 0.5, 0.6, 0.0])
    np.testing.assert_allclose(margin(TABLE), [0.5, 1.0, 0.9, 0.0])
    half = np.log(2) / np.log(3)
    spread = [0.7, 0.2, 0.1], [0.4, 0.3, 0.3]
    first, third = (-sum(p * np.log(p) for p in row) / np.log(3) for row in spread)
    np.testing.assert_allclose(entropy(TABLE), [first, half, third, 0.0])


def test_random_scores_all_the_same():
    assert np.ptp(strategy_named("random").score(TABLE)) == 0


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
