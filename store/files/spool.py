"""Store the rows of a file outside a project on disk, to provide each with its preceding turns.

The turns of a conversation may be anywhere in a file, so the whole file must be read first; and it may be larger than
memory.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from sqlite_utils import Database

from store.database import fetch_value, immediate, select
from store.utterances import NewUtterance, Turn, Utterance, turns_before

# Named like the table of a project, so that the same query reads the preceding turns.
_TABLE = """CREATE TABLE utterance (id INTEGER PRIMARY KEY, external_id TEXT, text TEXT, conversation TEXT, turn REAL,
                                    speaker TEXT, slice TEXT, given_label TEXT, metadata TEXT)"""


@dataclass(frozen=True)
class _Spooled(Utterance):
    given_label: str | None


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
                    "context" if row.context_only else "pool",
                    row.given_label,
                    json.dumps(dict(row.metadata), ensure_ascii=False),
                )
                self.db.execute("INSERT INTO utterance VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", values)
                if not row.context_only:
                    self.metadata_names |= dict.fromkeys(row.metadata)

    def to_score(self) -> int:
        """Return the number of rows that are not context only."""
        return int(fetch_value(self.db, "SELECT count(*) FROM utterance WHERE slice = 'pool'"))

    def with_turns(self, turns: int) -> Iterator[tuple[NewUtterance, list[Turn]]]:
        """Stream the rows that are not context only, each with up to `turns` preceding turns."""
        for row in select(self.db, _Spooled, "FROM utterance WHERE slice = 'pool' ORDER BY id"):
            place = (row.conversation, row.turn, row.speaker)
            new = NewUtterance(row.external_id, row.text, *place, row.metadata, given_label=row.given_label)
            yield new, turns_before(self.db, row, turns)
