"""Store labels and the history of the codebook. Ids are never reused, labels never deleted.

A change is a set of new values by label. One transaction writes it to the rows and, with the values before, to the
history. So any version can be reconstructed, and any change undone by another.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlite_utils import Database

from store.database import fetch, fetch_value, immediate, now
from store.faults import parsed
from store.questions import FIRST

Fields = Mapping[str, Any]  # new values by column, those of some columns only
Pairs = Mapping[str, tuple[Any, Any]]  # values before and after a change, by column


@dataclass(frozen=True)
class Label:
    """A label, in use or not."""

    id: int
    name: str = ""
    definition: str = ""
    examples: tuple[str, ...] = ()
    words: str = ""
    key: str = ""
    color: str = ""
    position: float = 0  # its place in the codebook
    look_since: int = 0  # the version of the codebook from which on answers need no review
    split_from: int | None = None  # the label that it is a part of
    merged_into: int | None = None
    counts_as: int = 0  # the label after all merges, itself if there are none
    retired_at: str | None = None
    question_id: int = FIRST
    is_group: int = 0  # 1 for a group of labels, which is not a label to choose
    parent_id: int | None = None  # the group that it is in

    @property
    def in_use(self) -> bool:
        """Whether it is in use: neither merged nor retired."""
        return self.merged_into is None and self.retired_at is None


@dataclass(frozen=True)
class Change:
    """New values of labels and questions, by id; a label with a negative id is added. `examples` are JSON."""

    kind: str
    labels: Mapping[int, Fields] = field(default_factory=dict)
    questions: Mapping[int, Fields] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """A change of the codebook. Its version is that of the codebook from then on."""

    version: int
    kind: str
    author: str
    at: str
    labels: Mapping[int, Pairs]  # by label id; before is None for a new label
    questions: Mapping[int, Pairs]  # by question id
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
        details = {"labels": _apply(db, "label", change.labels), "questions": _apply(db, "question", change.questions)}
        _follow_merges(db)
        row = (change.kind, json.dumps(details, ensure_ascii=False), now(), author, undoes)
        sql = "INSERT INTO codebook_event (kind, details, at, author, undoes) VALUES (?, ?, ?, ?, ?)"
        return int(db.execute(sql, row).lastrowid or 0)


def _apply(db: Database, table: str, changed: Mapping[int, Fields]) -> dict[int, Pairs]:
    """Write new values by id, adding rows with negative ids, and return them with those before.

    A value may be the negative id of an added row, written earlier, as its parent.
    """
    known = {row["id"]: row for row in fetch(db, f"SELECT * FROM {table}")}
    ids, pairs = {i: i for i in known}, dict[int, Pairs]()
    for i, new in changed.items():
        before = known.get(i, {})
        values = {name: ids[value] if name == "parent_id" and value else value for name, value in new.items()}
        ids[i] = _update(db, table, i, values) if before else _insert(db, table, values)
        pairs[ids[i]] = {name: (before.get(name), value) for name, value in values.items()}
    return pairs


def _insert(db: Database, table: str, values: Fields) -> int:
    columns, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    return int(db.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", dict(values)).lastrowid or 0)


def _update(db: Database, table: str, row_id: int, values: Fields) -> int:
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    db.execute(f"UPDATE {table} SET {assignments} WHERE id = :row_id", {**values, "row_id": row_id})
    return row_id


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


def every(db: Database) -> list[Label]:
    """Return all labels and groups, in use or not, in codebook order. Raises ProjectDamaged."""
    rows = fetch(db, "SELECT * FROM label")
    found = [Label(**row | {"examples": parse_examples(row["examples"])}) for row in rows]
    return in_order({one.id: one for one in found})


def in_order(known: Mapping[int, Label]) -> list[Label]:
    """Return labels and groups in codebook order: each group before what it holds."""
    held = defaultdict(list)
    for one in sorted(known.values(), key=lambda one: (one.position, one.id)):
        held[group_of(known, one)].append(one)

    def walk(group: int | None) -> Iterator[Label]:
        for one in held[group]:
            yield one
            yield from walk(one.id)

    return list(walk(None))


def group_of(known: Mapping[int, Label], one: Label) -> int | None:
    """Return the group in use that a label or group is in, None at the top.

    A group that was merged passes what it holds on to the other group, a retired one to the group it is in.
    """
    group, passed = one.parent_id, set()
    while group is not None and not known[group].in_use and group not in passed:
        passed.add(group)
        group = known[group].merged_into or known[group].parent_id
    return None if group in passed else group


def parse_examples(stored: str) -> tuple[str, ...]:
    """Read the examples of a label as its row and the history store them. Raises ProjectDamaged."""
    return tuple(parsed(stored, "the examples of a label"))


def current(db: Database) -> list[Label]:
    """Return the labels in use, without groups, in codebook order."""
    return [label for label in every(db) if label.in_use and not label.is_group]


def names(db: Database) -> dict[int, str]:
    """Return the names of all labels, in use or not, by id."""
    return dict(db.execute("SELECT id, name FROM label").fetchall())


def version(db: Database) -> int:
    """Return the version of the codebook, which increases with every change."""
    return int(fetch_value(db, "SELECT max(id) FROM codebook_event") or 0)


def events(db: Database) -> list[Event]:
    """Return all changes, oldest first."""
    found: list[Event] = []
    undone: set[int] = set()
    sql = "SELECT id, kind, author, at, undoes, details FROM codebook_event ORDER BY id DESC"
    for version, kind, author, at, undoes, details in db.execute(sql):
        is_undone = version in undone
        undone |= {undoes} if undoes and not is_undone else set()  # an undo may have been undone itself
        found.append(Event(version, kind, author, at, *_details(details), undoes, is_undone))
    return found[::-1]


def _details(stored: str) -> tuple[Mapping[int, Pairs], Mapping[int, Pairs]]:
    """Return the values before and after a change, of labels and of questions, by id."""
    details = parsed(stored, "a change of the codebook")
    if "label_id" in details:  # written by the first versions: new values only
        label_id = details.pop("label_id")
        details = {"labels": {label_id: {name: (None, value) for name, value in details.items()}}}
    questions = details.get("questions", {FIRST: details["guide"]} if details.get("guide") else {})
    return _pairs(details["labels"]), _pairs(questions)


def _pairs(stored: Mapping[Any, Pairs]) -> dict[int, Pairs]:
    return {int(i): {name: (a, b) for name, (a, b) in pairs.items()} for i, pairs in stored.items()}


def shares(db: Database, label_ids: tuple[int, ...]) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Return the ids of the labels in use, and the (k of the round, k in use) matrix that maps probabilities to them.

    A merged label maps to the other one. A split label is divided evenly between its parts, and a retired one between
    the labels that the others map to, because the round cannot distinguish these. Rows sum to one. The column of a
    label that the round does not know is zero, unless it knows none of those in use: then all are equally likely.
    """
    known = {one.id: one for one in every(db) if not one.is_group}
    used = tuple(one.id for one in known.values() if one.in_use)
    parts = defaultdict(list)
    for one in known.values():
        parts[one.split_from].append(one.id)

    def heirs(label: int, seen: frozenset[int]) -> list[dict[int, float]]:
        """Return the distributions over labels in use that a label maps to, ignoring cycles."""
        if label in seen:
            return []
        if known[label].in_use:
            return [{label: 1.0}]
        into = known[label].merged_into
        following = [into] if into is not None else parts[label]
        each = [heirs(heir, seen | {label}) for heir in following]
        return [_mean(held) for held in each if held]

    passed = np.zeros((len(label_ids), len(used)))
    for number, label in enumerate(label_ids):
        held = _mean(heirs(label, frozenset()))
        passed[number] = [held.get(i, 0.0) for i in used]
    reached = passed.any(axis=0) if passed.any() else np.ones(len(used), dtype=bool)
    passed[~passed.any(axis=1)] = reached / max(1, reached.sum())
    return used, passed


def _mean(held: list[dict[int, float]]) -> dict[int, float]:
    total: dict[int, float] = defaultdict(float)
    for one in held:
        for label, share in one.items():
            total[label] += share / len(held)
    return dict(total)
