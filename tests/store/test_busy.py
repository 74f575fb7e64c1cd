"""While another program writes, reading works, and writing fails with a message after the timeout."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from annotator.errors import ProjectBusy
from store import annotations, bulk, jobs, labels, queue, settings
from store.annotations import NewAnnotation
from store.database import FILENAME, hold_open, immediate, open_database, wait_at_most
from tests.store.rows import add_labels, fill_queue


@pytest.fixture
def locked(db: Database, tmp_path: Path) -> Iterator[Database]:
    """A project with a few rows whose lock another program holds."""
    fill_queue(db, 3)
    add_labels(db)
    wait_at_most(db, 0.05)
    with closing(sqlite3.connect(tmp_path / "project" / FILENAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield db
        other.execute("ROLLBACK")


SAID = NewAnnotation(1, "ann", "label", 1, "random", 1)


@pytest.mark.parametrize(
    "write",
    [
        lambda db: annotations.record(db, SAID),
        lambda db: annotations.undo(db, "ann"),
        lambda db: bulk.answer_all(db, "{}", SAID, [1, 2]),
        lambda db: queue.lease(db, "ann", 1),
        lambda db: labels.add(db, "another"),
        lambda db: settings.put(db, "name", "another"),
        lambda db: jobs.begin(db, "asked", 0),
        lambda db: db.execute("DELETE FROM queue"),
        lambda db: db.conn.executemany("DELETE FROM queue WHERE rank = ?", [(1,)]),
    ],
)
def test_who_waits_in_vain_to_write_is_told_that_another_program_is_writing(locked: Database, write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ProjectBusy, match="Another program is writing") as caught:
        write(locked)
    assert caught.value.hint
    assert not locked.conn.in_transaction


def test_reading_and_opening_do_not_wait_for_who_writes(locked: Database, tmp_path: Path) -> None:
    assert settings.get(locked, "name", "none") == "none"
    assert annotations.answers(locked) == []
    assert not jobs.recover(locked)
    with closing(open_database(tmp_path / "project")) as again, closing(hold_open(tmp_path / "project")):
        assert queue.size(again) == 3


def test_a_block_does_not_begin_while_another_program_writes(locked: Database) -> None:
    begun = False
    with pytest.raises(ProjectBusy), immediate(locked):
        begun = True
    assert not begun


def test_other_faults_of_a_statement_keep_their_own_names(db: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        db.execute("SELECT * FROM absent")
