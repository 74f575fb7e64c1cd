"""What happens to an utterance while somebody looks at it is known before the answer is stored, or it is not stored."""

from __future__ import annotations

from datetime import timedelta

import pytest

from annotator.errors import AnswerRefused, BadInput, ProjectBusy
from annotator.labeling import bulk, review
from annotator.labeling.screen import Screen
from annotator.labeling.search import Search, find
from annotator.labeling.session import Answer, Rest, answer, ask_skipped_again, next_question, rest, undo
from annotator.rounds.lifecycle import recover
from store import annotations, queue, utterances
from store.annotations import BULK
from store.database import fetch, wait_at_most
from tests.annotator.scenes import another_writes, change, new_project, right, say, work_through


def said(project):
    return [(row.annotator, row.kind, row.label_id, row.comment) for row in annotations.answers(project.db)]


def acts(project):
    return len(fetch(project.db, "SELECT id FROM annotation"))


# Two screens of one person


def test_what_was_answered_on_another_screen_is_not_overwritten(project):
    first, second = Screen(project, "ada"), Screen(project, "ada")
    stale = second.question
    assert first.question.utterance == stale.utterance
    first.answer(project, Answer("label", 1))
    with pytest.raises(AnswerRefused, match="another window as “promise”") as refused:
        second.answer(project, Answer("label", 2, comment="hm"))
    assert refused.value.hint == "Undo there to change it."
    assert said(project) == [("ada", "label", 1, "")]
    assert acts(project) == 1
    assert second.question.utterance == first.question.utterance, "the next one is there"
    assert second.standing.labeled == 1


@pytest.mark.parametrize(
    ("given", "told"), [(Answer("skip"), "already skipped"), (Answer("none_fits"), "another window: none fits")]
)
def test_a_skip_and_none_fits_are_not_overwritten_either(project, given, told):
    stale = next_question(project, "ada")
    answer(project, stale, "ada", given)
    with pytest.raises(AnswerRefused, match=told):
        answer(project, stale, "ada", Answer("label", 2))
    assert acts(project) == 1


def test_what_was_read_ahead_before_it_was_answered_elsewhere_is_not_asked_and_not_overwritten(project):
    first, second = Screen(project, "ada"), Screen(project, "ada")
    first.answer(project, Answer("label", 1))
    first.answer(project, Answer("label", 1))
    with pytest.raises(AnswerRefused):
        second.answer(project, Answer("label", 2))
    second.answer(project, Answer("label", 2))
    assert [label for _, _, label, _ in said(project)] == [1, 1, 2]
    assert second.question.utterance.id not in annotations.answered_ids(project.db)


def test_an_answer_is_replaced_where_it_was_taken_back_whichever_screen_did_so(project):
    first, second = Screen(project, "ada"), Screen(project, "ada")
    first.answer(project, Answer("label", 1))
    first.take_back(project)
    second.answer(project, Answer("label", 2))
    assert said(project) == [("ada", "label", 2, "")]


def test_a_question_is_answered_however_much_has_been_answered_of_others(project):
    mine = next_question(project, "ada")
    work_through(project, 10, "ben")
    assert answer(project, mine, "ada", right(project, mine))


# Two people


