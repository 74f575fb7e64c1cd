"""Compare corrections of zero-shot predictions: none, batch calibration and domain-conditional PMI.

    python -m benchmarks.zero_shot [--quick | --tiny] [--data trec,snips]

Uses utterances of the test split. The last line is the log-loss of each correction on each data set.
"""

import numpy as np
from rich.table import Table
from scipy.special import log_softmax

from annotator.methods.calibration import Calibrator, estimate_label_prior
from annotator.methods.metrics import evaluate
from annotator.simulation.oracle import read_gold
from benchmarks.calibration import console
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.data import PUBLIC, SETS, plan_of
from benchmarks.measure import print_last
from model.backbones.catalog import STARTER
from model.load import load_classifier
from model.types import Label, Task, Utterance

COMMAND = Command(
    __doc__,
    full={"data": tuple(name for name in PUBLIC if name != "banking77"), "utterances": 500, "backbone": STARTER},
    quick={"utterances": 100},
    tiny={"data": ("political_promises",), "utterances": 40, **RANDOM_WEIGHTS},
    choices={"data": tuple(SETS)},
    figures_by="data",
)


def compare(data: str, count: int, backbone: str) -> dict[str, float]:
    """Score a sample of the test split without training; print the metrics and return the NLL of each correction."""
    plan = plan_of(data, backbone)
    gold, config = read_gold(plan), plan.config
    task = Task(gold.draft.instruction, tuple(Label(one.name) for one in gold.draft.leaves))
    classifier = load_classifier(config.backbone, task, config.recipe, config.template)
    chosen = [gold.test[i] for i in np.random.default_rng(0).permutation(len(gold.test))[:count]]
    tested = [Utterance(row.text) for row in chosen]
    classifier.remember(tested, classifier.states(tested))  # as in a round, which computes them before scoring
    adapter = classifier.zero_shot()
    logits = adapter.logits(tested)
    names = [label.name for label in task.labels]
    truth = np.array([names.index(row.given_label or "") for row in chosen])
    blank = log_softmax(adapter.logits([Utterance("N/A")])[0])
    priors = {"nothing": None, "batch calibration": estimate_label_prior(logits), "PMI": tuple(blank.tolist())}
    found = {name: evaluate(Calibrator(1.0, prior)(logits), truth) for name, prior in priors.items()}
    table = Table(title=f"{data}, zero-shot, n = {len(truth)}")
    for column in ("correction", "accuracy", "macro-F1", "NLL", "ECE"):
        table.add_column(column, justify="left" if column == "correction" else "right")
    for name, one in found.items():
        table.add_row(name, *(f"{value:.3f}" for value in (one.accuracy, one.macro_f1, one.nll, one.ece)))
    console.print(table)
    return {name: round(one.nll, 3) for name, one in found.items()}


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    print_last({data: compare(data, given.utterances, given.backbone) for data in given.data})


if __name__ == "__main__":
    main()
