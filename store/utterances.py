"""Store and read utterances, with the turns around them."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from sqlite_utils import Database

from store.database import chunks, fetch_value, now, select
from store.faults import parsed

Slice = Literal["pool", "audit", "context"]


@dataclass(frozen=True)
class NewUtterance:
    """One text from a file. With `context_only`, it is context for others and never asked."""

    external_id: str
    text: str
    conversation: str | None = None
    turn: float | None = None
    speaker: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    context_only: bool = False
    given_label: str | None = None
    label_refused: str = ""  # why the label of its row does not count as a person's answer

    @cached_property
    def text_hash(self) -> bytes:
        """The hash of the text, see `text_hash`."""
        return text_hash(self.text)


@dataclass(frozen=True)
class Utterance:
    """A stored utterance."""

    id: int
    external_id: str
    text: str
    conversation: str | None
    turn: float | None  # its place in the conversation; equal turns are in the order of their ids
    speaker: str | None
    slice: Slice
    metadata_json: str

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The other columns of its row in the file, by name. Raises ProjectDamaged."""
        stored: dict[str, Any] = parsed(self.metadata_json, "the metadata of an utterance")
        return stored


@dataclass(frozen=True)
class Turn:
    """A turn of a conversation as context of another."""

    id: int
    speaker: str | None
    text: str


@dataclass(frozen=True)
class SamplingUnit:
    """A new utterance from which the audit sample is drawn.

    `drawn` is the slice that already contains the same text or conversation; None if there is none.
    """

    id: int  # of the utterance, or the number of its staged row
    text_hash: bytes
    conversation: str | None
    drawn: Slice | None


def text_hash(text: str) -> bytes:
    """Hash a text, ignoring case, spacing and Unicode form."""
    plain = " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold().split())
    return hashlib.blake2b(plain.encode(), digest_size=16).digest()


