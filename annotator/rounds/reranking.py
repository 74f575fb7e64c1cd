"""Re-rank the rest of a batch between two rounds, using the latest answers.

A round takes minutes, so rounds are rare. Fitting the quick classifier to all answers takes a fraction of a second; its
probabilities, combined with those of the round in use, choose the rest of the batch anew. Suggestions, metrics and
guarantees remain those of the round.
"""

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from annotator.errors import ProjectBusy
from annotator.methods.query_strategies import CHOSEN
from annotator.project import Project
from annotator.rounds.batch import choose_from_pool
from annotator.rounds.candidates import candidates, probe_in_use, training_states
from annotator.rounds.lifecycle import calibrator_in_use
from model import constants
from model.probe.probe import Probe, blend
from store import annotations, queue, rounds, settings, states
from store.database import immediate
from store.rounds import Predictions

EVERY, OF_ALL = 5, 100  # re-rank after five answers, or after one in a hundred if that is more
LAST = "reranked_after"  # the setting with the last annotation that a re-ranking has taken into account

_busy = threading.Lock()  # one at a time in this process: the next one includes the same answers


def every(project: Project) -> int:
    """Return after how many answers the batch is re-ranked: five, or one in a hundred of all answers if more."""
    return max(EVERY, annotations.last_id(project.db) // OF_ALL)


def is_due(project: Project) -> bool:
    """Return whether enough answers have come since the last round in use or re-ranking, whoever gave them."""
    since = rounds.watermark(project.db)
    if since is None or project.config.strategy == "random":
        return False
    since, count = max(since, settings.get(project.db, LAST, 0)), every(project)
    return annotations.count_acts(project.db, since, count) >= count


def reorder(project: Project) -> int:
    """Replace the rest of the batch with the utterances that score highest now; return how many were chosen.

    Utterances that were drawn at random or are on a screen are kept. Does nothing before the first round, or while
    there are too few answers to train on.
    """
    config, promoted = project.config, rounds.promoted(project.db)
    if promoted is None or config.strategy == "random":
        return 0
    predictions = rounds.predictions_of(project.db, promoted)
    last = annotations.last_id(project.db)
    probe = fit_to_answers(project, predictions.label_ids)
    if probe is None:
        settings.put(project.db, LAST, last)
        return 0
    combined = _combined(project, predictions, probe, as_made=predictions.label_ids == promoted.label_ids)
    without = frozenset(queue.leased_ids(project.db))
    rng = np.random.default_rng([config.seed, last])
    left = queue.count_left(project.db, CHOSEN)
    chosen = choose_from_pool(candidates(project, combined, without), config, left, rng)
    batch = [replace(entry, chosen_after=last) for entry in chosen]
    with immediate(project.db):
        settings.put(project.db, LAST, last)
        return queue.exchange(project.db, promoted.id, batch, CHOSEN)


def fit_to_answers(project: Project, order: tuple[int, ...]) -> Probe | None:
    """Return a quick classifier fitted to all training examples with hidden states; None if there are too few."""
    _, vectors, labels = training_states(project, order)
    if len(labels) < project.config.minimum_labels or len(set(labels)) < 2:
        return None
    return probe_in_use(project, order, vectors.shape[1]).refitted(vectors, labels)


def reorder_in_background(folder: Path) -> threading.Thread | None:
    """Start `reorder` in a thread; None if one is running."""
    if not _busy.acquire(blocking=False):
        return None

    def work() -> None:
        try:
            with suppress(ProjectBusy), Project.open(folder) as project:  # the next answers try again
                reorder(project)
        finally:
            _busy.release()

    thread = threading.Thread(target=work, name="reranking", daemon=True)
    thread.start()
    return thread


def _combined(project: Project, predictions: Predictions, probe: Probe, as_made: bool) -> Predictions:
    """Combine the predictions with those of the quick classifier, for utterances that have hidden states.

    Logits are combined and calibrated again. If the codebook has changed (not `as_made`), the calibrator no longer fits
    the columns, and the calibrated probabilities are combined instead.
    """
    ids = predictions.utterance_ids.tolist()
    known = states.known(project.db, ids)
    rows = np.array([row for row, i in enumerate(ids) if i in known], dtype=np.int64)
    with np.errstate(divide="ignore"):  # for a label that the round was not trained with
        logits = predictions.logits.copy() if as_made else np.log(predictions.probabilities) + predictions.mass[:, None]
    if len(rows):
        probe_logits = probe.loglik(states.matrix(project.db, [ids[row] for row in rows]))
        logits[rows] = blend(logits[rows], probe_logits, constants.PROBE_WEIGHT)
    calibrator = calibrator_in_use(project)
    assert calibrator is not None
    return replace(predictions, logits=logits, probabilities=calibrator(logits) if as_made else softmax(logits, axis=1))
