"""Annotations: recorded, undone, read. Append-only: nothing said is ever changed or deleted."""

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from sqlite_utils import Database

from store.database import fetch, fetch_one, fetch_value, immediate, now

Kind = Literal["label", "skip", "none_fits", "clear"]
ANSWERED = ("label", "none_fits")  # the kinds of answers that say something of the utterance
GIVEN = "given"  # the annotator and the strategy of labels that came with a file
ADJUDICATED = "adjudicated"  # the strategy of answers that settle a case: they stand beside the annotator's own
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
    chosen_after: int | None = None  # the last annotation known where it was chosen between two rounds


# A label that came with the file counts only while no person has answered; a skip is no answer.
COUNTS = f"""NOT (answer.strategy = '{GIVEN}' AND EXISTS (
    SELECT 1 FROM answer person WHERE person.utterance_id = answer.utterance_id
    AND person.strategy != '{GIVEN}' AND person.kind != 'skip'))"""


@lru_cache(maxsize=10_000)
def same_person(name: str) -> str:
    """Return what is equal for names of one person: outer spaces, case and Unicode form aside."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def record(db: Database, annotation: NewAnnotation) -> int:
    """Append one annotation and return its id. It is on disk when this returns."""
    with immediate(db):
        return _append(db, asdict(annotation))


def undo(db: Database, annotator: str, adjudicated: bool = False) -> dict[str, Any] | None:
    """Take back the annotator's last act that still stands and return it; None if there is none.

    What he adjudicated is taken back by itself, and what was answered in bulk in bulk (`store/bulk.py`). May be called
    again and again: each call goes one step further back, also in another session.
    """
    with immediate(db):
        last = fetch_one(
            db,
            f"""SELECT a.* FROM annotation a WHERE a.annotator = ? AND a.kind != 'undo'
               AND a.strategy NOT IN ('given', '{BULK}') AND (a.strategy = '{ADJUDICATED}') = ?
               AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = a.id)
               ORDER BY a.id DESC LIMIT 1""",
            (annotator, adjudicated),
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
    """Return every standing answer in the labels in use, with the slice of its utterance, oldest first.

    `kind` is `out_of_use` where the label has been retired or split; `said_label_id` is the label as it was said.
    """
    return fetch(
        db,
        """SELECT answer.*, utterance.slice FROM answer JOIN utterance ON utterance.id = answer.utterance_id
           WHERE utterance.slice IN ('pool', 'audit') ORDER BY answer.id""",
    )


def answers_to(db: Database, ids: Iterable[int]) -> list[dict[str, Any]]:
    """Return the standing answers to some utterances, oldest first."""
    sql = "SELECT * FROM answer WHERE utterance_id IN (SELECT value FROM json_each(?)) ORDER BY id"
    return fetch(db, sql, (json.dumps(list(ids)),))


def settled_ids(db: Database) -> set[int]:
    """Return the utterances that somebody has settled in a label that is in use."""
    sql = f"""SELECT utterance_id FROM answer
              WHERE strategy = '{ADJUDICATED}' AND kind IN ('label', 'none_fits')"""
    return {row[0] for row in db.execute(sql)}


def differing_ids(db: Database) -> list[int]:
    """Return the utterances of which standing answers say different things, the longest answered first.

    Whoever gave them: whether people differ is for `annotator.rounds.consensus` to say.
    """
    sql = """SELECT utterance_id FROM answer WHERE kind IN ('label', 'none_fits')
             GROUP BY utterance_id HAVING count(DISTINCT coalesce(label_id, 0)) > 1 ORDER BY min(id)"""
    return [row[0] for row in db.execute(sql)]


def annotators(db: Database) -> list[str]:
    """Name everyone who has ever answered."""
    return [row[0] for row in db.execute("SELECT DISTINCT annotator FROM annotation ORDER BY annotator")]


def answered_ids(db: Database) -> set[int]:
    """Return the utterances that need not be asked again: someone labelled them or said that none fits."""
    sql = "SELECT DISTINCT utterance_id FROM answer WHERE kind IN ('label', 'none_fits')"
    return {row[0] for row in db.execute(sql)}


def first_asked(db: Database) -> dict[int, str]:
    """Return why each answered utterance was first answered, its strategy, in the order in which that was."""
    sql = """SELECT utterance_id, strategy, min(id) FROM annotation WHERE kind IN ('label', 'none_fits')
             GROUP BY utterance_id ORDER BY min(id)"""  # beside min(), SQLite takes the others from its row
    return {row[0]: row[1] for row in db.execute(sql)}


def is_answered(db: Database, utterance_id: int) -> bool:
    """Say whether an utterance need not be asked again."""
    sql = "SELECT 1 FROM answer WHERE utterance_id = ? AND kind IN ('label', 'none_fits') LIMIT 1"
    return fetch_value(db, sql, (utterance_id,)) is not None


def answered_since(db: Database, utterance_id: int, annotator: str, since: int) -> dict[str, Any] | None:
    """Return the newest standing answer to an utterance that came after a watermark, None if there is none.

    Of skips only the annotator's own counts: those of others leave the utterance to be asked.
    """
    sql = """SELECT * FROM answer WHERE utterance_id = ? AND id > ?
             AND (kind != 'skip' OR annotator = ?) ORDER BY id DESC LIMIT 1"""
    return fetch_one(db, sql, (utterance_id, since, annotator))


def acted_on_since(db: Database, annotator: str, since: int) -> set[int]:
    """Return the utterances on which an annotator has done anything after a watermark, settling aside."""
    sql = f"""SELECT DISTINCT utterance_id FROM annotation
              WHERE annotator = ? AND id > ? AND strategy != '{ADJUDICATED}'"""
    return {row[0] for row in db.execute(sql, (annotator, since))}


def taken_back(db: Database, annotator: str, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Return what an annotator last said of these utterances, where they have taken it back since, by utterance."""
    sql = f"""SELECT old.*, max(a.id) AS last FROM annotation a LEFT JOIN annotation old ON old.id = a.undoes
              WHERE a.annotator = ? AND a.utterance_id IN (SELECT value FROM json_each(?))
              AND a.strategy != '{ADJUDICATED}' GROUP BY a.utterance_id"""  # beside max(), SQLite takes its row
    return {row["utterance_id"]: row for row in fetch(db, sql, (annotator, json.dumps(list(ids)))) if row["id"]}


