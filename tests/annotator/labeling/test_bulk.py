"""Many utterances get one answer in one act: as its preview says, never on audit ones, and undone as one."""

from __future__ import annotations

import sqlite3

import pytest

from annotator.codebook import changes
from annotator.errors import BadInput
from annotator.exchange.export import ExportPlan, export_rows
from annotator.labeling import bulk
from annotator.labeling.bulk import preview
from annotator.labeling.search import Search, find
from annotator.labeling.session import Answer, answer, next_question, undo
from annotator.rounds.consensus import consensus_labels
from store import annotations, utterances
from store import bulk as acts
from store.annotations import ADJUDICATED, BULK, NewAnnotation
from store.database import fetch
from tests.annotator.scenes import work_through

WISH = Search("promise")
PROMISE = Answer("label", 1)


def act(project, replace=False, said=PROMISE):
    plan = preview(project, "ada", find(project, WISH), said, replace)
    return bulk.answer_all(project, "ada", WISH, said, plan.ids), plan


def standing(project):
    return {(row.utterance_id, row.annotator, row.kind, row.label_id) for row in annotations.answers(project.db)}


def test_all_that_was_found_gets_the_answer_save_audit_utterances(project):
    _, plan = act(project)
    found, audit = set(find(project, WISH)), set(utterances.ids_in(project.db, "audit"))
    assert set(plan.ids) == found - audit
    assert plan.audit == len(found & audit) > 0
    assert standing(project) == {(i, "ada", "label", 1) for i in plan.ids}
    assert {row.strategy for row in annotations.answers(project.db)} == {BULK}


def test_the_preview_says_what_comes_of_each(project):
    pool = [i for i in find(project, WISH) if i in set(utterances.ids_in(project.db, "pool"))]
    for utterance, annotator, label in (
        (pool[0], "ada", 2),
        (pool[1], "ada", 1),
        (pool[2], "ben", 2),
        (pool[3], "ben", 1),
    ):
        annotations.record(project.db, NewAnnotation(utterance, annotator, "label", label, "random", 1))
    kept = preview(project, "ada", find(project, WISH), PROMISE, replace=False)
    assert (kept.same, kept.kept, kept.replaced, kept.beside) == (1, 1, 0, 1)
    assert set(kept.ids) == set(pool) - {pool[0], pool[1]}
    over = preview(project, "ada", find(project, WISH), PROMISE, replace=True)
    assert (over.same, over.kept, over.replaced, over.beside) == (1, 0, 1, 1)
    assert set(over.ids) == set(pool) - {pool[1]}


def test_what_was_settled_goes_on_counting_beside_an_act_and_is_told(project):
    adjudicated = next(i for i in find(project, WISH) if i in set(utterances.ids_in(project.db, "pool")))
    annotations.record(project.db, NewAnnotation(adjudicated, "ada", "label", 2, ADJUDICATED, 1))
    done, plan = act(project)
    assert (plan.adjudicated, plan.same, plan.kept, plan.beside) == (1, 0, 0, 0)
    assert {(adjudicated, "ada", "label", 1), (adjudicated, "ada", "label", 2)} <= standing(project)
    assert consensus_labels(annotations.answers(project.db))[adjudicated] == 2
    bulk.take_back(project, done, "ada")
    assert standing(project) == {(adjudicated, "ada", "label", 2)}


def test_an_answer_in_a_label_that_is_out_of_use_is_no_other_answer(project):
    one = next(i for i in find(project, WISH) if i in set(utterances.ids_in(project.db, "pool")))
    for who in ("ada", "ben"):
        annotations.record(project.db, NewAnnotation(one, who, "label", 3, "random", 1))
    changes.make(project, changes.propose(project, changes.retire(project, 3)), "ben")
    plan = preview(project, "ada", find(project, WISH), PROMISE, replace=False)
    assert one in plan.ids
    assert (plan.kept, plan.beside) == (0, 0)


def test_an_act_is_taken_back_as_one_and_what_was_before_stands_again(project):
    pool = utterances.ids_in(project.db, "pool")
    first = next(i for i in find(project, WISH) if i in pool)
    annotations.record(project.db, NewAnnotation(first, "ada", "label", 2, "random", 1))
    before = standing(project)
    done, plan = act(project, replace=True)
    assert (first, "ada", "label", 1) in standing(project)
    assert bulk.take_back(project, done, "ada") == len(plan.ids)
    assert standing(project) == before
    assert bulk.take_back(project, done, "ada") == 0, "only once"
    assert [row.undone for row in acts.history(project.db, "ada")] == [1]


def test_what_was_answered_again_since_is_left_when_an_act_is_taken_back(project):
    done, plan = act(project)
    annotations.record(project.db, NewAnnotation(plan.ids[0], "ada", "label", 3, "random", 1))
    bulk.take_back(project, done, "ada")
    assert standing(project) == {(plan.ids[0], "ada", "label", 3)}


def test_nobody_takes_back_what_another_has_answered(project):
    done, _ = act(project)
    before = standing(project)
    assert bulk.take_back(project, done, "ben") == 0
    assert standing(project) == before
    assert acts.history(project.db, "ben") == []


def test_undo_on_the_label_page_passes_over_acts(project):
    (question,) = work_through(project, 1)
    act(project)
    assert undo(project, "ada")
    assert next_question(project, "ada").utterance.id == question.utterance.id
    assert not undo(project, "ada")
    assert len(standing(project)) > 5


def test_the_database_itself_refuses_audit_utterances(project):
    before = fetch(project.db, "SELECT * FROM annotation")
    everything = [*utterances.ids_in(project.db, "pool"), *utterances.ids_in(project.db, "audit")[:1]]
    with pytest.raises(sqlite3.IntegrityError, match="never answered in bulk"):
        bulk.answer_all(project, "ada", WISH, PROMISE, everything)
    assert fetch(project.db, "SELECT * FROM annotation") == before, "all or nothing"
    assert acts.history(project.db, "ada") == []


def test_no_utterance_is_no_act(project):
    with pytest.raises(BadInput, match="No utterances"):
        bulk.answer_all(project, "ada", WISH, PROMISE, ())


def test_that_none_fits_can_be_said_of_many(project):
    _, plan = act(project, said=Answer("none_fits"))
    assert standing(project) == {(i, "ada", "none_fits", None) for i in plan.ids}


def test_answers_of_an_act_are_marked_in_the_export_and_asked_no_more(project):
    _, plan = act(project)
    rows = {row.id: row for row in export_rows(project, ExportPlan())}
    assert {row.strategy for row in rows.values()} == {"bulk"}
    assert {row.source for row in rows.values()} == {"expert"}
    while question := next_question(project, "ada"):
        assert question.utterance.id not in plan.ids
        answer(project, question, "ada", PROMISE)


def test_the_act_keeps_what_was_looked_for(project):
    act(project)
    (done,) = acts.history(project.db, "ada")
    assert (done.kind, done.label_id, done.undone) == ("label", 1, 0)
    assert '"words": "promise"' in done.search
