"""Measure how many wrong answers a second look at a fifth of them finds.

    python -m benchmarks.mistakes [--quick | --tiny] [--sets trec,snips,…] [--seeds 10] [--labels 200]
        [--noise 0,0.05,0.1,0.2]

On each data set so many random labels are drawn, a share of them is replaced by another label at random, and the
answers are ranked as `annotator.rounds.label_errors` does, read with the turns before them where there are any. Beside it stand
the same ranking from TF-IDF with logistic regression, and drawing at random. The number of wrong answers stands beside
the number expected and the number that confident learning (Northcutt et al. 2021) counts. The last line is one JSON
object: the share `found` for each set and share of noise.
"""

import tempfile
from argparse import Namespace
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from annotator.codebook.definition import create_project
from annotator.config import RoundConfig
from annotator.exchange.imports import add_utterances
from annotator.methods.query_strategies import Probabilities, Scores
from annotator.rounds.label_errors import Columns, expected_wrong
from annotator.rounds.snapshot import read_texts
from annotator.simulation.oracle import Gold, read_gold
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.data import PUBLIC, SETS, plan_of
from benchmarks.measure import print_last
from model.backbones.catalog import STARTER
from model.load import load_classifier
from model.probe.probe import out_of_fold
from model.types import Label, Task, Utterance

COMMAND = Command(
    __doc__,
    full={"sets": tuple(PUBLIC), "seeds": 10, "labels": 200, "noise": (0.0, 0.05, 0.1, 0.2), "backbone": STARTER},
    quick={"sets": ("trec", "snips"), "seeds": 2, "noise": (0.0, 0.1)},
    tiny={"sets": ("client_talk",), "seeds": 2, "labels": 60, "noise": (0.0, 0.2), **RANDOM_WEIGHTS},
    choices={"sets": tuple(SETS)},
    figures=("found",),
)
LOOK = 0.2  # share of the answers that is looked at again


def found_by(chances: Scores, wrong: NDArray[np.bool_]) -> float:
    """Return the share of wrong answers among the least likely fifth."""
    first = np.argsort(chances)[: round(LOOK * len(chances))]
    return float(wrong[first].sum() / wrong.sum())


def by_words(texts: list[str], labels: Columns) -> Probabilities:
    """Judge answers by TF-IDF and logistic regression, out of fold."""
    x = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    _, columns = np.unique(labels, return_inverse=True)
    said = cross_val_predict(LogisticRegression(C=10.0), x, columns, method="predict_proba", cv=5)
    return np.asarray(said[np.arange(len(labels)), columns])


def by_confident_learning(said: Probabilities, labels: Columns) -> int:
    """Count the answers where another label is as probable as it is on average where it was given."""
    usual = np.array([said[labels == k, k].mean() if (labels == k).any() else np.inf for k in range(said.shape[1])])
    likely = np.where(said >= usual, said, 0.0)
    return int(((likely.max(axis=1) > 0) & (likely.argmax(axis=1) != labels)).sum())


def read_in_context(gold: Gold, config: RoundConfig) -> list[Utterance]:
    """Return what can be asked with the turns before it, as a round reads it."""
    with tempfile.TemporaryDirectory() as folder, create_project(Path(folder), gold.draft, config) as project:
        ids = add_utterances(project, gold.train)
        add_utterances(project, gold.context)
        return read_texts(project, ids, config.context_turns)


def measure(name: str, given: Namespace) -> dict[float, dict[str, list[float]]]:
    """Return, for each share of wrong answers and each way, what came out in each seed."""
    plan = plan_of(name, given.backbone)
    gold, config, count = read_gold(plan), plan.config, given.labels
    names = sorted({row.given_label or "" for row in gold.train})
    task = Task(gold.draft.instruction, tuple(Label(one) for one in names))
    classifier = load_classifier(config.backbone, task, config.recipe, config.template)
    results: dict[float, dict[str, list[float]]] = {noise: defaultdict(list) for noise in given.noise}
    asked = read_in_context(gold, config)
    for seed in range(given.seeds):
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(gold.train))[:count]
        rows = [gold.train[i] for i in chosen]
        right = np.array([names.index(row.given_label or "") for row in rows])
        states = classifier.states([asked[i] for i in chosen])
        for noise in given.noise:
            wrong = rng.random(count) < noise
            told = np.where(wrong, (right + rng.integers(1, len(names), count)) % len(names), right)
            heard = out_of_fold(states, told.tolist(), classifier.label_states)
            said, ways, expected = np.exp(heard), results[noise], expected_wrong(heard, told)
            if wrong.any():
                ways["scout"].append(found_by(said[np.arange(count), told], wrong))
                ways["TF-IDF"].append(found_by(by_words([row.text for row in rows], told), wrong))
            ways["wrong"].append(wrong.sum())
            ways["expected"].append(np.nan if expected is None else expected)
            ways["confident learning"].append(by_confident_learning(said, told))
    return results


COLUMNS = {"scout": ".2f", "TF-IDF": ".2f", "wrong": ".0f", "expected": ".0f", "confident learning": ".0f"}


def cell(values: list[float], form: str) -> str:
    """Write mean and range of what was said, and in how many seeds nothing was."""
    told = [value for value in values if not np.isnan(value)]
    if not told:
        return "says nothing" if values else ""
    silent = f", {len(values) - len(told)} silent" if len(told) < len(values) else ""
    return f"{np.mean(told):{form}} ({min(told):{form}} to {max(told):{form}}{silent})"


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    table = Table(
        title=f"wrong answers found in the {LOOK:.0%} looked at again (at random {LOOK:.0%}), and their number"
    )
    for column in ("", "noise", *COLUMNS):
        table.add_column(column, justify="left" if not column else "right")
    found: dict[str, float] = {}
    for name in given.sets:
        for noise, ways in measure(name, given).items():
            table.add_row(name, f"{noise:.0%}", *(cell(ways[way], form) for way, form in COLUMNS.items()))
            if ways["scout"]:
                found[f"{name}.{noise:g}"] = round(float(np.mean(ways["scout"])), 3)
    Console(width=130).print(table)
    print_last({"found": found})


if __name__ == "__main__":
    main()