def undo_skips(db: Database, annotator: str) -> int:
    """Take back all that an annotator has skipped and nobody has answered; return how many that are."""
    skipped = sorted(skipped_ids(db, annotator) - answered_ids(db))
    sql = """INSERT INTO annotation (utterance_id, annotator, kind, undoes, strategy, round_id, codebook_version, at)
             SELECT utterance_id, annotator, 'undo', id, strategy, round_id, codebook_version, ? FROM answer
             WHERE kind = 'skip' AND annotator = ? AND utterance_id IN (SELECT value FROM json_each(?))"""
    with immediate(db):
        return int(db.execute(sql, (now(), annotator, json.dumps(skipped))).rowcount)


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


def count_acts(db: Database, since: int, at_most: int) -> int:
    """Count the acts after a watermark that may change what is learned, skips aside; stop at `at_most`."""
    sql = "SELECT count(*) FROM (SELECT 1 FROM annotation WHERE id > ? AND kind != 'skip' LIMIT ?)"
    return int(fetch_value(db, sql, (since, at_most)))


def count_new_training_labels(db: Database, since: int) -> int:
    """Count labels given to pool utterances after a watermark and still standing.

    Skips, undone answers and audit answers change nothing in what a round trains on and do not count.
    """
    # CROSS: new answers are few, utterances many; left to choose, SQLite walks through the latter.
    sql = """SELECT count(*) FROM answer CROSS JOIN utterance ON utterance.id = answer.utterance_id
             WHERE answer.kind = 'label' AND utterance.slice = 'pool' AND answer.id > ?"""
    return int(fetch_value(db, sql, (since,)))


