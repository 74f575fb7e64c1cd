"""Sessions are replayed strategy by strategy, and go on where they were stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from annotator.config import RoundConfig
from annotator.errors import UnknownName
from annotator.simulation import oracle
from annotator.simulation.oracle import Plan
from annotator.simulation.runner import EVERYTHING, read_runs, replay
from annotator.simulation.runs import Run
from model.load import load_classifier
from tests.fake import FakeClassifier
from tests.model.tiny import save_llama

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "load_classifier", lambda _, task, *__: FakeClassifier(task))


@pytest.fixture
def plan(labeled: Path) -> Plan:
    return Plan(labeled, labels=40, rounds=2, config=RoundConfig(minimum_labels=4))


def told(runs: list[Run]) -> list[tuple[str, int, int]]:
    return [(run.strategy, run.seed, run.labels) for run in runs]


def test_every_strategy_is_replayed_with_every_seed(plan):
    runs = list(replay(plan, ["margin", "random"], [0, 1]))
    assert told(runs) == [
        (name, seed, labels) for name in ("margin", "random") for seed in (0, 1) for labels in (20, 40)
    ]


def test_what_has_ended_is_not_run_again(plan, tmp_path, monkeypatch):
    finished = tmp_path / "finished.jsonl"
    runs = replay(plan, ["margin", "random"], [0], finished)
    first = [next(runs), next(runs)]
    runs.close()  # stopped after the first session
    started = []
    real = oracle.run_round
    monkeypatch.setattr(oracle, "run_round", lambda *given: started.append(1) or real(*given))
    again = list(replay(plan, ["margin", "random"], [0], finished))
    assert first == again[:2]
    assert told(again) == [("margin", 0, 20), ("margin", 0, 40), ("random", 0, 20), ("random", 0, 40)]
    assert len(started) == 2, "only the rounds of the session that had not ended"
    assert list(replay(plan, ["margin", "random"], [0], finished)) == again


def test_a_session_of_another_plan_does_not_count_as_this_one(plan, tmp_path):
    finished = tmp_path / "finished.jsonl"
    list(replay(plan, ["random"], [0], finished))
    other = Plan(plan.data, labels=20, rounds=1, config=plan.config)
    assert read_runs(finished, other) == []
    assert told(list(replay(other, ["random"], [0], finished))) == [("random", 0, 20)]
    assert len(read_runs(finished, plan)) == 2


def test_sessions_that_run_at_once_are_those_that_run_one_by_one(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(oracle, "load_classifier", load_classifier)
    recipe = replace(plan.config.recipe, probe_weight=1.0)
    small = replace(plan, config=replace(plan.config, backbone=save_llama(tmp_path / "llama"), recipe=recipe))
    finished, shares = tmp_path / "finished.jsonl", []
    at_once = list(replay(small, ["margin", "random"], [0], finished, lambda _, share, __: shares.append(share), 2))
    one_by_one = list(replay(small, ["margin", "random"], [0]))
    assert shares == [0.5, 1.0]
    assert sorted(told(at_once)) == told(one_by_one)
    for run in one_by_one:
        same = next(other for other in at_once if told([other]) == told([run]))
        assert (same.metrics.accuracy, same.metrics.nll) == pytest.approx(
            (run.metrics.accuracy, run.metrics.nll), rel=1e-3
        )
    assert sorted(told(read_runs(finished, small))) == told(one_by_one)


def test_a_session_ends_with_the_process_that_asked_for_it(tmp_path):
    script, beat = tmp_path / "asking.py", tmp_path / "beat"
    script.write_text(ASKING, encoding="utf-8")
    asking = subprocess.Popen([sys.executable, script, beat], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    wait_until(beat.exists)
    asking.kill()
    asking.wait()
    wait_until(lambda: time.time() - beat.stat().st_mtime > 1)


ASKING = """
import sys, time
from multiprocessing import get_context
from pathlib import Path

from annotator.simulation.runner import end_with_parent

def session(beat):
    while True:
        Path(beat).touch()
        end_with_parent("learn", 0.5, None)
        time.sleep(0.05)

if __name__ == "__main__":
    process = get_context("spawn").Process(target=session, args=(sys.argv[1],))
    process.start()
    process.join()
"""


def wait_until(so: Callable[[], bool]) -> None:
    """Wait up to a minute."""
    patience = time.monotonic() + 60
    while not so():
        assert time.monotonic() < patience
        time.sleep(0.1)


def test_an_unknown_strategy_is_refused(plan):
    with pytest.raises(UnknownName, match="no strategy called “guess”"):
        list(replay(plan, ["guess"], [0]))


def test_with_the_whole_pool_answered_there_is_one_round_a_seed(plan, tmp_path):
    finished = tmp_path / "finished.jsonl"
    small = replace(plan, pool_limit=60)
    runs = list(replay(small, ["margin", EVERYTHING], [0, 1], finished))
    assert told(runs)[4:] == [(EVERYTHING, 0, 60), (EVERYTHING, 1, 60)]
    assert told(list(replay(small, [EVERYTHING], [0, 1], finished))) == told(runs)[4:]
    assert runs[-1].outlook.open == 0, "nothing is left to be wrong about"


def test_sessions_of_a_version_that_told_less_are_run_again(plan, tmp_path):
    finished = tmp_path / "finished.jsonl"
    list(replay(plan, ["random"], [0], finished))
    lines = [json.loads(line) for line in finished.read_text(encoding="utf-8").splitlines()]
    finished.write_text("".join(json.dumps({k: v for k, v in one.items() if k != "steady"}) + "\n" for one in lines))
    assert read_runs(finished, plan) == []
