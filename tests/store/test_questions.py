"""Each answer belongs to a question: answers to different questions stand side by side, and a group is no answer."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from store import annotations, labels, questions
from store.annotations import NewAnnotation
from store.database import FILENAME, open_database
from store.labels import Change
from store.migrations import migrations
from store.questions import FIRST
from tests.store.rows import add_labels, add_utterances

MANY = 100_000


def another(db: Database) -> int:
    return int(db.execute("INSERT INTO question (name) VALUES ('tone')").lastrowid or 0)


def test_a_new_project_has_one_question_about_every_utterance(db: Database) -> None:
    questions.instruct(db, "Which topic?")
    found = questions.read(db)
    assert (found.id, found.instruction, found.kind, found.unit) == (FIRST, "Which topic?", "single", "utterance")
    assert (json.loads(found.applies_json), found.none_fits_since) == ({}, 0)


def test_a_change_of_a_question_is_part_of_the_history(db: Database) -> None:
    questions.instruct(db, "Which topic?")
    version = labels.write(db, Change("instruct", questions={FIRST: {"instruction": "Which one?"}}), "ada")
    (event,) = labels.events(db)
    assert (event.version, event.questions) == (version, {FIRST: {"instruction": ("Which topic?", "Which one?")}})
    assert questions.read(db).instruction == "Which one?"


def test_answers_to_two_questions_stand_side_by_side(db: Database) -> None:
    (one,), (label,), tone = add_utterances(db, 1), add_labels(db, 1), another(db)
    other = labels.add(db, "angry", question_id=tone)
    for said, question in ((label, FIRST), (other, tone)):
        annotations.record(db, NewAnnotation(one, "ann", "label", said, "random", 1, question_id=question))
    assert [(a.question_id, a.label_id) for a in annotations.answers(db)] == [(FIRST, label), (tone, other)]
    undone = annotations.undo(db, "ann")
    assert undone
    assert undone.question_id == tone
    assert [a.question_id for a in annotations.answers(db)] == [FIRST]


def test_a_group_or_a_label_of_another_question_is_no_answer(db: Database) -> None:
    (one,), tone = add_utterances(db, 1), another(db)
    group, other = labels.add(db, "economy", is_group=1), labels.add(db, "angry", question_id=tone)
    for refused in (group, other):
        with pytest.raises(sqlite3.IntegrityError, match="not an answer"):
            annotations.record(db, NewAnnotation(one, "ann", "label", refused, "random", 1))


def test_many_answers_are_migrated_in_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    with closing(Database(sqlite3.connect(folder / FILENAME, isolation_level=None))) as old:
        migrations.apply(old, stop_before="m014_questions")
        old.execute("BEGIN")
        old.execute("INSERT INTO label (name, position, counts_as) VALUES ('a', 0, 1)")
        of = f"FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY}) SELECT i FROM n)"
        old.execute(
            f"""INSERT INTO utterance (id, external_id, text, text_hash, slice, imported_at)
                SELECT i, i, 'a text', x'00', 'pool', '2026-11-01' {of}"""
        )
        old.execute(
            f"""INSERT INTO annotation (utterance_id, annotator, kind, label_id, strategy, codebook_version, at)
                SELECT i, 'ann', 'label', 1, 'random', 1, '2026-11-01' {of}"""
        )
        old.execute("COMMIT")
    began = time.process_time()
    with closing(open_database(folder)) as db:
        seconds = time.process_time() - began
        assert annotations.counts(db)["label"] == MANY
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert seconds < 10
