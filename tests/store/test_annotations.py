"""No annotation is lost, and the last one that was not undone stands."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from store import annotations, utterances
from store.database import fetch_value, open_database
from tests.store.rows import add_labels, add_utterances, say

ANNOTATORS = ["ann", "ben"]


def standing(db: Database) -> dict[tuple[str, int], tuple[str, int | None]]:
    rows = annotations.answers(db)
    found = {(row.annotator, row.utterance_id): (row.kind, row.label_id) for row in rows}
    assert len(found) == len(rows)
    return found


# Append-only


@pytest.mark.parametrize("sql", ["UPDATE annotation SET label_id = 2", "DELETE FROM annotation"])
def test_the_database_itself_refuses_to_change_or_delete_what_was_said(db: Database, sql: str) -> None:
    (utterance,), (label, _) = add_utterances(db, 1), add_labels(db)
    say(db, "ann", utterance, label)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute(sql)
    assert standing(db) == {("ann", utterance): ("label", label)}


def test_a_label_without_its_id_and_an_id_without_a_label_are_refused(db: Database) -> None:
    (utterance,), (label, _) = add_utterances(db, 1), add_labels(db)
    with pytest.raises(sqlite3.IntegrityError):
        say(db, "ann", utterance, None)
    with pytest.raises(sqlite3.IntegrityError):
        say(db, "ann", utterance, label, "skip")
    assert annotations.last_id(db) == 0


# What stands


def test_the_last_answer_stands_and_undo_restores_the_one_before(db: Database) -> None:
    (utterance,), (first, second) = add_utterances(db, 1), add_labels(db)
    say(db, "ann", utterance, first)
    say(db, "ann", utterance, second)
    assert standing(db) == {("ann", utterance): ("label", second)}
    undone = annotations.undo(db, "ann")
    assert undone is not None
    assert undone.label_id == second
    assert standing(db) == {("ann", utterance): ("label", first)}
    assert fetch_value(db, "SELECT count(*) FROM annotation") == 3


def test_a_cleared_answer_is_gone_until_the_clearing_is_undone(db: Database) -> None:
    (utterance,), (label, _) = add_utterances(db, 1), add_labels(db)
    say(db, "ann", utterance, label)
    say(db, "ann", utterance, None, "clear")
    assert standing(db) == {}
    annotations.undo(db, "ann")
    assert standing(db) == {("ann", utterance): ("label", label)}


def test_undo_goes_back_step_by_step_also_in_another_session(db: Database, tmp_path: Path) -> None:
    ids, (label, _) = add_utterances(db, 5), add_labels(db)
    for utterance in ids:
        say(db, "ann", utterance, label)
    for left in (4, 3, 2, 1, 0):
        with closing(open_database(tmp_path / "project")) as session:
            undone = annotations.undo(session, "ann")
        assert undone is not None
        assert undone.utterance_id == ids[left]
        assert [utterance for _, utterance in standing(db)] == ids[:left]
    assert annotations.undo(db, "ann") is None


def test_undo_leaves_other_annotators_and_given_labels_alone(db: Database) -> None:
    (one, two), (label, other) = add_utterances(db, 2), add_labels(db)
    say(db, "ann", one, label, strategy="given")
    say(db, "ann", two, label)
    say(db, "ben", two, other)
    assert annotations.undo(db, "ann") is not None
    assert annotations.undo(db, "ann") is None
    assert annotations.undo(db, "cleo") is None
    assert standing(db) == {("ann", one): ("label", label), ("ben", two): ("label", other)}


acts = st.tuples(
    st.sampled_from(ANNOTATORS),
    st.integers(0, 2),
    st.sampled_from(["label", "label", "skip", "none_fits", "clear", "undo", "undo"]),
    st.integers(0, 1),
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(acts, max_size=25))
def test_whatever_is_said_and_undone_what_stands_agrees_with_a_list_of_acts(db: Database, said: list[Any]) -> None:
    db.execute("BEGIN IMMEDIATE")  # rolled back below, so that each example starts anew
    try:
        ids, label_ids = add_utterances(db, 3), add_labels(db)
        kept: list[tuple[str, int, str, int | None]] = []
        for annotator, place, kind, which in said:
            if kind == "undo":
                mine = [act for act in kept if act[0] == annotator]
                undone = annotations.undo(db, annotator)
                assert (undone and undone.utterance_id) == (mine[-1][1] if mine else None)
                if mine:
                    del kept[max(n for n, act in enumerate(kept) if act[0] == annotator)]
            else:
                label = label_ids[which] if kind == "label" else None
                say(db, annotator, ids[place], label, kind)
                kept.append((annotator, ids[place], kind, label))
            stands = {(who, utterance): (kind, label) for who, utterance, kind, label in kept}
            assert standing(db) == {key: answer for key, answer in stands.items() if answer[0] != "clear"}
        assert fetch_value(db, "SELECT count(*) FROM annotation") >= len(kept)
    finally:
        db.rollback()


# What is counted


def test_only_standing_labels_of_the_pool_count_as_new_to_train_on(db: Database) -> None:
    ids, (label, other) = add_utterances(db, 6), add_labels(db)
    utterances.move_to_audit(db, [ids[5]])
    say(db, "ann", ids[0], label)
    watermark = annotations.last_id(db)
    say(db, "ann", ids[1], label)
    say(db, "ann", ids[1], other)  # a change of mind is one label
    say(db, "ann", ids[2], None, "skip")
    say(db, "ann", ids[3], None, "none_fits")
    say(db, "ann", ids[5], label)
    say(db, "ann", ids[4], label)
    assert annotations.count_new_training_labels(db, watermark) == 2
    annotations.undo(db, "ann")
    assert annotations.count_new_training_labels(db, watermark) == 1


def test_a_skipped_utterance_is_still_to_be_asked_and_one_that_nothing_fits_is_not(db: Database) -> None:
    (one, two, three), (label, _) = add_utterances(db, 3), add_labels(db)
    say(db, "ann", one, label)
    say(db, "ann", two, None, "skip")
    say(db, "ben", three, None, "none_fits")
    assert annotations.answered_ids(db) == {one, three}
    assert annotations.count_answered(db) == 2
    assert annotations.counts(db) == {"label": 1, "skip": 1, "none_fits": 1}
    assert annotations.counts(db, "ben") == {"label": 0, "skip": 0, "none_fits": 1}
