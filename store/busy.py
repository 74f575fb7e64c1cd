"""Connections that say in our own words that another program is writing to the project."""

import sqlite3
from typing import Any

from annotator.errors import ProjectBusy

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class Connection(sqlite3.Connection):
    """A connection whose statements raise ProjectBusy where they have waited in vain for their turn.

    Inside a transaction SQLite's own error stays: there the transaction is wrong, and no waiting helps it.
    """

    def execute(self, *given: Any) -> sqlite3.Cursor:
        """Run a statement."""
        waits = not self.in_transaction
        try:
            return super().execute(*given)
        except sqlite3.OperationalError as error:
            _tell_if_busy(error, waits)
            raise

    def executemany(self, *given: Any) -> sqlite3.Cursor:
        """Run a statement once for each row."""
        waits = not self.in_transaction
        try:
            return super().executemany(*given)
        except sqlite3.OperationalError as error:
            _tell_if_busy(error, waits)
            raise


def _tell_if_busy(error: sqlite3.OperationalError, waits: bool) -> None:
    if waits and error.sqlite_errorcode & 0xFF in _BUSY:  # the low byte is the kind of error
        raise ProjectBusy(
            "Another program is writing to this project, such as an import.",
            "Try again in a moment. Nothing that was stored is lost.",
        ) from error
