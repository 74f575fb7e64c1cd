"""A project's database opens safely, and writes are atomic and wait for each other."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from annotator.errors import NoProject, ProjectExists, ProjectTooNew
from store import settings
from store.database import BUSY_SECONDS, FILENAME, create_database, fetch_value, immediate, open_database


@pytest.fixture
def other(db: Database, tmp_path: Path) -> Iterator[Database]:
    """A second connection to the same project."""
    with closing(open_database(tmp_path / "project")) as database:
        yield database


def put_and_fail(db: Database, key: str) -> None:
    with immediate(db):
        settings.put(db, key, 1)
        raise RuntimeError


def pragma(db: Database, name: str) -> object:
    return fetch_value(db, f"PRAGMA {name}")


def test_a_created_project_opens_again_with_what_was_put_in(tmp_path: Path) -> None:
    with closing(create_database(tmp_path / "deep" / "project")) as db:
        settings.put(db, "name", "calls")
    assert (tmp_path / "deep" / "project" / "adapters").is_dir()
    with closing(open_database(tmp_path / "deep" / "project")) as db:
        assert settings.get(db, "name") == "calls"


def test_a_project_is_never_created_over_another(db: Database, tmp_path: Path) -> None:
    with pytest.raises(ProjectExists):
        create_database(tmp_path / "project")


def test_a_folder_without_a_project_is_not_opened_and_not_touched(tmp_path: Path) -> None:
    with pytest.raises(NoProject):
        open_database(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_project_of_a_later_version_is_refused_with_what_is_unknown_in_it(db: Database, tmp_path: Path) -> None:
    db.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('annotator', 'm999_x', '')")
    with pytest.raises(ProjectTooNew, match=f"{FILENAME}.*m999_x"):
        open_database(tmp_path / "project")


def test_every_answer_is_on_the_disk_itself_while_others_read(db: Database, other: Database) -> None:
    for connection in (db, other):
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == 2  # FULL
        assert pragma(connection, "foreign_keys") == 1


def test_a_transaction_that_reads_before_it_writes_is_locked_out_at_once(db: Database, other: Database) -> None:
    """The trap: no timeout helps a deferred transaction, because what it has read is out of date."""
    db.execute("BEGIN DEFERRED")
    settings.get(db, "count", 0)
    settings.put(other, "count", 1)
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        db.execute("INSERT INTO setting (key, value) VALUES ('count', '1')")
    assert time.monotonic() - began < BUSY_SECONDS / 2
    db.rollback()


def test_an_immediate_transaction_that_reads_before_it_writes_waits_for_the_other(db: Database, tmp_path: Path) -> None:
    writing = threading.Event()

    def count_slowly() -> None:
        with closing(open_database(tmp_path / "project")) as mine, immediate(mine):
            count = settings.get(mine, "count", 0)
            writing.set()
            time.sleep(0.2)
            settings.put(mine, "count", count + 1)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(count_slowly)
        writing.wait(60)
        with immediate(db):
            settings.put(db, "count", settings.get(db, "count", 0) + 1)
        slow.result()
    assert settings.get(db, "count") == 2


def test_a_block_that_fails_leaves_nothing(db: Database, other: Database) -> None:
    with pytest.raises(RuntimeError):
        put_and_fail(db, "name")
    assert settings.get(other, "name") is None
    settings.put(other, "name", "free to write")


def test_a_commit_that_fails_leaves_nothing_and_no_transaction_open(db: Database) -> None:
    def put_an_orphan() -> None:
        with immediate(db):
            db.execute("PRAGMA defer_foreign_keys = ON")  # so that it is the commit that fails
            db.execute("INSERT INTO queue (utterance_id, strategy, pool_size) VALUES (7, 'random', 1)")

    with pytest.raises(sqlite3.IntegrityError):
        put_an_orphan()
    assert not db.conn.in_transaction
    assert fetch_value(db, "SELECT count(*) FROM queue") == 0


def test_an_inner_block_that_fails_and_is_caught_is_undone_alone(db: Database, other: Database) -> None:
    with immediate(db):
        settings.put(db, "outer", 1)
        with pytest.raises(RuntimeError):
            put_and_fail(db, "inner")
        settings.put(db, "after", 1)
    assert [settings.get(other, key) for key in ("outer", "inner", "after")] == [1, None, 1]


def test_an_outer_block_that_fails_undoes_the_inner_one_with_it(db: Database, other: Database) -> None:
    def fail_outside() -> None:
        with immediate(db):
            with immediate(db):
                settings.put(db, "inner", 1)
            assert settings.get(other, "inner") is None
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_outside()
    assert settings.get(other, "inner") is None


def test_a_connection_belongs_to_the_thread_that_opened_it(db: Database) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(sqlite3.ProgrammingError, match="thread"):
        pool.submit(settings.get, db, "name").result()
