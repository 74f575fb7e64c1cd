"""The queue: what is asked next, in which order and why, and who has which utterance on screen."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlite_utils import Database

from store.database import fetch, fetch_value, immediate

LEASE = timedelta(minutes=10)  # long enough to think, short enough that a closed laptop blocks nobody
FURTHEST = LEASE + timedelta(minutes=1)  # what ends later was leased while the clock was wrong, by more than a little


@dataclass(frozen=True)
class QueueEntry:
    """One utterance to ask. `score` is the acquisition score: higher means ask sooner.

    `chosen_after` is the last annotation that was known where it was chosen between two rounds, None where a round chose it.
    """

    utterance_id: int
    strategy: str
    score: float | None
    propensity: float | None
    pool_size: int
    chosen_after: int | None = None


def replace(db: Database, round_id: int | None, entries: Iterable[QueueEntry]) -> None:
    """Put a new batch in place of the old one. What is in both and on someone's screen stays his."""
    with immediate(db):
        held = fetch(db, "SELECT utterance_id, leased_by, leased_until FROM queue WHERE leased_by IS NOT NULL")
        db.execute("DELETE FROM queue")
        extend(db, round_id, entries)
        for lease_row in held:
            db.execute(
                """UPDATE queue SET leased_by = :leased_by, leased_until = :leased_until
                   WHERE utterance_id = :utterance_id""",
                lease_row,
            )


def refill(db: Database, round_id: int | None, entries: Iterable[QueueEntry]) -> None:
    """Put a new batch behind what annotators have on screen; the rest of the old one goes."""
    with immediate(db):
        held = leased_ids(db)
        for utterance_id in queued_ids(db) - held:
            db.execute("DELETE FROM queue WHERE utterance_id = ?", (utterance_id,))
        extend(db, round_id, entries)


def extend(db: Database, round_id: int | None, entries: Iterable[QueueEntry]) -> None:
    """Append to the batch; what is in it already stays where it is."""
    sql = """INSERT OR IGNORE INTO queue (utterance_id, round_id, strategy, score, propensity, pool_size, chosen_after)
             VALUES (:utterance_id, :round_id, :strategy, :score, :propensity, :pool_size, :chosen_after)"""
    with immediate(db):
        for entry in entries:
            db.execute(sql, {**asdict(entry), "round_id": round_id})


# On somebody's screen: their lease has not run out, nobody has labelled it and they have not skipped it.
_HELD = """leased_until IS NOT NULL AND leased_until BETWEEN :now AND :latest
           AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.utterance_id = queue.utterance_id
               AND (answer.kind IN ('label', 'none_fits')
                   OR answer.kind = 'skip' AND answer.annotator = queue.leased_by))"""
# Open to an annotator: nobody has labelled it, he has not skipped it, and no one else has it on screen.
_OPEN = f"""NOT EXISTS (SELECT 1 FROM answer WHERE answer.utterance_id = queue.utterance_id
               AND (answer.kind IN ('label', 'none_fits')
                   OR answer.kind = 'skip' AND answer.annotator = :annotator))
           AND (leased_by = :annotator OR NOT ({_HELD}))"""


# Still to come, and free to be exchanged.
_LEFT = f"""strategy IN (SELECT value FROM json_each(:strategies)) AND NOT ({_HELD})
           AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.utterance_id = queue.utterance_id
               AND answer.kind IN ('label', 'none_fits', 'skip'))"""


def _left(strategies: Sequence[str]) -> dict[str, str]:
    return {"strategies": json.dumps(list(strategies)), **_now()}


def _now() -> dict[str, str]:
    """Return the moments between which a lease that holds ends. Read the clock only once the lock is ours."""
    moment = datetime.now(UTC)
    return {"now": _stamp(moment), "latest": _stamp(moment + FURTHEST)}


def lease(db: Database, annotator: str, count: int) -> list[dict[str, Any]]:
    """Reserve the next `count` utterances for an annotator and return their queue rows in order.

    Calling again renews the lease and returns the same utterances until they are answered.
    """
    with immediate(db):
        until = _stamp(datetime.now(UTC) + LEASE)
        parameters = {"annotator": annotator, "until": until, "count": count, **_now()}
        rows = fetch(db, f"SELECT * FROM queue WHERE {_OPEN} ORDER BY rank LIMIT :count", parameters)
        for row in rows:
            db.execute(
                "UPDATE queue SET leased_by = :annotator, leased_until = :until WHERE rank = :rank",
                {**parameters, "rank": row["rank"]},
            )
    return rows


