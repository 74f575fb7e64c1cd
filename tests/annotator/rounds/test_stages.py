"""Test the stages of a round one by one, on snapshots made by hand."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from annotator import loop
from annotator.codebook import changes
from annotator.codebook.definition import codebook_of
from annotator.errors import RoundError, TooFewAnswers
from annotator.loop import calibrate, check_trainable, run_round, stage_costs, temperature_prior, trainable
from annotator.methods.calibration import CalibrationPrior, Calibrator, ProbeEvidence, cross_fitted, fit_calibrator
from annotator.methods.metrics import evaluate
from annotator.methods.prediction_sets import fit_limit
from annotator.rounds.progress import Report
from annotator.rounds.snapshot import Snapshot, read_texts, take_snapshot
from store import states, utterances
from tests.annotator.scenes import CONFIG, PROMISE, REPORT, WISH, change, classifier_of, label_pool, make, say
from tests.fake import FakeClassifier


@pytest.fixture
def snapshot(project) -> Snapshot:
    """Six training examples, four of them drawn at random; three audit answers; ten utterances to score."""
    train = {i: (PROMISE, REPORT, WISH)[i % 3] for i in range(1, 7)}
    audit = {11: PROMISE, 13: WISH, 15: REPORT}
    drawn = frozenset([1, 2, 3, 4, 11])
    return Snapshot(train, audit, tuple(range(7, 17)), frozenset(), 9, codebook_of(project), drawn)


def logits_of(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 3)) * 2


# What can be trained on


@pytest.mark.parametrize(
    ("train", "scored", "told"),
    [
        ({1: PROMISE}, (7,), "1 labels can be trained on, 4 are needed."),
        ({1: PROMISE, 2: WISH, 3: PROMISE}, (7,), "3 labels can be trained on, 4 are needed."),
        (dict.fromkeys(range(4), WISH), (7,), "All 4 labels to train on are the same."),
        ({1: PROMISE, 2: WISH}, (), "0 utterances are left to label, 2 have a label."),
        ({}, (), "0 utterances are left to label, 0 have a label."),
        ({}, (7,), None),
        ({1: PROMISE, 2: WISH, 3: PROMISE, 4: PROMISE}, (7,), None),
    ],
)
def test_a_round_needs_enough_labels_of_two_kinds_or_none_and_something_to_label(snapshot, train, scored, told):
    snapshot = replace(snapshot, train=train, scored=scored)
    if told is None:
        check_trainable(snapshot, CONFIG)
        return
    with pytest.raises(TooFewAnswers) as refused:
        check_trainable(snapshot, CONFIG)
    assert str(refused.value) == f"{told} {refused.value.hint}"
    hints = {"1": "Label 3 more.", "3": "Label 1 more.", "A": "Keep labeling until", "0": "Import more utterances."}
    assert refused.value.hint.startswith(hints[told[0]])


def test_a_first_round_with_too_few_labels_trains_on_none_and_evaluates_nothing_twice(project, snapshot):
    few = replace(snapshot, train={1: PROMISE}, cross_fitted=True)
    assert trainable(project, few, CONFIG) == replace(few, train={}, cross_fitted=False)
    assert trainable(project, snapshot, CONFIG) == snapshot
    with pytest.raises(TooFewAnswers, match="0 utterances"):
        trainable(project, replace(few, scored=()), CONFIG)
    run_round(project, classifier_of(project), CONFIG)
    with pytest.raises(TooFewAnswers, match="1 labels"):
        trainable(project, few, CONFIG)


def test_a_classifier_of_an_earlier_codebook_is_refused(project):
    early = classifier_of(project)
    version = make(project, changes.add(project, {"name": "vow"}))
    with pytest.raises(RoundError, match=f"changed to version {version} while") as refused:
        run_round(project, early, project.config)
    assert refused.value.hint == "Retrain to start it again."


# What a stage costs


def test_costs_are_counted_in_scored_utterances(snapshot):
    epochs = CONFIG.recipe.epochs
    plain = {"read": 3.5, "check": 0, "learn": 3 * epochs * 6, "score": 10}
    assert stage_costs(snapshot, CONFIG, unread=7) == plain
    # Two folds of three audit answers: each is left out once of nine examples.
    checked = {**plain, "check": 3 * epochs * (2 * 9 - 3), "learn": 3 * epochs * 9}
    assert stage_costs(replace(snapshot, cross_fitted=True), CONFIG, unread=7) == checked
    one = replace(snapshot, cross_fitted=True, audit={11: PROMISE})
    assert stage_costs(one, CONFIG, unread=0)["check"] == 3 * epochs * 6
    probe_alone = replace(CONFIG, recipe=replace(CONFIG.recipe, probe_weight=1.0))
    assert stage_costs(replace(snapshot, cross_fitted=True), probe_alone, unread=0) == {
        "read": 0,
        "check": 0,
        "learn": 0,
        "score": 10,
    }


# Reading


def test_hidden_states_are_computed_in_parts_stored_and_given_to_the_classifier_once(project, monkeypatch):
    monkeypatch.setattr(loop, "READ_AT_ONCE", 7)
    ids = utterances.ids_in(project.db, "pool")[:20]
    given, shares = [], []

    def remember(self, some, matrix):
        given.extend(zip([one.text for one in some], matrix.tolist(), strict=True))

    monkeypatch.setattr(FakeClassifier, "remember", remember)
    classifier = classifier_of(project)
    states.use(project.db, classifier.reading)
    loop.read(project, classifier, CONFIG, ids[:6], shares.append)
    assert shares == [1.0]
    given.clear()
    shares.clear()
    loop.read(project, classifier, CONFIG, ids, shares.append)
    assert classifier.read == 20
    assert shares == [7 / 14, 14 / 14]
    texts = read_texts(project, ids, CONFIG.context_turns)
    assert [text for text, _ in given] == [one.text for one in texts]
    np.testing.assert_array_equal([row for _, row in given], states.matrix(project.db, ids))
    assert states.known(project.db, ids) == set(ids)


def test_another_instruction_is_logged_because_all_is_read_anew(project, caplog):
    caplog.set_level(logging.WARNING)
    run_round(project, classifier_of(project), CONFIG)
    run_round(project, classifier_of(project), CONFIG)
    assert not [one for one in caplog.records if "recomputes" in one.message]
    other = classifier_of(project)
    other.reading = "other words"
    number = run_round(project, other, CONFIG).row["number"]
    assert [one.message for one in caplog.records if "recomputes" in one.message] == [
        f"The backbone or the prompt has changed: round {number} recomputes all hidden states."
    ]


# Cross-fitting


def test_the_folds_of_a_check_take_equal_parts_of_its_progress(project, snapshot):
    snapshot, shares = replace(snapshot, cross_fitted=True), []
    report = Report(lambda stage, share, left: shares.append(share))
    report.plan(check=1.0)
    held_out = loop.score_cross_fitted(project, classifier_of(project), CONFIG, snapshot, report)
    assert held_out.keys() == snapshot.audit.keys()
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert 0.5 in shares
    assert (
        loop.score_cross_fitted(project, classifier_of(project), CONFIG, replace(snapshot, cross_fitted=False), report)
        == {}
    )


# Calibration and evaluation


def test_audit_answers_alone_are_evaluated_before_and_after_calibration(snapshot):
    logits, prior = logits_of(10), CalibrationPrior()
    rows, truth = logits[[4, 6, 8]], np.array([0, 2, 1])
    calibrator, metrics = calibrate(logits, snapshot, prior)
    assert calibrator == fit_calibrator(rows, truth, prior)
    probabilities = cross_fitted(rows, truth, prior)
    raw = evaluate(Calibrator(1.0)(rows), truth)
    expected = evaluate(probabilities, truth)
    assert {name: metrics[name] for name in expected} == expected
    assert metrics["raw"] == {name: raw[name] for name in ("nll", "brier", "ece")}
    assert (metrics["cross_fitted"], metrics["shortlist_limit"]) == (False, fit_limit(probabilities, truth))
    assert calibrate(logits, replace(snapshot, cross_fitted=True), prior)[1]["cross_fitted"]


@pytest.mark.parametrize("answers", [0, 1, 2])
def test_two_audit_answers_are_the_fewest_that_are_evaluated(snapshot, answers):
    snapshot = replace(snapshot, audit=dict(list(snapshot.audit.items())[:answers]))
    calibrator, metrics = calibrate(logits_of(10), snapshot, CalibrationPrior())
    assert calibrator.answers == metrics["n"] == answers
    assert ("accuracy" in metrics) == (answers == 2)


def test_a_prior_is_estimated_from_the_quick_classifier_if_there_is_one(snapshot):
    logits, probe_logits, weight = logits_of(10), logits_of(10, 1), CONFIG.recipe.probe_weight
    assert temperature_prior(replace(snapshot, train={}), CONFIG, logits, probe_logits) == CalibrationPrior.untrained(
        logits
    )
    assert temperature_prior(snapshot, CONFIG, logits, None) == CalibrationPrior.trained(weight, logits)
    evidence = ProbeEvidence(probe_logits, 6, 1 - 4 / 6)
    assert temperature_prior(snapshot, CONFIG, logits, probe_logits) == CalibrationPrior.trained(
        weight, logits, evidence
    )


def test_a_snapshot_of_few_audit_answers_is_checked_by_cross_fitting_and_promoted(project):
    run_round(project, classifier_of(project), project.config)
    config = change(project, cross_fit_below=30)
    label_pool(project, 9)
    say(project, utterances.ids_in(project.db, "audit")[-1], "ben", WISH)
    snapshot = take_snapshot(project, config, np.random.default_rng(0))
    assert snapshot.cross_fitted
    assert run_round(project, classifier_of(project), config).metrics["cross_fitted"]
