"""Turn what SQLite reports about a project's database into errors that a person can act on.

This is the one door: every statement runs on a `Connection`, and its cursors translate damaged files, full disks and
missing permissions into `annotator.errors`. Constraints stay as they are: the code that meets them knows better
what they mean. So do locks met within a transaction.
"""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import Any

from annotator.errors import DiskFull, ProjectBusy, ProjectDamaged, ProjectError, ProjectReadOnly, ProjectUnreadable

CALIBRATION, METRICS = "the calibration of a round", "the metrics of a round"
_MAGIC = b"SQLite format 3\0"
_DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_IOERR,
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_NO_ROOM = {  # I/O errors that come from writing: quotas and file size limits are reported this way
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_FSYNC,
}


class _Cursor(sqlite3.Cursor):
    """A cursor whose errors are translated by its connection."""

    connection: "Connection"


def _translated(plain: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: _Cursor, *given: Any) -> Any:
        waits = not self.connection.in_transaction  # inside one, no waiting helps: there the transaction is wrong
        try:
            return plain(self, *given)
        except UnicodeDecodeError as error:  # a message of SQLite's that quotes damaged bytes
            raise damaged(self.connection.path, "it holds bytes that are no text") from error
        except sqlite3.Error as error:
            told = self.connection.told(error, waits)
            if told is None:
                raise
            raise told from error

    return run


for _name in ("execute", "executemany", "executescript", "fetchone", "fetchmany", "fetchall", "__next__"):
    setattr(_Cursor, _name, _translated(getattr(sqlite3.Cursor, _name)))


class Connection(sqlite3.Connection):
    """A connection to a project's database. `frozen` is why it can only be read, if so."""

    path: Path = Path()
    frozen: ProjectError | None = None

    def cursor(self, factory: Any = _Cursor) -> Any:
        """Return a cursor whose errors are translated."""
        return super().cursor(factory)

    def execute(self, *given: Any) -> Any:
        """Run a statement."""
        return self.cursor().execute(*given)

    def executemany(self, *given: Any) -> Any:
        """Run a statement for many rows."""
        return self.cursor().executemany(*given)

    def executescript(self, *given: Any) -> Any:
        """Run several statements."""
        return self.cursor().executescript(*given)

    def told(self, error: sqlite3.Error, waits: bool) -> ProjectError | None:
        """Return the error to show in place of one of SQLite's, None if that one is to stay.

        `waits`: whether the statement stood alone, and had waited in vain for its turn if another program was writing.
        """
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # raised by the driver: bytes that are no text
            return damaged(self.path, str(error)) if "decode" in str(error) else None
        if code == sqlite3.SQLITE_READONLY_DBMOVED:
            return moved(self.path)
        if code & 0xFF in _BUSY:
            return busy() if waits else None
        if code in _NO_ROOM:
            return full(self.path)
        if self.frozen and code & 0xFF == sqlite3.SQLITE_READONLY:
            return type(self.frozen)(self.frozen.message, self.frozen.hint)
        return _by_code(code & 0xFF, self.path, str(error))


def _by_code(code: int, path: Path, said: str) -> ProjectError | None:
    if code in _DAMAGED:
        return damaged(path, said)
    if code == sqlite3.SQLITE_FULL:
        return full(path)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return read_only(path)
    return unreadable(path) if code == sqlite3.SQLITE_CANTOPEN else None


def connect(path: Path, options: str = "", timeout: float = 5.0, any_thread: bool = False) -> Connection:
    """Open a database; `options` are those of SQLite's file addresses. Raises ProjectUnreadable."""
    address = f"{path.absolute().as_uri()}?{options or 'mode=rw'}"
    try:
        # isolation_level None: the driver opens no transaction of its own, ours are the only ones.
        connection = sqlite3.connect(
            address, timeout, uri=True, isolation_level=None, factory=Connection, check_same_thread=not any_thread
        )
    except sqlite3.OperationalError as error:
        raise unreadable(path) from error
    connection.path = path
    return connection


