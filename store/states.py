"""Store hidden states of the untrained backbone: one vector for each utterance, computed once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlite_utils import Database

from annotator.errors import NotFinite
from store import settings
from store.database import chunks, immediate

_MOST = float(np.finfo("<f2").max)
_READING = "reading"  # the setting with the current reading


def use(db: Database, reading: str) -> bool:
    """Set the current reading; states of others are ignored. Return whether it replaced another reading."""
    before = settings.get(db, _READING, "")
    if before == reading:
        return False
    settings.put(db, _READING, reading)
    return bool(before)


def save(db: Database, ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
    """Store (n, width) states of the current reading, clipped to half precision.

    Raises NotFinite.
    """
    if not np.isfinite(vectors).all():
        raise NotFinite("Some hidden states are infinite or undefined, so none was stored.", "Choose another backbone.")
    reading = settings.get(db, _READING, "")
    halves = np.clip(vectors, -_MOST, _MOST).astype("<f2")
    rows = [(i, reading, half.tobytes()) for i, half in zip(ids, halves, strict=True)]
    with immediate(db):
        db.conn.executemany("INSERT OR REPLACE INTO state (utterance_id, reading, vector) VALUES (?, ?, ?)", rows)


def known(db: Database, ids: Sequence[int]) -> set[int]:
    """Return the utterances that have a state."""
    return {row[0] for chunk in chunks(ids) for row in _select(db, "utterance_id", chunk)}


def matrix(db: Database, ids: Sequence[int]) -> NDArray[np.float32]:
    """Return (n, width) states in the order of `ids`, (0, 0) for none. Raises KeyError if a state is missing."""
    if not len(ids):
        return np.empty((0, 0), dtype=np.float32)
    blobs = {row[0]: row[1] for chunk in chunks(ids) for row in _select(db, "utterance_id, vector", chunk)}
    joined = b"".join(blobs[i] for i in ids)
    return np.frombuffer(joined, dtype="<f2").reshape(len(ids), -1).astype(np.float32).clip(-_MOST, _MOST)


def _select(db: Database, columns: str, ids: Sequence[int]) -> list[tuple[int, bytes]]:
    marks = ",".join("?" * len(ids))
    sql = f"SELECT {columns} FROM state WHERE reading = ? AND utterance_id IN ({marks})"
    found: list[tuple[int, bytes]] = db.execute(sql, [settings.get(db, _READING, ""), *ids]).fetchall()
    return found
