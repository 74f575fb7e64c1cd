"""Test the coverage and the size of prediction sets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from annotator.labeling.session import next_question
from annotator.methods.prediction_sets import fit_limit, shortlist
from store import rounds
from tests.annotator.methods.test_guarantee import population
from tests.annotator.scenes import half_answered, skip_to_suggestion


def test_a_short_list_holds_the_right_label_95_times_in_100():
    rows, truth = population(20_000, 7, labels=20, sharpness=2.0)
    shares = []
    for seed in range(40):
        order = np.random.default_rng(seed).permutation(20_000)
        limit = fit_limit(rows[order[:100]], truth[order[:100]])
        fresh = order[100:600]
        lists = [shortlist(rows[i], limit) for i in fresh]
        shares.append(np.mean([truth[i] in short for i, short in zip(fresh, lists, strict=True)]))
        assert np.mean([len(short) for short in lists]) < 15
    assert np.mean(shares) >= 0.94


def test_a_short_list_needs_nineteen_answers():
    rows, truth = population(19, 8)
    assert fit_limit(rows, truth) is not None
    assert fit_limit(rows[:18], truth[:18]) is None


def test_a_short_list_is_never_empty_and_has_the_likeliest_first():
    assert shortlist([0.2, 0.5, 0.3], 0.9) == [1]
    assert shortlist([0.2, 0.5, 0.3], 0.25) == [1, 2]


def test_where_a_number_is_undefined_a_short_list_leaves_out_no_label():
    assert sorted(shortlist([0.2, 0.5, 0.3], np.nan)) == [0, 1, 2]


# In a project


@pytest.mark.parametrize(("labels", "is_large"), [(10, True), (9, False)])
def test_a_large_codebook_has_a_short_list_and_a_small_one_needs_none(tmp_path, labels, is_large):
    with half_answered(tmp_path / "p", labels) as project:
        suggestion = skip_to_suggestion(project).suggestion
        in_use = rounds.promoted(project.db)
        for limit, likely in ((in_use.metrics["shortlist_limit"], 1), (suggestion.probabilities[3][1], 4), (None, 0)):
            metrics = json.dumps(in_use.metrics | {"shortlist_limit": limit})
            project.db.execute("UPDATE round SET metrics = ? WHERE id = ?", (metrics, in_use.id))
            suggestion = next_question(project, "ada").suggestion
            likeliest = [label for label, _ in suggestion.probabilities]
            assert suggestion.shortlist == (tuple(likeliest[:likely]) if is_large else ())