def add(db: Database, utterance: NewUtterance) -> int:
    """Insert one utterance into the pool, or as context, and return its id."""
    cursor = db.execute(
        """INSERT INTO utterance
           (external_id, text, text_hash, conversation, turn, speaker, metadata, slice, imported_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            utterance.external_id,
            utterance.text,
            utterance.text_hash,
            utterance.conversation,
            utterance.turn,
            utterance.speaker,
            json.dumps(dict(utterance.metadata), ensure_ascii=False),
            "context" if utterance.context_only else "pool",
            now(),
        ),
    )
    return int(cursor.lastrowid or 0)


def twins_of(db: Database, hashes: Sequence[bytes]) -> dict[bytes, str]:
    """Return, by text hash, the first pool or audit utterance with the same text, outside conversations."""
    sql = f"""SELECT text_hash, external_id, min(id) FROM utterance
              WHERE text_hash IN ({",".join("?" * len(hashes))}) AND conversation IS NULL AND slice != 'context'
              GROUP BY text_hash"""
    return {digest: str(external_id) for digest, external_id, _ in db.execute(sql, list(hashes))}


def move_to_audit(db: Database, ids: Iterable[int]) -> None:
    """Move newly imported pool utterances to the audit sample.

    Raises ValueError if one has been annotated, because the sample would no longer be random. Imported labels do not
    count, as they were given before the draw.
    """
    for chunk in chunks(list(ids)):
        marks = ",".join("?" * len(chunk))
        sql = f"SELECT count(*) FROM annotation WHERE strategy != 'given' AND utterance_id IN ({marks})"
        touched = fetch_value(db, sql, chunk)
        if touched:
            raise ValueError(f"{touched} of these utterances have been annotated already")
        db.execute(f"UPDATE utterance SET slice = 'audit' WHERE slice = 'pool' AND id IN ({marks})", chunk)


def read(db: Database, ids: Sequence[int]) -> list[Utterance]:
    """Return utterances in the order of `ids`."""
    found: dict[int, Utterance] = {}
    for chunk in chunks(list(ids)):
        marks = ",".join("?" * len(chunk))
        found |= {one.id: one for one in select(db, Utterance, f"FROM utterance WHERE id IN ({marks})", chunk)}
    return [found[i] for i in ids]


def iterate(db: Database) -> Iterator[Utterance]:
    """Stream the utterances to label in the order they were imported."""
    return select(db, Utterance, "FROM utterance WHERE slice IN ('pool', 'audit') ORDER BY id")


def metadata_names(db: Database) -> list[str]:
    """Return the names of metadata of pool and audit utterances, in order of first appearance."""
    sql = """SELECT metadata FROM utterance WHERE slice IN ('pool', 'audit') AND metadata != '{}' ORDER BY id"""
    found: dict[str, None] = {}
    for (metadata,) in db.execute(sql):  # parsed here, because JSON of SQLite does not allow NaN
        found |= dict.fromkeys(json.loads(metadata))
    return list(found)


def drawn_before(db: Database, ids: Sequence[int]) -> Iterator[SamplingUnit]:
    """Stream new utterances; `drawn` is the slice that already contains the same text, outside conversations."""
    new = """SELECT id, text_hash, conversation, CASE WHEN conversation IS NULL THEN (
                 SELECT u.slice FROM utterance u WHERE u.text_hash = utterance.text_hash AND u.id < ?
                 AND u.conversation IS NULL AND u.slice != 'context' ORDER BY u.slice LIMIT 1) END AS drawn
             FROM utterance WHERE id IN (SELECT value FROM json_each(?))"""  # audit comes first
    return select(db, SamplingUnit, f"FROM ({new}) ORDER BY id", (min(ids, default=0), json.dumps(list(ids))))


def ids_in(db: Database, slice_name: str) -> list[int]:
    """Return the ids of a slice in import order."""
    return [row[0] for row in db.execute("SELECT id FROM utterance WHERE slice = ? ORDER BY id", (slice_name,))]


def representative(db: Database, longest: int, others: int) -> list[int]:
    """Return the ids of the longest utterances to label, and of about as many `others`, evenly from all of them."""
    to_label = "FROM utterance WHERE slice IN ('pool', 'audit')"
    long = db.execute(f"SELECT id {to_label} ORDER BY length(text) DESC LIMIT ?", (longest,)).fetchall()
    every = f"SELECT id, row_number() OVER (ORDER BY id) AS place, count(*) OVER () AS n {to_label}"
    even = db.execute(f"SELECT id FROM ({every}) WHERE (place - 1) % (1 + n / ?) = 0", (others,)).fetchall()
    return sorted({row[0] for row in (*long, *even)})


def turns_before(db: Database, utterance: Utterance, count: int) -> list[Turn]:
    """Return up to `count` turns of the same conversation before this one, oldest first; all if `count` is below 0.

    Turns are ordered by number, then by import. An utterance without a turn number has no place in its conversation, so
    no turns precede it, and it precedes none. Files outside a project are also read with this query
    (`store/files/spool.py`).
    """
    place = (utterance.conversation, utterance.turn, utterance.id)
    if None in place or not count:
        return []
    source = "FROM utterance WHERE conversation = ? AND (turn, id) < (?, ?) ORDER BY turn DESC, id DESC LIMIT ?"
    return list(select(db, Turn, source, (*place, count)))[::-1]


def count_slices(db: Database) -> dict[str, int]:
    """Count the utterances of each slice."""
    counts = {"pool": 0, "audit": 0, "context": 0}
    return counts | dict(db.execute("SELECT slice, count(*) FROM utterance GROUP BY slice").fetchall())


def any_to_label(db: Database) -> bool:
    """Return whether there are utterances to label, without counting them."""
    return fetch_value(db, "SELECT 1 FROM utterance WHERE slice IN ('pool', 'audit') LIMIT 1") is not None


def turns_around(db: Database, utterance: Utterance, count: int = -1) -> list[Turn]:
    """Return the conversation of an utterance in order, itself included: all of it, or `count` turns on either side."""
    place = (utterance.conversation, utterance.turn, utterance.id)
    source = "FROM utterance WHERE conversation = ? AND (turn, id) > (?, ?) ORDER BY turn, id LIMIT ?"
    after = select(db, Turn, source, (*place, count))  # none if it has no place in a conversation
    return [*turns_before(db, utterance, count), Turn(utterance.id, utterance.speaker, utterance.text), *after]