def exchange(db: Database, round_id: int, entries: Sequence[QueueEntry], strategies: Sequence[str]) -> int:
    """Put other utterances in the places of those that were chosen by a strategy and that nobody has on screen.

    Entries beyond the places are passed over, places beyond the entries are closed. Returns how many were put in.
    """
    with immediate(db):
        rows = fetch(db, f"SELECT rank, utterance_id FROM queue WHERE {_LEFT} ORDER BY rank", _left(strategies))
        for row in rows:
            db.execute("DELETE FROM queue WHERE rank = ?", (row["rank"],))
        others = queued_ids(db)
        chosen = [entry for entry in entries if entry.utterance_id not in others]
        for row, entry in zip(rows, chosen, strict=False):
            db.execute(
                """INSERT INTO queue (rank, utterance_id, round_id, strategy, score, propensity, pool_size, chosen_after)
                   VALUES (:rank, :utterance_id, :round_id, :strategy, :score, :propensity, :pool_size, :chosen_after)""",
                {**asdict(entry), "rank": row["rank"], "round_id": round_id},
            )
    return min(len(rows), len(chosen))


def count_left(db: Database, strategies: Sequence[str]) -> int:
    """Count what was chosen by these strategies, has no answer and is on nobody's screen."""
    return int(fetch_value(db, f"SELECT count(*) FROM queue WHERE {_LEFT}", _left(strategies)))


def put_ahead(db: Database, round_id: int | None, entries: Sequence[QueueEntry]) -> None:
    """Put utterances before all others, in their order, also those that are in the batch already."""
    with immediate(db):
        extend(db, round_id, entries)
        first = int(fetch_value(db, "SELECT min(rank) FROM queue") or 0)
        for rank, entry in enumerate(entries, start=first - len(entries)):
            db.execute("UPDATE queue SET rank = ? WHERE utterance_id = ?", (rank, entry.utterance_id))


def drop(db: Database, ids: Iterable[int]) -> None:
    """Take utterances out of the batch that need no answer any more, also those held for someone."""
    with immediate(db):
        for utterance_id in queued_ids(db) & set(ids):
            db.execute("DELETE FROM queue WHERE utterance_id = ?", (utterance_id,))


def put_first(db: Database, round_id: int | None, entry: QueueEntry, annotator: str) -> None:
    """Put an utterance at the front for the annotator who took his answer back, also if it had left the batch."""
    with immediate(db):
        first = int(fetch_value(db, "SELECT min(rank) FROM queue") or 0)
        extend(db, round_id, [entry])  # does nothing if it is still in the batch
        db.execute(
            "UPDATE queue SET rank = ? - 1, leased_by = ?, leased_until = ? WHERE utterance_id = ?",
            (first, annotator, _stamp(datetime.now(UTC) + LEASE), entry.utterance_id),
        )


def count_open(db: Database, annotator: str) -> int:
    """Count what is left of the batch for an annotator."""
    sql = f"SELECT count(*) FROM queue WHERE {_OPEN}"
    return int(fetch_value(db, sql, {"annotator": annotator, **_now()}))


def size(db: Database) -> int:
    """Count the whole batch, answered or not."""
    return int(fetch_value(db, "SELECT count(*) FROM queue"))


def leased_ids(db: Database, but: str | None = None) -> set[int]:
    """Return what annotators have on screen and have not answered, those of one left out: leases that hold."""
    sql = f"SELECT utterance_id FROM queue WHERE leased_by IS NOT :but AND {_HELD}"
    return {row[0] for row in db.execute(sql, {"but": but, **_now()})}


def holder(db: Database, utterance_id: int) -> str | None:
    """Return who has an utterance on screen, None if nobody does."""
    sql = f"SELECT leased_by FROM queue WHERE utterance_id = :id AND {_HELD}"
    value = fetch_value(db, sql, {"id": utterance_id, **_now()})
    return None if value is None else str(value)


def queued_ids(db: Database) -> set[int]:
    """Return the utterances of the batch, answered or not."""
    return {row[0] for row in db.execute("SELECT utterance_id FROM queue")}


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
