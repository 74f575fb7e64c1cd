"""Test that certified precisions hold at their confidence and are withdrawn when spot checks refute them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest, hypergeom

from annotator.methods.guarantee import (
    Evidence,
    Guarantee,
    NotYet,
    Target,
    accepted,
    certify,
    certify_labels,
    evidence_against,
    missing_answers,
    needed,
    passes,
)

TARGET = Target(0.9, 0.95)
OFF = 0.1  # spread of the log temperature, unless a test sets another


def population(count: int, seed: int, labels: int = 3, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities, and answers from them."""
    rng = np.random.default_rng(seed)
    rows = np.exp(rng.normal(size=(count, labels)) * sharpness)
    rows /= rows.sum(axis=1, keepdims=True)
    return rows, (rng.random((count, 1)) > rows.cumsum(axis=1)[:, :-1]).sum(axis=1)


def drawn(answers: int, seed: int, rows: np.ndarray, truth: np.ndarray) -> tuple[Evidence, np.ndarray]:
    """Draw an audit sample at random; return it with the rest of the pool, and the answers of the rest."""
    order = np.random.default_rng(seed).permutation(len(rows))
    asked, left = order[:answers], order[answers:]
    return Evidence(rows[asked], truth[asked], rows[left], OFF), truth[left]


def precision(found: Guarantee, evidence: Evidence, truth: np.ndarray) -> float:
    given_labels = accepted(evidence.pool, found)
    return float((given_labels == truth)[given_labels >= 0].mean())


# How much it takes


@pytest.mark.parametrize(("errors", "answers"), [(0, 59), (1, 93), (2, 124), (3, 153), (5, 208)])
def test_the_answers_needed_are_those_of_the_exact_binomial_test(errors, answers):
    assert needed(Target(0.95, 0.95), errors) == answers
    assert binomtest(errors, answers, 0.05, alternative="less").pvalue <= 0.05
    assert binomtest(errors, answers - 1, 0.05, alternative="less").pvalue > 0.05


@given(n=st.integers(1, 400), errors=st.integers(0, 30), precision=st.sampled_from([0.8, 0.9, 0.95, 0.98]))
def test_passing_is_a_lower_bound_on_precision_above_the_target(n, errors, precision):
    errors = min(errors, n)
    target = Target(precision, 0.95)
    bound = Guarantee(target, 0.5, n, errors, 1).at_least
    assert passes(n, errors, target) == (bound >= precision) or bound == pytest.approx(precision, abs=1e-9)


@given(
    n=st.integers(1, 40),
    left=st.integers(1, 40),
    broken=st.integers(0, 80),
    least=st.sampled_from([0.5, 0.8, 0.9]),
)
def test_a_violated_target_on_few_utterances_passes_at_most_once_in_twenty_times(n, left, broken, least):
    target, broken = Target(least, 0.95), min(broken, n + left)
    chance = sum(
        hypergeom.pmf(errors, n + left, broken, n)
        for errors in range(min(n, broken) + 1)
        if broken - errors > (1 - least) * left + 1e-9 and passes(n, errors, target, left)
    )
    assert chance <= 0.05 + 1e-9


def test_for_ever_so_many_utterances_the_tail_is_the_binomial_one():
    for errors, answers in ((0, 59), (3, 153)):
        assert passes(answers, errors, Target(0.95), 10**7)
        assert not passes(answers - 1, errors, Target(0.95), 10**7)


def test_for_few_utterances_more_answers_are_needed():
    assert not passes(29, 0, Target(0.9), 20)
    assert passes(29, 0, Target(0.9), 10**6)


