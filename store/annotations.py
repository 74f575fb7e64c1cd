"""Record, undo and read annotations. The table is append-only: no annotation is ever changed or deleted."""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from sqlite_utils import Database

from store.database import fetch_value, immediate, now, select
from store.questions import FIRST
from store.utterances import Slice

Kind = Literal["label", "skip", "none_fits", "clear"]
ANSWERED = ("label", "none_fits")  # the kinds that answer the question; a skip does not
GIVEN = "given"  # annotator and strategy of labels imported from a file
ADJUDICATED = "adjudicated"  # the strategy of adjudicating answers, kept in addition to the annotator's own
Withheld = Literal["", "chance", "choice"]  # why a suggestion was hidden: at random, or by preference
BULK = "bulk"  # the strategy of answers given to many utterances at once


@dataclass(frozen=True)
class NewAnnotation:
    """One act of an annotator on an utterance, and why the utterance was shown."""

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
    chosen_after: int | None = None  # the last annotation used, if chosen between two rounds
    question_id: int = FIRST


@dataclass(frozen=True)
class Annotation(NewAnnotation):
    """A stored annotation, as it was given."""

    id: int = 0


@dataclass(frozen=True)
class Answer:
    """A standing annotation, in labels in use."""

    id: int
    utterance_id: int
    question_id: int
    slice: Slice  # of the utterance
    annotator: str
    kind: Literal["label", "skip", "none_fits", "out_of_use"]  # out of use: its label was retired or split
    label_id: int | None
    said_label_id: int | None  # as originally given
    unsure: int  # 1 or 0
    comment: str
    strategy: str
    round_id: int | None
    chosen_after: int | None
    propensity: float | None
    pool_size: int | None
    suggested_label_id: int | None
    suggested_probability: float | None
    withheld: Withheld
    withheld_label_id: int | None
    withheld_probability: float | None
    codebook_version: int
    milliseconds: int | None
    at: str


@dataclass(frozen=True)
class OutdatedAnswer(Answer):
    """An answer to review, because the codebook has changed since."""

    since: int  # the version of the codebook that calls it into question


# An imported label counts only until a person answers; a skip is not an answer.
COUNTS = f"""NOT (answer.strategy = '{GIVEN}' AND EXISTS (
    SELECT 1 FROM answer person WHERE person.utterance_id = answer.utterance_id
    AND person.question_id = answer.question_id AND person.strategy != '{GIVEN}' AND person.kind != 'skip'))"""


