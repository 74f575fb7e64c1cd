"""Whether the tool will pay off: simulated sessions on a finished project, run, resumed and told on one page."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from html import escape
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from annotator import charts, report
from annotator.curves import Comparison, compare, curve_of, mean_interval
from annotator.memo import Memo
from annotator.oracle import Plan, simulate
from annotator.progress import Listener, nobody
from annotator.query import strategy_named

BASELINE = "random"
Run = dict[str, Any]
Session = tuple[str, int]  # strategy and seed


def replay(
    plan: Plan,
    strategies: Sequence[str],
    seeds: Sequence[int],
    finished: Path | None = None,
    listener: Listener = nobody,
    jobs: int = 1,
) -> Iterator[Run]:
    """Yield the figures after every round of every strategy and seed, session by session.

    Each session that has ended is written to `finished`, and is read from there instead of being run again. With
    several jobs, as many sessions run at once, each in a process with its share of the processors, and are told in
    the order in which they end.
    """
    asked = [(strategy_named(strategy).name, seed) for strategy in strategies for seed in seeds]
    before = read_runs(finished, plan)
    yield from (run for one in asked for run in before if (run["strategy"], run["seed"]) == one)
    ended = {(run["strategy"], run["seed"]) for run in before}
    for fresh in _sessions(plan, [one for one in asked if one not in ended], listener, jobs):
        if finished:
            with finished.open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps({**run, "plan": _told(plan)}) + "\n" for run in fresh)
        yield from fresh


def _sessions(plan: Plan, left: Sequence[Session], listener: Listener, jobs: int) -> Iterator[list[Run]]:
    if jobs == 1:
        memo = Memo()
        yield from (_session(plan, one, memo, listener) for one in left)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin_process, (threads,))
    try:
        running = [pool.submit(_session_in_process, plan, one) for one in left]
        for number, done in enumerate(as_completed(running), start=1):
            yield done.result()
            listener("sessions", number / len(left), None)
    finally:
        pool.shutdown(cancel_futures=True)


def _session(plan: Plan, one: Session, memo: Memo, listener: Listener = nobody) -> list[Run]:
    strategy, seed = one
    return list(simulate(replace(plan, config=replace(plan.config, strategy=strategy)), [seed], listener, memo))


def _begin_process(threads: int) -> None:
    """Leave the other processors to the other processes. Nothing has started a thread yet."""
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _session_in_process(plan: Plan, one: Session) -> list[Run]:
    return _session(plan, one, _memo_of_process(), end_with_parent)


def end_with_parent(stage: str, share: float, seconds_left: float | None) -> None:
    """End the process if the one that asked for the session has died: killed, it could tell no one."""
    asking = parent_process()
    if asking is not None and not asking.is_alive():
        raise SystemExit


@cache
def _memo_of_process() -> Memo:
    return Memo()


def read_runs(path: Path | None, plan: Plan) -> list[Run]:
    """Read the runs of this very plan; those of others are passed over."""
    if path is None or not path.is_file():
        return []
    runs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in run.items() if k != "plan"} for run in runs if run["plan"] == _told(plan)]


def _told(plan: Plan) -> str:
    """Name all that a session depends on but its strategy and seed."""
    return repr(replace(plan, keep=None, config=replace(plan.config, strategy="", seed=0)))


def comparisons(runs: Sequence[Run], score: str = "accuracy") -> list[Comparison]:
    """Compare every strategy with the baseline, if that was run."""
    names = list(dict.fromkeys(run["strategy"] for run in runs))
    if BASELINE not in names:
        return []
    baseline = curve_of(runs, BASELINE, score)
    return [compare(curve_of(runs, name, score), baseline) for name in names if name != BASELINE]


def sentence(one: Comparison) -> str:
    """Say what a strategy is worth."""
    shown = strategy_named(one.strategy).shown
    low, high = one.saved_interval
    if one.verdict == "as good":
        return f"{shown}: no better and no worse than drawing at random, as far as these sessions tell."
    saved = f"{one.saved:.0%} of the labels saved (95 % interval {low:.0%} to {high:.0%})"
    return f"{shown}: {one.verdict} than drawing at random; {saved} to be as good as that is in the end."


def page(runs: Sequence[Run], title: str) -> str:
    """Write it all as one HTML page."""
    names = list(dict.fromkeys(run["strategy"] for run in runs))
    rows = [row for name in names for row in _rows(runs, name)]
    drawn = charts.svg(charts.label_curves(rows), "curves", width=640)
    said = "".join(f"<p>{escape(sentence(one))}</p>" for one in comparisons(runs))
    seeds = len({run["seed"] for run in runs})
    how = (
        f"{seeds} simulated sessions a strategy, each on another sample of the pool. Every answer counts, "
        "audit answers included. Bands are 95 % intervals of the mean over sessions."
    )
    body = f"<h1>{escape(title)}</h1>{said}{drawn}<p class='quiet'>{escape(how)}</p>{report.table(_table(rows))}"
    return report.html(title, body)


def _rows(runs: Sequence[Run], name: str) -> list[dict[str, Any]]:
    curves = {score: curve_of(runs, name, score) for score in ("accuracy", "macro_f1", "ece")}
    rows = []
    for place, labels in enumerate(curves["accuracy"].labels.tolist()):
        low, high = mean_interval(curves["accuracy"].values[:, place])
        means = {score: float(curve.mean[place]) for score, curve in curves.items()}
        rows.append({"strategy": name, "labels": labels, **means, "low": max(0.0, low), "high": min(1.0, high)})
    return rows


def _table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "Strategy": strategy_named(row["strategy"]).shown,
            "Labels": str(row["labels"]),
            "Accuracy": f"{row['accuracy']:.3f}",
            "95 % interval": f"{row['low']:.3f} to {row['high']:.3f}",
            "Macro-F1": f"{row['macro_f1']:.3f}",
            "ECE": f"{row['ece']:.3f}",
        }
        for row in rows
    ]
