"""Measure the time to choose a batch from a large pool, and to re-rank a batch after new answers.

    python -m benchmarks.ranking [--quick | --tiny]

Chooses a diverse batch of 50 without near-duplicates from a small and a large pool with 10 probabilities per row, and
compares it with sorting the margins with numpy, which is the limit. Then refits a probe to a project's answers and
reorders its batch, compared with scikit-learn's fit alone. The last line is one JSON object: `seconds`, `memory_gb`,
`ten_times` (the larger pool over the smaller), `over_sort`, and for the probe `reorder_seconds` and `over_fit`.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import draft_from_names
from annotator.config import RoundConfig
from annotator.exchange.imports import add_utterances
from annotator.methods.calibration import Calibrator
from annotator.methods.query_strategies import View, margin
from annotator.project import Project
from annotator.rounds.batch import Candidates, choose_from_pool
from annotator.rounds.reranking import reorder
from benchmarks.command import Command
from benchmarks.measure import print_last
from model.probe.heads import ASPECTS
from store import annotations, queue, rounds, states, utterances
from store.annotations import NewAnnotation
from store.database import immediate
from store.queue import QueueEntry
from store.rounds import NewRound, Predictions
from store.utterances import NewUtterance, Utterance

COMMAND = Command(
    __doc__,
    full={"small": 100_000, "large": 1_000_000, "utterances": 20_000, "answers": 1_000},
    quick={"small": 50_000, "large": 500_000, "utterances": 10_000, "answers": 500},
    tiny={"small": 1_000, "large": 10_000, "utterances": 200, "answers": 40},
    figures=("seconds", "memory_gb", "ten_times", "over_sort", "reorder_seconds", "over_fit"),
)
WIDTH, LABELS = 576, 10  # width of each aspect of the starter backbone's hidden states; size of the codebook


def seconds(run: Callable[[], Any], times: int = 3) -> float:
    """Return the median time of a few runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return float(np.median(found))


def pool(size: int) -> Candidates:
    """Return a synthetic pool of probabilities, hidden states and texts."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(LABELS), size)

    def states_of(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng(row).normal(size=WIDTH) for row in rows]).astype(np.float32)

    def read(ids: Any) -> list[Any]:
        return [
            Utterance(
                i, str(i), f"utterance number {i} of many, said in {i % 97} words", None, None, None, "pool", "{}"
            )
            for i in ids
        ]

    return Candidates(range(size), View(probabilities, states_of), read=read)


def _choose(made: Candidates, config: RoundConfig) -> None:
    choose_from_pool(made, config, 50, np.random.default_rng(0))


def choosing(small: int, large: int) -> dict[str, float]:
    """Time the choice of a batch from both pools."""
    config = RoundConfig(batch_size=50)
    times = {}
    for size in (small, large):
        made = pool(size)
        times[size] = seconds(partial(_choose, made, config))
    view = made.view
    assert view is not None
    sort = seconds(lambda: np.argsort(-margin(view))[:50])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    return {
        "seconds": round(times[large], 3),
        "memory_gb": round(peak, 2),
        "ten_times": round(times[large] / times[small], 2),
        "over_sort": round(times[large] / sort, 2),
    }


def following(utterance_count: int, answers: int) -> dict[str, float]:
    """Time the probe in a project."""
    with tempfile.TemporaryDirectory() as folder:
        config = RoundConfig(retrain_every=0, score_limit=utterance_count)
        project = create_project(Path(folder) / "p", draft_from_names([f"label {i}" for i in range(LABELS)]), config)
        vectors, labels = _fill(project, utterance_count, answers)
        ours = seconds(lambda: reorder(project))
        alone = seconds(lambda: LogisticRegression(C=20 / WIDTH, max_iter=500).fit(vectors[:answers, :WIDTH], labels))
        project.close()
    return {"reorder_seconds": round(ours, 3), "over_fit": round(ours / alone, 2)}


def _fill(project: Project, count: int, answers: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ids = add_utterances(project, [NewUtterance(f"u{i}", f"text number {i}") for i in range(count)])
    vectors = rng.normal(size=(count, ASPECTS * WIDTH)).astype(np.float32)
    states.use(project.db, "made up")
    states.save(project.db, ids, vectors)
    order = codebook_of(project).ids
    answered = utterances.ids_in(project.db, "pool")[:answers]
    labels = rng.integers(len(order), size=answers)
    with immediate(project.db):
        for utterance, label in zip(answered, labels, strict=True):
            annotations.record(project.db, NewAnnotation(utterance, "ada", "label", order[label], "random", 1))
        new = NewRound(config=project.config.to_json(), backbone="none", codebook_version=1, label_ids=str(list(order)),
                       last_annotation=0, snapshot_hash="", trained_on=answers, audited_on=0)  # fmt: skip
        row = rounds.begin(project.db, new)
        logits = np.log(rng.dirichlet(np.ones(len(order)), count))
        rounds.save_predictions(project.db, row.id, Predictions(np.array(ids), np.exp(logits), logits, order))
        rounds.promote(project.db, row.id, "", Calibrator(1.0).as_dict(), {})
        rest = utterances.ids_in(project.db, "pool")[answers : answers + 25]
        entries = [QueueEntry(i, "margin_diverse", 0.0, None, count) for i in rest]
        queue.replace(project.db, row.id, entries)
    return vectors, labels


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    print_last(choosing(given.small, given.large) | following(given.utterances, given.answers))


if __name__ == "__main__":
    main()
