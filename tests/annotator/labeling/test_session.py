"""An answer is stored with why it was asked; audit questions show nothing; undo brings back what was undone."""

from __future__ import annotations

import pytest

from annotator.codebook.definition import codebook_of
from annotator.exchange.imports import add_utterances
from annotator.labeling.session import Answer, answer, next_question, standing, undo
from annotator.loop import run_round
from annotator.methods.query_strategies import STRATEGIES
from store import annotations, queue, rounds, utterances
from store.database import fetch, fetch_one
from store.utterances import NewUtterance
from tests.annotator.scenes import (
    CONFIG,
    change,
    classifier_of,
    new_project,
    right,
    texts,
    work_through,
)


def stored(project, annotation_id):
    return fetch_one(project.db, "SELECT * FROM annotation WHERE id = ?", (annotation_id,))


PROVENANCE = ("round_id", "strategy", "propensity", "pool_size")


def test_an_answer_is_stored_with_the_reason_it_was_asked_for(trained):
    for _ in range(10):
        question = next_question(trained, "ada")
        entry = fetch_one(trained.db, "SELECT * FROM queue WHERE utterance_id = ?", (question.utterance.id,))
        said = Answer("label", right(trained, question).label_id, unsure=True, comment="hm", milliseconds=1234)
        row = stored(trained, answer(trained, question, "ada", said))
        assert {key: row[key] for key in PROVENANCE} == {key: entry[key] for key in PROVENANCE}
        assert (row["annotator"], row["unsure"], row["comment"], row["milliseconds"]) == ("ada", 1, "hm", 1234)
        assert row["codebook_version"] == codebook_of(trained).version
        if question.suggestion:
            assert (row["suggested_label_id"], row["suggested_probability"]) == question.suggestion.best
        else:
            assert row["suggested_label_id"] is row["suggested_probability"] is None


def test_before_a_round_questions_are_drawn_at_random_and_show_no_suggestion(project):
    question = next_question(project, "ada")
    assert question.suggestion is None
    assert question.entry.round_id is None
    assert question.entry.propensity is not None


def test_the_next_question_stays_the_same_until_it_is_answered(project):
    first, again = (next_question(project, "ada").utterance.id for _ in range(2))
    assert first == again
    work_through(project, 1)
    assert next_question(project, "ada").utterance.id != first


def test_audit_questions_never_carry_a_suggestion_and_others_do(trained):
    change(trained, show_suggestions=True)
    asked = work_through(trained, 40)
    audit = [question for question in asked if question.is_audit]
    assert len(audit) > 3
    assert all(question.suggestion is None for question in audit)
    assert all(question.suggestion is not None for question in asked if not question.is_audit)
    stored = [row for row in annotations.answers(trained.db) if row.slice == "audit"]
    assert all(row.suggested_label_id is None for row in stored)


def test_suggestions_can_be_turned_off(trained):
    change(trained, show_suggestions=False)
    assert all(question.suggestion is None for question in work_through(trained, 20))


def test_a_suggestion_sums_to_one_and_has_the_likeliest_label_first(trained):
    shown = [question.suggestion for question in work_through(trained, 20) if question.suggestion]
    assert shown
    for suggestion in shown:
        labels, numbers = zip(*suggestion.probabilities, strict=True)
        assert sum(numbers) == pytest.approx(1, abs=1e-6)
        assert list(numbers) == sorted(numbers, reverse=True)
        assert set(labels) == set(codebook_of(trained).ids)
        assert suggestion.round_number == rounds.promoted(trained.db).number


def test_every_question_says_why_in_a_sentence(trained):
    for question in work_through(trained, 20):
        known = {strategy.reason for strategy in STRATEGIES.values()}
        assert question.reason in known or (question.is_audit and "at random" in question.reason)


