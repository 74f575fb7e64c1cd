"""Test guarantees, forecasts and e-values against numbers that were computed in another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, binomtest

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
        evidence = Evidence(audit, np.ones(len(audit), dtype=int), pool, spread)
        assert evidence.is_valid == valid
        assert valid or certify(evidence, TARGET) == NotYet(TARGET, len(audit), None)
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


def test_the_chance_is_that_of_the_strictest_share_of_a_small_pool():
    sure = np.linspace(0.99, 0.96, 8)
    pool = np.stack([sure, 1 - sure], axis=1)
    evidence = Evidence(np.tile(pool, (20, 1)), np.zeros(160, dtype=int), pool, 0.0)
    assert guarantee._shares(260, TARGET)[0] == 0.175  # lies between the second and the third of eight, and takes both
    fresh, n = round(100 * 3 / 8), 20 * 3
    most = max(e for e in range(n) if passes(n + fresh, e, TARGET))
    rate = 20 * (1 - sure[:3].mean()) / (n + 20)
    assert guarantee._chance(evidence, TARGET, 100) == pytest.approx(binom.cdf(most, fresh, rate))


def test_answers_are_missing_until_a_guarantee_has_a_chance_of_two_thirds():
    for errors in (0, 1, 2):
        evidence = two_levels(60, errors)
        missing = missing_answers(evidence, TARGET)
        chances = [guarantee._chance(evidence, TARGET, more) for more in (missing - 1, missing)]
        assert chances[0] <= 2 / 3 < chances[1]


def test_answers_are_missing_until_the_temperature_is_known_well_enough():
    rows = np.tile([0.94, 0.06], (50, 1))
    evidence = Evidence(rows, np.zeros(50, dtype=int), rows, 0.1)
    # The spread falls from 0.1 to the one at which three spreads leave 0.9 of 0.94. Each answer adds its information,
    # the variance of the log-odds, to the inverse square of the spread.
    odds = np.log(0.94 / 0.06)
    enough = np.log(odds / np.log(0.9 / 0.1)) / 3
    more = int((enough**-2 - 0.1**-2) / (0.94 * 0.06 * odds**2))
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
    assert evidence_against(10**6, 0, 0.95) == evidence_against(10**6, 4 * 10**4, 0.95) == 0
    assert evidence_against(10**6, 9 * 10**5, 0.95) == np.inf


def test_more_answers_are_no_help_where_they_say_nothing_about_the_temperature():
    """Where all predictions are certain and right, answers carry no information on how far off the temperature is."""
    certain = np.tile([0.99998, 0.00001, 0.00001], (200, 1))
    evidence = Evidence(certain[:80], np.zeros(80, dtype=np.int64), certain, spread=0.9)
    assert certify(evidence, Target(0.95)) == NotYet(Target(0.95), 80, None)
    assert isinstance(certify(replace(evidence, spread=0.2), Target(0.95)), Guarantee)
