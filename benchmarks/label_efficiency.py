"""Measure how many answers active learning saves over random sampling and over simple classifiers.

    python -m benchmarks.label_efficiency [--quick | --tiny] [--sets trec,snips,…] [--seeds 5]
        [--classifier probe|both]

Runs the product's simulation on each data set with each strategy. All strategies of a seed share pool, test rows and
oracle errors, and all answers are counted, including audit answers. The baselines use the same pools, test rows and
budgets and train on every answer: small-text's breaking ties and random on TF-IDF, and logistic regression with margin
on TF-IDF and on MiniLM embeddings. Answers needed are given relative to the accuracy with the whole pool answered.
Finished sessions are kept in $ANNOTATOR_KEPT and not run again.

The last line is one JSON object for the default strategy: on how many sets it is `better` or `worse` than random, the
`median_saved` share of answers, and on how many sets its accuracy at 100 and 200 answers is above each baseline's
(`above`).
"""

import csv
import os
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from annotator.methods.query_strategies import DEFAULT, STRATEGIES, View, margin, rank
from annotator.simulation.curves import Curve, Point, compare, curve_of, reached
from annotator.simulation.oracle import Gold, read_gold
from annotator.simulation.report import SHARES, sentences
from annotator.simulation.runner import BASELINE, EVERYTHING, replay
from annotator.simulation.runs import Run
from benchmarks.command import PROBE_NAMES, RANDOM_WEIGHTS, SCRATCH, Command
from benchmarks.data import PUBLIC, SETS, plan_of
from benchmarks.measure import print_last
from benchmarks.small_data import MINILM, embed
from model.backbones.catalog import STARTER

CONSOLE = Console(width=150)
ROWS, TEST = 1500, 500
COMMAND = Command(
    __doc__,
    full={
        "sets": tuple(PUBLIC), "strategies": (BASELINE, DEFAULT, "margin", "entropy", "label_balanced", "typical"),
        "seeds": 5, "classifier": "probe",
        "rows": ROWS,  # training rows, the same for all seeds, so that hidden states are computed once
        "pool": 1000, "test": TEST, "batch": 25, "labels": 200,
        "kept": os.environ.get("ANNOTATOR_KEPT", "kept"), "backbone": STARTER,
    },
    quick={"sets": ("snips",), "strategies": (BASELINE, DEFAULT), "seeds": 2, "rows": 400, "pool": 300, "test": 200,
           "batch": 50},
    tiny={"sets": ("political_promises",), "strategies": (BASELINE, DEFAULT), "seeds": 1, "rows": 300, "pool": 250,
          "test": 60, "batch": 100, "kept": SCRATCH, **RANDOM_WEIGHTS},
    choices={"sets": tuple(SETS), "strategies": tuple(STRATEGIES), "classifier": (*PROBE_NAMES, "both")},
    figures=("sets", "better", "worse", "median_saved", "saved", "above"),
)  # fmt: skip
Peer = Callable[[NDArray[Any], NDArray[np.int64], int], Iterator[tuple[int, float]]]


