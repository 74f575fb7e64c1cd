"""Check a project's database thoroughly: pages, references, texts and JSON values."""

import json
from collections.abc import Iterator

from sqlite_utils import Database

from annotator.errors import ProjectDamaged

_MOST = 20  # problems listed per kind
_JSON = {
    "setting": ("value",),
    "utterance": ("metadata",),
    "label": ("examples",),
    "codebook_event": ("details",),
    "round": ("config", "label_ids", "calibration", "metrics"),
    "acceptance": ("guarantee",),
    "bulk": ("search",),
}


def problems(db: Database) -> list[str]:
    """Return the problems of a database, at most 20 of each kind; empty if there are none. Takes seconds."""
    found = []
    for check in (_pages, _references, _texts, _json):
        try:
            found += list(check(db))[:_MOST]
        except ProjectDamaged as error:
            found.append(error.message)
    return found


def _pages(db: Database) -> Iterator[str]:
    for (message,) in db.execute(f"PRAGMA integrity_check({_MOST})"):
        yield from (line for line in message.splitlines() if line != "ok")


def _references(db: Database) -> Iterator[str]:
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a row of {parent} that does not exist"


def _texts(db: Database) -> Iterator[str]:
    for row, text in db.execute("SELECT id, CAST(text AS BLOB) FROM utterance"):
        try:
            text.decode()
        except UnicodeDecodeError:
            yield f"utterance {row} contains bytes that are not text"


def _json(db: Database) -> Iterator[str]:
    for table, columns in _JSON.items():
        for column in columns:
            for place, stored in enumerate(db.execute(f"SELECT CAST({column} AS BLOB) FROM {table}"), start=1):
                try:
                    json.loads(stored[0] or b"null")
                except ValueError:
                    yield f"{column} in row {place} of {table} is not valid JSON"
