"""Test the coverage and the size of prediction sets."""

from __future__ import annotations

import numpy as np

from annotator.labeling.session import next_question
from annotator.methods.prediction_sets import fit_limit, shortlist
from store import annotations
from store.annotations import NewAnnotation
from tests.annotator.methods.test_guarantee import population
from tests.annotator.scenes import half_answered


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


def test_a_large_codebook_has_a_short_list_and_a_small_one_needs_none(tmp_path):
    for labels, long in ((12, True), (3, False)):
        with half_answered(tmp_path / str(labels), labels) as project:
            suggestion = None
            while suggestion is None:
                question = next_question(project, "ada")
                suggestion = question.suggestion
                annotations.record(project.db, NewAnnotation(question.utterance.id, "ada", "skip", None, "test", 1))
            assert bool(suggestion.shortlist) == long
            if long:
                assert suggestion.shortlist[0] == suggestion.best[0]
                assert len(suggestion.shortlist) < labels
