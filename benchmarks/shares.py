"""Compare weights of the probe in a round, on the same fine-tuned rounds.

    python -m benchmarks.shares [--quick | --tiny] [--data trec,snips] [--labels 100] [--seeds 0,1,2]

Rounds are those of `benchmarks.calibration`, read from $ANNOTATOR_KEPT if they are there. The adapter's log-likelihoods
are recovered by subtracting the probe's part from the combined ones; both are then combined again with other weights,
each at the temperature that fits the test rows best, so that differences in temperature do not count. The last line is
one JSON object: for each data set, the accuracy and log-loss of each weight.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.special import log_softmax

from annotator.simulation.memo import Memo
from benchmarks.calibration import COMMAND as ROUNDS
from benchmarks.calibration import UNKNOWN, Array, Kept, collect, console
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.measure import print_last
from model.probe.probe import blend
from model.probe.scaling import fit_temperature

COMMAND = Command(
    __doc__,
    full={**ROUNDS.full, "labels": 100},
    quick={"data": ("trec",), "seeds": (0,), "epochs": 2, "judged": 300, **RANDOM_WEIGHTS},
    tiny={**ROUNDS.tiny, "labels": 60},
    choices={**ROUNDS.choices, "classifier": ("both",)},
    figures_by="data",
)
SHARES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


def adapter_alone(both: Kept) -> Array:
    """Return (n, k) log-probabilities of the adapter by itself."""
    combined, probe = log_softmax(both.test, axis=1), log_softmax(both.probe, axis=1)
    return np.asarray(log_softmax((combined - both.share * probe) / (1 - both.share), axis=1))


def evaluate(logits: Array, truth: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return accuracy, log-loss at the best temperature, and the log of that temperature."""
    temperature = fit_temperature(logits, truth, spread=UNKNOWN)
    scores = log_softmax(logits / temperature, axis=1)[np.arange(len(truth)), truth]
    return float((logits.argmax(axis=1) == truth).mean()), float(-scores.mean()), float(np.log(temperature))


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    result: dict[str, dict[str, list[float]]] = {}
    memos: dict[str, Memo] = defaultdict(Memo)
    table = Table(title=f"accuracy · log-loss at the best temperature · that temperature, {given.labels} answers")
    for column in ("weight of the probe", *(f"{share:g}" for share in SHARES)):
        table.add_column(column, justify="right")
    for data in given.data:
        found: dict[float, list[tuple[float, float, float]]] = defaultdict(list)
        for seed in given.seeds:
            both = collect(data, given.labels, seed, given, memos[data])
            adapter, probe = adapter_alone(both), log_softmax(both.probe, axis=1)
            for share in SHARES:
                found[share].append(evaluate(blend(adapter, probe, share), both.test_truth))
        means = {share: np.mean(values, axis=0) for share, values in found.items()}
        table.add_row(data, *(f"{a:.3f}\n{loss:.3f}\n{np.exp(log):.2f}" for a, loss, log in means.values()))
        result[data] = {f"{share:g}": [round(float(v), 3) for v in mean[:2]] for share, mean in means.items()}
    console.print(table)
    print_last(result)


if __name__ == "__main__":
    main()
