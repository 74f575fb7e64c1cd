"""Guesses: which part of a split label an utterance looks like to the untrained model. They only sort a worklist."""

import json
from collections.abc import Iterable, Mapping

from sqlite_utils import Database

from store.database import immediate


def save(db: Database, version: int, guesses: Mapping[int, tuple[int, float]]) -> None:
    """Store utterance -> label and probability, for the version of the codebook that split the label."""
    rows = [(version, utterance, label, probability) for utterance, (label, probability) in guesses.items()]
    with immediate(db):
        db.conn.executemany("INSERT OR REPLACE INTO guess VALUES (?, ?, ?, ?)", rows)


def latest(db: Database, utterance_ids: Iterable[int]) -> dict[int, tuple[int, float]]:
    """Return the newest guess of each of some utterances, where its label is in use; some have none."""
    sql = """SELECT guess.utterance_id, label.id, guess.probability FROM guess
             JOIN label first ON first.id = guess.label_id
             JOIN label ON label.id = first.counts_as AND label.retired_at IS NULL
             WHERE guess.utterance_id IN (SELECT value FROM json_each(?)) ORDER BY guess.version"""
    rows = db.execute(sql, (json.dumps(list(utterance_ids)),))
    return {utterance: (label, probability) for utterance, label, probability in rows}
