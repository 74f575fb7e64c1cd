"""Rows of a file that is in no project, kept on disk while each is read after the turns before it.

The turns of a conversation may be anywhere in a file, so a row cannot be read before the last one has been seen; and
a file may be larger than memory.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Self

from sqlite_utils import Database

from store.database import fetch_value, immediate
from store.utterances import NewUtterance, turns_before

# A table of the same name as a project's, so that the same query reads the turns before.
_TABLE = """CREATE TABLE utterance (id INTEGER PRIMARY KEY, external_id TEXT, text TEXT, conversation TEXT, turn REAL,
                                    speaker TEXT, context_only INTEGER, given_label TEXT, metadata TEXT)"""


class Spool:
    """Rows in the order they came, and the turns before each."""

    def __init__(self) -> None:
        self.metadata_names: dict[str, None] = {}  # of all rows to be scored, in the order of their first appearance
        # Without a name SQLite keeps a database in a file of its own, which is gone when it is closed or dies.
        self.db = Database(sqlite3.connect("", isolation_level=None))
        self.db.execute(_TABLE)
        self.db.execute("CREATE INDEX utterance_turn ON utterance (conversation, turn)")

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
                self.db.execute("INSERT INTO utterance VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", values)
                if not row.context_only:
                    self.metadata_names |= dict.fromkeys(row.metadata)

    def to_score(self) -> int:
        """Count the rows that are not context only."""
        return int(fetch_value(self.db, "SELECT count(*) FROM utterance WHERE NOT context_only"))

    def with_turns(self, turns: int) -> Iterator[tuple[NewUtterance, list[tuple[str | None, str]]]]:
        """Stream the rows that are not context only, each after (speaker, text) of so many turns."""
        for row in self.db.query("SELECT * FROM utterance WHERE NOT context_only ORDER BY id"):
            before = [(turn["speaker"], turn["text"]) for turn in turns_before(self.db, row, turns)]
            del row["id"]
            yield NewUtterance(**row | {"context_only": False, "metadata": json.loads(row["metadata"])}), before
