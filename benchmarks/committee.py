"""Compare query strategies based on disagreement within a committee of probes with margin and random sampling.

    python -m benchmarks.committee [--quick | --tiny] [--sets trec,snips,goemotions] [--seeds 4]

Each session answers 25 random utterances of a pool, followed by four batches of 25 chosen by the strategy; probes are
fitted to all answers, and nothing is fine-tuned. Committees:

- rounds: the last rounds, as in the product
- bagged: probes fitted to bootstrap samples of the answers (query by bagging, Abe and Mamitsuka 1998), available from
  the first round on
- reworded: probes fitted to the same answers, with hidden states from different wordings of the prompt
- mean, reworded mean: the margin of the mean probabilities of the bagged or reworded probes

The table gives the accuracy on test rows, averaged over the five rounds, as mean and standard deviation over the seeds.
The last line is one JSON object: these means by set and way.
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
WORDINGS = ("definitions", "options", "codes")  # of the prompt; the product uses the first
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
class Labeled:
    """Hidden states of utterances, with their labels as columns."""

    states: Sequence[States]  # one for each wording
    columns: Labels
    described: Sequence[States]  # of the label descriptions, one for each wording

    def fit(self, rows: Rows, wording: int = 0) -> Probe:
        """Fit a probe to these rows."""
        described = self.described[wording]
        untrained = replace(blank(self.states[wording].shape[1], len(described)), label_states=described)
        return untrained.refitted(self.states[wording][rows], self.columns[rows].tolist())

    def predict(self, probe: Probe, rows: Rows, wording: int = 0) -> Array:
        """Return a probe's probabilities for these rows."""
        return np.exp(probe.loglik(self.states[wording][rows]))


def read(name: str, given: Namespace) -> tuple[Labeled, Labeled]:
    """Read the rows that all pools are drawn from, and the test rows."""
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
        found.append(Labeled(states, columns, [one.label_states for one in classifiers]))
    return found[0], found[1]


def session(train: Labeled, test: Labeled, size: int, way: str, seed: int) -> float:
    """Return the accuracy of one session with a pool of `size`, averaged over its rounds."""
    rng = np.random.default_rng(seed)
    pool = rng.permutation(len(train.columns))[:size]
    answered, left = pool[:BATCH], pool[BATCH:]
    probes: list[Probe] = []
    right = []
    for _ in range(ROUNDS):
        probes.append(train.fit(answered))
        right.append(
            float((test.predict(probes[-1], np.arange(len(test.columns))).argmax(axis=1) == test.columns).mean())
        )
        chosen = rank(scores(train, way, (answered, left), probes, rng), rng, BATCH)
        answered, left = np.concatenate([answered, left[chosen]]), np.delete(left, chosen)
    return float(np.mean(right))


def scores(
    train: Labeled, way: str, rows: tuple[Rows, Rows], probes: Sequence[Probe], rng: np.random.Generator
) -> Scores:
    """Return acquisition scores of the unanswered rows; by margin, as in the product, while there is no committee."""
    answered, left = rows
    if way == "random":
        return np.zeros(len(left))
    if way.startswith("reworded"):
        members = np.array([train.predict(train.fit(answered, w), left, w) for w in range(len(WORDINGS))])
    elif way in ("bagged", "mean"):
        bags = [answered[rng.integers(len(answered), size=len(answered))] for _ in range(BAGS)]
        members = np.array([train.predict(train.fit(bag), left) for bag in bags])
    else:
        members = np.array([train.predict(probe, left) for probe in probes[-MEMBERS if way == "rounds" else -1 :]])
    view = View(members.mean(axis=0), committee=members)
    return margin(view) if way.endswith("mean") or len(members) < 2 else disagreement(view)


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    table, means = Table("", *WAYS, title="accuracy over five rounds of 25 answers"), {}
    for name in given.sets:
        train, test = read(name, given)
        found = {way: [session(train, test, given.pool, way, seed) for seed in range(given.seeds)] for way in WAYS}
        table.add_row(name, *(f"{np.mean(one):.3f} ± {np.std(one):.3f}" for one in found.values()))
        means[name] = {way: round(float(np.mean(one)), 4) for way, one in found.items()}
    Console(width=130).print(table)
    print_last(means)


if __name__ == "__main__":
    main()
