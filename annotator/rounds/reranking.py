"""Between two rounds: what the latest answers change in what is asked next.

A round takes minutes, so it is made rarely. Fitting the scout to all answers so far takes a fraction of a second, and
its probabilities, joined with those of the round in use, put what is left of the batch in a new order. Suggestions
and everything that is measured or promised stay those of the round.
"""

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from annotator.errors import ProjectBusy
from annotator.methods.query_strategies import STRATEGIES
from annotator.project import Project
from annotator.rounds.batch import choose_from_pool
from annotator.rounds.candidates import candidates, probe_in_use, training_states
from annotator.rounds.lifecycle import calibrator_in_use
from model.probe.probe import Probe, blend
from store import annotations, queue, rounds, settings, states
from store.database import immediate
from store.rounds import Predictions

EVERY, OF_ALL = 5, 100  # answers, and one for so many that were given before: fewer change little
LAST = "reranked_after"  # the setting with the last annotation that a re-ranking has taken into account
SHARE = 0.5  # of the scout beside the round, which has heard all but the latest answers
CHOSEN = sorted(set(STRATEGIES) - {"random"})

_busy = threading.Lock()  # one at a time in this process: the next one sees all that this one would have


def every(project: Project) -> int:
    """Return after how many answers it is worth putting the batch in a new order: five, one in a hundred when many."""
    return max(EVERY, annotations.last_id(project.db) // OF_ALL)


def is_due(project: Project) -> bool:
    """Return whether enough answers have come since the last round in use or re-ranking, whoever gave them."""
    since = rounds.watermark(project.db)
    if since is None or project.config.strategy == "random":
        return False
    since, count = max(since, settings.get(project.db, LAST, 0)), every(project)
    return annotations.count_acts(project.db, since, count) >= count


def reorder(project: Project) -> int:
    """Put in place of what is left of the batch what is most worth asking now; return how many were chosen.

    What was drawn at random stays, and so does what somebody has on screen. Does nothing before there is a round,
    or while the answers are too few to learn from.
    """
    config, promoted = project.config, rounds.promoted(project.db)
    if promoted is None or config.strategy == "random":
        return 0
    said = rounds.predictions_of(project.db, promoted)
    last = annotations.last_id(project.db)
    probe = fit_to_answers(project, said.label_ids)
    if probe is None:
        settings.put(project.db, LAST, last)
        return 0
    told = _joined(project, said, probe, as_made=said.label_ids == rounds.labels_of(promoted))
    without = frozenset(queue.leased_ids(project.db))
    rng = np.random.default_rng([config.seed, last])
    left = queue.count_left(project.db, CHOSEN)
    chosen = choose_from_pool(candidates(project, told, without), config, left, rng)
    batch = [replace(entry, chosen_after=last) for entry in chosen]  # the strategy is the same, and what it knew is not
    with immediate(project.db):
        settings.put(project.db, LAST, last)
        return queue.exchange(project.db, promoted["id"], batch, CHOSEN)


def fit_to_answers(project: Project, order: tuple[int, ...]) -> Probe | None:
    """Fit a scout to all answers that may teach; None if they are too few, or nothing has been read yet."""
    _, vectors, labels = training_states(project, order)
    if len(labels) < project.config.minimum_labels or len(set(labels)) < 2:
        return None
    return probe_in_use(project, order, vectors.shape[1]).refitted(vectors, labels)


def reorder_in_background(folder: Path) -> threading.Thread | None:
    """Start `reorder` beside what this process does; None if one is under way."""
    if not _busy.acquire(blocking=False):
        return None

    def work() -> None:
        try:
            with suppress(ProjectBusy), Project.open(folder) as project:  # the next answers bring another chance
                reorder(project)
        finally:
            _busy.release()

    thread = threading.Thread(target=work, name="reranking", daemon=True)
    thread.start()
    return thread


def _joined(project: Project, said: Predictions, probe: Probe, as_made: bool) -> Predictions:
    """Join what the round says with what the scout says, where the backbone has read the utterance.

    If the codebook is no longer `as_made`, the calibrator's columns are others, and what it has calibrated is joined.
    """
    ids = said.utterance_ids.tolist()
    known = states.known(project.db, ids)
    rows = np.array([row for row, i in enumerate(ids) if i in known], dtype=np.int64)
    with np.errstate(divide="ignore"):  # of a label that the round does not know
        logits = said.logits.copy() if as_made else np.log(said.probabilities) + said.mass[:, None]
    if len(rows):
        alone = probe.loglik(states.matrix(project.db, [ids[row] for row in rows]))
        logits[rows] = blend(logits[rows], alone, SHARE)
    calibrator = calibrator_in_use(project)
    assert calibrator is not None
    return replace(said, logits=logits, probabilities=calibrator(logits) if as_made else softmax(logits, axis=1))
