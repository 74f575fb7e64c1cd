"""Open a project's database, and run transactions and queries on it.

A connection belongs to the thread that opened it, so open one per page run or process. Every read-modify-write runs in
`immediate`: a deferred transaction that starts by reading cannot write after another process has written, and fails
at once with "database is locked", whatever the timeout.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlite_utils import Database

from annotator.errors import (
    DiskFull,
    Message,
    NoProject,
    ProjectBusy,
    ProjectError,
    ProjectExists,
    ProjectReadOnly,
    ProjectTooNew,
    ProjectUnreadable,
)
from store.faults import check_file_type, connect, damaged, empty, foreign, journal_unread, read_only
from store.migrations import migrations

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FILENAME = "project.db"
_Item = TypeVar("_Item")
_Row = TypeVar("_Row", bound="DataclassInstance")
_FETCHED = 10  # rows in memory at once, whose texts may be long
_CHUNK = 500  # SQLite accepts 32,766 parameters per statement; smaller chunks also keep rows streaming
BUSY_SECONDS = 30.0  # longer than any of our writes, shorter than a person's patience
_MIGRATED = "_sqlite_migrations"
_CHECKED_BYTES = 32 * 2**20  # larger files are checked only by `annotator doctor`, because opening must be fast
_checked: set[tuple[int, int, int]] = set()  # stamps of files this process has checked
_opened_before: set[tuple[object, ...]] = set()  # stamps of projects this process could open


def create_database(folder: Path) -> Database:
    """Create the folder with an empty database, accessible to this user only. Raises ProjectExists, ProjectError."""
    path = folder / FILENAME
    if os.path.lexists(path):
        raise ProjectExists(
            Message("{folder} already contains a project.", folder=folder), "Open it, or choose another name."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "adapters").mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise ProjectUnreadable(
            Message("{folder} cannot be created: {strerror}.", folder=folder, strerror=error.strerror),
            "Choose a folder you can write to, on a disk with free space.",
        ) from error
    try:
        return _opened(path, is_new=True)
    except BaseException:
        _remove_new(path)
        raise


def _remove_new(path: Path) -> None:
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    with suppress(OSError):  # the folder may have existed before, with other content
        (path.parent / "adapters").rmdir()
        path.parent.rmdir()


def open_database(folder: Path) -> Database:
    """Open the database of an existing project and migrate it to the newest schema.

    If it cannot be written, it is opened read-only. Raises NoProject, ProjectError.
    """
    path = folder / FILENAME
    if not os.path.lexists(path):
        raise NoProject(
            Message("There is no project in {folder}.", folder=folder),
            "Create one with `annotator new`, or check the path.",
        )
    check_file_type(path)
    reason: ProjectError = read_only(path)
    if all(os.access(one, os.W_OK) for one in (path, path.resolve().parent)):
        try:
            return _opened(path)
        except (DiskFull, ProjectReadOnly, ProjectUnreadable) as error:
            reason = error
    return _opened_to_read(path, reason)


def why_frozen(db: Database) -> ProjectError | None:
    """Return why a database is read-only; None if it can be written."""
    return getattr(db.conn, "frozen", None)


def hold_open(folder: Path) -> sqlite3.Connection:
    """Open a connection that only stays open, and may be closed by any thread.

    When the last connection to a database closes, SQLite writes back and removes the journal, which takes longer than
    storing an answer. A program that opens a connection per answer keeps this one open to avoid that.
    """
    connection = connect(folder / FILENAME, any_thread=True)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # it has no effect before its first read
    return connection


def wait_at_most(db: Database, seconds: float) -> None:
    """Set how long a statement waits for another writer before raising ProjectBusy."""
    db.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")


def _opened(path: Path, is_new: bool = False) -> Database:
    db = Database(connect(path, timeout=BUSY_SECONDS))
    try:
        if not is_new:
            _refuse_foreign(db, path)  # before anything is changed
        # FULL: an answer is on the disk, not only in the system's cache, before the next utterance is shown.
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            db.execute(f"PRAGMA {pragma}")
        _migrate(db, path)
        db.execute("PRAGMA foreign_keys = ON")  # not before: a migration may replace tables that others refer to
        _refuse_damaged(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _opened_to_read(path: Path, reason: ProjectError) -> Database:
    """Open a project read-only. Raises ProjectReadOnly if it needs migration."""
    db = _reading(path, reason)
    if migrations.pending(db):
        db.close()
        raise ProjectReadOnly(
            Message(
                "{path} was created by an earlier version and cannot be updated, because it is read-only.", path=path
            ),
            "Copy the folder to a place you can write to, and open it there.",
        )
    return db


_LEAVING_NOTHING = ("mode=ro", "mode=ro&immutable=1")


def _reading(path: Path, reason: ProjectError, ways: Sequence[str] = _LEAVING_NOTHING) -> Database:
    """Open a database read-only, if necessary without the files SQLite keeps next to it.

    Without them, answers still in the journal would be missing; in that case ProjectReadOnly is raised.
    """
    journal = path.with_name(f"{path.name}-wal")
    is_whole = not journal.exists() or not journal.stat().st_size
    for options in ways if is_whole else ways[:-1]:
        connection = connect(path, options, timeout=BUSY_SECONDS)
        connection.frozen = reason
        db = Database(connection)
        try:
            _refuse_foreign(db, path)
            if not migrations.pending(db):
                _refuse_damaged(db, path)
            return db
        except (ProjectUnreadable, DiskFull):
            db.close()
        except BaseException:
            db.close()
            raise
    raise reason if is_whole else journal_unread(path, journal)


def fault_of(folder: Path) -> ProjectError | None:
    """Return why a project cannot be opened; None if it can. Writes nothing, and checks each state of a file once."""
    path = folder / FILENAME
    try:
        check_file_type(path)
        found = path.stat()
        state = (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if state not in _opened_before:
            # A read-only connection leaves the journal's files behind; one that can write removes them.
            _reading(path, read_only(path), ("mode=rw", *_LEAVING_NOTHING)).close()
            _opened_before.add(state)
    except ProjectBusy:  # being written to is not a fault
        return None
    except ProjectError as error:
        return error
    return None


def _refuse_foreign(db: Database, path: Path) -> None:
    names = _names(db)
    if not names:
        raise empty(path)
    if not (_MIGRATED in names and migrations.applied(db)):
        raise foreign(path)
    if version := fetch_value(db, "PRAGMA user_version"):
        raise ProjectTooNew(
            Message("{path} was written by a later version ({version}).", path=path, version=version),
            "Update this program.",
        )


def _refuse_damaged(db: Database, path: Path) -> None:
    """Raise ProjectDamaged if the schema is incomplete or, checked once per file, the pages are inconsistent."""
    names, columns = _expected()
    if missing := names - _names(db):
        raise damaged(path, f"it has no {', '.join(sorted(missing)[:3])}")
    found = path.stat()
    file = (found.st_dev, found.st_ino, found.st_mtime_ns)
    if file not in _checked and found.st_size <= _CHECKED_BYTES:
        if missing := columns - _columns(db, path):
            raise damaged(path, f"it has no {', '.join(sorted(missing)[:3])}")
        if (first := str(fetch_value(db, "PRAGMA quick_check(1)"))) != "ok":
            raise damaged(path, first.splitlines()[-1])
        _checked.add(file)


def _names(db: Database) -> set[str]:
    sql = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite^_%' ESCAPE '^'"
    return {name for (name,) in db.execute(sql)}


def _columns(db: Database, path: Path) -> set[str]:
    """Return all columns of tables and views. This compiles every view, which fails if the schema is damaged."""
    sql = """SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c
             WHERE m.type IN ('table', 'view')"""
    try:
        return {name for (name,) in db.execute(sql)}
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        raise damaged(path, str(error)) from error


@lru_cache
def _expected() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of a new project's tables, views, indexes and triggers, and of its columns."""
    with closing(Database(memory=True)) as fresh:
        migrations.apply(fresh)
        return frozenset(_names(fresh)), frozenset(_columns(fresh, Path()))


