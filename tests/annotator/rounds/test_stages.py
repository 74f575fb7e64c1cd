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
from annotator.loop import calibrate, check_trainable, run_round, stage_costs, trainable
from annotator.methods.calibration import CalibrationPrior, Calibrator, cross_fitted, fit_calibrator
from annotator.methods.metrics import Uncalibrated, evaluate
from annotator.methods.prediction_sets import fit_limit
from annotator.rounds.snapshot import Snapshot, read_texts
from model import constants
from store import states, utterances
from tests.annotator.scenes import CONFIG, PROMISE, REPORT, WISH, classifier_of, label_pool, make
from tests.fake import FakeClassifier


@pytest.fixture
def snapshot(project) -> Snapshot:
    """Six training examples, three audit answers, ten utterances to score."""
    train = {i: (PROMISE, REPORT, WISH)[i % 3] for i in range(1, 7)}
    audit = {11: PROMISE, 13: WISH, 15: REPORT}
    return Snapshot(train, audit, tuple(range(7, 17)), frozenset(), 9, codebook_of(project))


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


def test_a_first_round_with_too_few_labels_trains_on_none(project, snapshot):
    few = replace(snapshot, train={1: PROMISE})
    assert trainable(project, few, CONFIG) == replace(few, train={})
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
    assert stage_costs(snapshot, CONFIG, unread=7) == {"read": 3.5, "learn": 3 * epochs * 6, "score": 10}
    upper = stage_costs(snapshot, replace(CONFIG, recipe=replace(CONFIG.recipe, depth="upper")), unread=7)
    assert upper["read"] == 3.5
    assert upper["learn"] / upper["score"] == 3 * epochs * 6 / 10
    assert upper["score"] == pytest.approx(10 * (1 - constants.ADAPTED_FROM))
    probe_alone = replace(CONFIG, recipe=replace(CONFIG.recipe, probe_weight=1.0))
    assert stage_costs(snapshot, probe_alone, unread=0)["learn"] == 0


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
    number = run_round(project, other, CONFIG).row.number
    assert [one.message for one in caplog.records if "recomputes" in one.message] == [
        f"The backbone or the prompt has changed: round {number} recomputes all hidden states."
    ]


# Calibration and evaluation


def test_audit_answers_alone_are_evaluated_before_and_after_calibration(snapshot):
    logits, prior = logits_of(10), CalibrationPrior()
    rows, truth = logits[[4, 6, 8]], np.array([0, 2, 1])
    calibrator, metrics = calibrate(logits, snapshot, prior)
    assert calibrator == fit_calibrator(rows, truth, prior)
    probabilities = cross_fitted(rows, truth, prior)
    raw = evaluate(Calibrator(1.0)(rows), truth)
    expected = evaluate(probabilities, truth)
    before = Uncalibrated(raw.nll, raw.brier, raw.ece)
    assert metrics == replace(expected, raw=before, shortlist_limit=fit_limit(probabilities, truth))


@pytest.mark.parametrize("answers", [0, 1, 2])
def test_two_audit_answers_are_the_fewest_that_are_evaluated(snapshot, answers):
    snapshot = replace(snapshot, audit=dict(list(snapshot.audit.items())[:answers]))
    calibrator, metrics = calibrate(logits_of(10), snapshot, CalibrationPrior())
    assert calibrator.answers == answers
    assert (metrics is not None) == (answers == 2)


def test_the_prior_of_a_round_is_estimated_from_its_quick_classifier_and_training_examples(project, monkeypatch):
    run_round(project, classifier_of(project), CONFIG)
    label_pool(project, 9)
    given = []
    real = CalibrationPrior.trained

    def trained(*arguments):
        given.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(CalibrationPrior, "trained", trained)
    run_round(project, classifier_of(project), CONFIG)
    ((logits, probe_logits, examples, adapter_weight),) = given
    assert logits.shape == probe_logits.shape
    assert (examples, adapter_weight) == (9, 1 - CONFIG.recipe.probe_weight)