@lru_cache(maxsize=10_000)
def same_person(name: str) -> str:
    """Normalize a person's name: ignore outer spaces, case and Unicode form."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def record(db: Database, annotation: NewAnnotation) -> int:
    """Append one annotation, durably, and return its id."""
    with immediate(db):
        return _append(db, asdict(annotation))


def undo(db: Database, annotator: str, adjudicated: bool = False) -> Annotation | None:
    """Undo the annotator's last standing act and return it; None if there is none.

    Adjudications are undone separately, and bulk answers in `store/bulk.py`. Repeated calls go further back, also
    across sessions.
    """
    with immediate(db):
        source = f"""FROM annotation a WHERE annotator = ? AND kind != 'undo'
                     AND strategy NOT IN ('{GIVEN}', '{BULK}') AND (strategy = '{ADJUDICATED}') = ?
                     AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = a.id)
                     ORDER BY id DESC LIMIT 1"""
        last = next(select(db, Annotation, source, (annotator, adjudicated)), None)
        if last:
            kept = ("utterance_id", "question_id", "annotator", "strategy", "round_id", "codebook_version")
            _append(db, {name: getattr(last, name) for name in kept} | {"kind": "undo", "undoes": last.id})
        return last


def _append(db: Database, row: dict[str, Any]) -> int:
    row = {**row, "at": now()}
    columns, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    cursor = db.execute(f"INSERT INTO annotation ({columns}) VALUES ({marks})", row)
    return int(cursor.lastrowid or 0)


def answers(db: Database) -> list[Answer]:
    """Return all standing answers, oldest first."""
    return list(_answers(db, "slice IN ('pool', 'audit') ORDER BY id"))


def answers_to(db: Database, ids: Iterable[int]) -> list[Answer]:
    """Return the standing answers to some utterances, oldest first."""
    which = "utterance_id IN (SELECT value FROM json_each(?)) ORDER BY id"
    return list(_answers(db, which, json.dumps(list(ids))))


def _answers(db: Database, which: str, *parameters: Any) -> Iterator[Answer]:
    slices = "(SELECT id AS utterance_id, slice FROM utterance)"
    return select(db, Answer, f"FROM answer JOIN {slices} USING (utterance_id) WHERE {which}", parameters)


def adjudicated_ids(db: Database) -> set[int]:
    """Return the utterances adjudicated in a label in use."""
    sql = f"""SELECT utterance_id FROM answer
              WHERE strategy = '{ADJUDICATED}' AND kind IN ('label', 'none_fits')"""
    return {row[0] for row in db.execute(sql)}


def differing_ids(db: Database) -> list[int]:
    """Return the utterances with differing standing answers, in the order of their first answer.

    This also includes differing answers of one person; `annotator.rounds.consensus` determines disagreement.
    """
    sql = """SELECT utterance_id FROM answer WHERE kind IN ('label', 'none_fits')
             GROUP BY utterance_id HAVING count(DISTINCT coalesce(label_id, 0)) > 1 ORDER BY min(id)"""
    return [row[0] for row in db.execute(sql)]


def annotators(db: Database) -> list[str]:
    """Return the names of all annotators."""
    return [row[0] for row in db.execute("SELECT DISTINCT annotator FROM annotation ORDER BY annotator")]


def answered_ids(db: Database) -> set[int]:
    """Return the answered utterances: those with a label or “none fits” from anyone."""
    sql = "SELECT utterance_id FROM answer WHERE kind IN ('label', 'none_fits')"
    return {row[0] for row in db.execute(sql)}


def first_asked(db: Database) -> dict[int, str]:
    """Return the strategy of the first answer to each utterance, in the order of these answers."""
    sql = """SELECT utterance_id, strategy, min(id) FROM annotation WHERE kind IN ('label', 'none_fits')
             GROUP BY utterance_id ORDER BY min(id)"""  # with min(), SQLite takes the other columns from the same row
    return {row[0]: row[1] for row in db.execute(sql)}


def is_answered(db: Database, utterance_id: int) -> bool:
    """Return whether an utterance is answered."""
    sql = "SELECT 1 FROM answer WHERE utterance_id = ? AND kind IN ('label', 'none_fits') LIMIT 1"
    return fetch_value(db, sql, (utterance_id,)) is not None


def answered_since(db: Database, utterance_id: int, annotator: str, since: int) -> Answer | None:
    """Return the newest standing answer to an utterance after a watermark; None if there is none.

    Only the annotator's own skips count: the utterance stays open after those of others.
    """
    which = "utterance_id = ? AND id > ? AND (kind != 'skip' OR annotator = ?) ORDER BY id DESC LIMIT 1"
    return next(_answers(db, which, utterance_id, since, annotator), None)


def acted_on_since(db: Database, annotator: str, since: int) -> set[int]:
    """Return the utterances on which an annotator acted after a watermark, except adjudications."""
    sql = f"""SELECT utterance_id FROM annotation
              WHERE annotator = ? AND id > ? AND strategy != '{ADJUDICATED}'"""
    return {row[0] for row in db.execute(sql, (annotator, since))}


def taken_back(db: Database, annotator: str, ids: Iterable[int]) -> dict[int, Annotation]:
    """Return, by utterance, the last answers of an annotator that were undone and not replaced."""
    last = f"""SELECT max(id) FROM annotation WHERE annotator = ? AND strategy != '{ADJUDICATED}'
               AND utterance_id IN (SELECT value FROM json_each(?)) GROUP BY utterance_id"""
    source = f"FROM annotation WHERE id IN (SELECT undoes FROM annotation WHERE id IN ({last}))"
    found = select(db, Annotation, source, (annotator, json.dumps(list(ids))))
    return {one.utterance_id: one for one in found}


def undo_skips(db: Database, annotator: str) -> int:
    """Undo an annotator's skips of utterances that nobody has answered; return their number."""
    skipped = sorted(skipped_ids(db, annotator) - answered_ids(db))
    sql = """INSERT INTO annotation
                 (utterance_id, question_id, annotator, kind, undoes, strategy, round_id, codebook_version, at)
             SELECT utterance_id, question_id, annotator, 'undo', id, strategy, round_id, codebook_version, ?
             FROM answer WHERE kind = 'skip' AND annotator = ? AND utterance_id IN (SELECT value FROM json_each(?))"""
    with immediate(db):
        return int(db.execute(sql, (now(), annotator, json.dumps(skipped))).rowcount)


def skipped_ids(db: Database, annotator: str) -> set[int]:
    """Return the utterances that an annotator has skipped."""
    sql = "SELECT utterance_id FROM answer WHERE kind = 'skip' AND annotator = ?"
    return {row[0] for row in db.execute(sql, (annotator,))}


