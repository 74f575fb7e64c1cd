"""Decide from the database when a round is due, and with which settings rounds are then run."""

from dataclasses import replace

from annotator.config import RoundConfig
from annotator.errors import Message
from annotator.project import Project
from store import annotations, jobs, rounds, utterances


def due(project: Project, config: RoundConfig) -> list[RoundConfig]:
    """Return the settings of the rounds to run now, in order; `config` are those of the last one.

    The first training examples train the quick classifier alone: this takes seconds, and with few answers its accuracy
    is similar (decision 0012). A second round follows, and like all later ones it fine-tunes the language model too.
    """
    row = rounds.promoted(project.db)
    untrained = row is not None and row.trained_on == 0
    if not untrained or config.recipe.probe_weight in (0.0, 1.0):
        return [config]
    return [replace(config, recipe=replace(config.recipe, probe_weight=1.0)), config]


def retrain_reason(project: Project) -> str | None:
    """Return why a round is due now; None if it is not.

    A round is due in a new project (zero-shot), and after every `retrain_every` training labels that no job has used.
    Labels of a failed job count as used, so it is not restarted automatically. The result depends on the database
    alone, so two calls do not start two rounds.
    """
    config = project.config
    if not config.retrain_every or jobs.active(project.db):
        return None
    if not utterances.any_to_label(project.db):
        return None
    if jobs.last(project.db) is None and rounds.promoted(project.db) is None:
        return Message("an initial pass, before any labels")
    new = annotations.count_new_training_labels(project.db, jobs.last_watermark(project.db))
    due = new >= config.retrain_every and (
        new >= config.minimum_labels or annotations.count_new_training_labels(project.db, 0) >= config.minimum_labels
    )
    return Message("{new} new labels", new=new) if due else None
