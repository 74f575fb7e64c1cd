"""Compare rounds that adapt the upper layers with rounds that adapt all layers, the default.

    python -m benchmarks.depth [--quick | --tiny] [--sets trec,goemotions,annomi] [--labels 100] [--seeds 0,1,2]

Both ways run a round on copies of one project, with the same answers, and are tested on the same rows. The upper layers
are adapted in 6 epochs without dropout, and the states below them are kept on disk. The seconds are those of the
processor, of all threads together: other programs hardly change them. A first round reads every utterance; in a later
one, all of them have been read. The last line is one JSON object: time as a share of that of all layers, and the mean
differences of accuracy and log-loss, upper layers minus all.
"""

import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from annotator.codebook.definition import codebook_of, create_project
from annotator.loop import run_round
from annotator.methods.metrics import evaluate
from annotator.project import Project
from annotator.rounds.progress import Report
from annotator.rounds.snapshot import read_texts
from annotator.simulation.oracle import Answers, answer_until, fill, read_gold
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.data import plan_of
from benchmarks.measure import print_last
from benchmarks.round import Watch
from model.backbones.catalog import STARTER
from model.load import load_classifier
from model.recipe import Recipe

COMMAND = Command(
    __doc__,
    full={
        "sets": ("trec", "goemotions", "annomi"), "labels": 100, "seeds": (0, 1, 2), "pool": 500, "test_limit": 300,
        "epochs": 0, "backbone": STARTER,
    },
    quick={"sets": ("trec",), "labels": 20, "seeds": (0,), "pool": 60, "test_limit": 40, "epochs": 2},
    tiny={
        "sets": ("client_talk",), "labels": 30, "seeds": (0,), "pool": 80, "test_limit": 40, "epochs": 1,
        **RANDOM_WEIGHTS,
    },
    figures=("first_round", "later_round", "accuracy", "log_loss"),
)  # fmt: skip
WAYS = {"all layers": Recipe(), "upper layers": Recipe(depth="upper", dropout=0.0, epochs=6)}


@dataclass(frozen=True)
class Outcome:
    """A round: processor seconds by stage, and its figures on the test rows."""

    seconds: dict[str, float]
    accuracy: float
    log_loss: float

    @property
    def first(self) -> float:
        """Return the seconds of the round."""
        return sum(self.seconds.values())

    @property
    def later(self) -> float:
        """Return the seconds of the round without reading."""
        return self.first - self.seconds.get("read", 0.0)


def compare(name: str, seed: int, given: Namespace) -> dict[str, Outcome]:
    """Run a round in each way on copies of one project."""
    plan = replace(plan_of(name, given.backbone), pool_limit=given.pool, test_limit=given.test_limit)
    config = replace(plan.config, strategy="random", seed=seed, batch_size=given.labels, retrain_every=0)
    gold = read_gold(plan)
    with tempfile.TemporaryDirectory() as folder:
        answered = Path(folder) / "answered"
        with create_project(answered, gold.draft, config) as project:
            test = fill(project, gold, plan, seed)
            answer_until(project, Answers(gold, test), given.labels)
        found = {}
        for way, recipe in WAYS.items():
            copy = shutil.copytree(answered, Path(folder) / way)
            with Project.open(copy) as project:
                project.config = replace(
                    config, recipe=replace(recipe, epochs=given.epochs or recipe.epochs, seed=seed)
                )
                found[way] = measure(project, test)
        return found


def measure(project: Project, test: dict[int, int]) -> Outcome:
    """Run a round and test it."""
    config, task = project.config, codebook_of(project).task()
    classifier = load_classifier(config.backbone, task, config.recipe, config.template, project.cache)
    watch = Watch(time.process_time)
    done = run_round(project, classifier, config, Report(watch))
    seconds = watch.seconds()
    texts = read_texts(project, list(test), config.context_turns)
    figures = evaluate(done.calibrator(done.adapter.logits(texts)), np.array(list(test.values())))
    return Outcome(seconds, figures.accuracy, figures.nll)


def rows(given: Namespace) -> Iterator[tuple[str, int, dict[str, Outcome]]]:
    """Yield the outcomes of each seed of each data set."""
    for seed in given.seeds:
        for name in given.sets:
            yield name, seed, compare(name, seed, given)


def main() -> None:
    """Measure and print."""
    given, found = COMMAND.read(), []
    for name, seed, outcomes in rows(given):
        found.append([outcomes[way] for way in WAYS])
        for way, outcome in outcomes.items():
            stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in outcome.seconds.items() if seconds > 0.1)
            figures = f"accuracy {outcome.accuracy:.3f}, log-loss {outcome.log_loss:.3f}"
            print(f"{name}, seed {seed}, {way}: {outcome.first:.1f} s ({stages}), {figures}", flush=True)
    changes = {
        "first_round": [upper.first / every.first for every, upper in found],
        "later_round": [upper.later / every.later for every, upper in found],
        "accuracy": [upper.accuracy - every.accuracy for every, upper in found],
        "log_loss": [upper.log_loss - every.log_loss for every, upper in found],
    }
    table = Table(title=f"upper layers against all layers, {len(found)} pairs")
    for column in ("", "mean", "lowest to highest", "standard deviation"):
        table.add_column(column, justify="left" if not column else "right")
    for name, values in changes.items():
        spread = f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        table.add_row(name, f"{np.mean(values):.3f}", f"{min(values):.3f} to {max(values):.3f}", spread)
    Console().print(table)
    print_last({name: round(float(np.mean(values)), 3) for name, values in changes.items()})


if __name__ == "__main__":
    main()
