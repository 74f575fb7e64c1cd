"""Projects of released versions, as SQL with rows in every table: never edited."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from store.database import FILENAME

FROZEN = sorted((Path(__file__).parent / "schemas").glob("m*.sql"))


def thaw(script: str, folder: Path) -> Path:
    """Make a project by a frozen schema's statements."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / FILENAME)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(script)
    return folder