def _migrate(db: Database, path: Path) -> None:
    applied = {migration.name for migration in migrations.applied(db)}
    unknown = applied - {migration.name for migration in migrations.every()}
    if unknown:
        raise ProjectTooNew(
            Message(
                "{path} was written by a later version (it has {unknown}).",
                path=path,
                unknown=", ".join(sorted(unknown)),
            ),
            "Update this program.",
        )
    if migrations.pending(db):
        with immediate(db):  # two processes must not migrate the same project
            migrations.apply(db)


@contextmanager
def immediate(db: Database) -> Iterator[None]:
    """Run the block in one transaction that can write from its start; nested, as part of the outer one.

    Raises ProjectBusy, before the block begins, if another program keeps writing beyond the timeout.
    """
    if db.conn.in_transaction:
        with db.atomic():
            yield
        return
    db.conn.execute("BEGIN" if why_frozen(db) else "BEGIN IMMEDIATE")  # a read-only database can still be read
    try:
        yield
        db.commit()
    except BaseException:
        db.rollback()
        raise


@contextmanager
def reading(db: Database) -> Iterator[None]:
    """Run the block on one snapshot of the database without blocking writers; nested, on the outer snapshot."""
    if db.conn.in_transaction:
        yield
        return
    db.conn.execute("BEGIN DEFERRED")
    try:
        yield
    finally:
        db.rollback()


def fetch(db: Database, sql: str, parameters: Any = ()) -> list[dict[str, Any]]:
    """Run a query and return its rows as dictionaries."""
    return list(db.query(sql, parameters))


def fetch_one(db: Database, sql: str, parameters: Any = ()) -> dict[str, Any] | None:
    """Return the first row of a query, or None."""
    return next(iter(db.query(sql, parameters)), None)


def fetch_value(db: Database, sql: str, parameters: Any = ()) -> Any:
    """Return the first column of the first row, or None."""
    row = db.execute(sql, parameters).fetchone()
    return row[0] if row else None


def select(db: Database, kind: type[_Row], source: str, parameters: Any = ()) -> Iterator[_Row]:
    """Stream rows as a dataclass whose fields are named after columns; `source` is the query from FROM on.

    A field with the suffix `_json` holds the column without it, unparsed.
    """
    columns = ", ".join(one.name.removesuffix("_json") for one in fields(kind))
    cursor = db.execute(f"SELECT {columns} {source}", parameters)
    while rows := cursor.fetchmany(_FETCHED):
        yield from starmap(kind, rows)


def now() -> str:
    """Return the current time in UTC in milliseconds, in the format of all tables."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def chunks(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Split a list into chunks small enough for the parameters of a statement."""
    for start in range(0, len(items), _CHUNK):
        yield list(items[start : start + _CHUNK])
