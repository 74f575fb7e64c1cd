"""Compare the expected gain of another batch with its actual gain.

    python -m benchmarks.gain [--quick | --tiny] [--sets trec,snips,…] [--seeds 5] [--labels 90,160,320]

With a number of random answers as training examples and a quarter as many audit answers,
`annotator.reporting.gain` estimates how many more utterances in a hundred another 25 answers will correct. The actual
gain comes from a probe that is also fitted to these 25, tested on other utterances. The last line is one JSON object:
the means of `expected` and actual gain (`came`) for each set and number of answers, and `rank`, their rank correlation
over sets and numbers; null without an estimate.
"""

from argparse import Namespace
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from annotator.reporting.gain import Answered, expected_gain, hits
from annotator.simulation.oracle import read_gold
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.data import PUBLIC, SETS, plan_of
from benchmarks.measure import print_last
from benchmarks.mistakes import read_in_context
from model.backbones.catalog import STARTER
from model.load import load_classifier
from model.probe.probe import fit_probe
from model.types import Label, States, Task

MORE = 25  # answers of a batch
COMMAND = Command(
    __doc__,
    full={
        "sets": tuple(PUBLIC), "seeds": 5, "labels": (90, 160, 320), "others": 600, "rows": 1200, "backbone": STARTER,
    },
    quick={"sets": ("trec",), "seeds": 2, "labels": (90, 160), "others": 200, "rows": 450},
    tiny={
        "sets": ("political_promises",), "seeds": 2, "labels": (90, 160), "others": 60, "rows": 320, **RANDOM_WEIGHTS,
    },
    choices={"sets": tuple(SETS)},
    figures=("expected", "came", "rank"),
)  # fmt: skip


def read(name: str, given: Namespace) -> tuple[Answered, States]:
    """Return the hidden states of a data set's rows, read as in a round, and those of the labels' names."""
    plan = plan_of(name, given.backbone)
    gold, config = read_gold(plan), plan.config
    names = sorted({row.given_label or "" for row in gold.train})
    classifier = load_classifier(
        config.backbone, Task(gold.draft.instruction, tuple(map(Label, names))), config.recipe, config.template
    )
    utterances, chosen = (
        read_in_context(gold, config),
        np.random.default_rng(0).permutation(len(gold.train))[: given.rows],
    )
    columns = np.array([names.index(gold.train[i].given_label or "") for i in chosen])
    return Answered(classifier.states([utterances[i] for i in chosen]), columns), classifier.label_states


def gains(rows: Answered, described: States, count: int, given: Namespace) -> Iterator[tuple[float, float]]:
    """Yield the expected and the actual gain for each draw of training examples and audit answers."""
    for seed in range(given.seeds):
        order = np.random.default_rng(seed).permutation(len(rows))
        test, audit, training_examples = np.split(order, [given.others, given.others + count // 4])
        others = rows.at(test)
        now, then = rows.at(training_examples[:count]), rows.at(training_examples[: count + MORE])
        probe = fit_probe(now.states, now.columns.tolist(), described)
        expected = expected_gain(now, rows.at(audit), probe, MORE)
        if expected is not None:
            yield expected, float(hits(then, others, probe).mean() - hits(now, others, probe).mean())


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    table = Table(title=f"utterances in a hundred that another {MORE} answers correct: mean (range)")
    for column in ("", "answers", "expected", "actual"):
        table.add_column(column, justify="left" if not column else "right")
    expected, came = {}, {}
    for name in given.sets:
        rows, described = read(name, given)
        for count in given.labels:
            found = 100 * np.array(list(gains(rows, described, count, given))).reshape(-1, 2)
            cells = [f"{v.mean():.2f} ({v.min():.1f} to {v.max():.1f})" for v in found.T if len(v)]
            table.add_row(name, str(count), *(cells or ["no estimate"]))
            means = found.mean(axis=0).round(2).tolist() if len(found) else [np.nan, np.nan]
            expected[f"{name}.{count}"], came[f"{name}.{count}"] = means
    Console(width=100).print(table)
    print_last({"expected": expected, "came": came, "rank": rank(list(expected.values()), list(came.values()))})


def rank(expected: list[float], came: list[float]) -> float:
    """Return the rank correlation over the pairs where both are known, nan if either does not vary."""
    pairs = np.array([pair for pair in zip(expected, came, strict=True) if not np.isnan(pair).any()]).reshape(-1, 2)
    if len(pairs) < 2 or (pairs == pairs[0]).all(axis=0).any():
        return float("nan")
    return round(float(spearmanr(pairs).statistic), 2)


if __name__ == "__main__":
    main()
