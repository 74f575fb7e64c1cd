"""What a row of a file adds to what is in the project already, and what of it is not taken over."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from sqlite_utils import Database

from store.database import chunks, fetch
from store.files.readers import Rejected
from store.imports import StagedRow
from store.utterances import NewUtterance, twins_of

Given = Callable[[str], int | str]  # the id of the label of this name, or why it cannot be given
Brought = tuple[str, object]  # a column of the file and what it says
_FEW = 5  # differences named in one line
_SHORT = 40  # characters of a value named in it


@dataclass(frozen=True)
class Terms:
    """On which terms rows are taken: which column names what, whether copies are, how labels are found."""

    columns: Mapping[str, str]  # conversation, turn, speaker, label: the column that holds it
    keep_copies: bool
    given: Given


@dataclass(frozen=True)
class Outcome:
    """What becomes of one row: what is staged of it, if anything, and what is said of it."""

    staged: StagedRow | None = None
    said: tuple[Rejected, ...] = ()
    already_there: bool = False


class Seen:
    """The ids and texts of the rows of a file that came before, on disk where they are many."""

    def __init__(self) -> None:
        self.db = sqlite3.connect("", isolation_level=None)  # without a name: a file that is gone when it is closed
        self.db.execute("CREATE TABLE id (id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
        self.db.execute("CREATE TABLE text (hash BLOB PRIMARY KEY, id TEXT) WITHOUT ROWID")
        self.db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def row_of(self, external_id: str, number: int) -> int | None:
        """Return the row that had this id before; remember it for this row if there was none."""
        if self.db.execute("INSERT OR IGNORE INTO id VALUES (?, ?)", (external_id, number)).rowcount:
            return None
        return int(self.db.execute("SELECT number FROM id WHERE id = ?", (external_id,)).fetchone()[0])

    def twin_of(self, new: NewUtterance) -> str | None:
        """Return the id of the utterance to be labeled that had this text before; remember this one if none had."""
        values = (new.text_hash, new.external_id)
        if self.db.execute("INSERT OR IGNORE INTO text VALUES (?, ?)", values).rowcount:
            return None
        return str(self.db.execute("SELECT id FROM text WHERE hash = ?", values[:1]).fetchone()[0])


@dataclass
class Stored:
    """What the project holds of the rows of one part of a file."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)  # by external id
    given: dict[int, int | None] = field(default_factory=dict)  # utterance -> label that came with a file
    answered: set[int] = field(default_factory=set)  # utterances that have an answer by anyone
    twins: dict[bytes, str] = field(default_factory=dict)  # text -> utterance to be labeled, outside conversations
    turns: dict[tuple[str, float, str | None, str], str] = field(default_factory=dict)  # what was said where -> id

    @classmethod
    def of(cls, db: Database, news: Sequence[NewUtterance]) -> Self:
        """Look up all that bears on these rows."""
        ids = json.dumps([new.external_id for new in news])
        sql = "SELECT * FROM utterance WHERE external_id IN (SELECT value FROM json_each(?))"
        rows = {row["external_id"]: row for row in fetch(db, sql, (ids,))}
        found = json.dumps([row["id"] for row in rows.values()])
        sql = """SELECT utterance_id, strategy, label_id FROM answer
                 WHERE kind != 'skip' AND utterance_id IN (SELECT value FROM json_each(?))"""
        answers = fetch(db, sql, (found,))
        given = {row["utterance_id"]: row["label_id"] for row in answers if row["strategy"] == "given"}
        alone = [new.text_hash for new in news if new.conversation is None]
        twins = {digest: one for part in chunks(alone) for digest, one in twins_of(db, part).items()}
        return cls(rows, given, {row["utterance_id"] for row in answers}, twins, _turns(db, news))


def _turns(db: Database, news: Sequence[NewUtterance]) -> dict[tuple[str, float, str | None, str], str]:
    places = json.dumps([(new.conversation, new.turn) for new in news if new.conversation and new.turn is not None])
    sql = """SELECT DISTINCT u.conversation, u.turn, u.speaker, u.text, u.external_id FROM json_each(?) place
             CROSS JOIN utterance u ON u.conversation = json_extract(place.value, '$[0]')
             AND u.turn = json_extract(place.value, '$[1]') ORDER BY u.id DESC"""
    return {(name, turn, who, text): one for name, turn, who, text, one in db.execute(sql, (places,))}


