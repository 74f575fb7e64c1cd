"""A question carries why it is asked, what is withheld and what was undone; the rest is counted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from annotator.codebook import changes
from annotator.codebook.definition import codebook_of
from annotator.config import RoundConfig
from annotator.errors import AnswerRefused
from annotator.exchange.imports import add_utterances
from annotator.labeling import session
from annotator.labeling.preferences import Preferences
from annotator.labeling.session import Answer, Rest, answer, lease, next_question, questions, rest, undo
from annotator.methods.query_strategies import STRATEGIES
from annotator.rounds.queueing import refill_queue
from store import queue, utterances
from store.acceptances import SPOT_CHECK
from store.database import fetch_one, immediate
from store.utterances import NewUtterance
from tests.annotator.scenes import change, make, new_project, right, say, work_through


def stored(project, annotation_id):
    return fetch_one(project.db, "SELECT * FROM annotation WHERE id = ?", (annotation_id,))


# Withheld suggestions


def shown_with(project, preferences=None, who="ada"):
    with immediate(project.db):
        return questions(project, who, lease(project, who), preferences)


def test_a_suggestion_is_withheld_by_chance_or_by_choice_and_stored_all_the_same(trained):
    def kept(withheld, preferences=None):
        asked = [question for question in shown_with(trained, preferences) if not question.is_audit]
        assert {(question.suggestion, question.withheld) for question in asked} == {(None, withheld)}
        question = asked[0]
        row = stored(trained, answer(trained, question, "ada", right(trained, question)))
        assert (row["withheld_label_id"], row["withheld_probability"]) == question.kept_back.best
        assert row["suggested_label_id"] is row["suggested_probability"] is None
        return row["withheld"]

    assert kept("choice", Preferences(suggestions=False)) == "choice"
    change(trained, withheld_share=1.0)
    assert kept("chance") == "chance"
    change(trained, withheld_share=0.0)
    question = next(one for one in shown_with(trained) if one.suggestion)
    row = stored(trained, answer(trained, question, "ada", right(trained, question)))
    assert (row["withheld"], row["withheld_label_id"], row["withheld_probability"]) == ("", None, None)
    assert question.kept_back is None


def test_the_share_withheld_is_the_project_s_and_the_draw_depends_on_seed_utterance_and_annotator():
    def drawn(share, seed=0, who="ada"):
        config = RoundConfig(withheld_share=share, seed=seed)
        return [session._by_chance(config, i, who) for i in range(2000)]

    assert not any(drawn(0.0))
    assert all(drawn(1.0))
    assert sum(drawn(0.25)) / 2000 == pytest.approx(0.25, abs=0.05)
    assert drawn(0.25) == drawn(0.25) not in (drawn(0.25, seed=1), drawn(0.25, who="ben"))


def test_turns_before_are_as_many_as_the_annotator_prefers(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        add_utterances(
            project, [NewUtterance(f"t{i}", f"turn {i}", "c", i, "ann", context_only=i < 6) for i in range(7)]
        )
        for turns, count in ((None, 3), (0, 0), (5, 5)):
            (question,) = shown_with(project, Preferences(turns=turns))
            assert len(question.turns_before) == count


def test_a_label_that_the_round_does_not_know_is_not_suggested(trained):
    before = set(codebook_of(trained).ids)
    make(trained, changes.add(trained, {"name": "vow"}))
    shown = [question.suggestion for question in shown_with(trained) if question.suggestion]
    assert shown
    assert {label for suggestion in shown for label, _ in suggestion.probabilities} == before
    assert all(one.best == max(one.probabilities, key=lambda pair: pair[1]) for one in shown)


# What a question carries


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ("margin", STRATEGIES["margin"].reason),
        (SPOT_CHECK, "Spot check: drawn at random from the auto-accepted utterances. It shows no suggestion."),
        ("of another version", "of another version"),
    ],
)
def test_a_reason_is_that_of_the_strategy_or_its_name_if_it_is_unknown(trained, strategy, reason):
    trained.db.execute("UPDATE queue SET strategy = ? WHERE strategy != 'audit'", (strategy,))
    question = next(one for one in shown_with(trained) if not one.is_audit)
    assert question.reason == reason
    assert (question.suggestion is None) == (strategy == SPOT_CHECK)


def test_an_undone_answer_comes_back_as_a_draft_with_all_that_was_said(trained):
    question = next_question(trained, "ada")
    assert question.draft is None
    said = Answer("label", right(trained, question).label_id, unsure=True, comment="hm", milliseconds=1234)
    answer(trained, question, "ada", said)
    undo(trained, "ada")
    assert next_question(trained, "ada").draft == said
    assert all(one.draft is None for one in shown_with(trained)[1:])


def test_a_plain_answer_is_sure_and_without_a_comment(project):
    question = next_question(project, "ada")
    row = stored(project, answer(project, question, "ada", right(project, question)))
    assert (row["unsure"], row["comment"], row["milliseconds"], row["withheld"]) == (0, "", None, "")


def test_when_an_utterance_was_chosen_between_rounds_its_answer_says_after_which(trained):
    trained.db.execute("UPDATE queue SET chosen_after = 3")
    question = next_question(trained, "ada")
    assert question.is_ahead
    assert stored(trained, answer(trained, question, "ada", right(trained, question)))["chosen_after"] == 3
    undo(trained, "ada")
    assert next_question(trained, "ada").is_ahead
    trained.db.execute("UPDATE queue SET chosen_after = NULL")
    assert not next_question(trained, "ada").is_ahead


def test_an_utterance_whose_label_was_retired_is_asked_and_answered_again(project):
    (first,) = work_through(project, 1)
    said = right(project, first).label_id
    make(project, changes.retire(project, said))
    again = next_question(project, "ada")
    assert again.utterance == first.utterance
    other = next(iter(codebook_of(project).ids))
    assert other != said
    assert stored(project, answer(project, again, "ada", Answer("label", other)))["label_id"] == other


def test_an_answer_without_a_pool_size_can_be_undone(project):
    first = next(i for i in utterances.ids_in(project.db, "pool") if i not in queue.queued_ids(project.db))
    say(project, first, "ada", 1)
    assert undo(project, "ada")
    assert next_question(project, "ada").utterance.id == first
    assert fetch_one(project.db, "SELECT pool_size FROM queue WHERE utterance_id = ?", (first,)) == {"pool_size": 0}


# What is left


def test_ten_utterances_are_reserved_and_a_batch_in_use_is_not_refilled(project):
    change(project, batch_size=20)
    refill_queue(project)
    assert len(lease(project, "ada")) == 10
    batch = queue.queued_ids(project.db)
    assert len(lease(project, "ada")) == 10
    assert len(lease(project, "ben")) == 10
    assert queue.queued_ids(project.db) == batch


def test_what_is_left_is_skipped_with_others_or_to_be_asked(project):
    change(project, batch_size=20)
    refill_queue(project)
    for _ in range(2):
        answer(project, next_question(project, "ada"), "ada", Answer("skip"))
    work_through(project, 3)
    held = len(lease(project, "ben"))  # the two that ada has skipped among them
    assert rest(project, "ada") == Rest(skipped=2, with_others=held - 2, to_ask=60 - 3 - held)
    others = len(lease(project, "ada"))
    assert rest(project, "ben") == Rest(skipped=0, with_others=others, to_ask=60 - 3 - others)
    assert held > 2 < others
    assert session.ask_skipped_again(project, "ada") == 2
    assert rest(project, "ada").skipped == 0


# Answers that are refused


def test_a_refused_answer_says_what_is_to_be_done(project, monkeypatch):
    def refusal(question):
        with pytest.raises(AnswerRefused) as refused:
            answer(project, question, "ada", right(project, question))
        return refused.value.hint

    own, others = "Undo there to change it.", "Your answer was not stored. Continue with the next utterance."
    for kind in ("skip", "none_fits"):
        question = next_question(project, "ada")
        answer(project, question, "ada", Answer(kind))
        assert refusal(question) == own
    with monkeypatch.context() as patch:
        patch.setattr(queue, "LEASE", timedelta(seconds=-1))
        question = next_question(project, "ada")
    other = next(one for one in shown_with(project, who="ben") if one.utterance == question.utterance)
    assert refusal(question) == others
    answer(project, other, "ben", right(project, other))
    assert refusal(question) == others
