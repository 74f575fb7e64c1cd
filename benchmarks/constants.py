"""Compare every fitted constant with other values, on all data sets and with each left out in turn.

    python -m benchmarks.constants [--quick | --tiny] [--data trec,snips] [--labels 100,200] [--seeds 0,1,2]
        [--classifier both|probe] [--names SLOPE,PENALTY]

Every value of a constant of `model/constants.py` is tried with all others as they are. The figure is the log-loss on
test rows in nats, averaged over rounds with random answers, of which a fifth are audit answers.

- Quick classifier: it is refitted and calibrated. For layers, hidden states are read again.
  ZERO_SHOT_SHARES: it is made without answers, at the best temperature.
- Calibration: rounds are calibrated again, those of the quick classifier and, with `--classifier both`, fine-tuned ones
  of `benchmarks.calibration` with 100 answers, which are read from $ANNOTATOR_KEPT or made.
- PROBE_WEIGHT and ADAPTER_SPREAD: fine-tuned rounds alone; for the former they are blended again, as in
  `benchmarks.shares`.
- DIVERSE: the quick classifier after 100 answers in batches of 20, selected by the default strategy.

The last line is one JSON object. For each constant: the value `kept`, the `best` one for the mean over data sets, the
lowest and highest best value with one data set left out, and how much less the best one `gains` on the kept one.
SAFETY_SPREADS is about guarantees, which `benchmarks.calibration` replays, and STEADY about when to stop, which
`benchmarks.label_efficiency` reports.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.special import log_softmax

from annotator.methods.query_strategies import DEFAULT, STRATEGIES, View, choose
from annotator.simulation.memo import Memo
from annotator.simulation.oracle import read_gold
from benchmarks.calibration import COMMAND as ROUNDS
from benchmarks.calibration import Array, Kept, collect, console
from benchmarks.command import RANDOM_WEIGHTS, SCRATCH, Command
from benchmarks.data import plan_of
from benchmarks.measure import print_last
from benchmarks.mistakes import read_in_context
from benchmarks.shares import adapter_alone, evaluate
from model import constants
from model.load import load_classifier
from model.probe.heads import semantic_states
from model.probe.probe import blend, fit_probe, zero_shot_probe
from model.recipe import Recipe
from model.types import Label, States, Task

BATCH = 20  # answers that are drawn at random at first, and that are selected between two fits
POOL = 400  # rows that may be answered, besides the test rows


Loss = Callable[["Data"], float]


@dataclass(frozen=True)
class Data:
    """A data set with the settings of the measurement. Its first rows are for testing."""

    name: str
    given: Namespace

    @property
    def read(self) -> tuple[States, NDArray[np.int64], States]:
        """Return (n, width) states at the current layers, (n,) labels and (k, width) states of the labels."""
        layers = constants.MEANING_LAYER, constants.ANSWER_LAYER
        return read(self.name, self.given.backbone, self.given.judged + POOL, layers)

    def fitted(self) -> Iterator[Kept]:
        """Fit the quick classifier to random answers, four fifths of them."""
        states, truth, label_states = self.read
        judged = self.given.judged
        for labels, seed in product(self.given.labels, self.given.seeds):
            rows = judged + np.random.default_rng(seed).permutation(len(truth) - judged)[:labels]
            audit, train = np.split(rows, [labels // 5])
            probe = fit_probe(states[train], truth[train].tolist(), label_states)
            test, audited = probe.loglik(states[:judged]), probe.loglik(states[audit])
            yield Kept(self.name, labels, seed, audited, truth[audit], test, truth[:judged], test, len(train), 1.0)

    @cached_property
    def tuned(self) -> list[Kept]:
        """Fine-tuned rounds; none if the quick classifier alone is measured."""
        if self.given.classifier != "both":
            return []
        memo = Memo()
        return [collect(self.name, self.given.tuned, seed, self.given, memo) for seed in self.given.seeds]

    @cached_property
    def rounds(self) -> list[Kept]:
        """All rounds, made with the constants as they are at the first call."""
        return [*self.fitted(), *self.tuned]


@cache
def read(name: str, backbone: str, count: int, layers: tuple[float, float]) -> tuple[States, NDArray[np.int64], States]:
    """Read random rows of a data set with a backbone, at the layers that `constants` names."""
    plan = replace(plan_of(name, backbone), resplit=True)
    gold = read_gold(plan)
    names = sorted({row.given_label or "" for row in gold.train})
    task = Task(gold.draft.instruction, tuple(Label(one) for one in names))
    classifier = load_classifier(backbone, task, Recipe(probe_weight=1.0))
    rows = np.random.default_rng(7).permutation(len(gold.train))[:count]
    texts = read_in_context(gold, plan.config)
    truth = np.array([names.index(gold.train[i].given_label or "") for i in rows])
    return classifier.states([texts[i] for i in rows]), truth, classifier.label_states


def log_loss(log_probabilities: Array, truth: NDArray[np.int64]) -> float:
    """Return the mean negative log-probability of the known labels."""
    return float(-log_softmax(log_probabilities, axis=1)[np.arange(len(truth)), truth].mean())


def after_calibration(kept: Kept) -> float:
    """Return the log-loss of a round that is calibrated with the constants as they are now."""
    fresh = replace(kept)  # without the prior cached in it
    return log_loss(np.log(fresh.calibrator(fresh.test)), fresh.test_truth)


def of_probe(data: Data) -> float:
    """Return the log-loss of the quick classifier, fitted and calibrated anew."""
    return float(np.mean([after_calibration(kept) for kept in data.fitted()]))


def before_answers(data: Data) -> float:
    """Return the log-loss of the similarity heads alone, at the best temperature."""
    (states, truth, label_states), judged = data.read, data.given.judged
    return evaluate(zero_shot_probe(states[judged:], label_states).loglik(states[:judged]), truth[:judged])[1]


def calibrated(data: Data) -> float:
    """Return the log-loss of rounds that are calibrated anew."""
    return float(np.mean([after_calibration(kept) for kept in data.rounds]))


def retuned(data: Data) -> float:
    """Return the log-loss of fine-tuned rounds that are calibrated anew."""
    return float(np.mean([after_calibration(kept) for kept in data.tuned]))


def blended(data: Data) -> float:
    """Return the log-loss of fine-tuned rounds with another share of the probe, at the best temperature."""
    logits = (blend(adapter_alone(one), log_softmax(one.probe, axis=1), constants.PROBE_WEIGHT) for one in data.tuned)
    return float(
        np.mean([evaluate(*pair)[1] for pair in zip(logits, (one.test_truth for one in data.tuned), strict=True)])
    )


def after_selecting(data: Data) -> float:
    """Return the log-loss of the quick classifier after actively selected answers, on rows that are not in the pool."""
    (states, truth, label_states), judged = data.read, data.given.judged
    strategy = replace(STRATEGIES[DEFAULT], spread=constants.DIVERSE)
    losses = []
    for seed in data.given.seeds:
        rng = np.random.default_rng(seed)
        pool = rng.permutation(judged)
        answered, pool = pool[:BATCH], pool[BATCH:]
        while True:
            logits = fit_probe(states[answered], truth[answered].tolist(), label_states).loglik(states)
            if len(answered) >= data.given.tuned:
                break
            view = View(np.exp(logits[pool]), semantic_states(states)[pool].__getitem__)
            rows, _ = choose(strategy, view, BATCH, rng)
            answered, pool = np.append(answered, pool[rows[:BATCH]]), np.delete(pool, rows[:BATCH])
        losses.append(log_loss(logits[judged:], truth[judged:]))
    return float(np.mean(losses))


TRIED: dict[str, tuple[Loss, Sequence[Any]]] = {
    "PENALTY": (of_probe, (5.0, 10.0, 20.0, 40.0, 80.0)),
    "BIAS_SPREAD": (of_probe, (0.125, 0.25, 0.5, 1.0)),
    "MEANING_LAYER": (of_probe, (0.4, 0.5, 0.6)),
    "ANSWER_LAYER": (of_probe, (0.5, 0.6, 0.7)),
    "ZERO_SHOT_SHARES": (before_answers, ((1.0, 0.0), (1.0, 0.25), (1.0, 0.5), (1.0, 1.0))),
    "ADAPTER_SPREAD": (retuned, (0.125, 0.25, 0.5, 1.0, 2.0)),
    "SLOPE": (calibrated, (-0.8, -0.6, -0.4, -0.2, 0.0)),
    "PROBE_WEIGHT": (blended, (0.2, 0.4, 0.5, 0.6, 0.7, 0.8)),
    "DIVERSE": (after_selecting, (1.0, 2.0, 5.0, 10.0)),
}
COMMAND = Command(
    __doc__,
    full={
        **{name: ROUNDS.full[name] for name in ("data", "seeds", "classifier", "strategy", "epochs", "judged", "kept")},
        "labels": (100, 200), "tuned": 100, "names": tuple(TRIED), "backbone": ROUNDS.full["backbone"],
    },
    quick={
        "data": ("trec", "snips"), "labels": (100,), "seeds": (0,), "classifier": "probe",
        "names": ("SLOPE", "PENALTY"),
    },
    tiny={
        "data": ("client_talk",), "labels": (60,), "tuned": 60, "seeds": (0,), "epochs": 1, "judged": 100,
        "kept": SCRATCH, **RANDOM_WEIGHTS,
    },
    choices={**ROUNDS.choices, "names": tuple(TRIED)},
    figures_by="names",
)  # fmt: skip


def summarize(losses: dict[Any, Array], kept: Any) -> dict[str, Any]:
    """Summarize (sets,) losses for each value of a constant."""
    values, table = list(losses), np.array(list(losses.values()))
    others = [np.delete(table, i, axis=1) for i in range(table.shape[1])] if table.shape[1] > 1 else [table]
    left_out = [values[int(rest.mean(axis=1).argmin())] for rest in others]
    mean = table.mean(axis=1)
    return {
        "kept": kept,
        "best": values[int(mean.argmin())],
        "left_out": [min(left_out), max(left_out)],
        "gains": round(float(mean[values.index(kept)] - mean.min()), 4),
    }


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    sets = [Data(name, given) for name in given.data]
    result = {}
    for name in given.names:
        loss, values = TRIED[name]
        if loss in (blended, retuned) and given.classifier != "both":
            continue
        losses = {}
        for value in values:
            with patch.object(constants, name, value):
                losses[value] = np.array([loss(data) for data in sets])
        result[name] = summarize(losses, getattr(constants, name))
        table = Table("value", *given.data, "mean", title=f"{name}: log-loss")
        for value, row in losses.items():
            table.add_row(str(value), *(f"{one:.4f}" for one in row), f"{row.mean():.4f}")
        console.print(table)
    print_last(result)


if __name__ == "__main__":
    main()
