"""Translate SQLite's errors about a project's database into errors that a person can act on.

Every statement runs on a `Connection`, whose cursors translate damaged files, full disks and missing permissions into
`annotator.errors`. Violated constraints pass through, because the calling code knows their meaning. So do locks within
a transaction.
"""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import Any

from annotator.errors import (
    DiskFull,
    Message,
    ProjectBusy,
    ProjectDamaged,
    ProjectError,
    ProjectReadOnly,
    ProjectUnreadable,
)

_DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_IOERR,
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_NO_ROOM = {  # I/O errors of writing, which also report quotas and file size limits
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_FSYNC,
}


class _Cursor(sqlite3.Cursor):
    """A cursor whose errors are translated by its connection."""

    connection: "Connection"


def _translated(plain: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: _Cursor, *arguments: Any) -> Any:
        waits = not self.connection.in_transaction  # in a transaction, waiting does not help
        try:
            return plain(self, *arguments)
        except UnicodeDecodeError as error:  # a message of SQLite that quotes damaged bytes
            raise damaged(self.connection.path, "it contains bytes that are not text") from error
        except sqlite3.Error as error:
            translated = self.connection.translate(error, waits)
            if translated is None:
                raise
            raise translated from error

    return run


for _name in ("execute", "executemany", "executescript", "fetchone", "fetchmany", "fetchall", "__next__"):
    setattr(_Cursor, _name, _translated(getattr(sqlite3.Cursor, _name)))


class Connection(sqlite3.Connection):
    """A connection to a project's database. `frozen` is the reason it is read-only, if it is."""

    path: Path = Path()
    frozen: ProjectError | None = None

    def cursor(self, factory: Any = _Cursor) -> Any:
        """Return a cursor whose errors are translated."""
        return super().cursor(factory)

    def execute(self, *arguments: Any) -> Any:
        """Run a statement."""
        return self.cursor().execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        """Run a statement for many rows."""
        return self.cursor().executemany(*arguments)

    def executescript(self, *arguments: Any) -> Any:
        """Run several statements."""
        return self.cursor().executescript(*arguments)

    def translate(self, error: sqlite3.Error, waits: bool) -> ProjectError | None:
        """Return the error to raise in place of one of SQLite; None to keep that one.

        `waits`: whether the statement was outside a transaction, so that a lock means the timeout has passed.
        """
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # raised by the driver: bytes that are not text
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


def _by_code(code: int, path: Path, message: str) -> ProjectError | None:
    if code == sqlite3.SQLITE_NOTADB:
        return not_sqlite(path)
    if code in _DAMAGED:
        return damaged(path, message)
    if code == sqlite3.SQLITE_FULL:
        return full(path)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return read_only(path)
    return unreadable(path) if code == sqlite3.SQLITE_CANTOPEN else None


def connect(path: Path, options: str = "", timeout: float = 5.0, any_thread: bool = False) -> Connection:
    """Open a database; `options` are URI parameters of SQLite. Raises ProjectUnreadable."""
    address = f"{path.absolute().as_uri()}?{options or 'mode=rw'}"
    try:
        # isolation_level None: the driver does not open transactions of its own.
        connection = sqlite3.connect(
            address, timeout, uri=True, isolation_level=None, factory=Connection, check_same_thread=not any_thread
        )
    except sqlite3.OperationalError as error:
        raise unreadable(path) from error
    connection.path = path
    return connection


