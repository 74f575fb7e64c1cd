"""Reconcile the rows of a file with the project: additions, completions and rejected changes."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from sqlite_utils import Database

from annotator.errors import Message
from store.annotations import GIVEN
from store.database import chunks, select
from store.files.readers import Rejected
from store.imports import StagedRow
from store.utterances import NewUtterance, Slice, Utterance, twins_of

Given = Callable[[str], int | str]  # the id of the label of this name, or why it cannot be used
Difference = tuple[str, object]  # a column of the file and its value
_FEW = 5  # differences listed in a message
_SHORT = 40  # characters of a value in a message


@dataclass(frozen=True)
class Terms:
    """Settings of reconciling: names of columns, treatment of copies, and look-up of labels."""

    columns: Mapping[str, str]  # names of the columns of conversation, turn, speaker and label
    keep_copies: bool
    given: Given


@dataclass(frozen=True)
class Outcome:
    """The outcome of one row: the row to stage, if any, and rejections."""

    staged: StagedRow | None = None
    rejections: tuple[Rejected, ...] = ()
    already_there: bool = False


class Seen:
    """Ids and texts of the preceding rows of a file, on disk if there are many."""

    def __init__(self) -> None:
        self.db = sqlite3.connect("", isolation_level=None)  # without a name: a temporary file, deleted when closed
        self.db.execute("CREATE TABLE id (id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
        self.db.execute("CREATE TABLE text (hash BLOB PRIMARY KEY, id TEXT) WITHOUT ROWID")
        self.db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def row_of(self, external_id: str, number: int) -> int | None:
        """Return the number of an earlier row with this id; if there is none, store this one and return None."""
        if self.db.execute("INSERT OR IGNORE INTO id VALUES (?, ?)", (external_id, number)).rowcount:
            return None
        return int(self.db.execute("SELECT number FROM id WHERE id = ?", (external_id,)).fetchone()[0])

    def twin_of(self, new: NewUtterance) -> str | None:
        """Return the id of an earlier row to label with this text; if there is none, store this one and return None."""
        values = (new.text_hash, new.external_id)
        if self.db.execute("INSERT OR IGNORE INTO text VALUES (?, ?)", values).rowcount:
            return None
        return str(self.db.execute("SELECT id FROM text WHERE hash = ?", values[:1]).fetchone()[0])


@dataclass
class Stored:
    """The project's data on the rows of one batch."""

    rows: dict[str, Utterance] = field(default_factory=dict)  # by external id
    given: dict[int, int | None] = field(default_factory=dict)  # utterance -> imported label
    answered: set[int] = field(default_factory=set)  # utterances that have an answer by anyone
    twins: dict[bytes, str] = field(default_factory=dict)  # text hash -> pool or audit utterance, outside conversations
    turns: dict[tuple[str, float, str | None, str], str] = field(
        default_factory=dict
    )  # (conversation, turn, speaker, text) -> id

    @classmethod
    def of(cls, db: Database, news: Sequence[NewUtterance]) -> Self:
        """Look up the data on these rows."""
        ids = json.dumps([new.external_id for new in news])
        source = "FROM utterance WHERE external_id IN (SELECT value FROM json_each(?))"
        rows = {row.external_id: row for row in select(db, Utterance, source, (ids,))}
        found_ids = json.dumps([row.id for row in rows.values()])
        sql = """SELECT utterance_id, strategy, label_id FROM answer
                 WHERE kind != 'skip' AND utterance_id IN (SELECT value FROM json_each(?))"""
        answers = db.execute(sql, (found_ids,)).fetchall()
        given = {utterance: label for utterance, strategy, label in answers if strategy == GIVEN}
        hashes = [new.text_hash for new in news if new.conversation is None]
        twins = {digest: one for part in chunks(hashes) for digest, one in twins_of(db, part).items()}
        return cls(rows, given, {utterance for utterance, *_ in answers}, twins, _turns(db, news))


def _turns(db: Database, news: Sequence[NewUtterance]) -> dict[tuple[str, float, str | None, str], str]:
    places = json.dumps([(new.conversation, new.turn) for new in news if new.conversation and new.turn is not None])
    sql = """SELECT DISTINCT u.conversation, u.turn, u.speaker, u.text, u.external_id FROM json_each(?) place
             CROSS JOIN utterance u ON u.conversation = json_extract(place.value, '$[0]')
             AND u.turn = json_extract(place.value, '$[1]') ORDER BY u.id DESC"""
    return {(name, turn, who, text): one for name, turn, who, text, one in db.execute(sql, (places,))}


def reconcile(rows: Sequence[tuple[int, NewUtterance]], stored: Stored, seen: Seen, terms: Terms) -> Iterator[Outcome]:
    """Yield the outcome of each row, in order."""
    for number, new in rows:
        earlier = seen.row_of(new.external_id, number)
        existing = stored.rows.get(new.external_id)
        if earlier is not None:
            yield _refused(number, _twice(earlier, new))
        elif existing is not None:
            yield _known(number, new, stored, terms, seen)
        elif reason := _copied(new, stored, seen, terms):
            yield _refused(number, reason)
        else:
            yield _added(number, new, terms)


