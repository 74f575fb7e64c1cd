"""When a round is due, and which rounds are then made. Decided from the database alone."""

from dataclasses import replace

from annotator.config import RoundConfig
from annotator.project import Project
from store import annotations, jobs, rounds, utterances


def due(project: Project) -> list[RoundConfig]:
    """Return how the rounds are to be made that are due now, one after the other.

    As soon as there is something to learn from, the scout learns it alone: what comes of that is there in seconds, and
    with few answers about as often right (decision 0012). Then, as ever after, the language model is fine-tuned too.
    """
    config, row = project.config, rounds.promoted(project.db)
    untrained = row is not None and row["trained_on"] == 0
    if not untrained or config.recipe.probe_weight in (0.0, 1.0):
        return [config]
    return [replace(config, recipe=replace(config.recipe, probe_weight=1.0)), config]


def retrain_reason(project: Project) -> str | None:
    """Say why a round is due now, or None. Read from the database, so that asking twice starts nothing twice.

    Due are the zero-shot round of a new project, and a round for every `retrain_every` labels that no job has
    seen yet. A job that failed has seen its labels too: it is not started again by itself.
    """
    config = project.config
    if not config.retrain_every or jobs.active(project.db):
        return None
    if not utterances.any_to_label(project.db):
        return None
    if jobs.last(project.db) is None and rounds.promoted(project.db) is None:
        return "a first look, before any label"
    new = annotations.count_new_training_labels(project.db, jobs.last_watermark(project.db))
    due = new >= config.retrain_every and (
        new >= config.minimum_labels or annotations.count_new_training_labels(project.db, 0) >= config.minimum_labels
    )
    return f"{new} new labels" if due else None
