"""Every benchmark runs from start to last line, and its command line is as its help and the docs state."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.command import Command
from benchmarks.measure import print_last
from tests.browser.conftest import CHROMIUM

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "benchmarks").glob("*.py"))}
BENCHMARKS = [name for name, source in SOURCES.items() if "__main__" in source]
SHARE = ("ranking", "size")  # of all, in `make test`; `make soak` runs the others


def command_of(name: str) -> Command:
    return importlib.import_module(f"benchmarks.{name}").COMMAND


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all that a JSON value holds which is neither object nor list, with where it is."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one, path)
    else:
        yield path, value


def test_every_benchmark_is_here() -> None:
    assert {"label_latency", "calibration", "kill"} <= set(BENCHMARKS)
    assert set(SHARE) <= set(BENCHMARKS)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in SHARE else [pytest.mark.soak]) for n in BENCHMARKS])
def test_a_tiny_run_goes_from_start_to_the_last_line_without_the_public_data(name: str, tmp_path: Path) -> None:
    if "CHROMIUM" in SOURCES[name] and CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    kept = tmp_path / "kept"
    places = {"ANNOTATOR_DATA": str(tmp_path / "no data"), "ANNOTATOR_KEPT": str(kept), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--tiny"],
        cwd=ROOT,
        env=os.environ | places,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert not kept.exists(), "a tiny run leaves nothing that another could take for a measurement"
    lines = done.stdout.splitlines()
    assert lines[0].startswith("--tiny: ")
    last, command = json.loads(lines[-1], parse_constant=pytest.fail), command_of(name)
    expected = {*command.figures, *(command.of("tiny")[command.figures_by] if command.figures_by else ())}
    assert expected <= set(last)
    found = dict(leaves(last))
    assert found
    for place, value in found.items():
        is_gap = value is None and place in command.gaps
        assert is_gap or isinstance(value, str) or math.isfinite(value), place


def test_every_benchmark_runs_whole_quick_and_tiny_on_the_same_options() -> None:
    for name in BENCHMARKS:
        command = command_of(name)
        for size in (command.quick, command.tiny):
            assert set(size) <= set(command.full), name
        help_ = command.parser().format_help()
        whole = {option: type(value) for option, value in command.full.items()}
        for size in ("quick", "tiny"):
            assert {option: type(value) for option, value in command.of(size).items()} == whole, name
            shown, told = (text.replace(" ", "").replace("\n", "") for text in (help_, command.difference(size)))
            assert told in shown, name
        assert f"python -m benchmarks.{name}" in (command.about or ""), name


def test_what_is_left_out_is_printed_first(capsys: pytest.CaptureFixture[str]) -> None:
    command = Command("", full={"seeds": 5, "sets": ("a", "b")}, quick={"sets": ("a",)}, tiny={"seeds": 1})
    assert vars(command.read(["--quick"])) == {"seeds": 5, "sets": ("a",)}
    assert capsys.readouterr().out == "--quick: sets a (not a,b)\n"
    assert vars(command.read([])) == {"seeds": 5, "sets": ("a", "b")}
    assert capsys.readouterr().out == ""


def test_an_option_beats_the_size_and_is_of_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    full = {"seeds": (0, 1), "share": 1.0, "set": "a", "only_baselines": False}
    command = Command("", full, quick={"seeds": (0,)}, tiny={}, choices={"set": ("a", "b")})
    given = command.read(["--quick", "--seeds", "3,4", "--share", "0.5", "--set", "b", "--only-baselines"])
    assert vars(given) == {"seeds": (3, 4), "share": 0.5, "set": "b", "only_baselines": True}
    for wrong in (["--set", "c"], ["--seeds", "many"], ["--quick", "--tiny"]):
        with pytest.raises(SystemExit):
            command.read(wrong)
    assert "'c' is not one of a, b" in capsys.readouterr().err


def test_what_could_not_be_measured_is_null_in_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_last({"a": math.nan, "b": {"c": [1.5, math.inf]}, "d": "nan", "e": 2})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": {"c": [1.5, None]}, "d": "nan", "e": 2}
