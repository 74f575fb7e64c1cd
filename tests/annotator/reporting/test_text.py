"""The sentences state what the numbers support, and no more."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from annotator.labeling.auto_accept import Offer
from annotator.methods.calibration import Calibrator
from annotator.methods.guarantee import Evidence, Guarantee, NotYet, Target
from annotator.reporting import guarantees, text
from annotator.reporting.summary import InUse, Pace, QueriedAccuracy
from annotator.rounds.consensus import Agreement

WISH = Target(0.95, 0.95)
MEASURED = {"n": 43, "accuracy": 36 / 43, "accuracy_interval": [0.693, 0.932], "ece": 0.05, "ece_band": [0.02, 0.09]}


def used(answers: int = 43, left: int = 100, spread: float = 0.1, **metrics: Any) -> InUse:
    calibration = json.dumps(Calibrator(1.0, answers=answers, spread=spread).as_dict())
    row = {"number": 2, "trained_on": 90, "metrics": json.dumps(metrics), "calibration": calibration}
    evidence = Evidence(np.full((answers, 2), 0.5), np.zeros(answers, dtype=int), np.full((5, 2), 0.5), 0.1)
    return InUse(row, metrics, (1, 2), ("yes", "no"), evidence, np.arange(5), left)


def an_offer(accepts: int, *guarantees: Guarantee | NotYet, hours: float = 4.2, open_: int = 5000) -> Offer:
    labels = np.array([1] * accepts + [0] * (open_ - accepts))
    by_label = {0: guarantees[0]} if len(guarantees) == 1 else dict(enumerate(guarantees, start=1))
    return Offer({"id": 1}, WISH, by_label, np.arange(open_), labels, {}, hours)


PROMISE = Guarantee(WISH, 0.91, 62, 0, 3400)


def test_how_often_it_is_right_comes_with_its_interval_and_n():
    assert text.accuracy(used(**MEASURED)) == (
        "Accuracy: about 84\u00a0%, measured on 43 audit answers. The true value is probably between 69 and 93\u00a0%."
    )


@pytest.mark.parametrize("metrics", [{}, {"n": 0}, {"n": 1}])
def test_what_was_not_measured_is_not_claimed(metrics):
    assert "not known yet" in text.accuracy(used(**metrics))
    assert "there are no measurements" in text.calibration_quality(used(**metrics))


def test_a_round_of_an_earlier_version_has_no_interval_and_none_is_made_up():
    assert text.accuracy(used(n=40, accuracy=0.8)) == ("Accuracy: about 80\u00a0%, measured on 40 audit answers.")


def test_probabilities_are_doubted_where_the_gap_is_more_than_chance():
    assert "no sign of a problem" in text.calibration_quality(used(**MEASURED))
    doubted = text.calibration_quality(used(120, **{**MEASURED, "ece": 0.12}))
    assert "Do not rely on its probabilities" in doubted
    assert "well calibrated" not in doubted


@pytest.mark.parametrize(("spread", "said"), [(0.3, "77 to 98 times in 100"), (0.05, "88 to 92 times in 100")])
def test_it_says_how_far_off_a_probability_may_be(spread, said):
    assert f"Suggestions given 90\u00a0% are probably right {said}" in text.calibration_quality(
        used(spread=spread, **MEASURED)
    )


def test_below_thirty_audit_answers_probabilities_are_never_called_calibrated():
    assert text.calibration_quality(used(29, **MEASURED)).startswith("It is too early to say")


def test_an_offer_says_size_precision_confidence_and_what_it_saves():
    said = guarantees.offered(an_offer(3400, PROMISE)).replace("\u00a0", " ")
    assert said == (
        "These 3,400 suggestions can be auto-accepted: at least 95 in 100 are right, with 95 % confidence. "
        "This saves about 4 hours of work."
    )
    assert "for each label separately" in guarantees.offered(an_offer(10, PROMISE, NotYet(WISH, 3, 70)))


def test_a_promise_that_nothing_open_meets_is_no_offer():
    assert "Nothing to accept" in guarantees.offered(an_offer(0, replace(PROMISE, accepts=0)))
    assert "no open utterance with a suggestion" in guarantees.offered(an_offer(0, NotYet(WISH, 9, None), open_=0))
    assert guarantees.offered(an_offer(0, NotYet(WISH, 9, 50))) == ""


def test_each_label_says_what_it_accepts_or_what_is_missing():
    assert guarantees.offered(an_offer(0, NotYet(WISH, 9, 50), NotYet(WISH, 9, 50))).startswith("Not yet")
    assert guarantees.of_label("yes", replace(PROMISE, errors=1)) == {
        "Label": "yes",
        "Accepts": 3400,
        "Based on": "62, 1 wrong",
        "Missing": "",
    }
    assert guarantees.of_label("no", NotYet(WISH, 9, 50))["Missing"] == "50"
    assert guarantees.of_label("no", NotYet(WISH, 9, None))["Missing"] == "not right often enough"


def test_what_a_promise_rests_on_is_said_with_its_errors():
    assert "62 audit answers" in guarantees.rests_on(PROMISE)
    assert "none of them wrong" in guarantees.rests_on(PROMISE)
    assert "2 of them wrong" in guarantees.rests_on(replace(PROMISE, errors=2))


def test_how_many_answers_are_missing_and_whether_there_are_so_many():
    said = guarantees.not_yet(NotYet(WISH, 43, 30), used(left=100))
    assert said == "Not yet: about 30 more audit answers are needed."
    assert "Only 12 audit utterances are left" in guarantees.not_yet(NotYet(WISH, 43, 30), used(left=12))
    assert "audit sample is exhausted" in guarantees.not_yet(NotYet(WISH, 43, 1), used(left=0))
    assert "would hardly help" in guarantees.not_yet(NotYet(WISH, 43, None), used())


def test_a_round_that_learned_from_audit_answers_asks_for_a_new_round_and_not_for_59_answers():
    learned = used(answers=20, cross_fitted=True)
    assert guarantees.not_yet(NotYet(WISH, 0, 59), learned).startswith(
        "Not yet: about 39 more audit answers are needed"
    )
    assert "Retrain" in guarantees.not_yet(NotYet(WISH, 0, 59), used(answers=70, cross_fitted=True))


def test_an_acceptance_says_what_became_of_it():
    one = {"size": 1, "round_number": 3, "annotator": "ada", "at": "2026-11-21T10:00:00.000", "target": 0.95}
    stands = guarantees.acceptance({**one, "checks": 0, "errors": 0, "ended": None, "reason": None})
    assert stands.startswith("1 suggestion of round 3, accepted by ada, 2026-11-21 10:00: at least 95 in 100 right.")
    assert stands.endswith("No spot checks yet. In effect.")
    fallen = {**one, "checks": 9, "errors": 4, "ended": "withdrawn", "reason": "4 of 9 spot checks"}
    assert guarantees.acceptance(fallen).endswith(
        "9 spot checks, 4 answered differently. Withdrawn: 4 of 9 spot checks."
    )


def test_what_was_chosen_is_marked_as_not_representative():
    said = text.queried([QueriedAccuracy(1, 9, 9), QueriedAccuracy(2, 5, 10)])
    assert "round 2 chose, it was right 5 times out of 10 (19 to 81 in 100)" in said
    assert "not representative" in said


def test_agreement_is_not_made_up_where_nobody_was_asked_twice():
    assert "not known" in text.agreed(None)
    assert "alpha of 0.53" in text.agreed(Agreement(4, 4, 0.75, 0.533))
    assert "alpha" not in text.agreed(Agreement(4, 4, 1.0, None))


def test_the_pace_says_what_is_left():
    assert "139 remaining utterances will take about 13 minutes" in text.paced(Pace(60, 5.5, (), 139, 139 * 5.5 / 3600))
    assert text.paced(Pace(60, 5.5, (), 0, 0.0)).endswith("No utterances are left.")


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.84, "84"),
        (0.95, "95"),
        (1.0, "100"),
        (0.0, "0"),
        (0.996, "99.6"),
        (0.004, "0.4"),
        (0.99999, "more than 99.9"),
        (0.00001, "less than 0.1"),
    ],
)
def test_nearly_all_is_not_called_all(share, said):
    assert text.in_100(share) == said
