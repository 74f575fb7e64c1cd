"""Rows come out of the store as dataclasses whose fields are the columns, and a damaged value stops what reads it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
from sqlite_utils import Database

from annotator.errors import ProjectDamaged
from store import annotations, labels, queue, utterances
from store.annotations import Annotation, Answer, NewAnnotation
from store.database import immediate, select
from store.labels import Label
from store.queue import Leased, QueueEntry
from store.utterances import NewUtterance, Turn, Utterance
from tests.store.rows import add_labels, add_utterances, say

STORED = [(Utterance, "utterance"), (Annotation, "annotation"), (Answer, "answer"), (Label, "label"), (Leased, "queue")]


@pytest.mark.parametrize(("kind", "table"), STORED, ids=[table for _, table in STORED])
def test_every_field_names_a_column(db: Database, kind: type, table: str) -> None:
    columns = {name for (name,) in db.execute(f"SELECT name FROM pragma_table_info('{table}')")}
    named = {field.name.removesuffix("_json") for field in fields(kind)}
    assert named - columns == ({"slice"} if kind is Answer else set())


def test_values_stand_in_the_fields_of_their_columns(db: Database) -> None:
    new = NewUtterance("a", "Hello", "talk", 2.0, "ann", {"source": "x", "notes": ["y"]})
    with immediate(db):
        first = utterances.add(db, NewUtterance("b", "Before", "talk", 1.0))
        (found,) = utterances.read(db, [utterances.add(db, new)])
    assert (found.external_id, found.text, found.conversation, found.turn, found.speaker) == (
        "a",
        "Hello",
        "talk",
        2,
        "ann",
    )
    assert (found.slice, found.metadata) == ("pool", new.metadata)
    assert utterances.turns_before(db, found, 5) == [Turn(first, None, "Before")]
    assert utterances.turns_around(db, found) == [Turn(first, None, "Before"), Turn(found.id, "ann", "Hello")]
    with pytest.raises(FrozenInstanceError):
        found.text = "other"  # type: ignore[misc]


def test_an_answer_holds_what_was_recorded(db: Database) -> None:
    (one,), (label, other) = add_utterances(db, 1), add_labels(db)
    given = NewAnnotation(
        one, "ann", "label", label, "margin", 1, True, "why", None, 0.5, 9, None, None, 700, "chance", other, 0.75
    )
    number = annotations.record(db, given)
    (found,) = annotations.answers(db)
    assert (found.id, found.slice, found.said_label_id) == (number, "pool", label)
    shared = {field.name for field in fields(Answer)} & {field.name for field in fields(NewAnnotation)}
    assert len(shared) == 19
    assert {name: getattr(found, name) for name in shared} == {name: getattr(given, name) for name in shared}
    assert annotations.answers_to(db, [one]) == [found]
    assert annotations.answered_since(db, one, "ann", 0) == found
    undone = annotations.undo(db, "ann")
    assert undone == Annotation(**vars(given), id=number)
    assert annotations.taken_back(db, "ann", [one]) == {one: undone}


def test_a_leased_utterance_comes_with_the_entry_that_selected_it(db: Database) -> None:
    (one,) = add_utterances(db, 1)
    queue.extend(db, None, [QueueEntry(one, "margin", 0.25, 0.5, 7)])
    assert queue.lease(db, "ann", 5) == [Leased(1, one, None, "margin", 0.25, 0.5, 7, None)]


def test_more_rows_than_are_fetched_at_once_come_in_order(db: Database) -> None:
    ids = add_utterances(db, 123)
    assert [one.id for one in select(db, Utterance, "FROM utterance ORDER BY id")] == ids


def test_damaged_values_stop_what_reads_them_alone(db: Database) -> None:
    (one,), _ = add_utterances(db, 1), add_labels(db)
    db.execute("UPDATE utterance SET metadata = '{'")
    (found,) = utterances.read(db, [one])
    assert found.text == "text 0"
    with pytest.raises(ProjectDamaged, match="the metadata of an utterance"):
        found.metadata  # noqa: B018
    say(db, "ann", one, 1)
    db.execute("UPDATE label SET examples = '['")
    with pytest.raises(ProjectDamaged, match="the examples of a label"):
        labels.current(db)
