"""Test rounds: training examples, evaluation on the audit sample, and promotion in one transaction."""

from __future__ import annotations

import numpy as np
import pytest

from annotator import loop
from annotator.codebook.definition import codebook_of
from annotator.errors import RoundCancelled, TooFewAnswers
from annotator.labeling.session import answer, next_question
from annotator.loop import run_round, stage_costs
from annotator.methods.calibration import Calibrator
from annotator.methods.metrics import evaluate
from annotator.project import Project
from annotator.rounds.lifecycle import recover
from annotator.rounds.progress import Report
from annotator.rounds.snapshot import read_texts
from store import annotations, jobs, queue, rounds, utterances
from store.annotations import NewAnnotation
from store.database import fetch_value
from tests.annotator.scenes import (
    classifier_of,
    label_pool,
    new_project,
    right,
    truth,
    work_through,
)
from tests.fake import FakeAdapter, FakeClassifier


def one_round(project, report=None):
    return run_round(project, classifier_of(project), project.config, report)


def state(project):
    """Everything that a round in use consists of."""
    tables = {name: list(project.db.query(f"SELECT * FROM {name}")) for name in ("prediction", "queue")}
    return {**tables, "promoted": rounds.promoted(project.db)}


# What a round is


def test_the_first_round_is_zero_shot_and_the_next_ones_are_trained(project):
    first = one_round(project)
    assert (first.row.number, first.row.trained_on) == (0, 0)
    assert first.calibrator.label_prior is not None
    label_pool(project, 9)
    second = one_round(project)
    assert (second.row.number, second.row.trained_on) == (1, 9)
    assert second.calibrator.label_prior is None
    label_pool(project, 9)
    assert one_round(project).row.trained_on == 18
    assert [row.state for row in rounds.history(project.db)] == ["promoted"] * 3


def test_a_round_that_starts_with_labels_has_number_one(project):
    label_pool(project, 9)
    assert one_round(project).row.number == 1


def test_trained_rounds_learn(project):
    one_round(project)
    label_pool(project, 24)
    done = one_round(project)
    ids = utterances.ids_in(project.db, "pool")
    rows = done.calibrator(done.adapter.logits(read_texts(project, ids, 0)))
    said = [codebook_of(project).names[i] for i in rows.argmax(axis=1)]
    meant = [truth(row.text) for row in utterances.read(project.db, ids)]
    assert np.mean([a == b for a, b in zip(said, meant, strict=True)]) > 0.9


def test_metrics_come_from_the_audit_sample_alone(project, monkeypatch):
    one_round(project)
    label_pool(project, 15)
    judged = []

    def judging(rows, labels):
        judged.append((rows, labels))
        return evaluate(rows, labels)

    monkeypatch.setattr(loop, "evaluate", judging)
    done = one_round(project)
    audit = set(utterances.ids_in(project.db, "audit"))
    answered = [a for a in annotations.answers(project.db) if a.utterance_id in audit]
    rows, labels = judged[-1]
    order = codebook_of(project).ids
    assert len(rows) == len(labels) == len(answered) == done.row.audited_on > 2
    by_utterance = sorted(answered, key=lambda a: a.utterance_id)
    assert labels.tolist() == [order.index(a.label_id) for a in by_utterance]
    logits = done.adapter.logits(read_texts(project, [a.utterance_id for a in by_utterance], 3))
    said = rounds.predictions_of(project.db, done.row)
    probe_logits = done.adapter.probe_logits(read_texts(project, said.utterance_ids.tolist(), 3))
    prior = loop.CalibrationPrior.trained(
        said.logits, probe_logits, done.row.trained_on, 1 - project.config.recipe.probe_weight
    )
    cross = loop.cross_fitted(logits, labels, prior)
    np.testing.assert_allclose(rows, cross)


def test_a_round_made_again_on_the_same_answers_is_calibrated_alike(project):
    label_pool(project, 15)
    first, second = one_round(project), one_round(project)
    assert first.calibrator.answers > 0
    assert second.calibrator == first.calibrator  # no audit answer counts twice because there was a round before


def test_without_audit_answers_there_are_no_metrics(project):
    assert one_round(project).metrics is None
    assert rounds.promoted(project.db).metrics.keys() == {"n", "trained", "frozen_experts", "unspelled"}