def check_file_type(path: Path) -> None:
    """Raise ProjectError for a file whose type or size shows that it is not a database.

    The file is never opened here: closing it would release the locks that SQLite holds on it for this whole process
    (sqlite.org/howtocorrupt.html, section 2.2), and another process would then delete the journal in use.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise dangling(path) from error
    except OSError as error:
        raise unreadable(path) from error
    if not S_ISREG(found.st_mode):
        raise not_a_file(path)
    if not found.st_size:
        raise empty(path)


def parsed(text: str | bytes, where: str) -> Any:
    """Parse JSON stored in a row. Raises ProjectDamaged."""
    try:
        return json.loads(text)
    except (ValueError, TypeError) as error:  # a flipped byte may also be invalid UTF-8
        raise ProjectDamaged(
            Message("The project contains data that cannot be read: {where} is not valid JSON.", where=where),
            "Restore the folder from a backup. `annotator doctor` with the project's folder lists what is broken.",
        ) from error


# The errors. Nothing has been changed when one of these is raised.


def damaged(path: Path, why: str) -> ProjectDamaged:
    """Return the error for a database that cannot be read, with a hint how to recover data."""
    return ProjectDamaged(
        Message("{path} is damaged: {why}.", path=path, why=why),
        "Stop the app and restore the folder from a backup. Without one, `sqlite3 project.db .recover` saves what can "
        "still be read. `annotator doctor` with the project's folder lists what is broken.",
    )


def empty(path: Path) -> ProjectDamaged:
    """Return the error for an empty database."""
    return ProjectDamaged(
        Message("{path} is empty.", path=path),
        "Restore the folder from a backup, or delete it if it contained nothing yet.",
    )


def not_sqlite(path: Path) -> ProjectDamaged:
    """Return the error for a file that is not a database, or has lost its beginning."""
    return ProjectDamaged(
        Message("{path} is not a database: its beginning is missing or overwritten.", path=path),
        "Restore the folder from a backup. If the file belongs to something else, move it away.",
    )


def foreign(path: Path) -> ProjectDamaged:
    """Return the error for a database of another program."""
    return ProjectDamaged(
        Message("{path} is a database of another program.", path=path),
        "Move it away, or restore the project from a backup.",
    )


def not_a_file(path: Path) -> ProjectDamaged:
    """Return the error for a folder or device in place of the database."""
    return ProjectDamaged(
        Message("{path} is not a file.", path=path),
        "Move it away, and restore the project from a backup if there was one.",
    )


def dangling(path: Path) -> ProjectDamaged:
    """Return the error for a broken link."""
    return ProjectDamaged(
        Message("{path} is a link to a file that does not exist.", path=path),
        "Connect the disk that holds the file, or restore the folder from a backup.",
    )


def unreadable(path: Path) -> ProjectUnreadable:
    """Return the error for a file that cannot be opened."""
    return ProjectUnreadable(
        Message("{path} cannot be opened.", path=path),
        "Check that you have permission to read the folder and its files, and that the disk is connected.",
    )


def moved(path: Path) -> ProjectUnreadable:
    """Return the error for a file that disappeared while it was open."""
    return ProjectUnreadable(
        Message("{path} was moved, replaced or deleted while it was open.", path=path),
        "Check where the file went, then start the app again.",
    )


def read_only(path: Path) -> ProjectReadOnly:
    """Return the error for a read-only project."""
    return ProjectReadOnly(
        Message("{path} can be read, but not changed.", path=path),
        "Viewing, reports and exports still work. To label or train, allow writing to its folder, or copy the folder "
        "to a place you can write to.",
    )


def journal_unread(path: Path, journal: Path) -> ProjectReadOnly:
    """Return the error for a project whose latest answers would be missing if opened read-only."""
    return ProjectReadOnly(
        Message(
            "{path} cannot be opened read-only, because its latest answers are still in {name}.",
            path=path,
            name=journal.name,
        ),
        "Copy the whole folder to a place you can write to, and open it there.",
    )


def full(path: Path) -> DiskFull:
    """Return the error for a full disk."""
    return DiskFull(
        Message("The disk with {path} is full: the last step was not saved.", path=path),
        "Free some space and try again. Everything saved before is safe, and exports to another disk still work.",
    )


def busy() -> ProjectBusy:
    """Return the error for another program that keeps writing beyond the timeout."""
    return ProjectBusy(
        "Another program is writing to this project, such as an import.",
        "Try again in a moment. Nothing that was stored is lost.",
    )
