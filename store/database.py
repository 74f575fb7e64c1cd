"""Open a project's database: where it lies, how it is connected to, and how a write is made safe.

A connection belongs to the thread that opened it, so open one per page run or process. Every
read-modify-write runs in `immediate`: a deferred transaction that starts by reading cannot become a writer
once another process has written, and fails at once with "database is locked", whatever the timeout.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlite_utils import Database

from annotator.errors import NoProject, ProjectExists, ProjectTooNew
from store.busy import Connection
from store.migrations import migrations

FILENAME = "project.db"
_Item = TypeVar("_Item")
_CHUNK = 500  # SQLite takes at most 32,766 parameters a statement; this also keeps rows streaming
BUSY_SECONDS = 30.0  # longer than any write of ours takes, shorter than a person's patience


def create_database(folder: Path) -> Database:
    """Create the folder and an empty database in it. Raises ProjectExists if there is one."""
    if (folder / FILENAME).exists():
        raise ProjectExists(f"There is a project in {folder} already.", "Open it, or choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapters").mkdir(exist_ok=True)
    return _connect(folder / FILENAME)


def open_database(folder: Path) -> Database:
    """Open the database of an existing project and bring it to the newest schema. Raises NoProject."""
    if not (folder / FILENAME).is_file():
        raise NoProject(f"There is no project in {folder}.", "Create one with `annotator new`, or check the path.")
    return _connect(folder / FILENAME)


def hold_open(folder: Path) -> sqlite3.Connection:
    """Open a connection that is only held, and may be closed by any thread.

    Whenever the last connection to a database closes, its journal is written back and removed, which takes longer than
    an answer; a program that opens one for every answer holds another meanwhile.
    """
    connection = sqlite3.connect(folder / FILENAME, check_same_thread=False, isolation_level=None, factory=Connection)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # not before it has read does it hold anything
    return connection


def wait_at_most(db: Database, seconds: float) -> None:
    """Say how long a statement waits for another program that is writing, before it raises ProjectBusy."""
    db.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")


def _connect(path: Path) -> Database:
    # isolation_level None: the driver opens no transaction of its own, ours are the only ones.
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, factory=Connection)
    # FULL: an answer is on the disk itself, not only handed to the system, before the next utterance shows.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    db = Database(connection)
    try:
        _migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: Database, path: Path) -> None:
    applied = {migration.name for migration in migrations.applied(db)}
    unknown = applied - {migration.name for migration in migrations.every()}
    if unknown:
        raise ProjectTooNew(
            f"{path} was written by a later version (it has {', '.join(sorted(unknown))}).", "Update this program."
        )
    if migrations.pending(db):
        with immediate(db):  # two processes that open an old project at once must not both migrate it
            migrations.apply(db)


@contextmanager
def immediate(db: Database) -> Iterator[None]:
    """Run the block as one transaction that is a writer from its start; nested, as part of the outer one.

    Raises ProjectBusy, before the block begins, if another program goes on writing for longer than we wait.
    """
    if db.conn.in_transaction:
        with db.atomic():
            yield
        return
    db.conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.commit()
    except BaseException:
        db.rollback()
        raise


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


def now() -> str:
    """Return the present moment in UTC, to the millisecond, in the form all tables use."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def chunks(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Cut a list of ids into pieces that a statement takes."""
    for start in range(0, len(items), _CHUNK):
        yield list(items[start : start + _CHUNK])
