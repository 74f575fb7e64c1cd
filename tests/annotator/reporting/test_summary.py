"""What is told of model and work comes from the right answers, and the numbers are those one gets by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest

from annotator.codebook.definition import codebook_of
from annotator.labeling.auto_accept import accept
from annotator.loop import run_round
from annotator.methods.guarantee import Evidence, Target
from annotator.methods.metrics import Bin
from annotator.project import Project
from annotator.reporting import summary
from annotator.reporting.summary import Confusion, InUse, in_use
from annotator.rounds.lifecycle import begin_round, roll_back
from annotator.rounds.snapshot import take_snapshot
from store import acceptances, annotations, rounds, utterances
from store.annotations import NewAnnotation
from tests.annotator.scenes import LABELS, classifier_of, label_pool, new_project, truth
from tests.store.frozen import FROZEN, thaw
from tests.store.rows import A_ROUND


def say(project: Project, utterance: int, name: str | None, **details: object) -> None:
    """Record an answer directly; None says that no label fits."""
    codebook = codebook_of(project)
    label = codebook.id_of(name) if name else None
    given = {"annotator": "ada", "strategy": "audit", **details}
    kind = "label" if name else "none_fits"
    annotations.record(
        project.db,
        NewAnnotation(utterance, kind=kind, label_id=label, codebook_version=codebook.version, **given),
    )


def answer_audit(project: Project, count: int | None = None, wrong: int = 0) -> None:
    """Answer audit utterances rightly, the first few otherwise."""
    for place, row in enumerate(utterances.read(project.db, utterances.ids_in(project.db, "audit")[:count])):
        name = truth(row.text)
        say(project, row.id, LABELS[(LABELS.index(name) + 1) % 3] if place < wrong else name)


def make_round(project: Project) -> InUse:
    run_round(project, classifier_of(project), project.config)
    found = in_use(project)
    assert found
    return found


def used_of(audit: list[list[float]], answers: list[int], pool: list[list[float]]) -> InUse:
    evidence = Evidence(np.array(audit), np.array(answers), np.array(pool).reshape(-1, 3), 0.1)
    return InUse(A_ROUND, None, (1, 2, 3), LABELS, evidence, np.arange(len(pool)), 0)


@pytest.fixture
def project(tmp_path):
    with new_project(tmp_path / "p", 200) as project:
        yield project


# Before there is anything


def test_a_new_project_has_nothing_to_tell_and_says_so_without_failing(project):
    assert in_use(project) is None
    assert summary.learning_curve(project) == []
    assert summary.people_agree(project) is None
    assert summary.queried_accuracy(project) == []
    pace = summary.time_per_answer(project)
    assert (pace.timed, pace.seconds, pace.steps, pace.left) == (0, None, (), 200)
    assert {one.total for one in summary.label_counts(project, None)} == {0}


def test_a_round_without_audit_answers_has_no_accuracy_and_no_bins(project):
    used = make_round(project)
    (only,) = summary.learning_curve(project)
    assert (only.row.number, only.row.trained_on, only.row.audited_on) == (0, 0, 0)
    assert only.metrics is used.metrics is None
    assert summary.coverage_curve(used) == []
    assert summary.observed_confusion(used).total == 0
    assert summary.flips(project, used, 10) is None


@pytest.mark.parametrize("script", FROZEN, ids=lambda path: path.stem)
def test_projects_made_by_earlier_versions_can_be_looked_at(tmp_path, script):
    with Project.open(thaw(script.read_text(encoding="utf-8"), tmp_path / "old")) as project:
        assert summary.learning_curve(project)
        used = in_use(project)
        assert used
        summary.coverage_curve(used)
        summary.label_counts(project, used)
        summary.flips(project, used, 10)
        summary.queried_accuracy(project)
        summary.time_per_answer(project)


# How good the rounds are


def test_the_learning_curve_is_what_each_round_was_measured_at(project):
    answer_audit(project)
    make_round(project)
    label_pool(project, 12)
    make_round(project)
    first, second = summary.learning_curve(project)
    assert (first.row.number, first.row.trained_on, second.row.number, second.row.trained_on) == (0, 0, 1, 12)
    assert first.metrics.n == second.metrics.n == first.row.audited_on == second.row.audited_on == 40
    stored, found = rounds.history(project.db)[0].metrics, second.metrics
    assert (found.accuracy, found.nll, found.ece) == (stored["accuracy"], stored["nll"], stored["ece"])
    right = round(found.accuracy * 40)
    exact = binomtest(right, 40).proportion_ci(0.95, method="exact")
    assert found.accuracy_interval == pytest.approx((exact.low, exact.high))
    assert found.ece_band[0] < found.ece_band[1]


def test_a_round_that_failed_is_not_on_the_curve(project):
    make_round(project)
    row = begin_round(project, project.config, take_snapshot(project, project.config, np.random.default_rng(0)))
    rounds.close(project.db, row.id, "failed")
    assert [one.row.number for one in summary.learning_curve(project)] == [0]


def test_the_bins_cover_the_audit_answers_and_the_band_is_the_exact_binomial_one(project):
    answer_audit(project)
    bins = make_round(project).metrics.reliability
    assert sum(one.n for one in bins) == 40
    # Of 10 answers, each right with one half, 2 to 8 are right: fewer than 2 have 11/1024 < 2.5 %, up to 2 56/1024.
    assert Bin(10, 0.5, 1.0, 0.7, 1.0).band == (0.2, 0.8)
    assert Bin(4, 1.0, 1.0, 0.4, 1.0).band == (1.0, 1.0)


def test_the_risk_coverage_curve_counts_errors_from_the_surest_answer_on():
    audit = [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.3, 0.0, 0.7], [0.6, 0.4, 0.0]]
    curve = summary.coverage_curve(used_of(audit, [0, 0, 2, 1], []))
    assert [one.n for one in curve] == [1, 2, 3, 4]
    assert [one.coverage for one in curve] == [0.25, 0.5, 0.75, 1.0]
    assert [one.error for one in curve] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    for one, errors in zip(curve, [0, 1, 1, 2], strict=True):
        exact = binomtest(errors, one.n).proportion_ci(0.95, method="exact")
        assert (one.low, one.high) == pytest.approx((exact.low, exact.high), abs=1e-7)


def test_a_model_that_is_always_wrong_has_the_interval_of_that():
    (only,) = summary.coverage_curve(used_of([[0.9, 0.1, 0.0]], [1], []))
    assert (only.error, only.low, only.high) == pytest.approx((1, 0.025, 1))


def test_observed_confusion_counts_what_was_said_by_what_is_true():
    used = used_of([[0.9, 0.1, 0], [0.8, 0.2, 0], [0, 0.1, 0.9]], [0, 1, 2], [])
    assert summary.observed_confusion(used).counts.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_expected_confusion_sums_probabilities_by_the_likeliest_label():
    used = used_of([[1, 0, 0]], [0], [[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [0.1, 0.3, 0.6]])
    found = summary.expected_confusion(used)
    np.testing.assert_allclose(found.counts, [[1.2, 0.45, 0.35], [0, 0, 0], [0.1, 0.3, 0.6]])
    assert found.total == pytest.approx(3)


def test_of_many_labels_those_confused_most_are_kept_in_codebook_order():
    counts = np.diag([50.0, 50, 50, 50])
    counts[3, 1] = 4
    kept = Confusion(("a", "b", "c", "d"), counts).worst(2)
    assert kept.names == ("b", "d")
    assert kept.counts.tolist() == [[50, 0], [4, 50]]


# What has been labelled, and what is left


def test_labels_are_counted_by_where_they_come_from(project):
    used = make_round(project)
    pool, audit = (utterances.ids_in(project.db, name) for name in ("pool", "audit"))
    say(project, pool[0], "promise", strategy="margin")
    say(project, pool[1], "promise", strategy="margin")
    say(project, audit[0], "promise")
    say(project, audit[1], None)
    say(project, pool[2], "wish", strategy="margin")
    say(project, pool[2], "report", strategy="margin", annotator="bob")  # no consensus
    used = in_use(project)
    counts = {one.name: one for one in summary.label_counts(project, used)}
    assert (counts["promise"].pool, counts["promise"].audit, counts["promise"].accepted) == (2, 1, 0)
    assert (counts["wish"].pool, counts["report"].pool) == (0, 0)
    assert sum(one.expected for one in counts.values()) == pytest.approx(157, abs=1e-3), "160 less 3 answered"


def test_what_was_accepted_is_counted_and_no_longer_expected(project):
    answer_audit(project)
    label_pool(project, 60)
    used = make_round(project)
    open_before = len(used.open_ids)
    accept(project, "ada", Target(0.8, 0.8))
    (act,) = acceptances.history(project.db)
    counts = summary.label_counts(project, in_use(project))
    assert sum(one.accepted for one in counts) == act.size > 0
    assert sum(one.expected for one in counts) == pytest.approx(open_before - act.size, abs=1e-3)


def test_flips_are_the_utterances_whose_likeliest_label_changed_surest_first(project):
    make_round(project)
    label_pool(project, 30)
    used = make_round(project)
    found = summary.flips(project, used, 1000)
    assert summary.flips(project, used, 10).flips == found.flips[:10]
    assert summary.flips(project, used, 10).changed == found.changed == len(found.flips)
    assert (found.before, found.now) == (0, 1)
    newer, older = (rounds.predictions_of(project.db, row) for row in rounds.history(project.db))
    best_before = dict(zip(older.utterance_ids.tolist(), older.probabilities.argmax(axis=1), strict=True))
    expected = {
        int(i): (LABELS[best_before[int(i)]], LABELS[best])
        for i, best in zip(newer.utterance_ids, newer.probabilities.argmax(axis=1), strict=True)
        if best_before[int(i)] != best
    }
    assert {one.utterance_id: (one.before, one.now) for one in found.flips} == expected
    assert 0 < len(expected) < found.compared == len(newer.utterance_ids)
    sure = [one.now_probability for one in found.flips]
    assert sure == sorted(sure, reverse=True)
    assert {one.utterance_id: one.text for one in found.flips} == {
        row.id: row.text for row in utterances.read(project.db, sorted(expected))
    }


def test_after_going_back_to_the_first_round_there_is_none_to_compare_it_with(project):
    first = make_round(project)
    label_pool(project, 12)
    make_round(project)
    roll_back(project, first.row.id, "ada")
    assert summary.flips(project, in_use(project), 10) is None


# The work


def test_the_pace_is_the_median_of_25_answers_at_a_time(project):
    pool = utterances.ids_in(project.db, "pool")
    for place, utterance in enumerate(pool[:60]):
        seconds = 4 if place < 25 else 10 if place < 50 else 1 + place - 50
        say(project, utterance, "wish", strategy="margin", milliseconds=1000 * seconds)
    say(project, pool[60], "wish", strategy="margin")  # nobody took the time
    pace = summary.time_per_answer(project)
    assert [(one.first, one.last, one.seconds) for one in pace.steps] == [(1, 25, 4), (26, 50, 10), (51, 60, 5.5)]
    assert (pace.timed, pace.seconds, pace.left) == (60, 5.5, 139)
    # left by the mean, six slowest and six quickest aside: 23 fours, 5 to 9, 20 tens
    assert pace.hours_left == pytest.approx(139 * (92 + 35 + 200) / 48 / 3600)


def test_labels_that_came_with_a_file_are_no_second_opinion(project):
    first, second = utterances.ids_in(project.db, "pool")[:2]
    say(project, first, "wish", strategy="margin")
    say(project, first, "report", strategy="given", annotator="given")
    assert summary.people_agree(project) is None
    say(project, second, "wish", strategy="margin")
    say(project, second, "wish", strategy="margin", annotator="bob")
    found = summary.people_agree(project)
    assert (found.utterances, found.share) == (1, 1.0)


def test_accuracy_on_chosen_utterances_leaves_out_audit_and_random_ones(project):
    row = make_round(project).row
    known = rounds.predictions_of(project.db, row)
    best = dict(zip(known.utterance_ids.tolist(), known.probabilities.argmax(axis=1).tolist(), strict=True))
    pool, audit = (utterances.ids_in(project.db, name) for name in ("pool", "audit"))
    right, wrong = (lambda i: LABELS[best[i]]), (lambda i: LABELS[best[i] - 1])
    for utterance in pool[:3]:
        say(project, utterance, right(utterance), strategy="margin", round_id=row.id)
    say(project, pool[3], wrong(pool[3]), strategy="margin", round_id=row.id)
    say(project, pool[4], wrong(pool[4]), strategy="random", round_id=row.id)
    say(project, audit[0], wrong(audit[0]), round_id=row.id)
    say(project, pool[5], wrong(pool[5]), strategy="margin")  # asked before any round
    assert summary.queried_accuracy(project) == [summary.QueriedAccuracy(0, 3, 4)]


def test_the_audit_answers_alone_make_up_the_evidence(project):
    answer_audit(project, 10, wrong=2)
    label_pool(project, 12)
    used = make_round(project)
    audit = set(utterances.ids_in(project.db, "audit"))
    answered = Counter(one.utterance_id in audit for one in annotations.answers(project.db))
    assert summary.observed_confusion(used).total == answered[True]
