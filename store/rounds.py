"""Store rounds and their predictions. A round is promoted in one transaction."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from sqlite3 import OperationalError
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlite_utils import Database

from annotator.errors import NotFinite
from store import labels
from store.database import fetch_one, fetch_value, immediate, now, select
from store.faults import parsed
from store.processes import find_process, this_process
from store.questions import FIRST

State = Literal["running", "promoted", "failed", "cancelled", "interrupted"]
LONGEST = timedelta(days=1)  # that a round may take whose process was not noted


@dataclass(frozen=True)
class NewRound:
    """The inputs of a round."""

    config: str  # JSON
    backbone: str
    codebook_version: int
    label_ids: str  # JSON list, the order of every array of this round
    last_annotation: int
    snapshot_hash: str
    trained_on: int
    audited_on: int
    fingerprint: str | None = None  # of the backbone's weights
    revision: str | None = None  # the commit of the backbone on the hub


@dataclass(frozen=True)
class Round:
    """A stored round. Its JSON is parsed on access, so that damage to it stops only what uses it (ProjectDamaged)."""

    id: int
    number: int
    state: State
    config: str  # JSON
    backbone: str
    codebook_version: int
    last_annotation: int
    trained_on: int
    audited_on: int
    folder: str  # of its adapter; empty until it is promoted
    peak_memory: int | None  # bytes; None in rounds of earlier versions, as is the fingerprint
    fingerprint: str | None  # of the backbone's weights
    revision: str | None  # the commit of the backbone on the hub
    fingerprint_noted: str | None  # when the weights of an earlier version's round were recorded
    started_at: str
    finished_at: str | None
    label_ids_json: str
    calibration_json: str | None
    metrics_json: str | None

    @property
    def label_ids(self) -> tuple[int, ...]:
        """Its labels, in the order of its arrays."""
        return tuple(parsed(self.label_ids_json, "the labels of a round"))

    @property
    def calibration(self) -> Mapping[str, Any]:
        """Its calibrator as stored; empty until it is promoted."""
        return dict(parsed(self.calibration_json or "{}", "the calibration of a round"))

    @property
    def metrics(self) -> Mapping[str, object]:
        """Its metrics as stored; empty until it is promoted."""
        return dict(parsed(self.metrics_json or "{}", "the metrics of a round"))


@dataclass(frozen=True)
class Predictions:
    """Predictions of a round: rows are utterances, columns its labels."""

    utterance_ids: NDArray[np.int64]  # (n,)
    probabilities: NDArray[np.float64]  # (n, k), calibrated, rows sum to one
    logits: NDArray[np.float64]  # (n, k), log-likelihoods before calibration
    label_ids: tuple[int, ...]  # (k,)
    unknown: frozenset[int] = frozenset()  # labels added after the round; their columns are zero

    @property
    def mass(self) -> NDArray[np.float64]:
        """(n,) natural log of the total probability of all labels."""
        return np.asarray(np.logaddexp.reduce(self.logits, axis=1))


def begin(db: Database, new: NewRound) -> Round:
    """Insert a running round with the next number: 1, 2, …; or 0 for a first round without training data."""
    with immediate(db):
        last = fetch_value(db, "SELECT max(number) FROM round")
        number = (0 if new.trained_on == 0 else 1) if last is None else last + 1
        pid, pid_started = this_process()
        made_by = {"pid": pid, "pid_started": pid_started}
        row = {**asdict(new), **made_by, "number": number, "state": "running", "started_at": now()}
        columns, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
        db.execute(f"INSERT INTO round ({columns}) VALUES ({marks})", row)
        (created,) = _read(db, "WHERE number = ?", number)
        return created


def _read(db: Database, which: str, *parameters: int) -> list[Round]:
    return list(select(db, Round, f"FROM (SELECT *, coalesce(adapter, '') AS folder FROM round) {which}", parameters))


def note_weights(db: Database, round_id: int, fingerprint: str, revision: str) -> None:
    """Store the weights of a round of an earlier version that did not record them, if the project can be written."""
    sql = """UPDATE round SET fingerprint = ?, revision = ?, fingerprint_noted = ?
             WHERE id = ? AND fingerprint IS NULL"""
    with suppress(OperationalError), immediate(db):
        db.execute(sql, (fingerprint, revision or None, now(), round_id))


def revision_of(db: Database, backbone: str) -> str:
    """Return the commit of a backbone in the last round that used it; empty if local or never used."""
    sql = "SELECT revision FROM round WHERE backbone = ? AND revision IS NOT NULL ORDER BY id DESC LIMIT 1"
    return str(fetch_value(db, sql, (backbone,)) or "")


def with_other_weights(db: Database, one: Round) -> int | None:
    """Return the number of the previous finished round if it used other weights of the same name, otherwise None."""
    sql = """SELECT number, fingerprint FROM round WHERE state = 'promoted' AND backbone = ? AND number < ?
             ORDER BY number DESC LIMIT 1"""
    before = fetch_one(db, sql, (one.backbone, one.number))
    comparable = before is not None and before["fingerprint"] and one.fingerprint
    return int(before["number"]) if before and comparable and before["fingerprint"] != one.fingerprint else None


def close(db: Database, round_id: int, state: State) -> None:
    """End a running round that will not be promoted: failed, canceled or interrupted."""
    with immediate(db):
        db.execute(
            "UPDATE round SET state = ?, finished_at = ? WHERE id = ? AND state = 'running'", (state, now(), round_id)
        )


def abandoned(db: Database) -> list[int]:
    """Return the ids of running rounds whose process has ended and that no job under way makes.

    Of a round without a noted process, begun by an earlier version, its age decides.
    """
    sql = """SELECT id, pid, pid_started, started_at FROM round WHERE state = 'running'
             AND id NOT IN (SELECT round_id FROM job WHERE state = 'active' AND round_id IS NOT NULL)"""
    return [round_id for round_id, *made_by in db.execute(sql).fetchall() if not _is_made(*made_by)]


def _is_made(pid: int | None, pid_started: float, started_at: str) -> bool:
    if pid is None:
        return abs(datetime.now(UTC) - datetime.fromisoformat(started_at)) < LONGEST
    return find_process(pid, pid_started) is not None


def promote(
    db: Database, round_id: int, adapter: str, calibration: Any, metrics: Any, peak_memory: int | None = None
) -> None:
    """Promote a running round to the one in use; `peak_memory` is in bytes.

    Call inside the transaction that stores its predictions and batch.
    """
    changed = db.execute(
        """UPDATE round SET state = 'promoted', adapter = ?, calibration = ?, metrics = ?, peak_memory = ?,
           finished_at = ? WHERE id = ? AND state = 'running'""",
        (adapter, _finite_json(calibration), _finite_json(metrics), peak_memory, now(), round_id),
    )
    if changed.rowcount != 1:
        raise ValueError(f"round {round_id} is not running")


def _finite_json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise NotFinite(
            "Some metrics are infinite or undefined, so the round was not promoted.", "The previous round stays in use."
        ) from error


_NEWEST = "(SELECT id FROM round WHERE state = 'promoted' ORDER BY number DESC LIMIT 1)"


_IN_USE = f"coalesce((SELECT to_round FROM roll_back WHERE from_round = {_NEWEST} ORDER BY id DESC LIMIT 1), {_NEWEST})"


def promoted(db: Database) -> Round | None:
    """Return the round in use, the newest or the one rolled back to; None before the first."""
    return next(iter(_read(db, f"WHERE id = {_IN_USE}")), None)


def promoted_id(db: Database) -> int | None:
    """Return the id of the round in use; None before the first."""
    value = fetch_value(db, f"SELECT {_IN_USE}")
    return None if value is None else int(value)


def watermark(db: Database) -> int | None:
    """Return the newest annotation that the round in use has taken into account; None before the first round."""
    value = fetch_value(db, f"SELECT last_annotation FROM round WHERE id = {_IN_USE}")
    return None if value is None else int(value)


def has_learned(db: Database, since: int) -> bool:
    """Return whether a finished round was trained on answers and includes one after a watermark."""
    sql = "SELECT 1 FROM round WHERE state = 'promoted' AND trained_on > 0 AND last_annotation > ? LIMIT 1"
    return fetch_value(db, sql, (since,)) is not None


def roll_back(db: Database, round_id: int, annotator: str) -> None:
    """Roll back to an older round, or forward to the newest, until another is promoted.

    Raises ValueError for a round that was never in use.
    """
    with immediate(db):
        if fetch_value(db, "SELECT state FROM round WHERE id = ?", (round_id,)) != "promoted":
            raise ValueError(f"round {round_id} was never in use")
        sql = f"INSERT INTO roll_back (from_round, to_round, annotator, at) VALUES ({_NEWEST}, ?, ?, ?)"
        db.execute(sql, (round_id, annotator, now()))


def history(db: Database) -> list[Round]:
    """Return all rounds, newest first."""
    return _read(db, "ORDER BY number DESC")


def numbers_never_promoted(db: Database) -> list[int]:
    """Return the numbers of rounds that ended without ever being in use."""
    sql = "SELECT number FROM round WHERE state NOT IN ('running', 'promoted') AND adapter IS NULL"
    return [row[0] for row in db.execute(sql).fetchall()]


def finished(db: Database) -> list[Round]:
    """Return the promoted rounds, newest first."""
    return _read(db, "WHERE state = 'promoted' ORDER BY number DESC")


def save_predictions(db: Database, round_id: int, predictions: Predictions) -> None:
    """Store one row for each utterance, with float32 blobs. Raises NotFinite."""
    with np.errstate(over="ignore"):  # overflow of float32 is detected below
        stored = [np.asarray(array).astype("<f4") for array in (predictions.probabilities, predictions.logits)]
    if not all(np.isfinite(array).all() for array in stored):
        raise NotFinite(
            "Some predictions are infinite or undefined, so none was stored.", "The previous round stays in use."
        )
    sql = f"""INSERT INTO prediction (round_id, question_id, utterance_id, probabilities, logits, mass)
              VALUES (?, {FIRST}, ?, ?, ?, ?)"""
    with immediate(db):
        db.conn.executemany(sql, _prediction_rows(round_id, predictions))


def _prediction_rows(round_id: int, predictions: Predictions) -> Iterator[tuple[Any, ...]]:
    columns = predictions.utterance_ids, predictions.probabilities, predictions.logits, predictions.mass
    for utterance, probabilities, logits, mass in zip(*columns, strict=True):
        blobs = probabilities.astype("<f4").tobytes(), logits.astype("<f4").tobytes()
        yield round_id, int(utterance), *blobs, float(mass)


def predictions_of(db: Database, one: Round, only: Sequence[int] | None = None) -> Predictions:
    """Return a round's predictions for all or some utterances, in order of utterance id.

    They are translated to the labels in use now.
    """
    where, parameters = "", [one.id]
    if only is not None:
        where = f"AND utterance_id IN ({','.join('?' * len(only))})"
        parameters += only
    sql = f"""SELECT utterance_id, probabilities, logits FROM prediction
              WHERE round_id = ? AND question_id = {FIRST} {where} ORDER BY utterance_id"""
    rows = db.execute(sql, parameters).fetchall()
    label_ids = one.label_ids
    shape = (len(rows), len(label_ids))
    made = Predictions(
        np.array([row[0] for row in rows], dtype=np.int64),
        _matrix((row[1] for row in rows), shape),
        _matrix((row[2] for row in rows), shape),
        label_ids,
    )
    return in_codebook(db, made)


def in_codebook(db: Database, made: Predictions) -> Predictions:
    """Translate predictions to the labels in use; probabilities of merged labels are added."""
    used, passed = labels.shares(db, made.label_ids)
    if used == made.label_ids and np.array_equal(passed, np.eye(len(used))):
        return made
    logits = np.full((len(made.logits), len(used)), -np.inf)  # -inf for labels added after the round
    for column, share in enumerate(passed.T):
        sources = share > 0
        logits[:, column] = np.logaddexp.reduce(made.logits[:, sources] + np.log(share[sources]), axis=1)
    unknown = frozenset(np.array(used)[~passed.any(axis=0)].tolist())
    return replace(made, probabilities=made.probabilities @ passed, logits=logits, label_ids=used, unknown=unknown)


def is_current(db: Database, one: Round) -> bool:
    """Return whether a round covers exactly the labels in use, counting merged labels as the one they count as."""
    covered = set(one.label_ids)
    known = labels.every(db)
    used = {label.id for label in known if label.in_use and not label.is_group}
    return {label.counts_as for label in known if label.id in covered} == used


def _matrix(blobs: Iterable[bytes], shape: tuple[int, int]) -> NDArray[np.float64]:
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(shape).astype(np.float64)
