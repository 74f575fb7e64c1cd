"""What lies before an annotator: the next questions at hand, wishes followed, what is withheld."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from annotator.codebook import changes
from annotator.labeling.preferences import Preferences, choose, preferences
from annotator.labeling.screen import Screen, Sitting
from annotator.labeling.session import Answer, next_question
from annotator.loop import run_round
from store import annotations, queue, utterances
from store.database import fetch
from tests.annotator.scenes import change, classifier_of, right

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def work(project, screen, count):
    asked = []
    while screen.question and len(asked) < count:
        asked.append(screen.question)
        screen.answer(project, right(project, screen.question))
    return asked


def test_the_desk_asks_what_the_session_asks(trained):
    screen = Screen(trained, "ada")
    while expected := next_question(trained, "ada"):
        assert screen.question == expected or screen.question.entry.rank == expected.entry.rank
        assert (screen.question.utterance, screen.question.suggestion) == (expected.utterance, expected.suggestion)
        screen.answer(trained, right(trained, screen.question))
    assert screen.question is None
    assert screen.standing.labeled == screen.standing.to_label == 60


def test_what_is_next_has_been_read_before_it_is_asked(trained, monkeypatch):
    screen = Screen(trained, "ada")
    read = []
    monkeypatch.setattr(utterances, "read", lambda db, ids, of=utterances.read: read.append(ids) or of(db, ids))
    work(trained, screen, 9)
    assert read == []


def test_after_a_new_round_the_next_question_comes_from_it_and_the_one_on_screen_stays(trained):
    screen = Screen(trained, "ada")
    before = screen.question
    run_round(trained, classifier_of(trained), trained.config)
    screen.refresh(trained)
    assert screen.question is before
    screen.answer(trained, right(trained, before))
    promoted = max(row["id"] for row in fetch(trained.db, "SELECT id FROM round"))
    assert screen.question.entry.round_id == promoted


def merge(project, source, into):
    changes.make(project, changes.propose(project, changes.merge(project, [source], into)), "ben")


def test_after_a_change_of_the_codebook_what_is_on_screen_is_told_in_the_labels_in_use(trained):
    screen = Screen(trained, "ada")
    while screen.question.suggestion is None:
        work(trained, screen, 1)
    before, said = screen.question, dict(screen.question.suggestion.probabilities)
    merge(trained, 3, 2)
    screen.refresh(trained)
    assert screen.question.utterance == before.utterance
    now = dict(screen.question.suggestion.probabilities)
    assert now == pytest.approx({1: said[1], 2: said[2] + said[3]})
    kept = screen.question
    run_round(trained, classifier_of(trained), trained.config)
    screen.refresh(trained)
    assert screen.question is kept, "a new round changes nothing on screen"


def test_what_has_been_read_ahead_is_read_again_after_a_change_of_the_codebook(trained):
    screen = Screen(trained, "ada")
    merge(trained, 3, 2)
    while question := screen.question:
        screen.answer(trained, Answer("label", 1))
        if screen.question and screen.question.suggestion:
            assert {label for label, _ in screen.question.suggestion.probabilities} == {1, 2}, question


def test_a_label_that_the_round_never_heard_of_is_not_suggested(trained):
    changes.make(trained, changes.propose(trained, changes.add(trained, {"name": "vow"})), "ben")
    screen = Screen(trained, "ada")
    while screen.question.suggestion is None:
        work(trained, screen, 1)
    assert {label for label, _ in screen.question.suggestion.probabilities} == {1, 2, 3}


def test_what_others_have_answered_meanwhile_is_not_asked(trained):
    screen = Screen(trained, "ada")
    coming = [entry.utterance_id for entry in queue.lease(trained.db, "ada", 2)][1]
    annotations.record(trained.db, annotations.NewAnnotation(coming, "ben", "label", 1, "test", 1))
    screen.answer(trained, right(trained, screen.question))
    assert screen.question.utterance.id != coming


def test_taking_back_brings_the_question_again_step_by_step(trained):
    screen = Screen(trained, "ada")
    asked = [question.utterance.id for question in work(trained, screen, 4)]
    fresh = Screen(trained, "ada")  # as after a reload
    for expected in reversed(asked):
        assert fresh.take_back(trained)
        assert fresh.question.utterance.id == expected
    assert fresh.standing == Screen(trained, "ada").standing


def test_the_standing_is_kept_up_without_counting_the_project_again(trained):
    screen = Screen(trained, "ada")
    for kind in ("label", "skip", "none_fits", "label"):
        screen.answer(trained, Answer(kind, 1 if kind == "label" else None))
        assert screen.standing.labeled == annotations.count_answered(trained.db)
        assert screen.standing.batch_left == queue.count_open(trained.db, "ada")


# Suggestions that are withheld


def test_a_share_of_suggestions_is_withheld_by_chance_and_the_answer_says_so(trained):
    change(trained, withheld_share=0.5)
    screen = Screen(trained, "ada")
    asked = work(trained, screen, 40)
    hidden = [question for question in asked if question.withheld == "chance"]
    shown = [question for question in asked if question.suggestion]
    assert len(hidden) > 3
    assert len(shown) > 3
    rows = {row.utterance_id: row for row in annotations.answers(trained.db) if row.annotator == "ada"}
    for question in hidden:
        row = rows[question.utterance.id]
        assert row.withheld == "chance"
        assert row.suggested_label_id is None, "it was not shown"
        assert (row.withheld_label_id, row.withheld_probability) == question.kept_back.best
    for question in shown:
        row = rows[question.utterance.id]
        assert (row.withheld, row.withheld_label_id) == ("", None)
        assert row.suggested_label_id == question.suggestion.best[0]


def test_no_reload_brings_a_withheld_suggestion_out(trained):
    change(trained, withheld_share=0.5)
    hidden = [next_question(trained, "ada").withheld for _ in range(10)]
    assert len(set(hidden)) == 1


def test_an_annotator_may_hide_suggestions_and_is_then_in_no_comparison(trained):
    change(trained, withheld_share=0.5)
    choose(trained, "ada", Preferences(suggestions=False))
    screen = Screen(trained, "ada")
    asked = work(trained, screen, 20)
    assert {question.withheld for question in asked} == {"choice", ""}
    assert all(question.suggestion is None for question in asked)
    assert {question.withheld for question in asked if question.is_audit} == {""}


def test_audit_questions_keep_nothing_back_for_there_is_nothing(trained):
    change(trained, withheld_share=1.0)
    asked = work(trained, Screen(trained, "ada"), 50)
    audit = [question for question in asked if question.is_audit]
    assert audit
    assert all(question.kept_back is None and question.withheld == "" for question in audit)


def test_what_the_model_had_thought_is_told_only_where_it_can_do_no_harm(trained):
    change(trained, withheld_share=0.5)
    screen, told = Screen(trained, "ada"), {"shown": 0, "not": 0}
    while question := screen.question:
        screen.answer(trained, right(trained, question))
        assert (screen.outcome is not None) is (question.suggestion is not None)
        told["shown" if screen.outcome else "not"] += 1
    assert all(told.values())


# Wishes


def test_wishes_are_kept_for_each_annotator_and_followed_at_once(project):
    assert preferences(project, "ada") == Preferences()
    choose(project, "ada", Preferences(turns=7, goal=50))
    assert preferences(project, "ada") == Preferences(turns=7, goal=50)
    assert preferences(project, "ben") == Preferences()


# The day


def test_the_pace_leaves_pauses_out():
    times = [NOW + timedelta(seconds=8 * n) for n in range(12)]
    later = [NOW + timedelta(hours=2, seconds=8 * n) for n in range(12)]
    assert Sitting((*times, *later)).pace == pytest.approx(8)
    assert Sitting(tuple(times[:3])).pace is None


def test_one_answer_given_to_many_utterances_makes_nobody_faster():
    times = [NOW + timedelta(seconds=8 * n) for n in range(12)]
    at_once = [times[-1] + timedelta(seconds=8, milliseconds=n) for n in range(6)]
    assert Sitting((*times, *at_once)).pace == pytest.approx(8)


def test_a_stretch_of_work_begins_after_the_last_pause():
    times = (NOW - timedelta(hours=3), *(NOW - timedelta(minutes=n) for n in range(50, 0, -2)))
    assert Sitting(times).minutes_without_pause(NOW) == 50
    assert Sitting(times).minutes_without_pause(NOW + timedelta(minutes=10)) == 0
    assert Sitting(()).minutes_without_pause(NOW) == 0
