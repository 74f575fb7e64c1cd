"""Summarize each round for display: its training examples, its metrics, and notices about its weights."""

from dataclasses import dataclass, fields

import numpy as np
from pydantic import TypeAdapter

from annotator.config import RoundConfig
from annotator.doctor import in_words
from annotator.i18n import later, number, respell, say
from annotator.methods.metrics import Metrics
from annotator.project import Project
from annotator.rounds.spelling import unspelled_notice
from model.backbones.fingerprint import has_changed, newest_known
from model.backbones.memory import in_gb
from model.backbones.plan import changed
from model.recipe import Recipe
from model.types import Extent, Origin
from store import rounds
from store.rounds import Round

_EXTENT = TypeAdapter(Extent)
STATES = {
    "promoted": later("ready"),
    "running": later("running"),
    "failed": later("failed"),
    "cancelled": later("canceled"),
    "interrupted": later("interrupted"),
}


@dataclass(frozen=True)
class RoundSummary:
    """One round with its metrics as text; a metric that was not measured is empty."""

    number: int
    state: str
    backbone: str
    learner: str  # which model was trained; empty for a zero-shot round
    trained_on: int
    audited_on: int
    accuracy: str
    interval: str  # of the accuracy, 95 % (Clopper and Pearson)
    macro_f1: str
    nll: str
    ece: str
    calibrated: str
    started: str
    memory: str  # peak memory of its process; empty for rounds of older versions


def summaries(project: Project) -> list[RoundSummary]:
    """Return all rounds, newest first."""
    return [_summary(row) for row in rounds.history(project.db)]


def about_weights(project: Project) -> tuple[str, list[str]]:
    """Return why the round in use cannot score new texts, empty if it can, and other notices about its weights."""
    row = rounds.promoted(project.db)
    if row is None or not row.fingerprint:
        return "", []
    notices = [_recorded_late(row), _other_than_before(project, row), _newer_on_the_hub(row)]
    return _not_as_trained(row), [one for one in notices if one]


def about_training(row: Round) -> list[str]:
    """Return notices about what a round has trained, and about utterances that its backbone cannot spell."""
    stored = row.metrics  # rounds of earlier versions lack these counts
    extent = _EXTENT.validate_python({one.name: stored.get(one.name, 0) for one in fields(Extent)})
    made = {"round": row.number, "backbone": row.backbone, "weights": extent.trained}
    notices = _planned(row)
    if extent.frozen_experts:
        notices.append(
            say("Round {round} trained {weights:,} weights. The experts of {backbone} were not trained.", **made)
        )
    elif extent.trained:
        notices.append(say("Round {round} trained {weights:,} weights.", **made))
    return [*notices, *unspelled_notice(extent.unspelled, row.backbone)]


def _planned(row: Round) -> list[str]:
    """Return how a round was fitted into memory, if its settings are not the defaults."""
    recipe = RoundConfig.from_json(row.config).recipe
    if not changed(recipe, Recipe()):
        return []
    words = in_words(recipe, "" if recipe.precision == "auto" else recipe.precision)
    return [say("Round {round} ran with these settings: {settings}.", round=row.number, settings=", ".join(words))]


def _not_as_trained(row: Round) -> str:
    if not has_changed(row.backbone, Origin(row.fingerprint or "", row.revision or "")):
        return ""
    return say(
        "The weights of {backbone} differ from those round {round} was trained with, so it cannot score new texts. "
        "Restore the former weights, or retrain.",
        backbone=row.backbone,
        round=row.number,
    )


def _recorded_late(row: Round) -> str:
    if not row.fingerprint_noted:
        return ""
    return say(
        "Round {round} did not record its weights. Those it was first restored with, on {day}, are taken as its own.",
        round=row.number,
        day=row.fingerprint_noted[:10],
    )


def _other_than_before(project: Project, row: Round) -> str:
    before = rounds.with_other_weights(project.db, row)
    if before is None:
        return ""
    return say(
        "Round {round} used other weights than round {before} and read all utterances again.",
        round=row.number,
        before=before,
    )


def _newer_on_the_hub(row: Round) -> str:
    newest = newest_known(row.backbone) if row.revision else ""
    if not row.revision or newest in ("", row.revision):
        return ""
    return say(
        "The hub has a newer version of {backbone}. Rounds stay at {old}; to switch, choose {backbone}@{new} as the "
        "backbone.",
        backbone=row.backbone,
        old=row.revision[:12],
        new=newest,
    )


def _summary(row: Round) -> RoundSummary:
    measured = Metrics.from_dict(row.metrics)
    edges = [number(edge, ".2f") for edge in measured.accuracy_interval] if measured else []
    return RoundSummary(
        number=row.number,
        state=row.state,
        backbone=row.backbone,
        learner=_learner(row),
        trained_on=row.trained_on,
        audited_on=row.audited_on,
        accuracy=number(measured.accuracy, ".2f") if measured else "",
        interval=say("{low} to {high}", low=edges[0], high=edges[1]) if edges else "",
        macro_f1=number(measured.macro_f1, ".2f") if measured else "",
        nll=number(measured.nll, ".2f") if measured else "",
        ece=number(measured.ece, ".2f") if measured else "",
        calibrated=row.calibration.get("state", ""),
        started=row.started_at[:16].replace("T", " "),
        memory=respell(in_gb(row.peak_memory)) if row.peak_memory else "",
    )


def _learner(row: Round) -> str:
    if row.trained_on == 0:
        return ""
    probe_only = RoundConfig.from_json(row.config).recipe.probe_weight == 1.0
    return say("quick classifier alone") if probe_only else say("fine-tuned")


def round_before(project: Project, row: Round) -> Round | None:
    """Return the promoted round before another; None if there is none."""
    return next((one for one in rounds.finished(project.db) if one.number < row.number), None)


def likeliest(project: Project, row: Round) -> dict[int, tuple[int, float]]:
    """Return the likeliest label of each scored utterance, with its probability."""
    found = rounds.predictions_of(project.db, row)
    best = np.array(found.label_ids)[found.probabilities.argmax(axis=1)].tolist()
    pairs = zip(best, found.probabilities.max(axis=1).tolist(), strict=True)
    return dict(zip(found.utterance_ids.tolist(), pairs, strict=True))