def test_the_turns_before_are_shown_in_order(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        turns = [NewUtterance(f"t{i}", f"turn {i}", "c", i, "ann", context_only=i < 6) for i in (2, 5, 1, 3, 4, 6)]
        add_utterances(project, turns)
        question = next_question(project, "ada")
        assert [row.text for row in question.turns_before] == ["turn 3", "turn 4", "turn 5"]


# Undo


def test_undo_brings_the_utterance_back_first_with_the_same_provenance(trained):
    question = work_through(trained, 3)[-1]
    before = stored(trained, annotations.last_id(trained.db))
    assert undo(trained, "ada")
    again = next_question(trained, "ada")
    assert again.utterance.id == question.utterance.id == before["utterance_id"]
    assert {key: getattr(again.entry, key) for key in PROVENANCE} == {key: before[key] for key in PROVENANCE}
    row = stored(trained, answer(trained, again, "ada", right(trained, again)))
    assert {key: row[key] for key in PROVENANCE} == {key: before[key] for key in PROVENANCE}


def test_undo_goes_back_step_by_step(trained):
    asked = [question.utterance.id for question in work_through(trained, 4)]
    for expected in reversed(asked):
        undo(trained, "ada")
        assert next_question(trained, "ada").utterance.id == expected
    assert [question.utterance.id for question in work_through(trained, 4)] == asked


def test_undo_reaches_back_into_a_batch_that_is_gone(project):
    (question,) = work_through(project, 1)
    before = stored(project, annotations.last_id(project.db))
    change(project, minimum_labels=0)
    run_round(project, classifier_of(project), project.config)
    assert question.utterance.id not in queue.queued_ids(project.db)
    undo(project, "ada")
    again = next_question(project, "ada")
    assert again.utterance.id == question.utterance.id
    assert {key: getattr(again.entry, key) for key in PROVENANCE} == {key: before[key] for key in PROVENANCE}


def test_undo_takes_back_only_ones_own_answers(project):
    work_through(project, 1, "ada")
    assert not undo(project, "ben")
    assert annotations.counts(project.db)["label"] == 1
    assert undo(project, "ada")
    assert not undo(project, "ada")
    assert annotations.counts(project.db)["label"] == 0


def test_a_skip_can_be_undone(project):
    question = next_question(project, "ada")
    answer(project, question, "ada", Answer("skip"))
    assert next_question(project, "ada").utterance.id != question.utterance.id
    undo(project, "ada")
    assert next_question(project, "ada").utterance.id == question.utterance.id


# Batches


def test_when_a_batch_is_used_up_a_new_one_is_drawn(project):
    first = queue.queued_ids(project.db)
    asked = {question.utterance.id for question in work_through(project, CONFIG.batch_size)}
    assert asked == first
    assert next_question(project, "ada").utterance.id not in first


def test_every_utterance_is_asked_once_and_then_there_is_no_question(project):
    asked = [question.utterance.id for question in work_through(project, 1000)]
    assert sorted(asked) == [row.id for row in utterances.iterate(project.db)]
    assert next_question(project, "ada") is None
    assert standing(project, "ada").labeled == standing(project, "ada").to_label == 60


def test_after_a_round_too_every_utterance_is_asked(trained):
    work_through(trained, 1000)
    assert len(annotations.answered_ids(trained.db)) == 60
    assert next_question(trained, "ada") is None


def test_who_skips_a_batch_is_asked_other_utterances(trained):
    seen = set()
    while question := next_question(trained, "ada"):
        assert question.utterance.id not in seen
        seen.add(question.utterance.id)
        answer(trained, question, "ada", Answer("skip"))
    answered = annotations.answered_ids(trained.db)
    assert seen == {row.id for row in utterances.iterate(trained.db)} - answered
    assert next_question(trained, "ben").utterance.id in seen  # another may know better


def test_what_was_imported_after_the_last_round_is_asked_too(trained):
    add_utterances(trained, [NewUtterance(f"late{i}", text) for i, text in enumerate(texts(20, 500))])
    work_through(trained, 1000)
    assert len(annotations.answered_ids(trained.db)) == 80
    late = fetch(trained.db, "SELECT * FROM answer WHERE utterance_id > 60 AND strategy != 'audit'")
    assert {row["strategy"] for row in late} == {"random"}


def test_that_none_fits_is_an_answer(project):
    question = next_question(project, "ada")
    answer(project, question, "ada", Answer("none_fits"))
    assert question.utterance.id in annotations.answered_ids(project.db)


def test_a_project_without_utterances_has_no_question(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        assert next_question(project, "ada") is None


# Several annotators


def test_two_annotators_never_get_the_same_utterance(project):
    asked: dict[str, list[int]] = {"ada": [], "ben": [], "eve": []}
    while True:
        questions = {who: next_question(project, who) for who in asked}
        shown = [question.utterance.id for question in questions.values() if question]
        assert len(shown) == len(set(shown))
        if not shown:
            break
        for who, question in questions.items():
            if question:
                asked[who].append(question.utterance.id)
                answer(project, question, who, right(project, question))
    every = [i for ids in asked.values() for i in ids]
    assert len(every) == len(set(every)) == 60


def test_a_new_round_does_not_give_away_what_another_has_on_screen(trained):
    on_screen = next_question(trained, "ada")
    run_round(trained, classifier_of(trained), trained.config)
    assert on_screen.utterance.id not in {q.utterance.id for q in work_through(trained, 5, "ben")}


def test_answers_of_others_do_not_move_ones_own_question(project):
    mine = next_question(project, "ada").utterance.id
    work_through(project, 15, "ben")
    assert next_question(project, "ada").utterance.id == mine


def test_the_standing_counts_answers_by_kind(project):
    work_through(project, 3)
    answer(project, next_question(project, "ada"), "ada", Answer("skip"))
    answer(project, next_question(project, "ada"), "ada", Answer("none_fits"))
    now = standing(project, "ada")
    assert dict(now.kinds) == {"label": 3, "skip": 1, "none_fits": 1}
    assert (now.labeled, now.to_label, now.batch_left, now.batch_size) == (4, 60, 5, 10)
    assert dict(standing(project, "ben").kinds) == {"label": 0, "skip": 0, "none_fits": 0}


def test_a_label_needs_a_label(project):
    question = next_question(project, "ada")
    with pytest.raises(Exception, match="CHECK constraint"):
        answer(project, question, "ada", Answer("label"))
    assert annotations.last_id(project.db) == 0
    assert next_question(project, "ada").utterance.id == question.utterance.id