def ours(name: str, given: Namespace) -> list[Run]:
    """Run the product on a data set."""
    plan = plan_of(name, given.backbone)
    is_probe = given.classifier in PROBE_NAMES
    recipe = replace(plan.config.recipe, probe_weight=1.0) if is_probe else plan.config.recipe
    plan = replace(plan, data=excerpt(name, given), pool_limit=given.pool, test_limit=given.test)
    plan = replace(plan, labels=given.labels, rounds=given.labels // given.batch)
    plan = replace(plan, config=replace(plan.config, recipe=recipe))
    kind = "scout" if is_probe else given.classifier  # files keep the name of earlier versions
    finished = Path(given.kept) / f"label-efficiency-{name}-{kind}.jsonl"
    return list(replay(plan, [*given.strategies, EVERYTHING], range(given.seeds), finished))


def excerpt(name: str, given: Namespace) -> Path:
    """Write a random excerpt of a data set, with training rows and test rows; return its path."""
    folder, plan = Path(given.kept), plan_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    size = "" if (given.rows, given.test) == (ROWS, TEST) else f"-{given.rows}-{given.test}"
    source, target, gold = plan.data, folder / f"{name}{size}.csv", read_gold(plan)
    taken = [gold.train[i] for i in np.random.default_rng(0).permutation(len(gold.train))[: given.rows]]
    taken += [gold.test[i] for i in np.random.default_rng(0).permutation(len(gold.test))[: given.test]]
    ids = {row.external_id for row in taken}
    with source.open(encoding="utf-8", newline="") as read, target.open("w", encoding="utf-8", newline="") as written:
        rows = csv.DictReader(read)
        out = csv.DictWriter(written, rows.fieldnames or [])
        out.writeheader()
        out.writerows(row for row in rows if row["id"] in ids)
    return target


def peers(name: str, given: Namespace) -> list[Point]:
    """Run the baselines on the same pools, test rows and budgets."""
    gold = read_gold(replace(plan_of(name), data=excerpt(name, given)))
    names = sorted({row.given_label or "" for row in (*gold.train, *gold.test)})
    ways: dict[str, Callable[[Sequence[str]], Any]] = {"TF-IDF": _tfidf(gold)}
    if find_spec(MINILM):
        known = dict(zip(*_texts(gold), strict=True))
        ways["MiniLM"] = lambda texts: np.array([known[text] for text in texts])
    points = []
    for way, represent in ways.items():
        for seed in range(given.seeds):
            train, test = _rows(gold, given, seed)
            x = represent([row.text for row in (*train, *test)])
            y = np.array([names.index(row.given_label or "") for row in (*train, *test)])
            for strategy in ("margin", "random"):
                for labels, right in _by_hand((x, y), len(train), given, strategy, seed):
                    points.append(Point(f"{way}, {strategy}", seed, labels, right))
    if find_spec("small_text"):
        points += [point for seed in range(given.seeds) for point in _small_text(gold, names, given, seed)]
    return points


def _rows(gold: Gold, given: Namespace, seed: int) -> tuple[list[Any], list[Any]]:
    """Return the pool and the test rows of a seed, as in the simulation."""
    pool = np.random.default_rng(seed).permutation(len(gold.train))[: given.pool]
    test = np.random.default_rng(0).permutation(len(gold.test))[: given.test]
    return [gold.train[i] for i in sorted(pool)], [gold.test[i] for i in sorted(test)]


def _texts(gold: Gold) -> tuple[list[str], NDArray[Any]]:
    texts = sorted({row.text for row in (*gold.train, *gold.test)})
    return texts, embed(texts)


def _tfidf(gold: Gold) -> Callable[[Sequence[str]], Any]:
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit([row.text for row in gold.train])
    return lambda texts: words.transform(texts)


def _by_hand(
    rows: tuple[Any, NDArray[np.int64]], size: int, given: Namespace, strategy: str, seed: int
) -> Iterator[tuple[int, float]]:
    """Yield numbers of answers and accuracies: a random batch first, then by strategy. The first rows are the pool."""
    x, y = rows
    warnings.filterwarnings("ignore", "The number of unique classes")  # expected with 77 labels and 25 answers
    rng = np.random.default_rng(seed)
    known = rng.permutation(size)[: given.batch].tolist()
    while True:
        head = LogisticRegression(C=10.0, max_iter=1000).fit(x[known], y[known])
        yield len(known), float((head.predict(x[size:]) == y[size:]).mean())
        if len(known) >= given.labels:
            return
        left = np.setdiff1d(np.arange(size), known)
        seen = View(head.predict_proba(x[left]))
        scores = margin(seen) if strategy == "margin" else np.zeros(len(left))
        known += left[rank(scores, rng, given.batch)].tolist()


def _small_text(gold: Gold, names: Sequence[str], given: Namespace, seed: int) -> Iterator[Point]:
    from small_text import (
        BreakingTies,
        PoolBasedActiveLearner,
        RandomSampling,
        SklearnClassifierFactory,
        SklearnDataset,
    )
    from small_text.classifiers.classification import ConfidenceEnhancedLinearSVC

    train, test = _rows(gold, given, seed)
    words = _tfidf(gold)
    x, y = words([row.text for row in train]), np.array([names.index(row.given_label or "") for row in train])
    tested, truth = words([row.text for row in test]), np.array([names.index(row.given_label or "") for row in test])
    data = SklearnDataset(x, y, target_labels=np.arange(len(names)))
    for name, strategy in (("breaking ties", BreakingTies()), ("random", RandomSampling())):
        np.random.seed(seed)
        factory = SklearnClassifierFactory(ConfidenceEnhancedLinearSVC(), len(names))
        learner = PoolBasedActiveLearner(factory, strategy, data)
        first = np.random.default_rng(seed).permutation(len(train))[: given.batch]
        learner.initialize_data(first, y[first])
        for labels in range(given.batch, given.labels + 1, given.batch):
            columns = learner.classifier.predict(SklearnDataset(tested, truth, target_labels=np.arange(len(names))))
            predicted = learner.classifier.model.classes_[columns]  # columns count only labels in its training set
            yield Point(f"small-text, {name}", seed, labels, float((predicted == truth).mean()))
            if labels < given.labels:
                learner.query(num_samples=given.batch)
                learner.update(y[learner.indices_queried])


def show(name: str, points: Sequence[Point]) -> None:
    """Print each way's accuracy on a data set, and its gain over random sampling."""
    table = Table(title=f"{name}: accuracy, mean over seeds")
    for column in ("", "50", "100", "200", "area", "over random", "answers saved", f"to {SHARES[-1]:.0%} of all"):
        table.add_column(column, justify="left" if not column else "right")
    base, whole = curve_of(points, BASELINE), curve_of(points, EVERYTHING)
    for way in dict.fromkeys(one.strategy for one in points if one.strategy != EVERYTHING):
        curve = curve_of(points, way)
        found = compare(curve, base)
        low, high = found.area_interval
        at = [f"{_at(curve, count):.3f}" if count in curve.labels else "–" for count in (50, 100, 200)]
        gain = f"{found.area:+.3f} ({low:+.3f} to {high:+.3f})"
        saved = "{:.0%} ({:.0%} to {:.0%})".format(found.saved, *found.saved_interval)
        enough = "{:.0f} ({:.0f} to {:.0f})".format(*reached(curve, SHARES[-1] * float(whole.mean[-1])))
        table.add_row(way, *at, f"{curve.areas.mean():.3f}", gain, saved, enough)
    CONSOLE.print(table)


def _at(curve: Curve, labels: int) -> float:
    return float(curve.mean[curve.labels.tolist().index(labels)])


def verdict(found: dict[str, list[Point]]) -> dict[str, Any]:
    """Summarize the default strategy over all data sets."""
    comparisons = {name: compare(curve_of(made, DEFAULT), curve_of(made, BASELINE)) for name, made in found.items()}
    above: dict[str, dict[str, int]] = {}
    for points in found.values():
        best = curve_of(points, DEFAULT)
        for way in dict.fromkeys(one.strategy for one in points if ", " in one.strategy):
            wins, other = above.setdefault(way, {"100": 0, "200": 0}), curve_of(points, way)
            for count in (100, 200):
                if count in best.labels and count in other.labels:
                    wins[str(count)] += _at(best, count) > _at(other, count)
    return {
        "sets": len(found),
        "better": sum(one.verdict == "better" for one in comparisons.values()),
        "worse": sum(one.verdict == "worse" for one in comparisons.values()),
        "median_saved": round(float(np.median([one.saved for one in comparisons.values()])), 3),
        "saved": {name: round(one.saved, 3) for name, one in comparisons.items()},
        "above": above,
    }


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    found = {}
    for name in given.sets:
        runs = ours(name, given)
        found[name] = [run.point for run in runs] + peers(name, given)
        show(name, found[name])
        CONSOLE.print(*sentences(runs), sep="\n", highlight=False, soft_wrap=True)
    print_last(verdict(found))


if __name__ == "__main__":
    main()
