"""Test cross-fitting: audit answers can be trained on, and a model trained without them evaluates them."""

from __future__ import annotations

import numpy as np
import pytest

from annotator.loop import run_round
from annotator.rounds.progress import Report
from annotator.rounds.snapshot import read_texts
from store import annotations, rounds, utterances
from store.annotations import NewAnnotation
from tests.annotator.scenes import change, classifier_of, label_pool
from tests.fake import FakeAdapter, FakeClassifier


def spied_training(monkeypatch):
    """Note which texts each adapter is trained on and asked about, in order."""
    said = []

    def fit(self, utterances_, *rest, fitting=FakeClassifier.fit):
        said.append(({one.text for one in utterances_}, []))
        return fitting(self, utterances_, *rest)

    def logits(self, utterances_, *rest, scoring=FakeAdapter.logits):
        said[-1][1].extend(one.text for one in utterances_)
        return scoring(self, utterances_, *rest)

    monkeypatch.setattr(FakeClassifier, "fit", fit)
    monkeypatch.setattr(FakeAdapter, "logits", logits)
    return said


def answered_audit(project):
    audit = set(utterances.ids_in(project.db, "audit")) & annotations.answered_ids(project.db)
    return {row.id: row.text for row in utterances.read(project.db, sorted(audit))}


def test_few_audit_answers_are_trained_on_and_each_is_evaluated_by_a_model_without_it(project, monkeypatch):
    run_round(project, classifier_of(project), project.config)
    change(project, cross_fit_below=30)
    label_pool(project, 20)
    measured = set(answered_audit(project).values())
    said = spied_training(monkeypatch)
    done = run_round(project, classifier_of(project), project.config)
    *folds, (whole, _) = said
    assert len(folds) == 2
    assert len(whole) == done.row["trained_on"] == 20 + len(measured)
    assert done.metrics["n"] == done.row["audited_on"] == len(measured) > 2
    assert {text for _, asked in folds for text in asked} == measured
    assert sum(len(asked) for _, asked in folds) == len(measured)
    for taught, asked in folds:
        assert not taught & set(asked)
        assert taught | set(asked) == whole


def test_predictions_for_audit_training_examples_come_from_the_model_without_them(project):
    run_round(project, classifier_of(project), project.config)
    change(project, cross_fit_below=30)
    label_pool(project, 20)
    done = run_round(project, classifier_of(project), project.config)
    audit = list(answered_audit(project))
    known = rounds.predictions_of(project.db, rounds.promoted(project.db), audit)
    taught = done.adapter.logits(read_texts(project, audit, 0))
    assert np.abs(known.logits - taught).max(axis=1).min() > 1e-3
    unanswered = sorted(set(utterances.ids_in(project.db, "audit")) - set(audit))
    known = rounds.predictions_of(project.db, rounds.promoted(project.db), unanswered)
    np.testing.assert_allclose(known.logits, done.adapter.logits(read_texts(project, unanswered, 0)), rtol=1e-5)


def test_enough_audit_answers_are_kept_from_training(project, monkeypatch):
    run_round(project, classifier_of(project), project.config)
    label_pool(project, 20)
    measured = set(answered_audit(project).values())
    change(project, cross_fit_below=len(measured))
    said = spied_training(monkeypatch)
    done = run_round(project, classifier_of(project), project.config)
    ((taught, _),) = said
    assert not taught & measured
    assert (done.row["trained_on"], done.row["audited_on"]) == (20, len(measured))


def test_one_audit_answer_is_evaluated_by_a_model_trained_on_all_others(project, monkeypatch):
    run_round(project, classifier_of(project), project.config)
    change(project, cross_fit_below=30)
    pool, (first, *_) = (utterances.ids_in(project.db, name) for name in ("pool", "audit"))
    for utterance, label in [*((i, 1 + i % 2) for i in pool[:9]), (first, 1)]:
        annotations.record(project.db, NewAnnotation(utterance, "ada", "label", label, "test", 1))
    said = spied_training(monkeypatch)
    assert run_round(project, classifier_of(project), project.config).metrics == {"n": 1}
    assert [len(taught) for taught, _ in said] == [9, 10]


def test_progress_rises_also_while_a_round_checks_itself(project):
    reports = []
    run_round(project, classifier_of(project), project.config)
    change(project, cross_fit_below=30)
    label_pool(project, 9)
    run_round(
        project,
        classifier_of(project),
        project.config,
        Report(lambda stage, share, left: reports.append((stage, share))),
    )
    shares = [share for _, share in reports]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, pytest.approx(1))
    assert list(dict.fromkeys(stage for stage, _ in reports))[:2] == ["read", "check"]
