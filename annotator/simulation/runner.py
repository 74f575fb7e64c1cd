"""Run simulated sessions on a labeled file, one by one or in parallel, and resume them. `report` describes them."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path

from annotator.methods.query_strategies import strategy_named
from annotator.rounds.progress import Listener, discard
from annotator.simulation.memo import Memo
from annotator.simulation.oracle import Plan, read_gold, simulate
from annotator.simulation.runs import Run

BASELINE = "random"
EVERYTHING = "everything"  # in place of a strategy: the whole pool is answered before a single round
Session = tuple[str, int]  # strategy and seed


def replay(
    plan: Plan,
    strategies: Sequence[str],
    seeds: Sequence[int],
    finished: Path | None = None,
    listener: Listener = discard,
    jobs: int = 1,
) -> Iterator[Run]:
    """Yield the figures after every round of every strategy and seed, session by session.

    Finished sessions are appended to `finished` and read from there instead of being run again. With several jobs,
    that many sessions run in parallel, each in a process with its share of the processors, and are yielded in the
    order in which they finish.
    """
    names = [name if name == EVERYTHING else strategy_named(name).name for name in strategies]
    sessions = [(name, seed) for name in names for seed in seeds]
    earlier = read_runs(finished, plan)
    yield from (run for one in sessions for run in earlier if (run.strategy, run.seed) == one)
    ended = {(run.strategy, run.seed) for run in earlier}
    for runs in _sessions(plan, [one for one in sessions if one not in ended], listener, jobs):
        if finished:
            with finished.open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps({**run.as_dict(), "plan": _key(plan)}) + "\n" for run in runs)
        yield from runs


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


def _session(plan: Plan, one: Session, memo: Memo, listener: Listener = discard) -> list[Run]:
    strategy, seed = one
    if strategy == EVERYTHING:
        size = len(read_gold(plan).train)
        whole = replace(plan, labels=min(size, plan.pool_limit or size), rounds=1, keep=None)
        return [replace(run, strategy=EVERYTHING) for run in _session(whole, (BASELINE, seed), memo, listener)]
    return list(simulate(replace(plan, config=replace(plan.config, strategy=strategy)), [seed], listener, memo))


def _begin_process(threads: int) -> None:
    """Limit the threads of a worker process; must run before any library starts threads."""
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _session_in_process(plan: Plan, one: Session) -> list[Run]:
    return _session(plan, one, _memo_of_process(), end_with_parent)


def end_with_parent(stage: str, share: float, seconds_left: float | None) -> None:
    """End the process if its parent has died: a killed parent cannot stop its workers."""
    parent = parent_process()
    if parent is not None and not parent.is_alive():
        raise SystemExit


@cache
def _memo_of_process() -> Memo:
    return Memo()


def read_runs(path: Path | None, plan: Plan) -> list[Run]:
    """Read the runs of this plan; runs of other plans and of versions that stored fewer figures are skipped."""
    if path is None or not path.is_file():
        return []
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [run for line in lines if line["plan"] == _key(plan) and (run := Run.from_dict(line))]


def _key(plan: Plan) -> str:
    """Return everything a session depends on, except its strategy and seed."""
    return repr(replace(plan, keep=None, config=replace(plan.config, strategy="", seed=0)))