def test_who_was_too_slow_is_told_that_another_has_answered_it(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(queue, "LEASE", timedelta(seconds=-1))
        slow = next_question(project, "ada")
    quick = next_question(project, "ben")
    assert quick.utterance == slow.utterance
    with pytest.raises(AnswerRefused, match=r"“ben” now has this utterance on screen"):
        answer(project, slow, "ada", right(project, slow))
    answer(project, quick, "ben", right(project, quick))
    with pytest.raises(AnswerRefused, match="“ben” has answered this utterance in the meantime"):
        answer(project, slow, "ada", right(project, slow))
    assert [who for who, *_ in said(project)] == ["ben"]


def test_who_was_slow_may_answer_what_nobody_else_has_got(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(queue, "LEASE", timedelta(seconds=-1))
        slow = next_question(project, "ada")
    answer(project, slow, "ada", right(project, slow))
    assert len(said(project)) == 1


def test_what_another_has_skipped_may_be_answered(project):
    mine = next_question(project, "ada")
    say_skip = Answer("skip")
    answer(project, next_question(project, "ben"), "ben", say_skip)
    annotations.record(project.db, annotations.NewAnnotation(mine.utterance.id, "ben", "skip", None, "random", 1))
    assert answer(project, mine, "ada", right(project, mine))


def test_a_settled_case_is_not_settled_otherwise_by_who_saw_it_before(project):
    disputed = utterances.ids_in(project.db, "pool")[0]
    say(project, disputed, "ben", 1)
    say(project, disputed, "cleo", 2)
    shown = review.case(project, disputed)
    review.settle(project, shown, "ada", "label", 1)
    for who in ("ada", "dora"):
        with pytest.raises(AnswerRefused, match="“ada” has already decided this case"):
            review.settle(project, shown, who, "label", 2)
    assert review.settle(project, review.case(project, disputed), "dora", "label", 2), "who has seen it may"
    review.take_back(project, "ada")
    review.take_back(project, "dora")
    assert review.settle(project, shown, "dora", "label", 2), "what was taken back does not stand"


def test_one_answer_for_many_spares_what_was_answered_after_the_preview(project):
    found = find(project, Search("promise"))
    plan = bulk.preview(project, "ada", found, Answer("label", 1), replace=False)
    mine, others = plan.ids[0], plan.ids[1:]
    say(project, mine, "ada", 2)
    bulk.answer_all(project, "ada", Search("promise"), Answer("label", 1), plan.ids, plan.seen)
    given = {row.utterance_id: row for row in annotations.answers(project.db)}
    assert given[mine].label_id == 2
    assert {i for i, row in given.items() if row.strategy == BULK} == set(others)
    with pytest.raises(BadInput, match="No utterances"):
        bulk.answer_all(project, "ada", Search("promise"), Answer("label", 1), (mine,), plan.seen)


def test_one_answer_for_many_replaces_what_the_preview_knew_where_that_is_wished(project):
    found = find(project, Search("promise"))
    mine = next(i for i in found if i in utterances.ids_in(project.db, "pool"))
    say(project, mine, "ada", 2)
    plan = bulk.preview(project, "ada", found, Answer("label", 1), replace=True)
    bulk.answer_all(project, "ada", Search("promise"), Answer("label", 1), plan.ids, plan.seen)
    assert {row.label_id for row in annotations.answers(project.db)} == {1}


# Undo


def test_undo_brings_back_comment_and_mark_step_by_step_and_over_a_reload(project):
    screen = Screen(project, "ada")
    given = [Answer("label", 1, True, "one"), Answer("skip", comment="two"), Answer("none_fits", unsure=True)]
    for one in given:
        screen.answer(project, one)
    for one in reversed(given):
        screen.take_back(project)
        assert screen.question.draft == one
        assert Screen(project, "ada").question.draft == one, "also after a reload"
    for one in given:
        assert screen.question.draft == one
        screen.answer(project, one)
    assert screen.question.draft is None


def test_what_one_has_taken_back_is_shown_to_nobody_else(project):
    screen = Screen(project, "ada")
    screen.answer(project, Answer("label", 1, True, "private"))
    undone = annotations.answers(project.db)[0].utterance_id
    undo(project, "ada")
    project.db.execute("UPDATE queue SET leased_by = NULL, leased_until = NULL")
    question = next_question(project, "ben")
    assert (question.utterance.id, question.draft) == (undone, None)


def test_an_answer_given_anew_leaves_no_draft(project):
    screen = Screen(project, "ada")
    screen.answer(project, Answer("label", 1, comment="old"))
    screen.take_back(project)
    screen.answer(project, Answer("label", 2, comment="new"))
    screen.take_back(project)
    assert screen.question.draft.comment == "new"


# What is left where nothing is asked


@pytest.fixture
def three(tmp_path):
    with new_project(tmp_path / "three", 3) as project:
        change(project, batch_size=5)
        yield project


def test_what_is_left_is_counted_for_each_annotator(three):
    assert rest(three, "ada") == Rest(0, 0, 3)
    mine = next_question(three, "ada")
    assert rest(three, "ben") == Rest(0, 3, 0)
    assert next_question(three, "ben") is None
    answer(three, mine, "ada", right(three, mine))
    answer(three, next_question(three, "ada"), "ada", Answer("skip"))
    assert rest(three, "ada") == Rest(1, 0, 1)
    assert rest(three, "ben") == Rest(0, 1, 1), "what she has skipped is free for him"
    work_through(three, 3, "ben")
    work_through(three, 3, "ada")
    assert rest(three, "ada") == rest(three, "ben") == Rest(0, 0, 0)


def test_what_was_skipped_is_asked_again_when_that_is_wished(three):
    while question := next_question(three, "ada"):
        answer(three, question, "ada", Answer("skip", comment="later"))
    assert rest(three, "ada") == Rest(3, 0, 0)
    ben = next_question(three, "ben")
    answer(three, ben, "ben", right(three, ben))
    assert rest(three, "ada") == Rest(2, 0, 0)
    assert ask_skipped_again(three, "ada") == 2
    three.db.execute("UPDATE queue SET leased_by = NULL")
    assert next_question(three, "ada").draft.comment == "later"
    assert len(work_through(three, 9, "ada")) == 2
    assert rest(three, "ada") == Rest(0, 0, 0)


# Another program is writing


def test_an_answer_that_could_not_be_written_leaves_the_desk_as_it_was(project):
    screen = Screen(project, "ada")
    wait_at_most(project.db, 0.05)
    before = screen.question
    with another_writes(project.folder):
        with pytest.raises(ProjectBusy):
            screen.answer(project, Answer("label", 1))
        assert not recover(project), "tidying up waits for nobody where there is nothing to do"
    assert screen.question is before
    screen.answer(project, Answer("label", 1))
    assert acts(project) == 1
    assert screen.question is not before
