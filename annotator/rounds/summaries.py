"""Summarize each round for display: its training examples, its metrics, and notices about its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotator.config import RoundConfig
from annotator.i18n import later, number, respell, say, say_many
from annotator.project import Project
from model.backbones.fingerprint import has_changed, newest_known
from model.backbones.memory import in_gb
from model.types import Origin
from store import rounds
from store.faults import CALIBRATION, METRICS, parsed

STATES = {
    "promoted": later("ready"),
    "running": later("running"),
    "failed": later("failed"),
    "cancelled": later("canceled"),
    "interrupted": later("interrupted"),
}
FIGURES = ("accuracy", "macro_f1", "nll", "ece")


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
    if row is None or not row["fingerprint"]:
        return "", []
    notices = [_recorded_late(row), _other_than_before(project, row), _newer_on_the_hub(row)]
    return _not_as_trained(row), [one for one in notices if one]


def about_training(row: Mapping[str, Any]) -> list[str]:
    """Return notices about what a round has trained, and about utterances that its backbone cannot spell."""
    metrics = parsed(row["metrics"] or "{}", METRICS)
    made = {"round": row["number"], "backbone": row["backbone"], "weights": metrics.get("trained", 0)}
    notices = []
    if metrics.get("frozen_experts"):
        notices.append(
            say("Round {round} trained {weights:,} weights. The experts of {backbone} were not trained.", **made)
        )
    elif metrics.get("trained"):
        notices.append(say("Round {round} trained {weights:,} weights.", **made))
    if unspelled := metrics.get("unspelled", 0):
        notices.append(
            say_many(
                "{n:,} utterance has characters that {backbone} cannot spell. It may read it like another.",
                "{n:,} utterances have characters that {backbone} cannot spell. It may read some of them alike.",
                unspelled,
                **made,
            )
        )
    return notices


def _not_as_trained(row: Mapping[str, Any]) -> str:
    if not has_changed(row["backbone"], Origin(row["fingerprint"], row["revision"] or "")):
        return ""
    return say(
        "The weights of {backbone} differ from those round {round} was trained with, so it cannot score new texts. "
        "Restore the former weights, or retrain.",
        backbone=row["backbone"],
        round=row["number"],
    )


def _recorded_late(row: Mapping[str, Any]) -> str:
    if not row["fingerprint_noted"]:
        return ""
    return say(
        "Round {round} did not record its weights. Those it was first restored with, on {day}, are taken as its own.",
        round=row["number"],
        day=row["fingerprint_noted"][:10],
    )


def _other_than_before(project: Project, row: Mapping[str, Any]) -> str:
    before = rounds.with_other_weights(project.db, row)
    if before is None:
        return ""
    return say(
        "Round {round} used other weights than round {before} and read all utterances again.",
        round=row["number"],
        before=before,
    )


def _newer_on_the_hub(row: Mapping[str, Any]) -> str:
    newest = newest_known(row["backbone"]) if row["revision"] else ""
    if newest in ("", row["revision"]):
        return ""
    return say(
        "The hub has a newer version of {backbone}. Rounds stay at {old}; to switch, choose {backbone}@{new} as the "
        "backbone.",
        backbone=row["backbone"],
        old=row["revision"][:12],
        new=newest,
    )


def _summary(row: Mapping[str, Any]) -> RoundSummary:
    metrics, calibration = parsed(row["metrics"] or "{}", METRICS), parsed(row["calibration"] or "{}", CALIBRATION)
    edges = [number(edge, ".2f") for edge in metrics.get("accuracy_interval", ())]
    figures: dict[str, Any] = {name: number(metrics[name], ".2f") if name in metrics else "" for name in FIGURES}
    same: dict[str, Any] = {name: row[name] for name in ("number", "state", "backbone", "trained_on", "audited_on")}
    return RoundSummary(
        **same,
        **figures,
        learner=_learner(row),
        interval=say("{low} to {high}", low=edges[0], high=edges[1]) if edges else "",
        calibrated=calibration.get("state", ""),
        started=row["started_at"][:16].replace("T", " "),
        memory=respell(in_gb(row["peak_memory"])) if row["peak_memory"] else "",
    )


def _learner(row: Mapping[str, Any]) -> str:
    if row["trained_on"] == 0:
        return ""
    probe_only = RoundConfig.from_json(row["config"]).recipe.probe_weight == 1.0
    return say("quick classifier alone") if probe_only else say("fine-tuned")


def round_before(project: Project, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the promoted round before another; None if there is none."""
    older = [one for one in rounds.history(project.db) if one["state"] == "promoted" and one["number"] < row["number"]]
    return older[0] if older else None


def likeliest(project: Project, row: Mapping[str, Any]) -> dict[int, tuple[int, float]]:
    """Return the likeliest label of each scored utterance, with its probability."""
    found = rounds.predictions_of(project.db, row)
    best = np.array(found.label_ids)[found.probabilities.argmax(axis=1)].tolist()
    pairs = zip(best, found.probabilities.max(axis=1).tolist(), strict=True)
    return dict(zip(found.utterance_ids.tolist(), pairs, strict=True))
