"""Store the queue: the utterances to ask, their order and strategy, and the leases of annotators."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from sqlite_utils import Database

from store.database import fetch_value, immediate, select

LEASE = timedelta(minutes=10)  # long enough to think, short enough that a closed laptop does not block others
FURTHEST = LEASE + timedelta(minutes=1)  # a lease that ends later was made while the clock was wrong


@dataclass(frozen=True)
class QueueEntry:
    """One utterance to ask. `score` is the acquisition score: higher means ask sooner.

    `chosen_after` is the last annotation used, if chosen between two rounds; None if chosen by a round.
    """

    utterance_id: int
    strategy: str
    score: float | None
    propensity: float | None
    pool_size: int
    chosen_after: int | None = None


@dataclass(frozen=True)
class Leased:
    """An utterance of the batch as it is leased to an annotator: its place in the batch, and why it is asked."""

    rank: int
    utterance_id: int
    round_id: int | None
    strategy: str
    score: float | None
    propensity: float | None
    pool_size: int
    chosen_after: int | None


def replace(db: Database, round_id: int | None, entries: Iterable[QueueEntry]) -> None:
    """Replace the batch. Utterances in both batches keep their leases."""
    with immediate(db):
        sql = "SELECT leased_by, leased_until, utterance_id FROM queue WHERE leased_by IS NOT NULL"
        held = db.execute(sql).fetchall()
        db.execute("DELETE FROM queue")
        extend(db, round_id, entries)
        for one in held:
            db.execute("UPDATE queue SET leased_by = ?, leased_until = ? WHERE utterance_id = ?", one)


def refill(db: Database, round_id: int | None, entries: Iterable[QueueEntry]) -> None:
    """Replace the batch except leased utterances, which stay first."""
    with immediate(db):
        held = leased_ids(db)
        for utterance_id in queued_ids(db) - held:
            db.execute("DELETE FROM queue WHERE utterance_id = ?", (utterance_id,))
        extend(db, round_id, entries)


def extend(db: Database, round_id: int | None, entries: Iterable[QueueEntry]) -> None:
    """Append to the batch; utterances already in it keep their places."""
    sql = """INSERT OR IGNORE INTO queue (utterance_id, round_id, strategy, score, propensity, pool_size, chosen_after)
             VALUES (:utterance_id, :round_id, :strategy, :score, :propensity, :pool_size, :chosen_after)"""
    with immediate(db):
        for entry in entries:
            db.execute(sql, {**asdict(entry), "round_id": round_id})


# Leased: the lease has not expired, nobody has labeled the utterance and its holder has not skipped it.
_HELD = """leased_until IS NOT NULL AND leased_until BETWEEN :now AND :latest
           AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.utterance_id = queue.utterance_id
               AND (answer.kind IN ('label', 'none_fits')
                   OR answer.kind = 'skip' AND answer.annotator = queue.leased_by))"""
# Open to an annotator: nobody has labeled it, they have not skipped it, and nobody else has leased it.
_OPEN = f"""NOT EXISTS (SELECT 1 FROM answer WHERE answer.utterance_id = queue.utterance_id
               AND (answer.kind IN ('label', 'none_fits')
                   OR answer.kind = 'skip' AND answer.annotator = :annotator))
           AND (leased_by = :annotator OR NOT ({_HELD}))"""


# Replaceable: neither answered nor leased.
_LEFT = f"""strategy IN (SELECT value FROM json_each(:strategies)) AND NOT ({_HELD})
           AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.utterance_id = queue.utterance_id
               AND answer.kind IN ('label', 'none_fits', 'skip'))"""


def _left(strategies: Sequence[str]) -> dict[str, str]:
    return {"strategies": json.dumps(list(strategies)), **_now()}


def _now() -> dict[str, str]:
    """Return the bounds between which a valid lease ends. Call only after the lock is acquired."""
    moment = datetime.now(UTC)
    return {"now": _stamp(moment), "latest": _stamp(moment + FURTHEST)}


def lease(db: Database, annotator: str, count: int) -> list[Leased]:
    """Lease the next `count` utterances to an annotator and return them in order.

    Calling again renews the lease and returns the same utterances until they are answered.
    """
    with immediate(db):
        until = _stamp(datetime.now(UTC) + LEASE)
        parameters = {"annotator": annotator, "until": until, "count": count, **_now()}
        leased = list(select(db, Leased, f"FROM queue WHERE {_OPEN} ORDER BY rank LIMIT :count", parameters))
        for one in leased:
            db.execute("UPDATE queue SET leased_by = ?, leased_until = ? WHERE rank = ?", (annotator, until, one.rank))
    return leased


def exchange(db: Database, round_id: int, entries: Sequence[QueueEntry], strategies: Sequence[str]) -> int:
    """Replace the open utterances of some strategies that are not leased, keeping their ranks.

    Surplus entries are ignored, surplus places removed. Returns the number of utterances put in.
    """
    with immediate(db):
        places = db.execute(f"SELECT rank FROM queue WHERE {_LEFT} ORDER BY rank", _left(strategies)).fetchall()
        for place in places:
            db.execute("DELETE FROM queue WHERE rank = ?", place)
        others = queued_ids(db)
        chosen = [entry for entry in entries if entry.utterance_id not in others]
        for (rank,), entry in zip(places, chosen, strict=False):
            db.execute(
                """INSERT INTO queue
                   (rank, utterance_id, round_id, strategy, score, propensity, pool_size, chosen_after)
                   VALUES (:rank, :utterance_id, :round_id, :strategy, :score, :propensity, :pool_size, :chosen_after)
                """,
                {**asdict(entry), "rank": rank, "round_id": round_id},
            )
    return min(len(places), len(chosen))


def count_left(db: Database, strategies: Sequence[str]) -> int:
    """Count the utterances of these strategies that are neither answered nor leased."""
    return int(fetch_value(db, f"SELECT count(*) FROM queue WHERE {_LEFT}", _left(strategies)))


def put_ahead(db: Database, round_id: int | None, entries: Sequence[QueueEntry]) -> None:
    """Move utterances to the front in the given order, adding those not in the batch."""
    with immediate(db):
        extend(db, round_id, entries)
        first = int(fetch_value(db, "SELECT min(rank) FROM queue") or 0)
        for rank, entry in enumerate(entries, start=first - len(entries)):
            db.execute("UPDATE queue SET rank = ? WHERE utterance_id = ?", (rank, entry.utterance_id))


def drop(db: Database, ids: Iterable[int]) -> None:
    """Remove utterances that no longer need an answer, including leased ones."""
    with immediate(db):
        for utterance_id in queued_ids(db) & set(ids):
            db.execute("DELETE FROM queue WHERE utterance_id = ?", (utterance_id,))


def put_first(db: Database, round_id: int | None, entry: QueueEntry, annotator: str) -> None:
    """Put an utterance first, leased to the annotator who undid their answer, even if it had left the batch."""
    with immediate(db):
        first = int(fetch_value(db, "SELECT min(rank) FROM queue") or 0)
        extend(db, round_id, [entry])  # does nothing if it is still in the batch
        db.execute(
            "UPDATE queue SET rank = ? - 1, leased_by = ?, leased_until = ? WHERE utterance_id = ?",
            (first, annotator, _stamp(datetime.now(UTC) + LEASE), entry.utterance_id),
        )


def count_open(db: Database, annotator: str) -> int:
    """Count the utterances of the batch that are open to an annotator."""
    sql = f"SELECT count(*) FROM queue WHERE {_OPEN}"
    return int(fetch_value(db, sql, {"annotator": annotator, **_now()}))


def size(db: Database) -> int:
    """Count the whole batch, answered or not."""
    return int(fetch_value(db, "SELECT count(*) FROM queue"))


def leased_ids(db: Database, but: str | None = None) -> set[int]:
    """Return the utterances with a valid lease, except those of the annotator `but`."""
    sql = f"SELECT utterance_id FROM queue WHERE leased_by IS NOT :but AND {_HELD}"
    return {row[0] for row in db.execute(sql, {"but": but, **_now()})}


def holder(db: Database, utterance_id: int) -> str | None:
    """Return who has leased an utterance; None if nobody has."""
    sql = f"SELECT leased_by FROM queue WHERE utterance_id = :id AND {_HELD}"
    value = fetch_value(db, sql, {"id": utterance_id, **_now()})
    return None if value is None else str(value)


def queued_ids(db: Database) -> set[int]:
    """Return the utterances of the batch, answered or not."""
    return {row[0] for row in db.execute("SELECT utterance_id FROM queue")}


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
