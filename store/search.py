"""Find utterances by conditions on answers and predictions. Conditions on texts are left to the caller."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sqlite_utils import Database

from store import labels
from store.annotations import COUNTS
from store.rounds import Round

State = Literal["any", "open", "answered"]
Disagreement = Literal["", "people", "model"]
NONE_FITS = 0  # represents “none fits” as a label id; no label has this id


@dataclass(frozen=True)
class Conditions:
    """Conditions on an utterance; those left at their default do not apply."""

    state: State = "any"
    label_id: int | None = None  # a standing answer gives this label
    annotator: str = ""  # that answer is by this annotator
    round_id: int | None = None  # that answer was queued by this round
    disagreement: Disagreement = ""  # answers differ from each other, or from the round in use
    likeliest_id: int | None = None  # the suggestion of the round in use
    low: float = 0.0  # lower bound of the suggestion's probability
    high: float = 1.0  # upper bound

    @property
    def uses_predictions(self) -> bool:
        """Whether a condition concerns the round in use."""
        return self.disagreement == "model" or self.likeliest_id is not None or (self.low, self.high) != (0.0, 1.0)


def candidates(db: Database, conditions: Conditions, in_use: Round | None) -> Iterator[tuple[int, str]]:
    """Stream id and text of pool and audit utterances that meet the conditions, in import order.

    `in_use` is the round in use. Conditions on predictions never match unanswered audit utterances, whose answers must
    be blind.
    """
    parts, parameters = (
        ["slice IN ('pool', 'audit')"],
        conditions.__dict__ | {"round": in_use.id if in_use else None},
    )
    parts += _about_answers(conditions)
    if conditions.uses_predictions:
        _define_likeliest(db, in_use)
        parts += _about_model(conditions)
    sql = f"SELECT id, text FROM utterance WHERE {' AND '.join(parts)} ORDER BY id"
    yield from db.execute(sql, parameters)


def _about_answers(conditions: Conditions) -> Iterator[str]:
    answered = "id {} (SELECT utterance_id FROM answer WHERE kind IN ('label', 'none_fits'))"
    if conditions.state != "any":
        yield answered.format("IN" if conditions.state == "answered" else "NOT IN")
    clauses = []
    if conditions.label_id is not None:
        clauses.append("kind = 'none_fits'" if conditions.label_id == NONE_FITS else "label_id = :label_id")
    if conditions.annotator:
        clauses.append("annotator = :annotator")
    if conditions.round_id is not None:
        clauses.append("round_id = :round_id")
    if clauses:
        clauses += [] if conditions.annotator else [COUNTS]
        where = " AND ".join(["kind IN ('label', 'none_fits')", *clauses])
        yield f"id IN (SELECT utterance_id FROM answer WHERE {where})"
    if conditions.disagreement == "people":
        yield """id IN (SELECT utterance_id FROM answer WHERE kind IN ('label', 'none_fits') GROUP BY utterance_id
                 HAVING count(DISTINCT coalesce(label_id, 0)) > 1)"""


def _about_model(conditions: Conditions) -> Iterator[str]:
    yield "(slice = 'pool' OR id IN (SELECT utterance_id FROM answer WHERE kind IN ('label', 'none_fits')))"
    predicted = "SELECT utterance_id FROM prediction WHERE round_id = :round"
    if conditions.likeliest_id is not None:
        yield f"id IN ({predicted} AND likeliest(probabilities) = :likeliest_id)"
    if (conditions.low, conditions.high) != (0.0, 1.0):
        yield f"id IN ({predicted} AND surety(probabilities) BETWEEN :low AND :high)"
    if conditions.disagreement == "model":
        yield f"""id IN (SELECT answer.utterance_id FROM answer JOIN prediction USING (utterance_id)
                  WHERE prediction.round_id = :round AND kind IN ('label', 'none_fits') AND {COUNTS}
                  AND likeliest(probabilities) != coalesce(label_id, 0))"""


def _define_likeliest(db: Database, in_use: Round | None) -> None:
    """Define SQL functions of a round's probabilities: `likeliest`, a label id, and `surety`, its probability."""
    ids, passed = labels.shares(db, in_use.label_ids if in_use else ())

    def read(blob: bytes) -> NDArray[np.float64]:
        return np.asarray(np.frombuffer(blob, dtype="<f4") @ passed)

    db.conn.create_function("likeliest", 1, lambda blob: ids[int(read(blob).argmax())], deterministic=True)
    db.conn.create_function("surety", 1, lambda blob: float(read(blob).max()), deterministic=True)
