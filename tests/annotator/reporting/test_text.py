"""The sentences state what the numbers support, and no more."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from annotator.labeling.auto_accept import Offer
from annotator.methods.calibration import Calibrator
from annotator.methods.guarantee import Evidence, Guarantee, NotYet, Target
from annotator.methods.metrics import Metrics
from annotator.reporting import guarantees, text
from annotator.reporting.summary import InUse, Measured, Pace, QueriedAccuracy
from annotator.rounds.consensus import Agreement
from store.acceptances import Acceptance
from tests.store.rows import A_ROUND

WISH = Target(0.95, 0.95)
MEASURED = Metrics(43, 36 / 43, (0.693, 0.932), macro_f1=0.8, nll=0.5, brier=0.3, ece=0.05, ece_band=(0.02, 0.09))


def used(answers: int = 43, left: int = 100, spread: float = 0.1, metrics: Metrics | None = MEASURED) -> InUse:
    calibration = json.dumps(Calibrator(1.0, answers=answers, spread=spread).as_dict())
    row = replace(A_ROUND, number=2, audited_on=answers, calibration_json=calibration)
    evidence = Evidence(np.full((answers, 2), 0.5), np.zeros(answers, dtype=int), np.full((5, 2), 0.5), 0.1)
    return InUse(row, metrics, (1, 2), ("yes", "no"), evidence, np.arange(5), left)


def an_offer(accepts: int, *guarantees: Guarantee | NotYet, hours: float = 4.2, open_: int = 5000) -> Offer:
    labels = np.array([1] * accepts + [0] * (open_ - accepts))
    by_label = {0: guarantees[0]} if len(guarantees) == 1 else dict(enumerate(guarantees, start=1))
    return Offer(1, WISH, by_label, np.arange(open_), labels, {}, hours)


PROMISE = Guarantee(WISH, 0.91, 62, 0, 3400)


def test_how_often_it_is_right_comes_with_its_interval_and_n():
    assert text.accuracy(used()) == (
        "Accuracy: about 84\u00a0%, measured on 43 audit answers. The true value is probably between 69 and 93\u00a0%."
    )


@pytest.mark.parametrize(("answers", "said"), [(0, "only 0 audit answers"), (1, "only 1 audit answer.")])
def test_what_was_not_measured_is_not_claimed(answers, said):
    unmeasured = used(answers, metrics=None)
    assert "not known yet" in text.accuracy(unmeasured)
    assert said in text.accuracy(unmeasured)
    assert "there are no measurements" in text.calibration_quality(unmeasured)


def test_a_round_of_an_earlier_version_has_no_band_and_none_is_made_up():
    old = used(metrics=replace(MEASURED, ece_band=None))
    assert "there are no measurements" in text.calibration_quality(old)
    assert list(text.figures(Measured(old.row, old.metrics)).values())[-1] == "0.05"


def test_probabilities_are_called_unreliable_where_the_gap_is_more_than_chance():
    assert "no sign of a problem" in text.calibration_quality(used())
    unreliable = text.calibration_quality(used(120, metrics=replace(MEASURED, ece=0.12)))
    assert "Do not rely on its probabilities" in unreliable
    assert "well calibrated" not in unreliable


@pytest.mark.parametrize(("spread", "said"), [(0.3, "77 to 98 times in 100"), (0.05, "88 to 92 times in 100")])
def test_it_says_how_far_off_a_probability_may_be(spread, said):
    assert f"Suggestions given 90\u00a0% are probably right {said}" in text.calibration_quality(used(spread=spread))


def test_below_thirty_audit_answers_probabilities_are_never_called_calibrated():
    assert text.calibration_quality(used(29)).startswith("It is too early to say")


def test_an_offer_says_size_precision_confidence_and_what_it_saves():
    said = guarantees.offered(an_offer(3400, PROMISE)).replace("\u00a0", " ")
    assert said == (
        "These 3,400 suggestions can be auto-accepted: at least 95 in 100 are right, with 95 % confidence. "
        "This saves about 4 hours of work."
    )
    assert "for each label separately" in guarantees.offered(an_offer(10, PROMISE, NotYet(WISH, 3, 70)))


def test_a_guarantee_that_no_open_utterance_meets_is_no_offer():
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
    assert guarantees.of_label("no", NotYet(WISH, 9, None))["Missing"] == "too uncertain"


def test_the_evidence_of_a_guarantee_is_shown_with_its_errors():
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
    learned = [replace(one, row=replace(one.row, metrics_json='{"cross_fitted": true}')) for one in map(used, (20, 70))]
    few, enough = (guarantees.not_yet(NotYet(WISH, 0, 59), one) for one in learned)
    assert few.startswith("Not yet: about 39 more audit answers are needed")
    assert "Retrain" in enough


def test_an_acceptance_says_what_became_of_it():
    one = Acceptance(
        id=1,
        round_number=3,
        annotator="ada",
        target=0.95,
        confidence=0.95,
        at="2026-11-21T10:00:00.000",
        size=1,
        checks=0,
        errors=0,
        ended=None,
        reason_json=None,
    )
    stands = guarantees.acceptance(one)
    assert stands.startswith("1 suggestion of round 3, accepted by ada, 2026-11-21 10:00: at least 95 in 100 right.")
    assert stands.endswith("No spot checks yet. In effect.")
    fallen = replace(one, checks=9, errors=4, ended="withdrawn", reason_json="4 of 9 spot checks")
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
