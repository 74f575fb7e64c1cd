"""Labels and the history of the codebook. Ids are never reused, labels never deleted."""

import json
from typing import Any

from sqlite_utils import Database

from store.database import fetch, fetch_value, immediate, now


def add(db: Database, name: str, **details: Any) -> int:
    """Append a label to the codebook; `details` are definition, examples, words, key."""
    with immediate(db):
        position = int(fetch_value(db, "SELECT count(*) FROM label"))
        row = {"name": name, "position": position, **details, "examples": json.dumps(details.get("examples", []))}
        columns, marks = ", ".join(row), ", ".join(f":{key}" for key in row)
        label_id = int(db.execute(f"INSERT INTO label ({columns}) VALUES ({marks})", row).lastrowid or 0)
        _log(db, "add", {"label_id": label_id, **row})
        return label_id


def revise(db: Database, label_id: int, **details: Any) -> None:
    """Change what is said about a label, not what it is: name, definition, examples, words or key."""
    with immediate(db):
        row = {**details, **({"examples": json.dumps(details["examples"])} if "examples" in details else {})}
        changes = ", ".join(f"{key} = :{key}" for key in row)
        db.execute(f"UPDATE label SET {changes} WHERE id = :label_id", {**row, "label_id": label_id})
        _log(db, "revise", {"label_id": label_id, **row})


def current(db: Database) -> list[dict[str, Any]]:
    """Return the labels in use, in codebook order, with `examples` as a list."""
    rows = fetch(db, "SELECT * FROM label WHERE retired_at IS NULL ORDER BY position, id")
    return [{**row, "examples": json.loads(row["examples"])} for row in rows]


def names(db: Database) -> dict[int, str]:
    """Return the name of every label there ever was, by id."""
    return dict(db.execute("SELECT id, name FROM label").fetchall())


def version(db: Database) -> int:
    """Return the version of the codebook: it grows with every change."""
    return int(fetch_value(db, "SELECT max(id) FROM codebook_event") or 0)


def _log(db: Database, kind: str, details: dict[str, Any]) -> None:
    db.execute(
        "INSERT INTO codebook_event (kind, details, at) VALUES (?, ?, ?)",
        (kind, json.dumps(details, ensure_ascii=False), now()),
    )
