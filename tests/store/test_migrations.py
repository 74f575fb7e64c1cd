"""A project of any released version opens with every row, whoever else opens it at the same moment."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from store.database import FILENAME, open_database
from store.migrations import migrations
from tests.store.frozen import FROZEN, thaw

NAMES = [migration.name for migration in migrations.every()]


@pytest.fixture(params=FROZEN, ids=lambda path: path.stem)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return thaw(request.param.read_text(encoding="utf-8"), tmp_path / "old")


def rows_of(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with closing(sqlite3.connect(folder / FILENAME)) as connection:
        connection.row_factory = sqlite3.Row
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            yield from ((table, dict(row)) for row in connection.execute(f"SELECT * FROM {table}"))


def schema(db: Database) -> set[tuple[str, str]]:
    return set(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())


def test_every_migration_is_numbered_without_gaps_and_says_what_it_does() -> None:
    assert [re.match(r"m(\d{3})_[a-z]", name)[1] for name in NAMES] == [f"{n:03d}" for n in range(1, len(NAMES) + 1)]  # type: ignore[index]
    assert all(migration.fn.__doc__ for migration in migrations.every())


def test_a_frozen_project_has_rows_in_every_table(old: Path) -> None:
    with closing(sqlite3.connect(old / FILENAME)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {table for table, _ in rows_of(old)} == tables


def test_an_old_project_opens_with_every_row_and_the_newest_tables(old: Path, db: Database) -> None:
    before = list(rows_of(old))
    with closing(open_database(old)) as opened:
        assert [migration.name for migration in migrations.applied(opened)] == NAMES
        assert schema(opened) == schema(db)
    after = list(rows_of(old))
    (question,) = [row for table, row in after if table == "question"]
    for table, row in before:
        if table == "setting" and row["key"] in ("instruction", "none_fits_since"):  # it belongs to the question now
            assert question[row["key"]] == json.loads(row["value"])
            continue
        assert any(table == other and row.items() <= now.items() for other, now in after), f"{table}: {row}"


def test_opening_a_project_twice_changes_nothing(old: Path) -> None:
    open_database(old).close()
    once = list(rows_of(old))
    with closing(open_database(old)) as opened:
        migrations.apply(opened)
    assert list(rows_of(old)) == once


def open_each(folders: list[Path]) -> int:
    """Open projects, each at the moment at which another process does."""
    for folder in folders:
        (folder / f"{os.getpid()}.here").touch()
        deadline = time.monotonic() + 60
        while len(list(folder.glob("*.here"))) < 2:
            assert time.monotonic() < deadline, "the other process has failed"
            time.sleep(0.0005)
        open_database(folder).close()
    return len(folders)


def test_two_processes_may_open_the_same_old_project_at_once(tmp_path: Path) -> None:
    script = FROZEN[0].read_text(encoding="utf-8")
    folders = [thaw(script, tmp_path / f"project-{n}") for n in range(20)]  # 20 chances to clash
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert list(pool.map(open_each, [folders, folders])) == [20, 20]
    for folder in folders:
        with closing(open_database(folder)) as db:
            assert [migration.name for migration in migrations.applied(db)] == NAMES