def look_at_file(path: Path) -> None:
    """Refuse a file that cannot be a database, from its kind and first bytes. Raises ProjectError."""
    try:
        if not S_ISREG(path.stat().st_mode):
            raise not_a_file(path)
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise dangling(path) from error
    except OSError as error:
        raise unreadable(path) from error
    if not head:
        raise empty(path)
    if head != _MAGIC:
        raise not_sqlite(path)


def parsed(text: str | bytes, where: str) -> Any:
    """Read JSON that a row holds. Raises ProjectDamaged."""
    try:
        return json.loads(text)
    except (ValueError, TypeError) as error:  # a flipped byte may be no UTF-8 either
        raise ProjectDamaged(
            f"The project holds data that cannot be read: {where} is no JSON.",
            "Restore the folder from a backup. `annotator doctor` with the project's folder lists what is broken.",
        ) from error


# The errors. Nothing has been changed when one of them is raised.


def damaged(path: Path, why: str) -> ProjectDamaged:
    """Say that a database cannot be read, and how to save what can."""
    return ProjectDamaged(
        f"{path} is damaged: {why}.",
        "Stop the app and restore the folder from a backup. Without one, `sqlite3 project.db .recover` saves what can "
        "still be read. `annotator doctor` with the project's folder lists what is broken.",
    )


def empty(path: Path) -> ProjectDamaged:
    """Say that a database has no content."""
    return ProjectDamaged(
        f"{path} is empty.", "Restore the folder from a backup, or delete it if nothing was in it yet."
    )


def not_sqlite(path: Path) -> ProjectDamaged:
    """Say that a file is something else, or has lost its beginning."""
    return ProjectDamaged(
        f"{path} is not a database: its beginning is missing or overwritten.",
        "Restore the folder from a backup. If the file belongs to something else, move it away.",
    )


def foreign(path: Path) -> ProjectDamaged:
    """Say that a database was made by another program."""
    return ProjectDamaged(
        f"{path} is a database of another program.", "Move it away, or restore the project from a backup."
    )


def not_a_file(path: Path) -> ProjectDamaged:
    """Say that there is a folder or a device where the database should be."""
    return ProjectDamaged(
        f"{path} is not a file.", "Move it away, and restore the project from a backup if there was one."
    )


def dangling(path: Path) -> ProjectDamaged:
    """Say that a link leads nowhere."""
    return ProjectDamaged(
        f"{path} is a link to a file that is not there.",
        "Connect the disk that holds the file, or restore the folder from a backup.",
    )


def unreadable(path: Path) -> ProjectUnreadable:
    """Say that a file may not be opened."""
    return ProjectUnreadable(
        f"{path} cannot be opened.",
        "Check that you may read the folder and the files in it, and that its disk is connected.",
    )


def moved(path: Path) -> ProjectUnreadable:
    """Say that a file has gone while it was open."""
    return ProjectUnreadable(
        f"{path} was moved, replaced or deleted while it was open.", "Start the app again; check what became of it."
    )


def read_only(path: Path) -> ProjectReadOnly:
    """Say that a project can be read, but not changed."""
    return ProjectReadOnly(
        f"{path} can be read, but not changed.",
        "Looking at it, reports and exports work. To label or train, allow writing to its folder, or copy the folder "
        "to a place where you may write.",
    )


def journal_unread(path: Path, journal: Path) -> ProjectReadOnly:
    """Say that a project would miss its latest answers if it were only read."""
    return ProjectReadOnly(
        f"{path} cannot be opened where nothing can be written: its latest answers are still in {journal.name}.",
        "Copy the whole folder to a place where you may write, and open it there.",
    )


def full(path: Path) -> DiskFull:
    """Say that a disk takes no more."""
    return DiskFull(
        f"The disk with {path} is full: the last step was not saved.",
        "Free some space, then do it again. What was saved before is safe, and exports to another disk work.",
    )


def busy() -> ProjectBusy:
    """Say that another program has been writing for longer than we wait."""
    return ProjectBusy(
        "Another program is writing to this project, such as an import.",
        "Try again in a moment. Nothing that was stored is lost.",
    )
