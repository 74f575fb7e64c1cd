"""Measure what asking the right questions saves, against drawing at random and against what one would build by hand.

    python -m benchmarks.label_efficiency [--quick | --tiny] [--sets trec,snips,…] [--seeds 5]
        [--classifier scout|both]

Runs the product's own simulation on each data set with each strategy: the same pool, test and mistakes for all
strategies of a seed, every answer counted, audit answers included. On the same pools, tests and budgets: small-text's
breaking ties and random on TF-IDF, and logistic regression with margin on TF-IDF and on MiniLM embeddings, all
of which train on every answer. What is enough is told against the whole pool answered. Sessions that have ended are
kept in $ANNOTATOR_KEPT and not run again.

The last line is one JSON object: for the default strategy on how many sets it is `better`, `worse`, the `median_saved`
share of labels, and on how many sets accuracy at 100 and 200 labels is above each of the others (`above`).
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
from annotator.simulation.curves import compare, curve_of, reached
from annotator.simulation.oracle import Gold, read_gold
from annotator.simulation.report import SHARES, sentences
from annotator.simulation.runner import BASELINE, EVERYTHING, Run, replay
from benchmarks.command import RANDOM_WEIGHTS, SCRATCH, Command
from benchmarks.data import PUBLIC, SETS, plan_of
from benchmarks.measure import print_last
from benchmarks.small_data import MINILM, embed
from model.backbones.catalog import STARTER

ROWS, TEST = 1500, 500
COMMAND = Command(
    __doc__,
    full={
        "sets": tuple(PUBLIC), "strategies": (BASELINE, DEFAULT, "margin", "entropy", "label_balanced", "typical"),
        "seeds": 5, "classifier": "scout",
        "rows": ROWS,  # of the training rows, the same for all seeds: what the backbone makes of them is computed once
        "pool": 1000, "test": TEST, "batch": 25, "labels": 200,
        "kept": os.environ.get("ANNOTATOR_KEPT", "kept"), "backbone": STARTER,
    },
    quick={"sets": ("snips",), "strategies": (BASELINE, DEFAULT), "seeds": 2, "rows": 400, "pool": 300, "test": 200,
           "batch": 50},
    tiny={"sets": ("political_promises",), "strategies": (BASELINE, DEFAULT), "seeds": 1, "rows": 300, "pool": 250,
          "test": 60, "batch": 100, "kept": SCRATCH, **RANDOM_WEIGHTS},
    choices={"sets": tuple(SETS), "strategies": tuple(STRATEGIES), "classifier": ("scout", "both")},
    figures=("sets", "better", "worse", "median_saved", "saved", "above"),
)  # fmt: skip
Peer = Callable[[NDArray[Any], NDArray[np.int64], int], Iterator[tuple[int, float]]]


def ours(name: str, given: Namespace) -> list[Run]:
    """Run the product on a data set."""
    plan = plan_of(name, given.backbone)
    recipe = replace(plan.config.recipe, probe_weight=1.0) if given.classifier == "scout" else plan.config.recipe
    plan = replace(plan, data=excerpt(name, given), pool_limit=given.pool, test_limit=given.test)
    plan = replace(plan, labels=given.labels, rounds=given.labels // given.batch)
    plan = replace(plan, config=replace(plan.config, recipe=recipe))
    finished = Path(given.kept) / f"label-efficiency-{name}-{given.classifier}.jsonl"
    return list(replay(plan, [*given.strategies, EVERYTHING], range(given.seeds), finished))


def excerpt(name: str, given: Namespace) -> Path:
    """Write a random excerpt of a data set: rows to choose from, rows to test on, and the turns around them."""
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


def peers(name: str, given: Namespace) -> list[Run]:
    """Run what a user would build by hand on the same pools, tests and budgets."""
    gold = read_gold(replace(plan_of(name), data=excerpt(name, given)))
    names = sorted({row.given_label or "" for row in (*gold.train, *gold.test)})
    ways: dict[str, Callable[[Sequence[str]], Any]] = {"TF-IDF": _tfidf(gold)}
    if find_spec(MINILM):
        known = dict(zip(*_texts(gold), strict=True))
        ways["MiniLM"] = lambda texts: np.array([known[text] for text in texts])
    runs = []
    for way, represent in ways.items():
        for seed in range(given.seeds):
            train, test = _rows(gold, given, seed)
            x = represent([row.text for row in (*train, *test)])
            y = np.array([names.index(row.given_label or "") for row in (*train, *test)])
            for strategy in ("margin", "random"):
                for labels, right in _by_hand((x, y), len(train), given, strategy, seed):
                    runs.append({"strategy": f"{way}, {strategy}", "seed": seed, "labels": labels, "accuracy": right})
    if find_spec("small_text"):
        runs += [run for seed in range(given.seeds) for run in _small_text(gold, names, given, seed)]
    return runs


def _rows(gold: Gold, given: Namespace, seed: int) -> tuple[list[Any], list[Any]]:
    """Take the pool and the test of a seed, as the simulation does."""
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
    """Yield labels given and accuracy: a random batch first, then the closest calls. The first rows are the pool."""
    x, y = rows
    warnings.filterwarnings("ignore", "The number of unique classes")  # with 77 labels and 25 answers it is
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


def _small_text(gold: Gold, names: Sequence[str], given: Namespace, seed: int) -> Iterator[Run]:
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
    asked, truth = words([row.text for row in test]), np.array([names.index(row.given_label or "") for row in test])
    data = SklearnDataset(x, y, target_labels=np.arange(len(names)))
    for name, strategy in (("breaking ties", BreakingTies()), ("random", RandomSampling())):
        np.random.seed(seed)
        factory = SklearnClassifierFactory(ConfidenceEnhancedLinearSVC(), len(names))
        learner = PoolBasedActiveLearner(factory, strategy, data)
        first = np.random.default_rng(seed).permutation(len(train))[: given.batch]
        learner.initialize_data(first, y[first])
        for labels in range(given.batch, given.labels + 1, given.batch):
            columns = learner.classifier.predict(SklearnDataset(asked, truth, target_labels=np.arange(len(names))))
            said = learner.classifier.model.classes_[columns]  # it numbers the labels that it has seen
            yield {
                "strategy": f"small-text, {name}",
                "seed": seed,
                "labels": labels,
                "accuracy": float((said == truth).mean()),
            }
            if labels < given.labels:
                learner.query(num_samples=given.batch)
                learner.update(y[learner.indices_queried])


def show(name: str, runs: Sequence[Run]) -> None:
    """Print every way's accuracy on a data set, and what it gains over drawing at random."""
    table = Table(title=f"{name}: accuracy, mean over seeds")
    for column in ("", "50", "100", "200", "area", "against random", "labels saved", f"to {SHARES[-1]:.0%} of all"):
        table.add_column(column, justify="left" if not column else "right")
    base, whole = curve_of(runs, BASELINE), curve_of(runs, EVERYTHING)
    for way in dict.fromkeys(run["strategy"] for run in runs if run["strategy"] != EVERYTHING):
        curve = curve_of(runs, way)
        found = compare(curve, base)
        low, high = found.area_interval
        at = [f"{_at(curve, count):.3f}" if count in curve.labels else "–" for count in (50, 100, 200)]
        gain = f"{found.area:+.3f} ({low:+.3f} to {high:+.3f})"
        saved = "{:.0%} ({:.0%} to {:.0%})".format(found.saved, *found.saved_interval)
        enough = "{:.0f} ({:.0f} to {:.0f})".format(*reached(curve, SHARES[-1] * float(whole.mean[-1])))
        table.add_row(way, *at, f"{curve.areas.mean():.3f}", gain, saved, enough)
    console = Console(width=150)
    console.print(table)
    mine = [run for run in runs if ", " not in run["strategy"]]
    console.print(*sentences(mine), sep="\n", highlight=False, soft_wrap=True)


def _at(curve: Any, labels: int) -> float:
    return float(curve.mean[curve.labels.tolist().index(labels)])


def verdict(found: dict[str, list[Run]]) -> dict[str, Any]:
    """Judge the default strategy over all data sets."""
    comparisons = {name: compare(curve_of(runs, DEFAULT), curve_of(runs, BASELINE)) for name, runs in found.items()}
    above: dict[str, dict[str, int]] = {}
    for runs in found.values():
        best = curve_of(runs, DEFAULT)
        for way in dict.fromkeys(run["strategy"] for run in runs if ", " in run["strategy"]):
            wins, other = above.setdefault(way, {"100": 0, "200": 0}), curve_of(runs, way)
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
        found[name] = ours(name, given) + peers(name, given)
        show(name, found[name])
    print_last(verdict(found))


if __name__ == "__main__":
    main()