def test_fewer_answers_than_are_needed_certify_nothing():
    rows, pool = np.tile([0.99, 0.01], (28, 1)), np.tile([0.99, 0.01], (10_000, 1))
    evidence = Evidence(rows, np.zeros(28, dtype=int), pool, OFF)
    assert certify(evidence, TARGET) == NotYet(TARGET, 28, missing_answers(evidence, TARGET))
    more = Evidence(np.tile([0.99, 0.01], (29, 1)), np.zeros(29, dtype=int), pool, OFF)
    assert certify(more, TARGET) == Guarantee(TARGET, 0.99, 29, 0, 10_000)


def test_probabilities_below_the_target_prevent_a_guarantee():
    pool = np.tile([0.85, 0.15], (1000, 1))
    assert isinstance(certify(Evidence(pool[:200], np.zeros(200, dtype=int), pool, 0.0), TARGET), NotYet)


@pytest.mark.parametrize(("sure", "off", "guaranteed"), [(0.96, 0.1, True), (0.92, 0.1, False), (0.92, 0.02, True)])
def test_the_conservative_probabilities_must_reach_the_target(sure, off, guaranteed):
    pool = np.tile([sure, 1 - sure], (1000, 1))
    found = certify(Evidence(pool[:200], np.zeros(200, dtype=int), pool, off), TARGET)
    assert isinstance(found, Guarantee) == guaranteed


def test_conservative_probabilities_have_a_temperature_three_spreads_higher():
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 3
    evidence = Evidence(logits[:0], np.empty(0, dtype=int), softmax(logits, axis=1), 0.2)
    np.testing.assert_allclose(evidence.conservative, softmax(logits / np.exp(0.6), axis=1))
    np.testing.assert_allclose(replace(evidence, spread=0.0).conservative, evidence.pool)


def test_an_empty_pool_or_no_answers_certify_nothing():
    rows, truth = population(200, 0)
    assert isinstance(certify(Evidence(rows, truth, rows[:0], OFF), TARGET), NotYet)
    none = certify(Evidence(rows[:0], truth[:0], rows, OFF), TARGET)
    assert none == NotYet(TARGET, 0, needed(TARGET))


# Guarantees hold


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_accepted_suggestions_have_the_certified_precision_in_95_of_100_draws(target):
    rows, truth = population(1500, 1, sharpness=8.0)
    wanted, held, made = Target(target, 0.95), 0, 0
    for seed in range(400):
        evidence, answers = drawn(200, seed, rows, truth)
        found = certify(evidence, wanted)
        if isinstance(found, Guarantee):
            made += 1
            held += precision(found, evidence, answers) >= target
    assert made > 200
    assert 400 - made + held >= 0.94 * 400


def test_a_model_below_the_target_is_certified_at_most_once_in_twenty_times():
    rows = np.tile([0.97, 0.03], (1500, 1))  # probability 0.97, accuracy 0.9
    truth = (np.random.default_rng(0).random(1500) > 0.9).astype(int)
    wrong = sum(isinstance(certify(drawn(200, seed, rows, truth)[0], Target(0.92)), Guarantee) for seed in range(400))
    assert wrong <= 0.07 * 400


def test_it_says_how_many_suggestions_are_accepted_and_they_are_the_surest():
    rows, truth = population(4000, 2)
    evidence, _ = drawn(300, 0, rows, truth)
    found = certify(evidence, TARGET)
    labels = accepted(evidence.pool, found)
    assert found.accepts == (labels >= 0).sum() > 100
    assert evidence.pool.max(axis=1)[labels >= 0].min() >= found.threshold
    assert evidence.pool.max(axis=1)[labels < 0].max() < found.threshold
    np.testing.assert_array_equal(labels[labels >= 0], evidence.pool.argmax(axis=1)[labels >= 0])
    assert found.at_least >= TARGET.precision


