"""Store bulk answers: the same answer to many utterances, given and undone together, in append-only rows."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlite_utils import Database

from store.annotations import Kind, NewAnnotation
from store.database import fetch_value, immediate, now, select


@dataclass(frozen=True)
class BulkAct:
    """A bulk answer to many utterances."""

    id: int
    at: str
    search: str  # the search that found them, as JSON
    kind: Kind
    label_id: int | None
    size: int
    undone: int  # 1 or 0


def answer_all(db: Database, search: str, answer: NewAnnotation, ids: Sequence[int]) -> int:
    """Give `answer` to all these utterances, in one transaction; return the id of the act.

    `search` is the search that found them, as JSON. The database rejects audit utterances.
    """
    with immediate(db):
        sql = "INSERT INTO bulk (annotator, search, at) VALUES (?, ?, ?)"
        act = int(db.execute(sql, (answer.annotator, search, now())).lastrowid or 0)
        row = {**asdict(answer), "bulk_id": act, "at": now()}
        del row["utterance_id"]
        columns, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
        sql = f"INSERT INTO annotation (utterance_id, {columns}) SELECT value, {marks} FROM json_each(:ids)"
        db.execute(sql, {**row, "ids": json.dumps(list(ids))})
    return act


def size(db: Database, act: int) -> int:
    """Count the answers of an act."""
    return int(fetch_value(db, "SELECT count(*) FROM annotation WHERE bulk_id = ?", (act,)))


def take_back(db: Database, act: int, annotator: str) -> int:
    """Undo a whole act of this annotator and return the number of undone answers; earlier answers stand again."""
    sql = """INSERT INTO annotation (utterance_id, question_id, annotator, kind, undoes, strategy, codebook_version, at)
             SELECT utterance_id, question_id, annotator, 'undo', id, strategy, codebook_version, ? FROM annotation a
             WHERE bulk_id = ? AND annotator = ? AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = a.id)"""
    with immediate(db):
        return int(db.execute(sql, (now(), act, annotator)).rowcount)


def history(db: Database, annotator: str) -> list[BulkAct]:
    """Return an annotator's acts, newest first."""
    acts = """SELECT bulk.id, bulk.at, bulk.search, a.kind, a.label_id, count(*) AS size, count(u.id) > 0 AS undone
              FROM bulk JOIN annotation a ON a.bulk_id = bulk.id LEFT JOIN annotation u ON u.undoes = a.id
              WHERE bulk.annotator = ? GROUP BY bulk.id"""
    return list(select(db, BulkAct, f"FROM ({acts}) ORDER BY id DESC", (annotator,)))
