"""Test when rounds start automatically: after so many new labels, and never twice for the same ones."""

from __future__ import annotations

import pytest

from annotator.labeling.session import Answer, answer, next_question, undo
from annotator.rounds.schedule import retrain_reason
from store import annotations, jobs, utterances
from store.annotations import NewAnnotation
from tests.annotator.scenes import change, label_pool, new_project


def begin_and_finish(project, state_="done"):
    job = jobs.begin(project.db, "test", annotations.last_id(project.db))
    jobs.finish(project.db, job, state_)


def test_a_new_project_is_due_for_an_initial_pass_and_an_empty_one_is_not(project, tmp_path):
    assert "initial pass" in retrain_reason(project)
    assert "initial pass" in retrain_reason(project)  # asking starts nothing
    with new_project(tmp_path / "empty", 0) as empty:
        assert retrain_reason(empty) is None


def test_a_round_is_due_once_for_so_many_new_labels(project):
    begin_and_finish(project)
    label_pool(project, 9)
    assert retrain_reason(project) is None
    label_pool(project, 1)
    assert retrain_reason(project) == retrain_reason(project) == "10 new labels"
    begin_and_finish(project)
    assert retrain_reason(project) is None
    label_pool(project, 10)
    assert retrain_reason(project) == "10 new labels"


def test_only_labels_to_train_on_count(project):
    begin_and_finish(project)
    label_pool(project, 9)
    for utterance in utterances.ids_in(project.db, "audit"):
        annotations.record(project.db, NewAnnotation(utterance, "ada", "label", 1, "test", 1))
    for kind in ("skip", "none_fits"):
        question = next_question(project, "ada")
        answer(project, question, "ada", Answer(kind))
    assert retrain_reason(project) is None


def test_labels_that_were_taken_back_do_not_count(project):
    begin_and_finish(project)
    label_pool(project, 10)
    while True:  # the last act may have been on an audit utterance
        before = retrain_reason(project)
        undo(project, "ada")
        if retrain_reason(project) != before:
            break
    assert retrain_reason(project) is None


def test_while_a_job_is_under_way_no_other_is_due(project):
    label_pool(project, 20)
    job = jobs.begin(project.db, "test", 0)
    assert retrain_reason(project) is None
    jobs.finish(project.db, job, "done")
    assert retrain_reason(project) == "20 new labels"


def test_no_round_starts_by_itself_where_that_is_turned_off(project):
    label_pool(project, 20)
    change(project, retrain_every=0)
    assert retrain_reason(project) is None


@pytest.mark.parametrize("ended", ["failed", "cancelled", "interrupted"])
def test_a_job_that_did_not_end_well_is_not_started_again_by_itself(project, ended):
    begin_and_finish(project, ended)
    assert retrain_reason(project) is None
    label_pool(project, 10)
    begin_and_finish(project, ended)
    assert retrain_reason(project) is None
    label_pool(project, 10)
    assert retrain_reason(project) == "10 new labels"


def test_fewer_labels_than_can_be_trained_on_start_nothing(project):
    change(project, retrain_every=2, minimum_labels=8)
    begin_and_finish(project)
    label_pool(project, 5)
    assert retrain_reason(project) is None
    label_pool(project, 3)
    assert retrain_reason(project) == "8 new labels"