def reconcile(rows: Sequence[tuple[int, NewUtterance]], stored: Stored, seen: Seen, terms: Terms) -> Iterator[Outcome]:
    """Yield what becomes of each row, in order."""
    for number, new in rows:
        earlier = seen.row_of(new.external_id, number)
        known = stored.rows.get(new.external_id)
        if earlier is not None:
            yield _refused(number, _twice(earlier, new))
        elif known is not None:
            yield _known(number, new, stored, terms, seen)
        elif reason := _copied(new, stored, seen, terms):
            yield _refused(number, reason)
        else:
            yield _added(number, new, terms)


def _refused(number: int, reason: str) -> Outcome:
    return Outcome(said=(Rejected(number, reason),))


def _twice(earlier: int, new: NewUtterance) -> str:
    """Say which row has the id of this one, and what label is lost by that."""
    if new.given_label:
        return f"Row {earlier:,} has the same id, “{new.external_id}”; the label “{new.given_label}” is not taken."
    return f"Row {earlier:,} has the same id, “{new.external_id}”."


def _copied(new: NewUtterance, stored: Stored, seen: Seen, terms: Terms) -> str | None:
    """Say of which utterance a new one is a copy: of one with the same text, or with the same turn."""
    if terms.keep_copies:
        return None
    if new.conversation is not None:
        place = (new.conversation, new.turn, new.speaker, new.text)
        said = stored.turns.get(place) if new.turn is not None else None  # type: ignore[arg-type]
        return f"“{said}” is the same turn of conversation “{new.conversation}” already." if said else None
    if new.context_only:
        return None
    twin = stored.twins.get(new.text_hash) or seen.twin_of(new)
    return None if twin is None else f"The text is a copy of “{twin}”."


def _added(number: int, new: NewUtterance, terms: Terms) -> Outcome:
    label, said = _label(number, new, terms)
    return Outcome(StagedRow(number, new, "context" if new.context_only else "pool", label), said)


def _label(number: int, new: NewUtterance, terms: Terms) -> tuple[int | None, tuple[Rejected, ...]]:
    """Return the label that a row gives, or why it gives none."""
    if new.label_refused:
        return None, (Rejected(number, new.label_refused, "label"),)
    found = terms.given(new.given_label) if new.given_label else None
    return (None, (Rejected(number, found, "label"),)) if isinstance(found, str) else (found, ())


def _known(number: int, new: NewUtterance, stored: Stored, terms: Terms, seen: Seen) -> Outcome:
    """Take over what completes an utterance that is in the project, and say what is not taken over."""
    row = stored.rows[new.external_id]
    if row["text"] != new.text:
        reason = f"The id “{new.external_id}” is in the project already, with another text."
        return Outcome(said=(Rejected(number, reason, "change"),), already_there=True)
    label, said = _label(number, new, terms)
    brought = list(_brought(new, row, terms))
    if label is not None and row["id"] in stored.answered:
        if stored.given.get(row["id"]) != label:
            brought.insert(0, (terms.columns["label"], new.given_label))
        label = None
    becomes_asked = row["slice"] == "context" and not new.context_only
    if becomes_asked and new.conversation is None and (twin := _copied(new, stored, seen, terms)):
        return Outcome(said=(Rejected(number, twin, "change"),), already_there=True)
    stays_asked = row["slice"] != "context" and new.context_only
    if left := _not_applied(brought, stays_asked):
        said = (*said, Rejected(number, left, "change"))
    slice_ = "pool" if becomes_asked else None
    completed = label is not None or becomes_asked
    return Outcome(StagedRow(number, new, slice_, label, row["id"]) if completed else None, said, already_there=True)


def _brought(new: NewUtterance, row: Mapping[str, Any], terms: Terms) -> Iterator[Brought]:
    """Yield what a row says differently from the utterance of the same id, or in addition to it."""
    for name in ("conversation", "turn", "speaker"):
        value = getattr(new, name)
        if value is not None and value != row[name]:
            yield terms.columns.get(name, name), f"{value:.17g}" if isinstance(value, float) else value
    known = json.loads(row["metadata"])
    yield from ((name, value) for name, value in new.metadata.items() if known.get(name) != value)


def _not_applied(brought: Sequence[Brought], stays_asked: bool) -> str | None:
    """Say what of a row is not taken over, as its utterance is in the project already."""
    what = ", ".join([*map(_named, brought[:_FEW]), *["…"] * (len(brought) > _FEW)])
    if stays_asked and brought:
        return f"It is imported already, to be labeled, and does not become context; not taken: {what}."
    if stays_asked:
        return "It is imported already, to be labeled, and does not become context."
    return f"It is imported already; not taken: {what}." if brought else None


def _named(brought: Brought) -> str:
    name, value = brought[0], str(brought[1])
    return f"{name} “{value if len(value) <= _SHORT else value[:_SHORT] + '…'}”"
