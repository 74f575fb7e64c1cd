"""Test that anchoring is measured on answers whose suggestion was shown or withheld at random."""

from __future__ import annotations

import numpy as np
import pytest

from annotator.methods.anchoring import FEW, pull
from annotator.reporting.summary import suggestion_pull
from annotator.reporting.text import suggestion_effect
from tests.store.rows import answer


def said(count, agree, shown=True, withheld="chance", kind="label"):
    suggested = {"suggested_label_id": 1 if shown else None, "withheld": "" if shown else withheld}
    hidden = {"withheld_label_id": None if shown else 1}
    return [answer(kind=kind, label_id=1 if i < agree else 2, **suggested, **hidden) for i in range(count)]


def test_agreement_is_compared_between_shown_and_hidden():
    found = suggestion_pull(said(100, 90) + said(50, 30, shown=False))
    assert (found.shown, found.agreed_shown, found.hidden, found.agreed_hidden) == (100, 90, 50, 30)
    assert found.size == pytest.approx(0.3)
    low, high = found.interval
    assert 0 < low < 0.3 < high < 1
    assert "90 times in 100" in suggestion_effect(found)
    assert ": statistically significant" in suggestion_effect(found)


def test_skips_choices_and_answers_without_a_suggestion_are_in_neither():
    base = said(30, 20) + said(30, 20, shown=False)
    others = said(9, 9, kind="skip") + said(9, 9, shown=False, withheld="choice") + said(9, 9, shown=False, withheld="")
    assert suggestion_pull(base + others) == suggestion_pull(base)
    assert "not statistically significant" in suggestion_effect(suggestion_pull(base))


@pytest.mark.parametrize(("shown", "hidden"), [(0, 0), (100, FEW - 1), (FEW - 1, 100)])
def test_of_a_few_answers_nothing_is_said(shown, hidden):
    assert suggestion_pull(said(shown, shown) + said(hidden, 0, shown=False)) is None
    assert f"takes {FEW} answers" in suggestion_effect(None)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        one, two = rng.binomial(200, 0.8), rng.binomial(40, 0.65)
        shown, hidden = ((True, i < one) for i in range(200)), ((False, i < two) for i in range(40))
        low, high = pull([*shown, *hidden]).interval
        inside += low <= 0.15 <= high
    assert inside >= 0.94 * 400
