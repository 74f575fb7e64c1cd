"""Begin, save and promote a round, roll back to an older one, and clean up after a round that died."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from annotator.config import RoundConfig
from annotator.methods.calibration import Calibrator
from annotator.methods.metrics import Metrics
from annotator.project import Project
from annotator.rounds.queueing import refill_queue
from annotator.rounds.snapshot import Snapshot
from model.backbones.machine import peak_memory
from model.description import record_number
from model.types import Adapter, Extent, Origin
from store import jobs, queue, rounds
from store.database import immediate, why_frozen
from store.queue import QueueEntry
from store.rounds import NewRound, Predictions, Round


@dataclass(frozen=True)
class Finished:
    """The results of a round, to be stored when it is promoted."""

    adapter: str  # name of its folder
    calibrator: Calibrator
    metrics: Metrics | None  # None with fewer than two audit answers
    extent: Extent
    predictions: Predictions
    batch: Sequence[QueueEntry]


def calibrator_in_use(project: Project) -> Calibrator | None:
    """Return the calibrator of the round in use, None before the first."""
    row = rounds.promoted(project.db)
    return Calibrator.from_dict(row.calibration) if row else None


def begin_round(project: Project, config: RoundConfig, snapshot: Snapshot, origin: Origin | None = None) -> Round:
    """Create the row of a round, which is later either promoted in one transaction or closed as failed.

    `origin`: the weights of the backbone.
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
        jobs.attach_round(project.db, row.id, snapshot.last_annotation)
    return row


def unfinished_path(project: Project) -> Path:
    """Return the file with the state of an unfinished training run, from which it resumes after a stop."""
    return project.adapters / "unfinished-whole.pt"


def save_adapter(project: Project, row: Round, adapter: Adapter) -> str:
    """Write an adapter into the project atomically; return the name of its folder."""
    name = _adapter_name(row.number)
    temporary = project.adapters / f"tmp-{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    adapter.save(temporary)
    record_number(temporary, row.number)
    for path in temporary.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    final = project.adapters / name
    shutil.rmtree(final, ignore_errors=True)  # left by a round that died after this step
    os.replace(temporary, final)
    return name


def drop_adapter(project: Project, name: str) -> None:
    """Delete the adapter of a round that will not be promoted."""
    shutil.rmtree(project.adapters / name, ignore_errors=True)


def promote(project: Project, row: Round, finished: Finished) -> None:
    """Put a finished round in use: store its predictions, metrics and batch in one transaction.

    Also stores the peak memory of this process.
    """
    measured = asdict(finished.metrics) if finished.metrics else {"n": row.audited_on}
    metrics = measured | asdict(finished.extent)
    with immediate(project.db):
        rounds.save_predictions(project.db, row.id, finished.predictions)
        rounds.promote(project.db, row.id, finished.adapter, finished.calibrator.as_dict(), metrics, peak_memory())
        queue.replace(project.db, row.id, finished.batch)


def roll_back(project: Project, round_id: int, annotator: str) -> None:
    """Put an older round in use again, with a new batch, until the next one is promoted."""
    with immediate(project.db):
        rounds.roll_back(project.db, round_id, annotator)
        refill_queue(project, annotator)


def recover(project: Project) -> bool:
    """Close the round of a process that died and delete its adapter; return whether there was one.

    Adapters are looked for on each call, because `jobs.begin` also closes rounds and does not delete folders. An
    adapter that belongs to no round of this database is kept: the database may have been restored from a backup.
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
