"""Annotations: recorded, undone, read. Append-only: nothing said is ever changed or deleted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlite_utils import Database

from store.database import fetch, fetch_one, fetch_value, immediate, now

Kind = Literal["label", "skip", "none_fits", "clear"]
Withheld = Literal["", "chance", "choice"]  # why a suggestion that there was did not show: drawn, or wished
BULK = "bulk"  # the strategy of answers given to many utterances in one act


@dataclass(frozen=True)
class NewAnnotation:
    """One annotator's act on one utterance, with the reason it was shown."""

    utterance_id: int
    annotator: str
    kind: Kind
    label_id: int | None
    strategy: str
    codebook_version: int
    unsure: bool = False
    comment: str = ""
    round_id: int | None = None
    propensity: float | None = None
    pool_size: int | None = None
    suggested_label_id: int | None = None
    suggested_probability: float | None = None
    milliseconds: int | None = None
    withheld: Withheld = ""
    withheld_label_id: int | None = None
    withheld_probability: float | None = None
    bulk_id: int | None = None


def record(db: Database, annotation: NewAnnotation) -> int:
    """Append one annotation and return its id. It is on disk when this returns."""
    with immediate(db):
        return _append(db, asdict(annotation))


def undo(db: Database, annotator: str) -> dict[str, Any] | None:
    """Take back the annotator's last act that still stands and return it; None if there is none.

    May be called again and again: each call goes one step further back, also in another session. What was answered
    in bulk is taken back in bulk (`store/bulk.py`).
    """
    with immediate(db):
        last = fetch_one(
            db,
            """SELECT a.* FROM annotation a WHERE a.annotator = ? AND a.kind != 'undo'
               AND a.strategy NOT IN ('given', 'bulk')
               AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = a.id)
               ORDER BY a.id DESC LIMIT 1""",
            (annotator,),
        )
        if last is None:
            return None
        kept = {key: last[key] for key in ("utterance_id", "annotator", "strategy", "round_id", "codebook_version")}
        _append(db, {**kept, "kind": "undo", "undoes": last["id"]})
        return last


def _append(db: Database, row: dict[str, Any]) -> int:
    row = {**row, "at": now()}
    columns, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    cursor = db.execute(f"INSERT INTO annotation ({columns}) VALUES ({marks})", row)
    return int(cursor.lastrowid or 0)


def answers(db: Database) -> list[dict[str, Any]]:
    """Return every standing answer with the slice of its utterance, oldest first."""
    return fetch(
        db,
        """SELECT answer.*, utterance.slice FROM answer JOIN utterance ON utterance.id = answer.utterance_id
           WHERE utterance.slice IN ('pool', 'audit') ORDER BY answer.id""",
    )


def answers_to(db: Database, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return the standing answers to a few utterances, oldest first."""
    marks = ",".join("?" * len(ids))
    return fetch(db, f"SELECT * FROM answer WHERE utterance_id IN ({marks}) ORDER BY id", list(ids))


def annotators(db: Database) -> list[str]:
    """Name everyone who has ever answered."""
    return [row[0] for row in db.execute("SELECT DISTINCT annotator FROM annotation ORDER BY annotator")]


def answered_ids(db: Database) -> set[int]:
    """Return the utterances that need not be asked again: someone labelled them or said that none fits."""
    sql = "SELECT DISTINCT utterance_id FROM answer WHERE kind IN ('label', 'none_fits')"
    return {row[0] for row in db.execute(sql)}


def is_answered(db: Database, utterance_id: int) -> bool:
    """Say whether an utterance need not be asked again."""
    sql = "SELECT 1 FROM answer WHERE utterance_id = ? AND kind IN ('label', 'none_fits') LIMIT 1"
    return fetch_value(db, sql, (utterance_id,)) is not None


def skipped_ids(db: Database, annotator: str) -> set[int]:
    """Return the utterances that an annotator has passed over."""
    sql = "SELECT utterance_id FROM answer WHERE kind = 'skip' AND annotator = ?"
    return {row[0] for row in db.execute(sql, (annotator,))}


def count_answered(db: Database) -> int:
    """Count the utterances that need not be asked again."""
    sql = "SELECT count(DISTINCT utterance_id) FROM answer WHERE kind IN ('label', 'none_fits')"
    return int(fetch_value(db, sql))


def last_id(db: Database) -> int:
    """Return the id of the newest annotation, 0 if there is none: the watermark that rounds store."""
    return int(fetch_value(db, "SELECT max(id) FROM annotation") or 0)


def count_new_training_labels(db: Database, since: int) -> int:
    """Count labels given to pool utterances after a watermark and still standing.

    Skips, undone answers and audit answers change nothing in what a round trains on and do not count.
    """
    # CROSS: new answers are few, utterances many; left to choose, SQLite walks through the latter.
    sql = """SELECT count(*) FROM answer CROSS JOIN utterance ON utterance.id = answer.utterance_id
             WHERE answer.kind = 'label' AND utterance.slice = 'pool' AND answer.id > ?"""
    return int(fetch_value(db, sql, (since,)))


def times(db: Database, annotator: str, since: datetime) -> list[datetime]:
    """Return when an annotator gave the answers that stand, one by one, since a moment in UTC; oldest first."""
    sql = """SELECT at FROM answer WHERE annotator = ? AND at >= ? AND kind != 'skip'
             AND strategy NOT IN ('given', 'bulk') ORDER BY id"""
    found = db.execute(sql, (annotator, since.isoformat(timespec="milliseconds")))
    return [datetime.fromisoformat(row[0]) for row in found]


def counts(db: Database, annotator: str | None = None) -> dict[str, int]:
    """Count standing answers by kind, of one annotator or of all."""
    where, parameters = ("WHERE annotator = ?", (annotator,)) if annotator else ("", ())
    found = dict(db.execute(f"SELECT kind, count(*) FROM answer {where} GROUP BY kind", parameters).fetchall())
    return {"label": 0, "skip": 0, "none_fits": 0} | found
