"""Store settings of a project: one JSON value per key."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from sqlite_utils import Database

from annotator.errors import BadInput, BadSetting, Message
from store.database import fetch_value, immediate

T = TypeVar("T")


def get(db: Database, key: str, default: Any = None) -> Any:
    """Return a setting, or the default if it was never set.

    Raises BadSetting if the stored value is not JSON or not of the default's type.
    """
    stored = fetch_value(db, "SELECT value FROM setting WHERE key = ?", (key,))
    if stored is None:
        return default
    try:
        value = json.loads(stored)
    except (ValueError, TypeError) as error:
        raise unusable(key) from error
    if value is None:
        return default
    if default is not None and not isinstance(value, type(default)):
        raise unusable(key)
    return value


def read(db: Database, key: str, default: Any, reader: Callable[[Any], T]) -> T:
    """Return a setting parsed by `reader`. Raises BadSetting if `reader` rejects the value."""
    stored = get(db, key, default)
    try:
        return reader(stored)
    except BadInput as error:
        raise unusable(key, error.message.rstrip(".")) from error
    except ValueError as error:
        raise unusable(key) from error


def put(db: Database, key: str, value: Any) -> None:
    """Set a setting."""
    with immediate(db):
        db.execute("INSERT OR REPLACE INTO setting (key, value) VALUES (?, ?)", (key, json.dumps(value)))


def reset(db: Database, key: str) -> bool:
    """Delete a setting, so that its default applies; return whether it was stored."""
    with immediate(db):
        return bool(db.execute("DELETE FROM setting WHERE key = ?", (key,)).rowcount)


def keys(db: Database) -> list[str]:
    """Return the names of all stored settings."""
    return [key for (key,) in db.execute("SELECT key FROM setting ORDER BY key")]


def unusable(key: str, why: str = "it was changed by another program, or is damaged") -> BadSetting:
    """Return the error for a stored setting that cannot be used, with a hint how to reset it."""
    return BadSetting(
        Message("The stored setting “{key}” cannot be used: {why}.", key=key, why=why),
        Message(
            "Restore the folder from a backup, or run `annotator settings FOLDER --reset '{key}'` to use the default.",
            key=key,
        ),
    )
