"""Measure how many wrong answers are found by reviewing the most suspicious fifth.

    python -m benchmarks.mistakes [--quick | --tiny] [--sets trec,snips,…] [--seeds 10] [--labels 200]
        [--noise 0,0.05,0.1,0.2]

On each data set, a number of labels is drawn at random and a share of them replaced by random other labels. The answers
are ranked as in `annotator.rounds.label_errors`, with context turns where there are any, and for comparison by TF-IDF
with logistic regression and at random. The table also gives the number of wrong answers, the number expected, and the
number counted by confident learning (Northcutt et al. 2021). The last line is one JSON object: the share `found` for
each set and share of noise.
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
REVIEWED = 0.2  # share of the answers that is reviewed


def found_by(chances: Scores, wrong: NDArray[np.bool_]) -> float:
    """Return the share of wrong answers among the least likely fifth."""
    first = np.argsort(chances)[: round(REVIEWED * len(chances))]
    return float(wrong[first].sum() / wrong.sum())


def by_words(texts: list[str], labels: Columns) -> Probabilities:
    """Return (n,) out-of-fold probabilities of the given labels by TF-IDF and logistic regression."""
    x = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    _, columns = np.unique(labels, return_inverse=True)
    probabilities = cross_val_predict(LogisticRegression(C=10.0), x, columns, method="predict_proba", cv=5)
    return np.asarray(probabilities[np.arange(len(labels)), columns])


def by_confident_learning(probabilities: Probabilities, labels: Columns) -> int:
    """Count the answers where another label reaches its mean probability among the answers with that label."""
    size = probabilities.shape[1]
    mean = np.array([probabilities[labels == k, k].mean() if (labels == k).any() else np.inf for k in range(size)])
    likely = np.where(probabilities >= mean, probabilities, 0.0)
    return int(((likely.max(axis=1) > 0) & (likely.argmax(axis=1) != labels)).sum())


def read_in_context(gold: Gold, config: RoundConfig) -> list[Utterance]:
    """Return the training rows with their context turns, as a round reads them."""
    with tempfile.TemporaryDirectory() as folder, create_project(Path(folder), gold.draft, config) as project:
        ids = add_utterances(project, gold.train)
        add_utterances(project, gold.context)
        return read_texts(project, ids, config.context_turns)


def measure(name: str, given: Namespace) -> dict[float, dict[str, list[float]]]:
    """Return, for each share of wrong answers and each way, the figures of all seeds."""
    plan = plan_of(name, given.backbone)
    gold, config, count = read_gold(plan), plan.config, given.labels
    names = sorted({row.given_label or "" for row in gold.train})
    task = Task(gold.draft.instruction, tuple(Label(one) for one in names))
    classifier = load_classifier(config.backbone, task, config.recipe, config.template)
    results: dict[float, dict[str, list[float]]] = {noise: defaultdict(list) for noise in given.noise}
    utterances = read_in_context(gold, config)
    for seed in range(given.seeds):
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(gold.train))[:count]
        rows = [gold.train[i] for i in chosen]
        right = np.array([names.index(row.given_label or "") for row in rows])
        states = classifier.states([utterances[i] for i in chosen])
        for noise in given.noise:
            wrong = rng.random(count) < noise
            answers = np.where(wrong, (right + rng.integers(1, len(names), count)) % len(names), right)
            loglik = out_of_fold(states, answers.tolist(), classifier.label_states)
            probabilities, ways, expected = np.exp(loglik), results[noise], expected_wrong(loglik, answers)
            if wrong.any():
                ways["probe"].append(found_by(probabilities[np.arange(count), answers], wrong))
                ways["TF-IDF"].append(found_by(by_words([row.text for row in rows], answers), wrong))
            ways["wrong"].append(wrong.sum())
            ways["expected"].append(np.nan if expected is None else expected)
            ways["confident learning"].append(by_confident_learning(probabilities, answers))
    return results


COLUMNS = {"probe": ".2f", "TF-IDF": ".2f", "wrong": ".0f", "expected": ".0f", "confident learning": ".0f"}


def cell(values: list[float], form: str) -> str:
    """Format the mean and range of the values, and the number of seeds without one."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return "no estimate" if values else ""
    missing = f", {len(values) - len(known)} without" if len(known) < len(values) else ""
    return f"{np.mean(known):{form}} ({min(known):{form}} to {max(known):{form}}{missing})"


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    table = Table(
        title=f"wrong answers found in the {REVIEWED:.0%} reviewed (at random {REVIEWED:.0%}), and their number"
    )
    for column in ("", "noise", *COLUMNS):
        table.add_column(column, justify="left" if not column else "right")
    found: dict[str, float] = {}
    for name in given.sets:
        for noise, ways in measure(name, given).items():
            table.add_row(name, f"{noise:.0%}", *(cell(ways[way], form) for way, form in COLUMNS.items()))
            if ways["probe"]:
                found[f"{name}.{noise:g}"] = round(float(np.mean(ways["probe"])), 3)
    Console(width=130).print(table)
    print_last({"found": found})


if __name__ == "__main__":
    main()