def test_a_stored_round_says_what_it_was_made_from(project):
    label_pool(project, 9)
    done = one_round(project)
    row = rounds.promoted(project.db)
    assert row.config == project.config.to_json()
    assert row.codebook_version == codebook_of(project).version
    assert row.label_ids == codebook_of(project).ids
    assert row.last_annotation == annotations.last_id(project.db)
    assert Calibrator.from_dict(row.calibration) == done.calibrator


def test_predictions_are_stored_for_the_open_pool_and_the_whole_audit_sample(project):
    label_pool(project, 9)
    done = one_round(project)
    known = rounds.predictions_of(project.db, rounds.promoted(project.db))
    trained = set(annotations.answered_ids(project.db)) & set(utterances.ids_in(project.db, "pool"))
    expected = {row.id for row in utterances.iterate(project.db)} - trained
    assert set(known.utterance_ids.tolist()) == expected
    np.testing.assert_allclose(known.probabilities.sum(axis=1), 1, atol=1e-6)
    logits = done.adapter.logits(read_texts(project, known.utterance_ids.tolist(), 3))
    np.testing.assert_allclose(known.logits, logits, rtol=1e-5)
    np.testing.assert_allclose(known.mass, np.log(0.9), atol=1e-5)


def test_the_adapter_is_saved_and_read_back_the_same(project):
    label_pool(project, 9)
    done = one_round(project)
    folder = project.folder / "adapters" / rounds.promoted(project.db).folder
    assert folder.is_dir()
    again = classifier_of(project).load(folder)
    some = read_texts(project, [1, 2, 3], 0)
    np.testing.assert_array_equal(again.logits(some), done.adapter.logits(some))
    assert not list((project.folder / "adapters").glob("tmp-*"))


def test_the_batch_comes_from_the_new_round(project):
    one_round(project)
    label_pool(project, 9)
    done = one_round(project)
    entries = list(project.db.query("SELECT * FROM queue ORDER BY rank"))
    assert {entry["round_id"] for entry in entries} == {done.row.id}
    assert len(entries) == project.config.batch_size
    chosen = [entry for entry in entries if entry["strategy"] == "margin"]
    known = rounds.predictions_of(project.db, rounds.promoted(project.db))
    ordered = np.sort(known.probabilities, axis=1)
    gap = dict(zip(known.utterance_ids.tolist(), 1 - (ordered[:, -1] - ordered[:, -2]), strict=True))
    audit = set(utterances.ids_in(project.db, "audit"))
    best = sorted((score for i, score in gap.items() if i not in audit), reverse=True)[: len(chosen)]
    assert [gap[entry["utterance_id"]] for entry in chosen] == pytest.approx(best, abs=1e-6)
    assert not {entry["utterance_id"] for entry in entries} & annotations.answered_ids(project.db)


def test_the_same_answers_give_the_same_round(tmp_path):
    found = []
    for name in ("a", "b"):
        with new_project(tmp_path / name) as project:
            label_pool(project, 9)
            done = one_round(project)
            entries = list(project.db.query("SELECT utterance_id, score FROM queue ORDER BY rank"))
            found.append((done.calibrator, done.metrics, entries))
    assert found[0] == found[1]


def test_answers_given_while_a_round_runs_are_kept_and_not_asked_again(project, monkeypatch):
    one_round(project)
    label_pool(project, 9)
    given = []

    def answering(self, utterances_, progress=lambda _: None, scoring=FakeAdapter.logits):
        with Project.open(project.folder) as other:  # as the app does: a connection of its own
            given.extend(question.utterance.id for question in work_through(other, 5, "ben"))
        return scoring(self, utterances_, progress)

    monkeypatch.setattr(FakeAdapter, "logits", answering)
    one_round(project)
    assert len(given) == 5
    assert set(given) <= annotations.answered_ids(project.db)
    assert not set(given) & queue.queued_ids(project.db)
    asked = {question.utterance.id for question in work_through(project, 1000)}
    assert not asked & set(given)


def test_progress_rises_from_nothing_to_all(project):
    reports = []
    label_pool(project, 9)
    one_round(project, Report(lambda stage, share, left: reports.append((stage, share))))
    shares = [share for _, share in reports]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, pytest.approx(1))
    assert list(dict.fromkeys(stage for stage, _ in reports)) == [
        "read",
        "learn",
        "save",
        "score",
        "calibrate",
        "promote",
    ]


