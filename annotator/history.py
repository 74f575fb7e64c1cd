"""What people are told of each round: from which answers it was made, and how good it was found to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annotator.config import RoundConfig
from annotator.language import later, number, respell, say
from annotator.project import Project
from model.memory import in_gb
from store import rounds
from store.faults import CALIBRATION, METRICS, parsed

STATES = {
    "promoted": later("ready"),
    "running": later("running"),
    "failed": later("failed"),
    "cancelled": later("cancelled"),
    "interrupted": later("interrupted"),
}
FIGURES = ("accuracy", "macro_f1", "nll", "ece")


@dataclass(frozen=True)
class RoundSummary:
    """One round with its figures as text to show; a figure that was not measured is empty."""

    number: int
    state: str
    backbone: str
    learner: str  # who has learned; empty where nobody has
    trained_on: int
    audited_on: int
    accuracy: str
    interval: str  # 95 %, Clopper and Pearson
    macro_f1: str
    nll: str
    ece: str
    calibrated: str
    started: str
    memory: str  # the most that the process has held which made it; empty before that was measured


def summaries(project: Project) -> list[RoundSummary]:
    """Return all rounds, newest first."""
    return [_summary(row) for row in rounds.history(project.db)]


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
    alone = RoundConfig.from_json(row["config"]).recipe.scout == 1.0
    return say("scout alone") if alone else say("fine-tuned")
