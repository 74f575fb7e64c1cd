"""Compare scores that detect utterances no label fits, by leaving one label out of the codebook.

    python -m benchmarks.none_fits [--quick | --tiny] [--data snips,trec] [--learn 100] [--seeds 0,1,2]
        [--learners adapter|probe]

The model is trained on utterances of the remaining labels. In the test split, no label fits the utterances of the
label left out. The figure is the area under the ROC curve of each score; 0.5 is chance. “outside” is the probability
outside all labels, and “least sure” is one minus the largest probability. With --learners probe nothing is fine-tuned
and query strategies are compared, which takes minutes instead of an hour.
"""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from annotator.methods.query_strategies import STRATEGIES, View
from annotator.simulation.oracle import Gold, read_gold
from benchmarks.command import PROBE_NAMES, RANDOM_WEIGHTS, Command
from benchmarks.data import SETS, plan_of
from benchmarks.measure import print_last
from model.backbones.catalog import STARTER
from model.load import load_classifier
from model.probe.heads import semantic_states
from model.recipe import Recipe
from model.types import Classifier, Label, Task, Utterance
from store.utterances import NewUtterance

COMMAND = Command(
    __doc__,
    full={
        "data": ("snips", "trec"), "learn": 100, "tests": 400, "seeds": (0, 1, 2), "learners": "adapter",
        "epochs": Recipe().epochs, "backbone": STARTER,
    },
    quick={"data": ("snips",), "learn": 16, "tests": 60, "seeds": (0,), "epochs": 4},
    tiny={"data": ("client_talk",), "learn": 16, "tests": 60, "seeds": (0,), "epochs": 1, **RANDOM_WEIGHTS},
    choices={"data": tuple(SETS), "learners": ("adapter", *PROBE_NAMES)},
)  # fmt: skip
Array = NDArray[np.float64]


def ways(logits: Array) -> dict[str, Array]:
    """Return (n,) scores by name; higher scores rank first."""
    outside = -np.logaddexp.reduce(logits, axis=1)
    least_sure = -log_softmax(logits, axis=1).max(axis=1)
    return {"outside": outside, "least sure": least_sure}


def by_probe(
    classifier: Classifier,
    training_examples: tuple[list[Utterance], list[int]],
    tested: list[Utterance],
    unfitting: NDArray[np.bool_],
) -> Iterator[tuple[str, str, float]]:
    """Score by the probe alone, with general strategies and the one that looks for such utterances."""
    train, pool = (semantic_states(classifier.states(texts)) for texts in (training_examples[0], tested))
    logits = classifier.fit(*training_examples).logits(tested)
    view = View(np.exp(logits), lambda rows: pool[rows], lambda: train)
    for name in ("least_confidence", "entropy", "none_fits"):
        yield "scout", name, float(roc_auc_score(unfitting, STRATEGIES[name].score(view)))  # a key of the last line


def measure(gold: Gold, left_out: str, given: Namespace, seed: int) -> Iterator[tuple[str, str, float]]:
    """Yield loss, score and the area under the curve, with one label left out."""
    rng = np.random.default_rng(seed)
    names = sorted({row.given_label or "" for row in gold.train} - {left_out})
    task = Task(gold.draft.instruction, tuple(Label(name) for name in names))
    training_examples = _sample([row for row in gold.train if row.given_label != left_out], given.learn, rng)
    test = _sample(list(gold.test), given.tests, rng)
    unfitting = np.array([row.given_label == left_out for row in test])
    texts, tested = ([Utterance(row.text) for row in rows] for rows in (training_examples, test))
    labels = [names.index(row.given_label or "") for row in training_examples]
    if given.learners in PROBE_NAMES:
        classifier = load_classifier(given.backbone, task, Recipe(probe_weight=1.0))
        yield from by_probe(classifier, (texts, labels), tested, unfitting)
        return
    for loss in ("labels", "tokens"):
        recipe = replace(Recipe(), loss=loss, seed=seed, epochs=given.epochs)
        classifier = load_classifier(given.backbone, task, recipe)
        if loss == "labels":
            for way, score in ways(classifier.zero_shot().logits(tested)).items():
                yield "untrained", way, float(roc_auc_score(unfitting, score))
        for way, score in ways(classifier.fit(texts, labels).logits(tested)).items():
            yield loss, way, float(roc_auc_score(unfitting, score))


def _sample(rows: list[NewUtterance], count: int, rng: np.random.Generator) -> list[NewUtterance]:
    return [rows[i] for i in rng.permutation(len(rows))[:count]]


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    found: dict[tuple[str, str, str], list[float]] = {}
    for data in given.data:
        gold = read_gold(plan_of(data))
        names = sorted({row.given_label or "" for row in gold.train})
        for seed in given.seeds:
            for loss, way, area in measure(gold, names[seed % len(names)], given, seed):
                found.setdefault((data, loss, way), []).append(area)
    table = Table(title="Finding utterances for which no label fits: area under the ROC curve")
    for column in ("data", "learned with", "ranked by", "mean", "lowest to highest"):
        table.add_column(column)
    for (data, loss, way), areas in found.items():
        table.add_row(data, loss, way, f"{np.mean(areas):.3f}", f"{min(areas):.3f} to {max(areas):.3f}")
    Console(width=100).print(table)
    print_last({f"{data}.{loss}.{way}": round(float(np.mean(areas)), 3) for (data, loss, way), areas in found.items()})


if __name__ == "__main__":
    main()
