"""Measure how many wrong answers a second look at a fifth of them finds.

    python -m benchmarks.mistakes [--sets trec,snips,…] [--seeds 5] [--labels 200] [--noise 0.1]

On each data set so many random labels are drawn, a share of them is replaced by another label at random, and the
answers are ranked by `annotator.mistakes`. Beside it stand the same ranking from TF-IDF with logistic regression, and
drawing at random. The last line is one JSON object: the share of wrong answers `found` on each set.
"""

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from annotator.mistakes import Columns, expected_wrong
from annotator.oracle import read_gold
from annotator.query import Probabilities
from benchmarks.label_efficiency import SETS
from benchmarks.measure import print_last
from model.classifier import load_classifier
from model.scout import out_of_fold
from model.task import Label, Task, Utterance

LOOK = 0.2  # share of the answers that is looked at again


def found_by(chances: np.ndarray, wrong: np.ndarray) -> float:
    """Return the share of wrong answers among the least likely fifth."""
    first = np.argsort(chances)[: round(LOOK * len(chances))]
    return float(wrong[first].sum() / wrong.sum())


def by_words(texts: list[str], labels: Columns) -> Probabilities:
    """Judge answers by TF-IDF and logistic regression, out of fold."""
    x = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    _, columns = np.unique(labels, return_inverse=True)
    said = cross_val_predict(LogisticRegression(C=10.0), x, columns, method="predict_proba", cv=5)
    return np.asarray(said[np.arange(len(labels)), columns])


def measure(name: str, seeds: int, count: int, noise: float) -> dict[str, list[float]]:
    """Return, for each way, what was found in each seed."""
    gold = read_gold(SETS[name])
    names = sorted({row.given_label or "" for row in gold.train})
    task, config = Task(gold.draft.instruction, tuple(Label(one) for one in names)), SETS[name].config
    classifier = load_classifier(config.backbone, task, config.recipe, config.template)
    results: dict[str, list[float]] = {"scout": [], "TF-IDF": [], "expected / wrong": []}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        rows = [gold.train[i] for i in rng.permutation(len(gold.train))[:count]]
        right = np.array([names.index(row.given_label or "") for row in rows])
        wrong = rng.random(count) < noise
        given = np.where(wrong, (right + rng.integers(1, len(names), count)) % len(names), right)
        states = classifier.states([Utterance(row.text) for row in rows])
        said = np.exp(out_of_fold(states, given.tolist(), len(names)))
        results["scout"].append(found_by(said[np.arange(count), given], wrong))
        results["TF-IDF"].append(found_by(by_words([row.text for row in rows], given), wrong))
        results["expected / wrong"].append(expected_wrong(said, given) / wrong.sum())
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.1)
    given = parser.parse_args()
    table = Table(title=f"wrong answers among the {LOOK:.0%} looked at again; at random {LOOK:.0%}")
    found: dict[str, float] = {}
    for name in given.sets.split(","):
        results = measure(name, given.seeds, given.labels, given.noise)
        if not found:
            for column in ("", *results):
                table.add_column(column, justify="left" if not column else "right")
        cells = [f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" for values in results.values()]
        table.add_row(name, *cells)
        found[name] = round(float(np.mean(results["scout"])), 3)
    Console(width=100).print(table)
    print_last({"found": found})


if __name__ == "__main__":
    main()
