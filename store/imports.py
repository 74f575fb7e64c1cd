"""Run an import: rows are staged in a table of their own, then moved into the project in short transactions.

Staged rows are not visible, and an import that ends early leaves nothing. Once all rows are staged, the import is
complete: if its process dies, the next process that opens the project finishes it. Transactions are short, so others
can write in between. There is at most one import at a time.
"""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from sqlite3 import DatabaseError

from sqlite_utils import Database

from annotator.errors import ImportRunning
from store.database import chunks, fetch_value, immediate, now, select
from store.processes import find_process, this_process
from store.utterances import NewUtterance, SamplingUnit, Slice

PATIENCE = 30.0  # seconds to wait until another import has ended
_BRIEF = 0.05  # seconds that one transaction should take
_FEWEST, _MOST = 100, 4_000  # rows a transaction


@dataclass(frozen=True)
class StagedRow:
    """A row of the file: a new utterance, or values that complete the one with the id `utterance_id`."""

    number: int
    new: NewUtterance
    slice: Slice | None  # pool or context; None if the utterance keeps its slice
    label_id: int | None = None
    utterance_id: int | None = None


@contextmanager
def staging(db: Database, codebook_version: int) -> Iterator[None]:
    """Begin an import; mark it complete when the block succeeds, otherwise drop it. Raises ImportRunning."""
    _begin(db, codebook_version)
    try:
        with _relaxed_sync(db):
            yield
    except BaseException:
        drop(db)
        raise
    with immediate(db):
        db.execute("UPDATE import SET state = 'complete'")


def stage(db: Database, rows: Iterable[StagedRow]) -> None:
    """Append rows to the staged ones."""
    values = [
        (
            row.number,
            row.new.external_id,
            row.new.text,
            row.new.text_hash,
            row.new.conversation,
            row.new.turn,
            row.new.speaker,
            json.dumps(dict(row.new.metadata), ensure_ascii=False),
            row.slice,
            row.label_id,
            row.utterance_id,
        )
        for row in rows
    ]
    with immediate(db):
        db.conn.executemany(f"INSERT INTO staged VALUES ({', '.join('?' * 11)})", values)


def to_label(db: Database, whole_conversations: bool) -> Iterator[SamplingUnit]:
    """Stream the staged rows to label; `drawn` looks at whole conversations only with `whole_conversations`."""
    staged = """SELECT number AS id, text_hash, conversation, CASE
                 WHEN conversation IS NULL THEN (SELECT u.slice FROM utterance u WHERE u.text_hash = staged.text_hash
                     AND u.conversation IS NULL AND u.slice != 'context' ORDER BY u.slice LIMIT 1)
                 WHEN ? THEN (SELECT u.slice FROM utterance u WHERE u.conversation = staged.conversation
                     AND u.slice != 'context' ORDER BY u.slice LIMIT 1) END AS drawn
             FROM staged WHERE slice = 'pool'"""  # audit comes first
    return select(db, SamplingUnit, f"FROM ({staged}) ORDER BY id", (whole_conversations,))


def assign_to_audit(db: Database, numbers: Iterable[int]) -> None:
    """Assign staged rows to the audit sample."""
    for chunk in chunks(list(numbers)):
        with immediate(db):
            sql = "UPDATE staged SET slice = 'audit' WHERE number IN (SELECT value FROM json_each(?))"
            db.execute(sql, (json.dumps(chunk),))


def move(db: Database) -> None:
    """Move the remaining rows of a complete import into the project."""
    try:
        with _relaxed_sync(db):
            _in_short_steps(db, _move_some)
    except BaseException:
        with suppress(DatabaseError), immediate(db):  # the next process that opens the project continues
            db.execute("UPDATE import SET pid = NULL")
        raise


def close(db: Database) -> None:
    """End an import whose rows have all been moved."""
    with immediate(db):
        db.execute("DELETE FROM import WHERE NOT EXISTS (SELECT 1 FROM staged)")


def drop(db: Database) -> None:
    """Discard an import and its staged rows."""
    _in_short_steps(db, _drop_some)
    close(db)


