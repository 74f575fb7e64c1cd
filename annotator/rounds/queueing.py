"""Compose batches between rounds and on request, and write them to the queue."""

import numpy as np

from annotator.project import Project
from annotator.rounds.batch import AUDIT, compose_audit, compose_batch
from annotator.rounds.candidates import candidates
from store import annotations, queue, rounds, utterances
from store.database import immediate


def refill_queue(project: Project, annotator: str = "") -> int:
    """Compose a new batch from the round in use, or at random before the first round; return its size.

    Leaves out utterances that this annotator has skipped and those on other screens.
    """
    with immediate(project.db):
        config, promoted = project.config, rounds.promoted(project.db)
        rng = np.random.default_rng([config.seed, annotations.last_id(project.db)])
        predictions = rounds.predictions_of(project.db, promoted) if promoted else None
        without = annotations.skipped_ids(project.db, annotator) | queue.leased_ids(project.db)
        batch = compose_batch(candidates(project, predictions, frozenset(without)), config, rng)
        queue.refill(project.db, promoted.id if promoted else None, batch)
    return len(batch)


def queue_audit(project: Project, count: int, annotator: str = "") -> int:
    """Put up to `count` audit utterances, drawn at random, at the front of the queue; return their number.

    Leaves out utterances that this annotator has skipped and those on a screen. A second call before one is answered
    queues the same ones.
    """
    with immediate(project.db):
        round_id = rounds.promoted_id(project.db)
        rng = np.random.default_rng([project.config.seed, annotations.last_id(project.db)])
        passed = annotations.skipped_ids(project.db, annotator) | queue.leased_ids(project.db)
        taken = annotations.answered_ids(project.db) | passed
        batch = compose_audit([i for i in utterances.ids_in(project.db, AUDIT) if i not in taken], count, rng)
        queue.put_ahead(project.db, round_id, batch)
    return len(batch)
