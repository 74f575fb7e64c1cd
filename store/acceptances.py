"""Store acceptances: auto-accepted suggestions of a round, until a person or spot checks end them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from sqlite_utils import Database

from annotator.errors import Message
from store.database import fetch_value, immediate, now, select

Ended = Literal["undone", "withdrawn"]
SPOT_CHECK = "spot_check"  # the strategy of questions drawn from accepted utterances


@dataclass(frozen=True)
class NewAcceptance:
    """The round, annotator and guarantee (JSON) of a new acceptance."""

    round_id: int
    annotator: str
    target: float
    confidence: float
    guarantee: str
    codebook_version: int


@dataclass(frozen=True)
class Acceptance:
    """An act of accepting suggestions, how it ended if it did, and the results of its spot checks."""

    id: int
    round_number: int
    annotator: str
    target: float  # precision
    confidence: float
    at: str
    size: int  # utterances
    checks: int  # answers to spot checks
    errors: int  # those that differ from the accepted label
    ended: Ended | None  # None while it is in effect
    reason_json: str | None

    @property
    def reason(self) -> Message:
        """Why it ended; empty while it is in effect."""
        return Message.load(self.reason_json or "")


@dataclass(frozen=True)
class Accepted:
    """An accepted suggestion that has not ended."""

    acceptance_id: int
    utterance_id: int
    label_id: int  # in use now
    said_label_id: int  # it was accepted with
    probability: float
    round_id: int
    annotator: str
    target: float  # precision
    confidence: float
    codebook_version: int
    at: str


def accept(db: Database, new: NewAcceptance, labels: Mapping[int, tuple[int, float]]) -> int:
    """Store an acceptance and return its id. `labels` maps utterance ids to label ids and probabilities.

    Raises ValueError if an utterance is accepted already or has been answered by a person.
    """
    with immediate(db):
        labeled = standing_ids(db) | {
            row[0] for row in db.execute("SELECT utterance_id FROM answer WHERE kind IN ('label', 'none_fits')")
        }
        if clash := labeled & set(labels):
            raise ValueError(f"{len(clash)} of these utterances have a label already")
        row = {**asdict(new), "at": now()}
        columns, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
        acceptance_id = int(db.execute(f"INSERT INTO acceptance ({columns}) VALUES ({marks})", row).lastrowid or 0)
        rows = ((acceptance_id, utterance, label, probability) for utterance, (label, probability) in labels.items())
        db.conn.executemany("INSERT INTO accepted VALUES (?, ?, ?, ?)", rows)
    return acceptance_id


def end(db: Database, acceptance_id: int, kind: Ended, reason: str) -> bool:
    """End an acceptance as a whole; return False if it had ended before."""
    sql = "INSERT OR IGNORE INTO acceptance_end (acceptance_id, kind, reason, at) VALUES (?, ?, ?, ?)"
    with immediate(db):
        return bool(db.execute(sql, (acceptance_id, kind, Message.of(reason).dump(), now())).rowcount == 1)


# The results of spot checks. “None fits” differs from any label; if people disagree, each answer counts. Labels that
# are no longer in use are left out.
_CHECKS = f"""SELECT act.id AS acceptance_id, count(*) AS checks, sum(answer.label_id IS NOT label.id) AS errors
    FROM acceptance act JOIN accepted ON accepted.acceptance_id = act.id
    JOIN answer ON answer.utterance_id = accepted.utterance_id
    JOIN label first ON first.id = accepted.label_id
    JOIN label ON label.id = first.counts_as AND label.retired_at IS NULL
    WHERE answer.strategy = '{SPOT_CHECK}' AND answer.kind IN ('label', 'none_fits') AND answer.at >= act.at
    GROUP BY act.id"""


def history(db: Database) -> list[Acceptance]:
    """Return all acceptances, newest first."""
    acts = f"""SELECT acceptance.*, round.number AS round_number, e.kind AS ended, e.reason AS reason,
        (SELECT count(*) FROM accepted WHERE acceptance_id = acceptance.id) AS size,
        coalesce(c.checks, 0) AS checks, coalesce(c.errors, 0) AS errors
        FROM acceptance JOIN round ON round.id = acceptance.round_id
        LEFT JOIN acceptance_end e ON e.acceptance_id = acceptance.id
        LEFT JOIN ({_CHECKS}) c ON c.acceptance_id = acceptance.id"""
    return list(select(db, Acceptance, f"FROM ({acts}) ORDER BY id DESC"))


_UNANSWERED = """NOT EXISTS (SELECT 1 FROM answer
    WHERE answer.utterance_id = standing.utterance_id AND answer.kind IN ('label', 'none_fits'))"""


def standing(db: Database) -> list[Accepted]:
    """Return accepted suggestions that have not ended and that no person has answered since."""
    return list(select(db, Accepted, f"FROM standing WHERE {_UNANSWERED}"))


def standing_ids(db: Database) -> set[int]:
    """Return the utterances with an accepted suggestion that has not ended, answered since or not."""
    return {row[0] for row in db.execute("SELECT utterance_id FROM standing")}


def count_standing(db: Database) -> int:
    """Count accepted suggestions that have not ended and that no person has answered."""
    return int(fetch_value(db, f"SELECT count(*) FROM standing WHERE {_UNANSWERED}"))


def count_given(db: Database, label_ids: Iterable[int]) -> int:
    """Count utterances with an accepted suggestion of one of these labels that has not ended."""
    sql = """SELECT count(DISTINCT utterance_id) FROM accepted WHERE label_id IN (SELECT value FROM json_each(?))
             AND NOT EXISTS (SELECT 1 FROM acceptance_end e WHERE e.acceptance_id = accepted.acceptance_id)"""
    return int(fetch_value(db, sql, (json.dumps(list(label_ids)),)))
