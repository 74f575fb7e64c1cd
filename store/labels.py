"""Store labels and the history of the codebook. Ids are never reused, labels never deleted.

A change is a set of new values by label. One transaction writes it to the rows and, with the values before, to the
history. So any version can be reconstructed, and any change undone by another.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlite_utils import Database

from store import settings
from store.database import fetch, fetch_value, immediate, now
from store.faults import parsed

Fields = Mapping[str, Any]
GUIDE = ("instruction", "none_fits_since")  # settings of the codebook as a whole, which also have a history
DEFAULTS: Fields = {"definition": "", "examples": "[]", "words": "", "key": "", "colour": ""}


@dataclass(frozen=True)
class Change:
    """New values, by label id; a label with a negative id is added. `examples` are JSON, as in the table."""

    kind: str
    labels: Mapping[int, Fields] = field(default_factory=dict)
    guide: Fields = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """A change of the codebook. Its version is that of the codebook from then on."""

    version: int
    kind: str
    author: str
    at: str
    labels: Mapping[
        int, Mapping[str, tuple[Any, Any]]
    ]  # label id -> field -> (before, after); before is None for a new label
    guide: Mapping[str, tuple[Any, Any]]
    undoes: int | None
    undone: bool

    @property
    def added(self) -> set[int]:
        """The labels added by this change."""
        return {i for i, pairs in self.labels.items() if "name" in pairs and pairs["name"][0] is None}


def add(db: Database, name: str, **details: Any) -> int:
    """Append a label to the codebook and return its id; `details` are its other columns."""
    with immediate(db):
        position = int(fetch_value(db, "SELECT count(*) FROM label"))
        given = {"name": name, "position": position, **details, "examples": json.dumps(details.get("examples", []))}
        write(db, Change("add", {-1: given}))
        return int(fetch_value(db, "SELECT max(id) FROM label"))


def write(db: Database, change: Change, author: str = "", undoes: int | None = None) -> int:
    """Apply a change in one transaction and return the new version."""
    with immediate(db):
        known = {row["id"]: row for row in fetch(db, "SELECT * FROM label")}
        changed = {}
        for label_id, values in change.labels.items():
            before = known.get(label_id, {})
            written = _update(db, label_id, values) if before else _insert(db, values)
            changed[written] = {name: (before.get(name), value) for name, value in values.items()}
        guide = {name: (settings.get(db, name), value) for name, value in change.guide.items()}
        for name, (_, value) in guide.items():
            settings.put(db, name, value)
        _follow_merges(db)
        details = json.dumps({"labels": changed, "guide": guide}, ensure_ascii=False)
        row = (change.kind, details, now(), author, undoes)
        sql = "INSERT INTO codebook_event (kind, details, at, author, undoes) VALUES (?, ?, ?, ?, ?)"
        return int(db.execute(sql, row).lastrowid or 0)


def _insert(db: Database, values: Fields) -> int:
    row = {**DEFAULTS, **values}
    columns, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    return int(db.execute(f"INSERT INTO label ({columns}) VALUES ({marks})", row).lastrowid or 0)


def _update(db: Database, label_id: int, values: Fields) -> int:
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    db.execute(f"UPDATE label SET {assignments} WHERE id = :label_id", {**values, "label_id": label_id})
    return label_id


def _follow_merges(db: Database) -> None:
    """Store, for every label, the label it counts as after all merges."""
    db.execute(
        """WITH RECURSIVE path (first, id) AS (
               SELECT id, id FROM label
               UNION SELECT path.first, label.merged_into FROM path JOIN label ON label.id = path.id
               WHERE label.merged_into IS NOT NULL)
           UPDATE label SET counts_as = (SELECT path.id FROM path JOIN label l ON l.id = path.id
               WHERE path.first = label.id AND l.merged_into IS NULL)"""
    )


def every(db: Database) -> list[dict[str, Any]]:
    """Return all labels, in use or not, in codebook order, with `examples` as a list."""
    rows = fetch(db, "SELECT * FROM label ORDER BY position, id")
    return [{**row, "examples": parsed(row["examples"], "the examples of a label")} for row in rows]


def in_use(row: Mapping[str, Any]) -> bool:
    """Return whether a label is in use: neither merged nor retired."""
    return row["merged_into"] is None and row["retired_at"] is None


def current(db: Database) -> list[dict[str, Any]]:
    """Return the labels in use, in codebook order, with `examples` as a list."""
    return [row for row in every(db) if in_use(row)]


def names(db: Database) -> dict[int, str]:
    """Return the names of all labels, in use or not, by id."""
    return dict(db.execute("SELECT id, name FROM label").fetchall())


def version(db: Database) -> int:
    """Return the version of the codebook, which increases with every change."""
    return int(fetch_value(db, "SELECT max(id) FROM codebook_event") or 0)


def events(db: Database) -> list[Event]:
    """Return all changes, oldest first."""
    rows = fetch(db, "SELECT * FROM codebook_event ORDER BY id")
    undone: set[int] = set()
    for row in reversed(rows):  # an undo may have been undone itself
        undone |= {row["undoes"]} - {None} if row["id"] not in undone else set()
    return [_event(row, row["id"] in undone) for row in rows]


def _event(row: Mapping[str, Any], undone: bool) -> Event:
    details = parsed(row["details"], "a change of the codebook")
    if "label_id" in details:  # written by the first versions: new values only
        label_id = details.pop("label_id")
        details = {"labels": {label_id: {name: (None, value) for name, value in details.items()}}, "guide": {}}
    changed = {int(i): {name: (a, b) for name, (a, b) in pairs.items()} for i, pairs in details["labels"].items()}
    guide = {name: (a, b) for name, (a, b) in details["guide"].items()}
    return Event(row["id"], row["kind"], row["author"], row["at"], changed, guide, row["undoes"], undone)


def shares(db: Database, label_ids: tuple[int, ...]) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Return the ids of the labels in use, and the (k of the round, k in use) matrix that maps probabilities to them.

    A merged label maps to the other one. A split label is divided evenly between its parts, and a retired one between
    all labels, because the round cannot distinguish these. Rows sum to one; the column of a new label is zero.
    """
    rows = {row["id"]: row for row in every(db)}
    used = tuple(i for i, row in rows.items() if in_use(row))
    parts = defaultdict(list)
    for i, row in rows.items():
        parts[row["split_from"]].append(i)

    def heirs(label: int, seen: frozenset[int]) -> list[dict[int, float]]:
        """Return the distributions over labels in use that a label maps to, ignoring cycles."""
        if label in seen:
            return []
        if in_use(rows[label]):
            return [{label: 1.0}]
        into = rows[label]["merged_into"]
        following = [into] if into is not None else parts[label]
        each = [heirs(one, seen | {label}) for one in following]
        return [_mean(one) for one in each if one]

    passed = np.full((len(label_ids), len(used)), 1 / max(1, len(used)))
    for number, label in enumerate(label_ids):
        if found := heirs(label, frozenset()):
            held = _mean(found)
            passed[number] = [held.get(one, 0.0) for one in used]
    return used, passed


def _mean(held: list[dict[int, float]]) -> dict[int, float]:
    total: dict[int, float] = defaultdict(float)
    for one in held:
        for label, share in one.items():
            total[label] += share / len(held)
    return dict(total)
