"""Rows of a file that is in no project, kept on disk while each is read after the turns before it.

The turns of a conversation may be anywhere in a file, so a row cannot be read before the last one has been seen; and
a file may be larger than memory.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Self

from sqlite_utils import Database

from store.database import fetch, fetch_value, immediate
from store.utterances import NewUtterance

_TABLE = """CREATE TABLE spooled (place INTEGER PRIMARY KEY, external_id TEXT, text TEXT, conversation TEXT, turn REAL,
                                  speaker TEXT, context_only INTEGER, given_label TEXT,
                                  metadata TEXT)"""
_BEFORE = """SELECT speaker, text FROM spooled
             WHERE conversation = ? AND (ifnull(turn, 0), place) < (ifnull(?, 0), ?)
             ORDER BY ifnull(turn, 0) DESC, place DESC LIMIT ?"""


class Spool:
    """Rows in the order they came, and the turns before each."""

    def __init__(self) -> None:
        self.metadata_names: dict[str, None] = {}  # of all rows to be scored, in the order of their first appearance
        # Without a name SQLite keeps a database in a file of its own, which is gone when it is closed or dies.
        self.db = Database(sqlite3.connect("", isolation_level=None))
        self.db.execute(_TABLE)
        self.db.execute("CREATE INDEX turns ON spooled (conversation, ifnull(turn, 0), place)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def fill(self, rows: Iterable[NewUtterance]) -> None:
        """Take in rows, one at a time."""
        with immediate(self.db):
            for row in rows:
                said = (row.external_id, row.text, row.conversation, row.turn, row.speaker)
                values = (*said, row.context_only, row.given_label, json.dumps(dict(row.metadata), ensure_ascii=False))
                self.db.execute("INSERT INTO spooled VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", values)
                if not row.context_only:
                    self.metadata_names |= dict.fromkeys(row.metadata)

    def to_score(self) -> int:
        """Count the rows that are not context only."""
        return int(fetch_value(self.db, "SELECT count(*) FROM spooled WHERE NOT context_only"))

    def with_turns(self, turns: int) -> Iterator[tuple[NewUtterance, list[tuple[str | None, str]]]]:
        """Stream the rows that are not context only, each after (speaker, text) of so many turns."""
        for row in self.db.query("SELECT * FROM spooled WHERE NOT context_only ORDER BY place"):
            place = row.pop("place")
            new = NewUtterance(**row | {"context_only": False, "metadata": json.loads(row["metadata"])})
            yield new, self._turns_before(new, place, turns)

    def _turns_before(self, row: NewUtterance, place: int, turns: int) -> list[tuple[str | None, str]]:
        if row.conversation is None or not turns:
            return []
        said = fetch(self.db, _BEFORE, (row.conversation, row.turn, place, turns))
        return [(one["speaker"], one["text"]) for one in reversed(said)]
