"""Store the rows of a file outside a project on disk, to provide each with its preceding turns.

The turns of a conversation may be anywhere in a file, so the whole file must be read first; and it may be larger than
memory.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Self

from sqlite_utils import Database

from store.database import fetch_value, immediate
from store.utterances import NewUtterance, turns_before

# Named like the table of a project, so that the same query reads the preceding turns.
_TABLE = """CREATE TABLE utterance (id INTEGER PRIMARY KEY, external_id TEXT, text TEXT, conversation TEXT, turn REAL,
                                    speaker TEXT, context_only INTEGER, given_label TEXT, metadata TEXT)"""


class Spool:
    """Rows in file order, each with its preceding turns."""

    def __init__(self) -> None:
        self.metadata_names: dict[str, None] = {}  # of all rows to be scored, in the order of their first appearance
        # Without a name, SQLite uses a temporary file, which is deleted when the process closes it or dies.
        self.db = Database(sqlite3.connect("", isolation_level=None))
        self.db.execute(_TABLE)
        self.db.execute("CREATE INDEX utterance_turn ON utterance (conversation, turn)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def fill(self, rows: Iterable[NewUtterance]) -> None:
        """Add rows, one at a time."""
        with immediate(self.db):
            for row in rows:
                fields = (row.external_id, row.text, row.conversation, row.turn, row.speaker)
                values = (
                    *fields,
                    row.context_only,
                    row.given_label,
                    json.dumps(dict(row.metadata), ensure_ascii=False),
                )
                self.db.execute("INSERT INTO utterance VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", values)
                if not row.context_only:
                    self.metadata_names |= dict.fromkeys(row.metadata)

    def to_score(self) -> int:
        """Return the number of rows that are not context only."""
        return int(fetch_value(self.db, "SELECT count(*) FROM utterance WHERE NOT context_only"))

    def with_turns(self, turns: int) -> Iterator[tuple[NewUtterance, list[tuple[str | None, str]]]]:
        """Stream the rows that are not context only, each with (speaker, text) of up to `turns` preceding turns."""
        for row in self.db.query("SELECT * FROM utterance WHERE NOT context_only ORDER BY id"):
            before = [(turn["speaker"], turn["text"]) for turn in turns_before(self.db, row, turns)]
            del row["id"]
            yield NewUtterance(**row | {"context_only": False, "metadata": json.loads(row["metadata"])}), before
