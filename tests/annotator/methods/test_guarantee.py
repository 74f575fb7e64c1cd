"""Test that certified precisions hold at their confidence and are withdrawn when spot checks refute them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import softmax
from scipy.stats import binom, binomtest, hypergeom

from annotator.errors import BadInput
from annotator.methods import guarantee
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
    rows, truth = population(4000, 1, sharpness=8.0)
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
    rows = np.tile([0.97, 0.03], (4000, 1))  # probability 0.97, accuracy 0.9
    truth = (np.random.default_rng(0).random(4000) > 0.9).astype(int)
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


# Exact values


@pytest.mark.parametrize(
    ("precision", "confidence"),
    [(1.0, 0.95), (1.5, 0.95), (-0.1, 0.95), (0.9, 0.0), (0.9, 1.0), (0.9, 1.5), (0.9, -1.0)],
)
def test_a_target_that_cannot_be_certified_is_refused_with_both_numbers(precision, confidence):
    with pytest.raises(BadInput, match=f"precision of {precision:g} at a confidence of {confidence:g} ") as refused:
        Target(precision, confidence)
    assert refused.value.hint == "Choose values below 1 for both, such as 0.95."


def test_any_share_below_one_can_be_a_target_and_95_percent_is_usual():
    assert Target(0.0, 0.01).precision == 0
    assert Target() == Target(0.95, 0.95)


@pytest.mark.parametrize(("n", "errors"), [(59, 0), (100, 2), (40, 39), (5, 5)])
def test_the_certified_precision_is_the_lower_bound_of_clopper_and_pearson(n, errors):
    bound = binomtest(n - errors, n, alternative="greater").proportion_ci(0.9, "exact").low
    assert Guarantee(Target(0.5, 0.9), 0.5, n, errors, 1).at_least == pytest.approx(bound)


@pytest.mark.parametrize(
    ("n", "errors", "left", "passed"),
    [
        (0, 0, None, False),
        (3, 4, None, False),
        (3, -1, None, False),
        (99, 0, 0, False),
        (28, 0, 10, False),  # two wrong of ten violate 0.9: the answers are free of both with 45 / 703
        (33, 0, 10, True),  # 45 / 903
        (18, 0, 1, False),  # the one left is wrong: 1 / 19
        (19, 0, 1, True),  # 1 / 20
    ],
)
def test_few_answers_or_few_utterances_pass_where_the_exact_tail_does(n, errors, left, passed):
    assert passes(n, errors, TARGET, left) == passed


def test_one_answer_can_be_enough_for_a_low_target():
    assert passes(1, 0, Target(0.5, 0.5))  # the tail is exactly one half
    assert not passes(1, 0, Target(0.5, 0.51))
    assert needed(Target(0.0, 0.95)) == 1


@pytest.mark.parametrize("answers", [0, 28, 29, 80, 300, 1500])
def test_shares_of_the_pool_are_tested_where_enough_answers_are_99_percent_likely(answers):
    shares = np.arange(1, 41) / 40
    enough = binom.sf(28, answers, shares) >= 0.99  # at least 29 answers
    np.testing.assert_array_equal(guarantee._shares(answers, TARGET), shares[enough])


def test_a_threshold_is_not_certified_behind_a_stricter_one_that_failed():
    pool = np.concatenate([np.tile([0.99, 0.01], (100, 1)), np.tile([0.95, 0.05], (300, 1))])
    truth = np.zeros(400, dtype=int)
    assert certify(Evidence(pool, truth, pool, 0.0), Target(0.8)).accepts == 400
    truth[:30] = 1  # 30 of 100 among the surest, 30 of 400 in all
    assert passes(400, 30, Target(0.8), 400)
    assert isinstance(certify(Evidence(pool, truth, pool, 0.0), Target(0.8)), NotYet)


def test_a_fortieth_of_the_pool_can_be_accepted_and_not_the_next():
    sure = np.linspace(0.999, 0.94, 4000)
    rows = np.stack([sure, 1 - sure], axis=1)
    truth = (np.arange(4000) >= 101).astype(int)
    found = certify(Evidence(rows, truth, rows, 0.0), TARGET)
    assert (found.accepts, found.n, found.errors, found.threshold) == (101, 101, 0, sure[100])


def test_each_label_is_certified_on_its_own_predictions_at_a_shared_confidence():
    rows = np.tile(np.eye(3) * 0.94 + 0.02, (100, 1))
    truth = np.tile([0, 1, 2], 100)
    truth[2::3] = 0  # the third label is always wrong
    found = certify_labels(Evidence(rows, truth, rows[:270], 0.0), TARGET)
    assert {label: type(one) for label, one in found.items()} == {0: Guarantee, 1: Guarantee, 2: NotYet}
    assert {one.target.precision for one in found.values()} == {0.9}
    assert [one.target.confidence for one in found.values()] == pytest.approx([1 - 0.05 / 3] * 3)
    assert (found[1].n, found[1].errors, found[1].accepts, found[2].n) == (100, 0, 90, 100)


@pytest.mark.parametrize(
    ("top", "spread", "valid"),
    [
        (1.0, 0.0, True),
        (1 + 5e-7, 0.1, True),
        (1 + 1.5e-6, 0.1, False),
        (-1e-9, 0.1, False),
        (np.nan, 0.1, False),
        (0.9, -0.1, False),
        (0.9, np.inf, False),
    ],
)
def test_only_probabilities_with_a_finite_spread_are_certified_or_accepted(top, spread, valid):
    rows = np.tile([0.0, 0.95], (100, 1))
    for audit, pool in ((rows, np.array([[top, 0.0]])), (np.array([[top, 0.0]]), rows)):
        assert Evidence(audit, np.ones(len(audit), dtype=int), pool, spread).is_valid == valid
    if spread == 0.1:
        everything = Guarantee(TARGET, -1.0, 99, 0, 1)
        assert (accepted(np.array([[top, -5.0]]), everything)[0] == 0) == ((top > 1 and valid) or top < 0)


def test_what_is_exactly_at_a_threshold_is_accepted():
    rows = np.array([[0.7, 0.3], [0.3, 0.7], [0.69, 0.31]])
    for guarantees in (Guarantee(TARGET, 0.7, 99, 0, 1), dict.fromkeys((0, 1), Guarantee(TARGET, 0.7, 99, 0, 1))):
        labels = accepted(rows, guarantees)
        np.testing.assert_array_equal(labels, [0, 1, -1])
        assert labels.dtype == np.int64


def two_levels(answers: int, errors: int) -> Evidence:
    """Return evidence whose surer half has a probability of 0.97, with errors in that half of the audit sample."""
    rows = np.array([[0.97, 0.03], [0.6, 0.4]])
    truth = (np.arange(answers) < 2 * errors).astype(int) * (np.arange(answers) % 2 == 0)
    return Evidence(np.tile(rows, (answers // 2, 1)), truth, np.tile(rows, (500, 1)), 0.0)


@pytest.mark.parametrize(("answers", "errors", "more"), [(60, 0, 40), (60, 1, 100), (100, 2, 200)])
def test_the_chance_of_a_guarantee_is_that_of_few_enough_errors_among_further_answers(answers, errors, more):
    n, fresh = answers // 2 + more // 2, more // 2
    most = max(e for e in range(n) if passes(n, e, TARGET))
    rate = (errors + 20 * 0.03) / (answers // 2 + 20)
    chance = binom.cdf(most - errors, fresh, rate)
    assert 0 < chance < 1
    assert guarantee._chance(two_levels(answers, errors), TARGET, more) == pytest.approx(chance)


def test_answers_are_missing_until_a_guarantee_has_a_chance_of_two_thirds():
    for errors in (0, 1, 2):
        evidence = two_levels(60, errors)
        missing = missing_answers(evidence, TARGET)
        chances = [guarantee._chance(evidence, TARGET, more) for more in (missing - 1, missing)]
        assert chances[0] <= 2 / 3 < chances[1]


def test_answers_are_missing_until_the_temperature_is_known_well_enough():
    rows = np.tile([0.92, 0.08], (50, 1))
    evidence = Evidence(rows, np.zeros(50, dtype=int), rows, 0.1)
    # The spread falls with the root of the answers, from 0.1 to the one at which three spreads leave 0.9 of 0.92.
    enough = np.log(np.log(0.92 / 0.08) / np.log(0.9 / 0.1)) / 3
    more = int(50 * (0.1 / enough) ** 2) - 50
    assert guarantee._chance(evidence, TARGET, more - 1) == 0
    assert guarantee._chance(evidence, TARGET, more + 1) > 0.9
    assert missing_answers(evidence, TARGET) == more + 1


@pytest.mark.parametrize(
    ("n", "errors", "precision"), [(1, 0, 0.95), (1, 1, 0.95), (30, 3, 0.95), (40, 2, 0.9), (12, 9, 0.5), (20, 20, 0.7)]
)
def test_the_e_value_is_the_mean_likelihood_ratio_of_up_to_five_times_the_errors(n, errors, precision):
    certified, worst = 1 - precision, min(1.0, 5 * (1 - precision))

    def likelihood(rate: float) -> float:
        return rate**errors * (1 - rate) ** (n - errors)

    mean = quad(likelihood, certified, worst)[0] / (worst - certified)
    assert evidence_against(n, errors, precision) == pytest.approx(mean / likelihood(certified))


def test_an_e_value_too_small_or_too_large_for_a_number_is_zero_or_infinite():
    assert evidence_against(10**6, 0, 0.95) == 0
    assert evidence_against(10**6, 9 * 10**5, 0.95) == np.inf