def recover(db: Database) -> bool:
    """Finish a complete import whose process is gone, or drop an incomplete one; return whether rows were moved.

    If so, the caller must close the import.
    """
    left = db.execute("SELECT state, pid, pid_started FROM import").fetchone()
    if left is None or _is_alive(*left[1:]):
        return False
    if left[0] == "complete":
        move(db)
        return True
    drop(db)
    return False


def under_way(db: Database) -> bool:
    """Return whether an import is running or was left behind."""
    return fetch_value(db, "SELECT 1 FROM import") is not None


def refuse_beside_another(db: Database) -> None:
    """Raise ImportRunning if an import is running, during which no utterances may be added."""
    if under_way(db):
        raise ImportRunning("Another import into this project is running.", "Wait until it has finished.")


def _begin(db: Database, codebook_version: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        if recover(db):
            close(db)
        with immediate(db):
            if not under_way(db) or time.monotonic() > deadline:
                refuse_beside_another(db)
                values = (*this_process(), codebook_version, now())
                db.execute("INSERT INTO import VALUES (1, 'staging', ?, ?, ?, ?)", values)
                return
        time.sleep(0.1)


def _is_alive(pid: int | None, started: float) -> bool:
    return pid is not None and find_process(pid, started) is not None


@contextmanager
def _relaxed_sync(db: Database) -> Iterator[None]:
    """Do not wait for the disk after every step: steps lost in a power failure are repeated or discarded."""
    db.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        db.execute("PRAGMA synchronous = FULL")


def _in_short_steps(db: Database, step: Callable[[Database, int], bool]) -> None:
    """Repeat a step, each in a short transaction of its own, until no rows are left.

    The number of rows adapts to the time a step takes. A random pause of about that time follows each step, because
    SQLite does not queue writers: others retry at intervals and must hit a pause.
    """
    rows, goes_on = _FEWEST, True
    while goes_on:
        with immediate(db):
            began = time.monotonic()
            goes_on = step(db, rows)
        took = time.monotonic() - began
        rows = max(_FEWEST, min(_MOST, rows * 2 if took < _BRIEF / 2 else rows // 2 if took > _BRIEF else rows))
        if goes_on:
            time.sleep(took * random.uniform(0.5, 1.5))


def _move_some(db: Database, rows: int) -> bool:
    sql = "SELECT min(number), max(number) FROM (SELECT number FROM staged ORDER BY number LIMIT ?)"
    span = db.execute(sql, (rows,)).fetchone()
    if span[0] is None:
        return False
    for statement in _MOVE:
        db.execute(statement, span)
    return True


def _drop_some(db: Database, rows: int) -> bool:
    sql = "DELETE FROM staged WHERE number IN (SELECT number FROM staged ORDER BY number LIMIT ?)"
    return db.execute(sql, (rows,)).rowcount > 0


_MOVE = (
    """INSERT INTO utterance (external_id, text, text_hash, conversation, turn, speaker, metadata, slice, imported_at)
       SELECT external_id, text, text_hash, conversation, turn, speaker, metadata, slice,
           (SELECT started_at FROM import)
       FROM staged WHERE number BETWEEN ? AND ? AND utterance_id IS NULL ORDER BY number""",
    """UPDATE utterance SET slice = staged.slice FROM staged
       WHERE staged.utterance_id = utterance.id AND staged.number BETWEEN ? AND ? AND staged.slice IS NOT NULL
       AND utterance.slice = 'context' AND NOT EXISTS (
           SELECT 1 FROM annotation WHERE utterance_id = utterance.id AND strategy != 'given')""",
    """INSERT INTO annotation
           (utterance_id, question_id, annotator, kind, label_id, strategy, codebook_version, at)
       SELECT coalesce(s.utterance_id, utterance.id), label.question_id, 'given', 'label', s.label_id, 'given',
           import.codebook_version, import.started_at
       FROM staged s JOIN import JOIN label ON label.id = s.label_id
       LEFT JOIN utterance ON utterance.external_id = s.external_id
       WHERE s.number BETWEEN ? AND ? ORDER BY s.number""",
    "DELETE FROM staged WHERE number BETWEEN ? AND ?",
)