def _refused(number: int, reason: str) -> Outcome:
    return Outcome(rejections=(Rejected(number, reason),))


def _twice(earlier: int, new: NewUtterance) -> str:
    """Return the reason for rejecting a repeated id, with the label that is lost."""
    if new.given_label:
        return Message(
            "Row {earlier:,} has the same id, “{external_id}”; the label “{given_label}” is not imported.",
            earlier=earlier,
            external_id=new.external_id,
            given_label=new.given_label,
        )
    return Message("Row {earlier:,} has the same id, “{external_id}”.", earlier=earlier, external_id=new.external_id)


def _copied(new: NewUtterance, stored: Stored, seen: Seen, terms: Terms) -> str | None:
    """Return why a new utterance is a copy, with the same text or the same turn; None if it is not."""
    if terms.keep_copies:
        return None
    if new.conversation is not None:
        place = (new.conversation, new.turn, new.speaker, new.text)
        same = stored.turns.get(place) if new.turn is not None else None  # type: ignore[arg-type]
        return (
            Message(
                "“{same}” is the same turn of conversation “{conversation}”.", same=same, conversation=new.conversation
            )
            if same
            else None
        )
    if new.context_only:
        return None
    twin = stored.twins.get(new.text_hash) or seen.twin_of(new)
    return None if twin is None else Message("The text is a copy of “{twin}”.", twin=twin)


def _added(number: int, new: NewUtterance, terms: Terms) -> Outcome:
    label, rejections = _label(number, new, terms)
    return Outcome(StagedRow(number, new, "context" if new.context_only else "pool", label), rejections)


def _label(number: int, new: NewUtterance, terms: Terms) -> tuple[int | None, tuple[Rejected, ...]]:
    """Return the label id of a row, or its rejection."""
    if new.label_refused:
        return None, (Rejected(number, new.label_refused, "label"),)
    label = terms.given(new.given_label) if new.given_label else None
    return (None, (Rejected(number, label, "label"),)) if isinstance(label, str) else (label, ())


def _known(number: int, new: NewUtterance, stored: Stored, terms: Terms, seen: Seen) -> Outcome:
    """Complete an utterance that is in the project already, and reject other changes."""
    row = stored.rows[new.external_id]
    if row.text != new.text:
        reason = Message(
            "The id “{external_id}” is already in the project, with another text.", external_id=new.external_id
        )
        return Outcome(rejections=(Rejected(number, reason, "change"),), already_there=True)
    label, rejections = _label(number, new, terms)
    differences = list(_differences(new, row, terms))
    if label is not None and row.id in stored.answered:
        if stored.given.get(row.id) != label:
            differences.insert(0, (terms.columns["label"], new.given_label))
        label = None
    becomes_asked = row.slice == "context" and not new.context_only
    if becomes_asked and new.conversation is None and (twin := _copied(new, stored, seen, terms)):
        return Outcome(rejections=(Rejected(number, twin, "change"),), already_there=True)
    stays_asked = row.slice != "context" and new.context_only
    if not_applied := _not_applied(differences, stays_asked):
        rejections = (*rejections, Rejected(number, not_applied, "change"))
    slice_: Slice | None = "pool" if becomes_asked else None
    completed = label is not None or becomes_asked
    return Outcome(StagedRow(number, new, slice_, label, row.id) if completed else None, rejections, already_there=True)


def _differences(new: NewUtterance, row: Utterance, terms: Terms) -> Iterator[Difference]:
    """Yield the values of a row that differ from those of the utterance with the same id, or are new."""
    for name in ("conversation", "turn", "speaker"):
        value = getattr(new, name)
        if value is not None and value != getattr(row, name):
            yield terms.columns.get(name, name), f"{value:.17g}" if isinstance(value, float) else value
    stored = row.metadata
    yield from ((name, value) for name, value in new.metadata.items() if stored.get(name) != value)


def _not_applied(differences: Sequence[Difference], stays_asked: bool) -> str | None:
    """Return which values of a row are rejected, because its utterance is in the project already; None if none are."""
    what = ", ".join([*map(_named, differences[:_FEW]), *["…"] * (len(differences) > _FEW)])
    if stays_asked and differences:
        return Message(
            "It is already imported for labeling and does not become context; not applied: {what}.", what=what
        )
    if stays_asked:
        return Message("It is already imported for labeling and does not become context.")
    return Message("It is already imported; not applied: {what}.", what=what) if differences else None


def _named(difference: Difference) -> str:
    name, value = difference[0], str(difference[1])
    return f"{name} “{value if len(value) <= _SHORT else value[:_SHORT] + '…'}”"
