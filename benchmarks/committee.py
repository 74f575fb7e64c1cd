"""Does disagreement find what is worth asking? Committees of scouts against the margin and drawing at random.

    python -m benchmarks.committee [--quick | --tiny] [--sets trec,snips,goemotions] [--seeds 4]

A pool, of which 25 are answered at random; then four times 25 more are asked, and scouts learn all. Members of
a committee are the last rounds, as in the product, or scouts that each heard the answers drawn anew with replacement
(query by bagging, Abe and Mamitsuka 1998), which would be there from the first round on, or scouts that heard the same
answers and have each read the utterances behind another wording of the prompt. `mean` and `reworded mean` rank by the
margin of such scouts' mean. Shown is the accuracy on test rows, averaged over the five rounds, mean and standard
deviation over the seeds. Nothing is fine-tuned. The last line is one JSON object: these means by set and way.
"""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

from annotator.methods.metrics import Array, Labels
from annotator.methods.query_strategies import Rows, Scores, View, disagreement, margin, rank
from annotator.simulation.oracle import read_gold
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.data import SETS, plan_of
from benchmarks.measure import print_last
from model.backbones.catalog import STARTER
from model.load import load_classifier
from model.probe.probe import Probe, blank
from model.types import Label, States, Task, Utterance

WAYS = ("random", "margin", "rounds", "bagged", "mean", "reworded", "reworded mean")
WORDINGS = ("definitions", "options", "codes")  # of the prompt, the first one the product's own
BATCH, ROUNDS, BAGS, MEMBERS = 25, 5, 5, 3
COMMAND = Command(
    __doc__,
    full={"sets": ("trec", "snips", "goemotions"), "seeds": 4, "pool": 1000, "test": 500, "backbone": STARTER},
    quick={"sets": ("trec",), "seeds": 2, "pool": 200, "test": 100},
    tiny={"sets": ("political_promises",), "seeds": 1, "pool": 150, "test": 40, **RANDOM_WEIGHTS},
    choices={"sets": tuple(SETS)},
    figures_by="sets",
)


@dataclass(frozen=True)
class Known:
    """What the backbone makes of utterances, and their labels as columns."""

    states: Sequence[States]  # behind each wording
    columns: Labels
    described: Sequence[States]  # of the labels

    def fit(self, rows: Rows, wording: int = 0) -> Probe:
        """Fit a scout to some of them."""
        described = self.described[wording]
        untrained = replace(blank(self.states[wording].shape[1], len(described)), label_states=described)
        return untrained.refitted(self.states[wording][rows], self.columns[rows].tolist())

    def say(self, probe: Probe, rows: Rows, wording: int = 0) -> Array:
        """Return a scout's probabilities for some of them."""
        return np.exp(probe.loglik(self.states[wording][rows]))


def read(name: str, given: Namespace) -> tuple[Known, Known]:
    """Read as many rows as all pools are drawn from, and the test."""
    plan = plan_of(name, given.backbone)
    gold = read_gold(plan)
    names = sorted({row.given_label or "" for row in gold.train})
    task = Task(gold.draft.instruction, tuple(Label(one) for one in names))
    config = plan.config
    classifiers = [load_classifier(config.backbone, task, config.recipe, wording) for wording in WORDINGS]
    rng, found = np.random.default_rng(0), []
    for rows, count in ((gold.train, given.pool + given.test), (gold.test, given.test)):
        taken = [rows[i] for i in rng.permutation(len(rows))[:count] if (rows[i].given_label or "") in names]
        states = [one.states([Utterance(row.text) for row in taken]) for one in classifiers]
        columns = np.array([names.index(row.given_label or "") for row in taken])
        found.append(Known(states, columns, [one.label_states for one in classifiers]))
    return found[0], found[1]


def session(known: Known, test: Known, size: int, way: str, seed: int) -> float:
    """Return the accuracy, averaged over the rounds of one session with a pool of that size."""
    rng = np.random.default_rng(seed)
    pool = rng.permutation(len(known.columns))[:size]
    asked, left = pool[:BATCH], pool[BATCH:]
    made: list[Probe] = []
    right = []
    for _ in range(ROUNDS):
        made.append(known.fit(asked))
        right.append(float((test.say(made[-1], np.arange(len(test.columns))).argmax(axis=1) == test.columns).mean()))
        chosen = rank(scores(known, way, (asked, left), made, rng), rng, BATCH)
        asked, left = np.concatenate([asked, left[chosen]]), np.delete(left, chosen)
    return float(np.mean(right))


def scores(known: Known, way: str, rows: tuple[Rows, Rows], made: Sequence[Probe], rng: np.random.Generator) -> Scores:
    """Score what is left; where there is no committee yet, by the margin as the product does."""
    asked, left = rows
    if way == "random":
        return np.zeros(len(left))
    if way.startswith("reworded"):
        said = np.array([known.say(known.fit(asked, w), left, w) for w in range(len(WORDINGS))])
    elif way in ("bagged", "mean"):
        bags = [asked[rng.integers(len(asked), size=len(asked))] for _ in range(BAGS)]
        said = np.array([known.say(known.fit(bag), left) for bag in bags])
    else:
        said = np.array([known.say(probe, left) for probe in made[-MEMBERS if way == "rounds" else -1 :]])
    view = View(said.mean(axis=0), committee=said)
    return margin(view) if way.endswith("mean") or len(said) < 2 else disagreement(view)


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    table, means = Table("", *WAYS, title="accuracy over five rounds of 25 answers"), {}
    for name in given.sets:
        known, test = read(name, given)
        found = {way: [session(known, test, given.pool, way, seed) for seed in range(given.seeds)] for way in WAYS}
        table.add_row(name, *(f"{np.mean(one):.3f} ± {np.std(one):.3f}" for one in found.values()))
        means[name] = {way: round(float(np.mean(one)), 4) for way, one in found.items()}
    Console(width=130).print(table)
    print_last(means)


if __name__ == "__main__":
    main()