def count_by_slice(db: Database) -> dict[tuple[str, int], int]:
    """Count the utterances that have a label, by slice and label in use."""
    sql = f"""SELECT utterance.slice, answer.label_id, count(DISTINCT utterance.id)
             FROM answer CROSS JOIN utterance ON utterance.id = answer.utterance_id
             WHERE answer.kind = 'label' AND {COUNTS} GROUP BY 1, 2"""
    return {(place, label): count for place, label, count in db.execute(sql)}


def acts(db: Database, annotator: str, since: int) -> dict[str, int]:
    """Count by kind what an annotator has done after a watermark, also what he has taken back."""
    sql = "SELECT kind, count(*) FROM annotation WHERE annotator = ? AND id > ? GROUP BY kind"
    return dict(db.execute(sql, (annotator, since)).fetchall())


def times(db: Database, annotator: str, since: datetime) -> list[datetime]:
    """Return when an annotator gave the answers that stand, one by one, since a moment in UTC; oldest first."""
    sql = f"""SELECT at FROM answer WHERE annotator = ? AND at >= ? AND kind IN ('label', 'none_fits')
              AND strategy NOT IN ('given', '{BULK}', '{ADJUDICATED}') ORDER BY id"""
    found = db.execute(sql, (annotator, since.isoformat(timespec="milliseconds")))
    return [datetime.fromisoformat(row[0]) for row in found]


def counts(db: Database, annotator: str | None = None) -> dict[str, int]:
    """Count standing answers by kind, of one annotator or of all."""
    where, parameters = ("WHERE annotator = ?", (annotator,)) if annotator else ("", ())
    found = dict(db.execute(f"SELECT kind, count(*) FROM answer {where} GROUP BY kind", parameters).fetchall())
    return {"label": 0, "skip": 0, "none_fits": 0} | found


def count_labels(db: Database) -> dict[int, int]:
    """Count standing answers by label in use."""
    return dict(db.execute("SELECT label_id, count(*) FROM answer WHERE kind = 'label' GROUP BY label_id").fetchall())


def count_said(db: Database, label_ids: Iterable[int]) -> tuple[int, int, int]:
    """Count the standing answers that were given in these labels, the people who gave them, and the utterances."""
    among = "FROM said WHERE label_id IN (SELECT value FROM json_each(:ids))"
    parameters = {"ids": json.dumps(list(label_ids))}
    counted = db.execute(f"SELECT count(*), count(DISTINCT utterance_id) {among}", parameters).fetchone()
    named = db.execute(f"SELECT DISTINCT annotator {among} AND strategy != '{GIVEN}'", parameters)
    people = {same_person(name) for (name,) in named}
    return int(counted[0]), len(people), int(counted[1])


def to_look_at(db: Database, none_fits_since: int, utterance_id: int | None = None) -> list[dict[str, Any]]:
    """Return the answers that a change of the codebook calls into question, oldest first.

    Those whose label is out of use; those given before their label's meaning changed; and “none fits” before the
    version named. Not where anyone has answered since that change. Of all utterances, or of one.
    """
    return fetch(
        db,
        """WITH doubt AS (
               SELECT answer.*, CASE answer.kind WHEN 'none_fits' THEN ? ELSE label.look_since END AS since
               FROM answer LEFT JOIN label first ON first.id = answer.said_label_id
               LEFT JOIN label ON label.id = first.counts_as
               WHERE answer.kind != 'skip' AND (? IS NULL OR answer.utterance_id = ?))
           SELECT * FROM doubt WHERE (kind = 'out_of_use' OR codebook_version < since)
           AND NOT EXISTS (SELECT 1 FROM answer later WHERE later.utterance_id = doubt.utterance_id
               AND later.kind IN ('label', 'none_fits') AND later.codebook_version >= doubt.since)
           ORDER BY id""",
        (none_fits_since, utterance_id, utterance_id),
    )
