"""Settings of a project: one JSON value a key."""

import json
from typing import Any

from sqlite_utils import Database

from store.database import fetch_value, immediate


def get(db: Database, key: str, default: Any = None) -> Any:
    """Return a setting, or the default if it was never set."""
    value = fetch_value(db, "SELECT value FROM setting WHERE key = ?", (key,))
    return default if value is None else json.loads(value)


def put(db: Database, key: str, value: Any) -> None:
    """Set a setting."""
    with immediate(db):
        db.execute("INSERT OR REPLACE INTO setting (key, value) VALUES (?, ?)", (key, json.dumps(value)))