def test_more_is_accepted_where_less_is_asked_for():
    rows, truth = population(4000, 3)
    evidence, _ = drawn(300, 0, rows, truth)
    counts = [certify(evidence, Target(target)).accepts for target in (0.8, 0.85, 0.9)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def test_the_thresholds_are_chosen_without_a_look_at_the_answers():
    rows, truth = population(4000, 4, sharpness=8.0)
    evidence, _ = drawn(300, 0, rows, truth)
    found = certify(evidence, TARGET)
    quantiles = np.quantile(evidence.pool.max(axis=1), np.arange(40) / 40, method="lower")
    assert found.threshold in quantiles


# Each label by itself


def test_each_label_has_a_threshold_of_its_own_that_holds():
    rows, truth = population(6000, 5, labels=2, sharpness=4.0)
    held, made = 0, 0
    for seed in range(200):
        evidence, answers = drawn(600, seed, rows, truth)
        found = {i: one for i, one in certify_labels(evidence, TARGET).items() if isinstance(one, Guarantee)}
        given_labels = accepted(evidence.pool, found)
        right = [(answers[given_labels == label] == label).mean() >= TARGET.precision for label in found]
        made += bool(found)
        held += all(right)
    assert made > 100
    assert held >= 0.95 * 200


def test_a_label_without_a_guarantee_is_not_accepted():
    rows = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    np.testing.assert_array_equal(accepted(rows, {0: Guarantee(TARGET, 0.7, 99, 0, 1)}), [0, -1, -1])


# How much is missing


@pytest.mark.parametrize(("answers", "target"), [(20, 0.9), (60, 0.95), (150, 0.95)])
def test_what_is_missing_is_about_what_then_suffices_and_a_third_of_it_does_not(answers, target):
    rows, truth = population(20_000, 6)
    target, enough, too_few = Target(target), [], []
    for seed in range(40):
        found = certify(replace(drawn(answers, seed, rows, truth)[0], spread=0.0), target)
        if isinstance(found, NotYet):
            assert found.missing is not None
            for made, more in ((enough, found.missing), (too_few, found.missing // 3)):
                evidence, _ = drawn(answers + more, seed, rows, truth)
                made.append(isinstance(certify(replace(evidence, spread=0.0), target), Guarantee))
    assert np.mean(enough) > 0.4
    assert np.mean(too_few) < 0.25


def test_errors_that_were_seen_make_more_answers_needed_than_the_probabilities_say():
    rows = np.tile([0.97, 0.03], (300, 1))
    counts = []
    for errors in (0, 1, 2):
        truth = (np.arange(50) < errors).astype(int)
        counts.append(missing_answers(Evidence(rows[:50], truth, rows, OFF), Target(0.9)))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_where_nothing_is_open_nothing_is_missing():
    rows, truth = population(50, 0)
    assert missing_answers(Evidence(rows, truth, rows[:0], OFF), TARGET) == 0


def test_more_answers_would_not_help_a_model_that_is_right_too_seldom():
    rows = np.tile([0.97, 0.03], (300, 1))
    truth = np.arange(300) % 2
    assert certify(Evidence(rows, truth, rows, OFF), Target(0.95)).missing is None


# Spot checks


def test_a_true_guarantee_is_withdrawn_at_most_once_in_twenty_times():
    withdrawn = 0
    for seed in range(200):
        errors = np.cumsum(np.random.default_rng(seed).random(150) < 0.05)
        withdrawn += any(evidence_against(n, int(e), 0.95) >= 20 for n, e in enumerate(errors, start=1))
    assert withdrawn <= 0.05 * 200


def test_a_violated_guarantee_is_withdrawn():
    needed_checks = []
    for seed in range(50):
        errors = np.cumsum(np.random.default_rng(seed).random(400) < 0.2)
        odds = [evidence_against(n, int(e), 0.95) for n, e in enumerate(errors, start=1)]
        needed_checks.append(next((n for n, odd in enumerate(odds, start=1) if odd >= 20), 401))
    assert np.median(needed_checks) < 60


def test_without_spot_checks_the_e_value_is_one():
    assert evidence_against(0, 0, 0.95) == pytest.approx(1)
    assert evidence_against(30, 0, 0.95) < 1
