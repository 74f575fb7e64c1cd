"""Measure a round by stage: the share of time spent outside the model, and the time to load the backbone.

    python -m benchmarks.round [--quick | --tiny]

Runs a round on client talk. “overhead” is the share of time outside the model's own work: reading, training and
scoring. Loading is measured separately and compared with reading the weights by safetensors and converting them to the
precision in use.
"""

import csv
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from annotator.codebook.definition import codebook_of, create_project
from annotator.config import RoundConfig
from annotator.exchange.imports import add_utterances
from annotator.exchange.samples import SAMPLES
from annotator.labeling.session import Answer, answer, next_question
from annotator.loop import run_round
from annotator.rounds.progress import Report
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.data import plan_of
from benchmarks.measure import print_last
from model.backbones.backbone import load_backbone
from model.backbones.catalog import CATALOG, STARTER, cache_folder
from model.load import load_classifier
from model.recipe import Recipe
from store.utterances import NewUtterance

COMMAND = Command(
    __doc__,
    full={
        "data": "annomi", "utterances": 2000, "labels": 200, "epochs": Recipe().epochs, "loads": 7, "backbone": STARTER,
    },
    quick={"utterances": 120, "labels": 30, "epochs": 2, "loads": 3},
    tiny={"data": "client_talk", "utterances": 60, "labels": 24, "epochs": 1, "loads": 1, **RANDOM_WEIGHTS},
    choices={"data": ("annomi", "client_talk")},
    figures=("seconds", "load_seconds", "overhead", "load_over_read"),
)  # fmt: skip
MODEL = ("read", "learn", "score")  # stages in which the backbone computes


class Watch:
    """Listener that records when each stage of a round begins."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock  # in seconds
        self.stages: list[tuple[str, float]] = [("snapshot", clock())]

    def __call__(self, stage: str, share: float, seconds_left: float | None) -> None:
        """Record a stage when it is first reported."""
        if stage != self.stages[-1][0]:
            self.stages.append((stage, self.clock()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage up to now."""
        ends = [begun for _, begun in self.stages[1:]] + [self.clock()]
        return {stage: end - begun for (stage, begun), end in zip(self.stages, ends, strict=True)}


def measure(folder: Path, given: Namespace) -> dict[str, float]:
    """Run a round on `utterances` rows, `labels` of them answered; return the seconds of each stage."""
    with plan_of(given.data).data.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] and row["split"] == "train"]
    chosen = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[: given.utterances]]
    truth = {row["id"]: row["label"] for row in chosen}
    config = RoundConfig(
        backbone=given.backbone, recipe=Recipe(epochs=given.epochs), batch_size=given.labels, strategy="random",
        retrain_every=0,
    )  # fmt: skip
    with create_project(folder, SAMPLES["client_talk"].codebook, config) as project:
        add_utterances(project, [NewUtterance(row["id"], row["text"]) for row in chosen])
        codebook = codebook_of(project)
        for _ in range(given.labels):
            question = next_question(project, "benchmark")
            assert question is not None
            label = codebook.id_of(truth[question.utterance.external_id])
            answer(project, question, "benchmark", Answer("label", label))
        classifier = load_classifier(config.backbone, codebook.task(), config.recipe, config.template)
        watch = Watch()
        run_round(project, classifier, config, Report(watch))
        return watch.seconds()


def loading(backbone: str, times: int) -> tuple[float, float]:
    """Return the median seconds to load the backbone, and to read its weights."""
    folder = cache_folder() / "backbones" / backbone if backbone in CATALOG else Path(backbone)
    weights, dtype = folder / "model.safetensors", load_backbone(backbone).dtype
    loads, reads = [], []
    for _ in range(times):
        begun = time.perf_counter()
        load_backbone(backbone)
        loads.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        kept = {name: tensor.to(dtype, copy=True) for name, tensor in load_file(weights).items()}
        reads.append(time.perf_counter() - begun)
        del kept
    return float(np.median(loads)), float(np.median(reads))


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    load, read = loading(given.backbone, given.loads)
    with tempfile.TemporaryDirectory() as folder:
        stages = measure(Path(folder), given)
    whole = sum(stages.values())
    table = Table(title="a round by stage")
    for column in ("", "seconds", "share"):
        table.add_column(column, justify="left" if not column else "right")
    for stage, seconds in stages.items():
        table.add_row(stage, f"{seconds:.2f}", f"{seconds / whole:.1%}")
    Console().print(table)
    print(f"backbone loaded in {load:.2f} s, its weights read in {read:.2f} s")
    model = sum(stages.get(stage, 0.0) for stage in MODEL)
    ratios = {"overhead": round(1 - model / whole, 4), "load_over_read": round(load / read, 2)}
    print_last({"seconds": round(whole, 1), "load_seconds": round(load, 2)} | ratios)


if __name__ == "__main__":
    main()
