"""A round from its first row to its promotion, and what is tidied up when one dies."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotator.config import RoundConfig
from annotator.methods.calibration import Calibrator
from annotator.project import Project
from annotator.rounds.queueing import refill_queue
from annotator.rounds.snapshot import Snapshot
from model.backbones.machine import peak_memory
from model.types import Adapter, Origin
from store import jobs, queue, rounds
from store.database import immediate, why_frozen
from store.faults import CALIBRATION, parsed
from store.queue import QueueEntry
from store.rounds import NewRound, Predictions


@dataclass(frozen=True)
class Finished:
    """Everything a finished round leaves in the project."""

    adapter: str  # name of its folder
    calibrator: Calibrator
    metrics: Mapping[str, Any]
    predictions: Predictions
    batch: Sequence[QueueEntry]


def calibrator_in_use(project: Project) -> Calibrator | None:
    """Return the calibrator of the round in use, None before the first."""
    row = rounds.promoted(project.db)
    return Calibrator.from_dict(parsed(row["calibration"], CALIBRATION)) if row else None


def begin_round(
    project: Project, config: RoundConfig, snapshot: Snapshot, origin: Origin | None = None
) -> dict[str, Any]:
    """Open a round's row; from here on it is either promoted whole or closed as failed.

    `origin`: the weights it is made with.
    """
    new = NewRound(
        config=config.to_json(),
        backbone=config.backbone,
        codebook_version=snapshot.codebook.version,
        label_ids=json.dumps(snapshot.codebook.ids),
        last_annotation=snapshot.last_annotation,
        snapshot_hash=snapshot.digest,
        trained_on=len(snapshot.training_examples),
        audited_on=len(snapshot.audit),
        fingerprint=(origin and origin.fingerprint) or None,
        revision=(origin and origin.revision) or None,
    )
    with immediate(project.db):
        row = rounds.begin(project.db, new)
        jobs.attach_round(project.db, row["id"], snapshot.last_annotation)
    return row


def unfinished_path(project: Project, part: str) -> Path:
    """Return where a part of the training keeps its state until it ends, to resume after a stop."""
    return project.adapters / f"unfinished-{part}.pt"


def save_adapter(project: Project, round_row: Mapping[str, Any], adapter: Adapter) -> str:
    """Write an adapter into the project, whole or not at all; return its folder's name."""
    name = _adapter_name(round_row["number"])
    half = project.adapters / f"tmp-{name}"
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    adapter.save(half)
    for path in half.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    whole = project.adapters / name
    shutil.rmtree(whole, ignore_errors=True)  # left by a round that died after this step
    os.replace(half, whole)
    return name


def drop_adapter(project: Project, name: str) -> None:
    """Remove the adapter of a round that is not to be promoted."""
    shutil.rmtree(project.adapters / name, ignore_errors=True)


def promote(project: Project, round_row: Mapping[str, Any], finished: Finished) -> None:
    """Put a finished round in use: predictions, metrics and the new batch in one transaction.

    Records the peak memory of this process, which made the round.
    """
    with immediate(project.db):
        rounds.save_predictions(project.db, round_row["id"], finished.predictions)
        found = (finished.adapter, finished.calibrator.as_dict(), finished.metrics, peak_memory())
        rounds.promote(project.db, round_row["id"], *found)
        queue.replace(project.db, round_row["id"], finished.batch)


def roll_back(project: Project, round_id: int, annotator: str) -> None:
    """Put an older round in use again, with a new batch, until the next one is promoted."""
    with immediate(project.db):
        rounds.roll_back(project.db, round_id, annotator)
        refill_queue(project, annotator)


def recover(project: Project) -> bool:
    """Tidy up after a process that died: close its round and delete its adapter, half-written or whole.

    Adapters are looked for each time: `jobs.begin` closes a dead process's round too, and knows no folders. An adapter
    that no round of this database has left stays: the database may have been restored from a backup.
    """
    if why_frozen(project.db):
        return False
    found = jobs.recover(project.db)
    if rounds.abandoned(project.db):
        with immediate(project.db):
            for round_id in rounds.abandoned(project.db):
                rounds.close(project.db, round_id, "interrupted")
        found = True
    if _left_behind(project):  # every page looks: without anything to do it waits for no writer
        with immediate(project.db):  # so that no job begins to write one in the meantime
            for path in _left_behind(project):
                shutil.rmtree(path, ignore_errors=True)
    return found


def _left_behind(project: Project) -> list[Path]:
    left = (project.adapters / _adapter_name(number) for number in rounds.numbers_never_promoted(project.db))
    return [] if jobs.active(project.db) else [*project.adapters.glob("tmp-*"), *filter(Path.is_dir, left)]


def _adapter_name(number: int) -> str:
    return f"round-{number:04d}"