def count_answered(db: Database) -> int:
    """Count the answered utterances."""
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
    """Count standing labels of pool utterances given after a watermark.

    Skips, undone answers and audit answers do not count, because they do not change the training data.
    """
    # CROSS JOIN fixes the order: new answers are few, and SQLite would otherwise scan all utterances.
    sql = """SELECT count(*) FROM answer CROSS JOIN utterance ON utterance.id = answer.utterance_id
             WHERE answer.kind = 'label' AND utterance.slice = 'pool' AND answer.id > ?"""
    return int(fetch_value(db, sql, (since,)))


def count_by_slice(db: Database) -> dict[tuple[str, int], int]:
    """Count labeled utterances by slice and label in use."""
    sql = f"""SELECT utterance.slice, answer.label_id, count(DISTINCT utterance.id)
             FROM answer CROSS JOIN utterance ON utterance.id = answer.utterance_id
             WHERE answer.kind = 'label' AND {COUNTS} GROUP BY 1, 2"""
    return {(place, label): count for place, label, count in db.execute(sql)}


def acts(db: Database, annotator: str, since: int) -> dict[str, int]:
    """Count an annotator's acts after a watermark by kind, including undone ones."""
    sql = "SELECT kind, count(*) FROM annotation WHERE annotator = ? AND id > ? GROUP BY kind"
    return dict(db.execute(sql, (annotator, since)).fetchall())


def times(db: Database, annotator: str, since: datetime) -> list[datetime]:
    """Return the times of an annotator's standing answers since a moment in UTC, except bulk answers, oldest first."""
    sql = f"""SELECT at FROM answer WHERE annotator = ? AND at >= ? AND kind IN ('label', 'none_fits')
              AND strategy NOT IN ('given', '{BULK}', '{ADJUDICATED}') ORDER BY id"""
    found = db.execute(sql, (annotator, since.isoformat(timespec="milliseconds")))
    return [datetime.fromisoformat(row[0]) for row in found]


def counts(db: Database, annotator: str | None = None) -> dict[str, int]:
    """Count standing answers by kind, for one annotator or all."""
    where, parameters = ("WHERE annotator = ?", (annotator,)) if annotator else ("", ())
    found = dict(db.execute(f"SELECT kind, count(*) FROM answer {where} GROUP BY kind", parameters).fetchall())
    return {"label": 0, "skip": 0, "none_fits": 0} | found


def count_labels(db: Database) -> dict[int, int]:
    """Count standing answers by label in use."""
    return dict(db.execute("SELECT label_id, count(*) FROM answer WHERE kind = 'label' GROUP BY label_id").fetchall())


def count_given(db: Database, label_ids: Iterable[int]) -> tuple[int, int, int]:
    """Count the standing answers originally given in these labels, their annotators, and their utterances."""
    among = "FROM said WHERE label_id IN (SELECT value FROM json_each(:ids))"
    parameters = {"ids": json.dumps(list(label_ids))}
    counted = db.execute(f"SELECT count(*), count(DISTINCT utterance_id) {among}", parameters).fetchone()
    named = db.execute(f"SELECT DISTINCT annotator {among} AND strategy != '{GIVEN}'", parameters)
    people = {same_person(name) for (name,) in named}
    return int(counted[0]), len(people), int(counted[1])


def to_look_at(db: Database, none_fits_since: int, utterance_id: int | None = None) -> list[OutdatedAnswer]:
    """Return the answers to review after changes of the codebook, oldest first, for all utterances or one.

    These are answers whose label is out of use, those given before their label's definition changed, and “none fits”
    before the given version; but not if anyone has answered since the change.
    """
    given = """SELECT answer.*, slice, CASE answer.kind WHEN 'none_fits' THEN ? ELSE label.look_since END AS since
               FROM answer JOIN utterance ON utterance.id = answer.utterance_id
               LEFT JOIN label first ON first.id = answer.said_label_id
               LEFT JOIN label ON label.id = first.counts_as
               WHERE answer.kind != 'skip' AND (? IS NULL OR answer.utterance_id = ?)"""
    source = f"""FROM ({given}) given WHERE (kind = 'out_of_use' OR codebook_version < since)
                 AND NOT EXISTS (SELECT 1 FROM answer later WHERE later.utterance_id = given.utterance_id
                     AND later.kind IN ('label', 'none_fits') AND later.codebook_version >= given.since)
                 ORDER BY id"""
    return list(select(db, OutdatedAnswer, source, (none_fits_since, utterance_id, utterance_id)))
