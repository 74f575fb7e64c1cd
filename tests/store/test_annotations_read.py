"""What is read of the annotations is what stands, and what is counted counts once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlite_utils import Database

from store import annotations, labels, utterances
from store.annotations import ADJUDICATED, BULK, GIVEN, NewAnnotation
from store.labels import Change
from tests.store.rows import add_labels, add_utterances, say


def utterances_of(rows: list[Any]) -> list[int]:
    return [row.utterance_id for row in rows]


def test_an_answer_to_an_imported_context_turn_is_not_among_the_answers(db: Database) -> None:
    (one, two), (label, _) = add_utterances(db, 2), add_labels(db)
    say(db, "ann", two, label)
    say(db, "ann", one, label)
    assert utterances_of(annotations.answers(db)) == [two, one]
    db.execute("DROP TRIGGER slice_is_final")
    db.execute("UPDATE utterance SET slice = 'context' WHERE id = ?", (two,))
    assert utterances_of(annotations.answers(db)) == [one]


def test_labels_of_each_slice_are_counted_and_an_imported_one_only_until_a_person_answers(db: Database) -> None:
    ids, (label, other) = add_utterances(db, 5), add_labels(db)
    utterances.move_to_audit(db, [ids[4]])
    for utterance in ids[:3]:
        say(db, GIVEN, utterance, label, strategy=GIVEN)
    say(db, "ann", ids[0], other)
    say(db, "ann", ids[1], None, "skip")
    say(db, "ann", ids[2], None, "none_fits")
    for who in ("ann", "ben"):
        say(db, who, ids[3], label)
        say(db, who, ids[4], label)
    assert annotations.count_by_slice(db) == {("pool", label): 2, ("pool", other): 1, ("audit", label): 1}
    assert annotations.count_labels(db) == {label: 7, other: 1}


@pytest.mark.parametrize(("kind", "is_answer"), [("label", True), ("none_fits", True), ("skip", False)])
def test_a_label_and_none_fits_answer_an_utterance_and_a_skip_does_not(
    db: Database, kind: annotations.Kind, is_answer: bool
) -> None:
    (one, two), (label, _) = add_utterances(db, 2), add_labels(db)
    say(db, "ann", one, label if kind == "label" else None, kind)
    say(db, "ben", one, None, "skip")
    assert annotations.is_answered(db, one) == is_answer
    assert not annotations.is_answered(db, two)
    assert annotations.answered_ids(db) == ({one} if is_answer else set())
    assert annotations.count_answered(db) == is_answer
    assert annotations.first_asked(db) == ({one: "random"} if is_answer else {})


def test_an_utterance_that_two_people_answer_is_answered_once(db: Database) -> None:
    ids, (label, other) = add_utterances(db, 2), add_labels(db)
    say(db, "ann", ids[1], label, strategy="margin")
    say(db, "ann", ids[0], label)
    say(db, "ben", ids[1], other, strategy="audit")
    assert annotations.count_answered(db) == 2
    assert list(annotations.first_asked(db).items()) == [(ids[1], "margin"), (ids[0], "random")]
    assert utterances_of(annotations.answers_to(db, [ids[1]])) == [ids[1], ids[1]]
    assert [row.annotator for row in annotations.answers_to(db, reversed(ids))] == ["ann", "ann", "ben"]
    assert annotations.answers_to(db, []) == []


def test_answers_differ_where_the_labels_do_or_none_fits_stands_against_one(db: Database) -> None:
    ids, (label, other) = add_utterances(db, 6), add_labels(db)
    for utterance, (first, second) in {
        ids[1]: ((other, "label"), (None, "none_fits")),
        ids[0]: ((label, "label"), (other, "label")),
        ids[2]: ((label, "label"), (label, "label")),
        ids[3]: ((label, "label"), (None, "skip")),
        ids[4]: ((None, "none_fits"), (None, "none_fits")),
    }.items():
        say(db, "ann", utterance, *first)
        say(db, "ben", utterance, *second)
    say(db, "cleo", ids[1], other)
    assert annotations.differing_ids(db) == [ids[1], ids[0]]


def test_an_adjudication_is_found_while_its_label_is_in_use_and_undone_apart_from_answers(db: Database) -> None:
    ids, (label, other) = add_utterances(db, 4), add_labels(db)
    say(db, "ann", ids[0], label, strategy=ADJUDICATED)
    say(db, "ann", ids[1], None, "none_fits", ADJUDICATED)
    say(db, "ann", ids[2], other, strategy=ADJUDICATED)
    say(db, "ann", ids[3], label)
    labels.write(db, Change("retire", {other: {"retired_at": "2026-01-01"}}))
    assert annotations.adjudicated_ids(db) == {ids[0], ids[1]}
    undone = [annotations.undo(db, "ann", adjudicated) for adjudicated in (True, False, False, True)]
    assert [row and row.utterance_id for row in undone] == [ids[2], ids[3], None, ids[1]]
    assert annotations.adjudicated_ids(db) == {ids[0]}


def test_bulk_answers_are_not_undone_one_by_one(db: Database) -> None:
    (one, two), (label, _) = add_utterances(db, 2), add_labels(db)
    say(db, "ann", one, label)
    say(db, "ann", two, label, strategy=BULK)
    undone = annotations.undo(db, "ann")
    assert undone is not None
    assert undone.utterance_id == one
    assert annotations.undo(db, "ann") is None


def test_everybody_who_acted_is_named_once_in_order(db: Database) -> None:
    ids = add_utterances(db, 2)
    for who in ("cleo", "ann", "ben", "ann"):
        say(db, who, ids[0], None, "skip")
    assert annotations.annotators(db) == ["ann", "ben", "cleo"]


# Since a watermark


def test_what_was_answered_since_is_the_newest_answer_or_ones_own_skip(db: Database) -> None:
    (one, two), (label, other) = add_utterances(db, 2), add_labels(db)
    say(db, "ben", one, label)
    watermark = annotations.last_id(db)
    say(db, "ben", two, label)
    say(db, "cleo", one, None, "skip")
    assert annotations.answered_since(db, one, "ann", watermark) is None
    for who, label_id, kind in (("ann", None, "skip"), ("ben", other, "label"), ("dora", label, "label")):
        say(db, who, one, label_id, kind)
        found = annotations.answered_since(db, one, "ann", watermark)
        assert found is not None
        assert (found.annotator, found.kind, found.label_id) == (who, kind, label_id)
    assert annotations.answered_since(db, one, "ann", annotations.last_id(db)) is None


def test_acts_since_are_counted_by_kind_with_those_that_were_undone_and_without_adjudications_of_ids(
    db: Database,
) -> None:
    ids, (label, _) = add_utterances(db, 5), add_labels(db)
    say(db, "ann", ids[0], label)
    watermark = annotations.last_id(db)
    say(db, "ann", ids[1], label)
    annotations.undo(db, "ann")
    say(db, "ann", ids[2], None, "skip")
    say(db, "ann", ids[3], label, strategy=ADJUDICATED)
    say(db, "ben", ids[4], label)
    assert annotations.acts(db, "ann", watermark) == {"label": 2, "undo": 1, "skip": 1}
    assert annotations.acted_on_since(db, "ann", watermark) == {ids[1], ids[2]}
    assert [annotations.count_acts(db, watermark, at_most) for at_most in (0, 3, 9)] == [0, 3, 4]


def test_times_are_those_of_answers_that_were_asked_for(db: Database) -> None:
    ids, (label, _) = add_utterances(db, 8), add_labels(db)
    for utterance, strategy in zip(ids, ("random", GIVEN, BULK, ADJUDICATED), strict=False):
        say(db, "ann", utterance, label, strategy=strategy)
    say(db, "ann", ids[4], None, "none_fits")
    say(db, "ann", ids[5], None, "skip")
    say(db, "ben", ids[6], label)
    stored = [datetime.fromisoformat(row.at) for row in annotations.answers_to(db, [ids[0], ids[4]])]
    assert annotations.times(db, "ann", stored[0]) == stored
    assert annotations.times(db, "ann", stored[1] + timedelta(milliseconds=1)) == []


# Undone and skipped


def test_the_last_answer_that_was_undone_and_not_replaced_is_read_back(db: Database) -> None:
    ids, (label, other) = add_utterances(db, 6), add_labels(db)
    say(db, "ann", ids[0], label)
    say(db, "ann", ids[0], other)
    annotations.undo(db, "ann")
    annotations.undo(db, "ann")  # goes back to the first one
    say(db, "ann", ids[1], label)
    annotations.undo(db, "ann")
    say(db, "ann", ids[1], other)  # replaced
    say(db, "ann", ids[2], label)
    say(db, "ben", ids[3], label)
    annotations.undo(db, "ben")
    say(db, "ann", ids[4], label, strategy=ADJUDICATED)
    annotations.undo(db, "ann", adjudicated=True)
    say(db, "ann", ids[5], label)
    annotations.undo(db, "ann")
    found = annotations.taken_back(db, "ann", ids[:5])
    assert {utterance: row.label_id for utterance, row in found.items()} == {ids[0]: label}


def test_skips_of_unanswered_utterances_are_undone_together(db: Database) -> None:
    ids, (label, _) = add_utterances(db, 5), add_labels(db)
    for utterance in ids[:3]:
        say(db, "ann", utterance, None, "skip")
    say(db, "ben", ids[0], None, "skip")
    say(db, "ben", ids[2], label)
    say(db, "ann", ids[4], label)
    assert annotations.skipped_ids(db, "ann") == set(ids[:3])
    assert annotations.undo_skips(db, "ann") == 2
    assert annotations.skipped_ids(db, "ann") == {ids[2]}
    assert annotations.skipped_ids(db, "ben") == {ids[0]}
    assert annotations.answered_ids(db) == {ids[2], ids[4]}
    assert annotations.undo_skips(db, "ann") == 0


# For changes of the codebook


def test_people_are_counted_however_they_write_their_name(db: Database) -> None:
    ids, (label, other, third) = add_utterances(db, 4), add_labels(db, 3)
    say(db, "Ann", ids[0], label)
    say(db, " ann", ids[1], label)
    say(db, "\uff42en", ids[1], other)  # a full-width b
    say(db, "ben", ids[2], other)
    say(db, GIVEN, ids[3], label, strategy=GIVEN)
    say(db, "cleo", ids[3], third)
    assert annotations.count_given(db, [label, other]) == (5, 2, 4)
    assert annotations.count_given(db, [third]) == (1, 1, 1)


def test_answers_before_a_change_that_nobody_has_answered_since_are_found(db: Database) -> None:
    ids, (kept, changed, retired) = add_utterances(db, 9), add_labels(db, 3)

    def answered(utterance: int, label: int | None, version: int, who: str = "ann", kind: str = "label") -> int:
        return annotations.record(db, NewAnnotation(utterance, who, kind, label, "random", version))  # type: ignore[arg-type]

    fits_none = answered(ids[4], None, 4, kind="none_fits")
    before = answered(ids[1], changed, 4)
    answered(ids[2], changed, 5)
    out_of_use = answered(ids[3], retired, 9)
    answered(ids[0], kept, 1)
    answered(ids[5], None, 5, kind="none_fits")
    answered(ids[6], changed, 4)
    answered(ids[6], kept, 5, "ben")  # answered since
    skipped = answered(ids[7], changed, 4)
    answered(ids[7], None, 5, "ben", "skip")
    answered(ids[8], changed, 4)
    answered(ids[8], None, 5, "ben", "none_fits")
    answered(ids[0], None, 1, "ben", "skip")
    labels.write(db, Change("revise", {changed: {"look_since": 5}}))
    labels.write(db, Change("retire", {retired: {"retired_at": "2026-01-01", "look_since": 10}}))
    found = [(fits_none, 5), (before, 5), (out_of_use, 10), (skipped, 5)]
    assert [(row.id, row.since) for row in annotations.to_look_at(db, 5)] == found
    assert [row.id for row in annotations.to_look_at(db, 0)] == [before, out_of_use, skipped]
    assert [row.id for row in annotations.to_look_at(db, 5, ids[3])] == [out_of_use]
    assert annotations.to_look_at(db, 5, ids[2]) == []


def test_an_annotation_is_sure_without_comment_and_with_nothing_withheld_unless_it_says_otherwise(db: Database) -> None:
    (utterance,), (label, _) = add_utterances(db, 1), add_labels(db)
    annotations.record(db, NewAnnotation(utterance, "ann", "label", label, "margin", 3))
    (row,) = annotations.answers_to(db, [utterance])
    assert (row.unsure, row.comment, row.withheld) == (0, "", "")


def test_all_fields_of_an_annotation_are_stored(db: Database) -> None:
    (utterance,), (label, other) = add_utterances(db, 1), add_labels(db)
    plain = NewAnnotation(utterance, "ann", "label", label, "margin", 3)
    full = replace(plain, unsure=True, comment="hm", propensity=0.5, pool_size=9, suggested_label_id=other)
    full = replace(full, suggested_probability=0.7, milliseconds=12, withheld="chance", withheld_label_id=label)
    full = replace(full, withheld_probability=0.2, chosen_after=1)
    for new in (plain, full):
        annotations.record(db, new)
        (row,) = db.query("SELECT * FROM annotation ORDER BY id DESC LIMIT 1")
        assert {name: row[name] for name in vars(new)} == vars(new)