def test_what_another_instruction_has_read_counts_as_unread(project, monkeypatch):
    planned = []
    monkeypatch.setattr(
        loop, "stage_costs", lambda *given, unread: planned.append(unread) or stage_costs(*given, unread)
    )
    one_round(project)
    label_pool(project, 9)
    one_round(project)
    classifier = classifier_of(project)
    classifier.reading = "other words"
    run_round(project, classifier, project.config)
    assert planned[0] == planned[2] == classifier.read
    assert planned[1] == 0


# When a round is refused


def test_too_few_answers_are_refused_with_both_numbers(project):
    one_round(project)
    label_pool(project, 3)
    with pytest.raises(TooFewAnswers, match="3 labels can be trained on, 4 are needed") as caught:
        one_round(project)
    assert "Label 1 more" in caught.value.hint
    assert len(rounds.history(project.db)) == 1


def test_labels_that_are_all_the_same_are_refused(project):
    one_round(project)
    label_pool(project, 6, without=("report", "wish"))
    with pytest.raises(TooFewAnswers, match="All 6 labels to train on are the same"):
        one_round(project)
    assert len(rounds.history(project.db)) == 1


def test_audit_answers_do_not_count_as_something_to_train_on(project):
    one_round(project)
    for utterance in utterances.ids_in(project.db, "audit")[:8]:
        annotations.record(project.db, NewAnnotation(utterance, "ada", "label", 1, "test", 1))
    assert one_round(project).row.trained_on == 0


def test_the_first_round_is_zero_shot_also_when_the_first_labels_came_before_it(project):
    label_pool(project, 2)  # the worker takes seconds to load, and people do not wait
    assert one_round(project).row.trained_on == 0
    assert len(annotations.answered_ids(project.db)) >= 2


def test_nothing_to_label_is_refused(tmp_path):
    with new_project(tmp_path / "p", 0) as project, pytest.raises(TooFewAnswers, match="0 utterances"):
        one_round(project)


# Whole or not at all


class Broken(Exception):
    pass


def fail(*_, **__):
    raise Broken


def fail_after_writing(self, folder):
    (folder / "half.bin").write_bytes(b"half")
    raise Broken


FAULTS = {
    "learn": (FakeClassifier, "fit", fail),
    "score": (FakeAdapter, "logits", fail),
    "save": (FakeAdapter, "save", fail_after_writing),
    "calibrate": (loop, "fit_calibrator", fail),
    "evaluate": (loop, "evaluate", fail),
    "compose": (loop, "compose_batch", fail),
    "promote": (loop, "promote", fail),
    "store predictions": (rounds, "save_predictions", fail),
    "mark as promoted": (rounds, "promote", fail),
    "replace the queue": (queue, "replace", fail),
}


@pytest.mark.parametrize("stage", FAULTS)
def test_a_fault_in_any_stage_leaves_the_round_before_in_use(project, monkeypatch, stage):
    one_round(project)
    label_pool(project, 9)
    before = state(project)
    with monkeypatch.context() as patch:
        owner, name, fault = FAULTS[stage]
        patch.setattr(owner, name, fault)
        job = jobs.begin(project.db, "test", annotations.last_id(project.db))
        with pytest.raises(Broken):
            one_round(project)
        jobs.finish(project.db, job, "failed", "broken")
    assert state(project) == before
    newest = rounds.history(project.db)[0]
    assert (newest.state, newest.metrics, newest.folder) == ("failed", {}, "")
    assert fetch_value(project.db, "SELECT count(*) FROM prediction WHERE round_id = ?", (newest.id,)) == 0
    recover(project)
    assert not list((project.folder / "adapters").glob("tmp-*"))
    question = next_question(project, "ada")
    answer(project, question, "ada", right(project, question))
    assert one_round(project).row.number == 2


@pytest.mark.parametrize("stage", ["learn", "save", "score", "calibrate", "promote"])
def test_a_round_can_be_cancelled_in_any_stage(project, stage):
    one_round(project)
    label_pool(project, 9)
    before = state(project)

    def listen(now, share, left):
        if now == stage:
            raise RoundCancelled("stop")

    with pytest.raises(RoundCancelled):
        one_round(project, Report(listen))
    assert state(project) == before


def test_a_round_that_is_no_longer_running_cannot_be_promoted(project):
    one_round(project)
    label_pool(project, 9)
    before = state(project)
    taken = FakeAdapter.logits

    def dying(self, *arguments):
        rounds.close(project.db, rounds.history(project.db)[0].id, "interrupted")
        return taken(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeAdapter, "logits", dying)
        with pytest.raises(ValueError, match="not running"):
            one_round(project)
    assert state(project) == before
