"""What another batch was expected to give, beside what it gave.

    python -m benchmarks.gain [--sets trec,snips,…] [--seeds 5] [--labels 90,160,320]

So many random answers teach, a quarter as many judge, and `annotator.gain` says how many more utterances of a hundred
another 25 answers will put right. Then a scout is taught these, too, and both are asked about 600 other utterances.
The last line is one JSON object: the means of `expected` and `came` for each set and number of answers, and `rank`, the
rank correlation of the two over sets and numbers.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from annotator.gain import expected_gain
from annotator.oracle import read_gold
from annotator.teaching import Answered, hits
from benchmarks.label_efficiency import SETS
from benchmarks.measure import print_last
from benchmarks.mistakes import read_in_context
from model.classifier import States, load_classifier
from model.scout import fit_scout
from model.task import Label, Task

MORE, OTHERS, ROWS = 25, 600, 1200  # answers of a batch; utterances that tell what came; rows that are read at all


def read(name: str) -> tuple[Answered, States]:
    """Read rows of a data set as a round would; return them with what the backbone makes of the labels' names."""
    gold = read_gold(SETS[name])
    names = sorted({row.given_label or "" for row in gold.train})
    config = SETS[name].config
    classifier = load_classifier(
        config.backbone, Task(gold.draft.instruction, tuple(map(Label, names))), config.recipe, config.template
    )
    asked, chosen = read_in_context(gold, config), np.random.default_rng(0).permutation(len(gold.train))[:ROWS]
    columns = np.array([names.index(gold.train[i].given_label or "") for i in chosen])
    return Answered(classifier.states([asked[i] for i in chosen]), columns), classifier.described


def foretell(rows: Answered, described: States, count: int, seeds: int) -> Iterator[tuple[float, float]]:
    """Yield what was expected and what came, for each draw of lessons and judges."""
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(rows))
        others, judges, lessons = rows.at(order[:OTHERS]), order[OTHERS:][: count // 4], order[OTHERS:][count // 4 :]
        now, then = rows.at(lessons[:count]), rows.at(lessons[: count + MORE])
        scout = fit_scout(now.states, now.columns.tolist(), described)
        expected = expected_gain(now, rows.at(judges), scout, MORE)
        if expected is not None:
            yield expected, float(hits(then, others, scout).mean() - hits(now, others, scout).mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", default="90,160,320")
    given = parser.parse_args()
    table = Table(title=f"utterances of a hundred that another {MORE} answers put right: mean (range)")
    for column in ("", "answers", "expected", "came"):
        table.add_column(column, justify="left" if not column else "right")
    expected, came = {}, {}
    for name in given.sets.split(","):
        rows, described = read(name)
        for count in map(int, given.labels.split(",")):
            found = 100 * np.array(list(foretell(rows, described, count, given.seeds)))
            cells = (f"{v.mean():.2f} ({v.min():.1f} to {v.max():.1f})" for v in found.T)
            table.add_row(name, str(count), *cells)
            expected[f"{name}.{count}"], came[f"{name}.{count}"] = found.mean(axis=0).round(2).tolist()
    Console(width=100).print(table)
    rank = spearmanr(list(expected.values()), list(came.values())).statistic
    print_last({"expected": expected, "came": came, "rank": round(float(rank), 2)})


if __name__ == "__main__":
    main()
