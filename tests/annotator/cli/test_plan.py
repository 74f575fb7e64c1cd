"""`annotator plan` shows how a round would run, here and on other machines, and foretells its time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from annotator.cli import plan as command
from annotator.cli import terminal
from model import load
from model.backbones.memory import BF16, FP32, Machine
from model.pace import Pace
from tests.annotator.cli.test_main import good, run
from tests.annotator.scenes import new_project
from tests.model.tiny import save_llama

LLAMA = "llama-3.1-8b-instruct"


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(terminal.console, "width", 400)
    monkeypatch.setattr(command, "this_machine", lambda: Machine(12 * 10**9, True, BF16))


@pytest.fixture
def folder(tmp_path) -> Path:
    new_project(tmp_path / "p").close()
    return tmp_path / "p"


def lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(LLAMA)]


def test_a_plan_for_each_gpu_is_one_line(folder):
    shown = lines(good("plan", folder, "--backbone", LLAMA, "--memory", "8,12GB,16 GB,24,80"))
    assert [re.search(r"of (\d+(\.\d)? GB)", line)[1] for line in shown] == [
        "8.0 GB",
        "12 GB",
        "16 GB",
        "24 GB",
        "80 GB",
    ]
    assert "4-bit, checkpointing" in shown[1]
    assert "bf16, rows of 1024" in shown[-1]


def test_what_was_compared_is_a_table_that_begins_with_what_was_chosen(folder):
    output = good("plan", folder, "--backbone", LLAMA, "--memory", "12")
    rows = [line for line in output.splitlines() if line.startswith("│")]
    assert "chosen" in rows[0]
    assert "1.0 ×" in rows[0]
    assert any("too large" in row for row in rows)
    assert not any("chosen" in row for row in rows[1:])


def test_a_processor_is_planned_in_its_own_precision(folder, monkeypatch):
    monkeypatch.setattr(command, "processor_width", lambda: FP32)
    assert "bf16" in lines(good("plan", folder, "--backbone", LLAMA, "--memory", "80"))[0]
    assert "fp32" in good("plan", folder, "--backbone", "smollm2-360m-instruct", "--memory", "80", "--processor")


@pytest.mark.parametrize("memory", ["much", "8,", "12 MB", "-1"])
def test_a_size_that_cannot_be_read_is_refused(folder, memory):
    result = run("plan", folder, "--memory", memory)
    assert result.exit_code == 2
    assert "write sizes as 12GB or 8,12,16" in result.output


def test_the_time_of_a_backbone_that_is_not_here_is_unknown(folder, monkeypatch):
    monkeypatch.setattr(load, "measure_pace", lambda *_: pytest.fail("a backbone was loaded"))
    output = good("plan", folder, "--backbone", LLAMA)
    assert "the time is unknown until llama-3.1-8b-instruct has been fetched" in output
    assert "minutes" not in output


def test_the_time_is_foretold_from_the_pace_of_this_machine(folder, tmp_path, monkeypatch):
    backbone = save_llama(tmp_path / "tiny")
    monkeypatch.setattr(load, "measure_pace", lambda *_: Pace(trained=5.0, scored=1.0))
    output = good("plan", folder, "--backbone", backbone)
    minutes = round((200 * 8 / 5 + 60) / 60)  # eight epochs, and the 60 utterances of the project
    assert f"a round of 200 labels takes about {minutes} minutes" in output
    assert "Lengths are estimated" not in output
    assert "takes about" not in good("plan", folder, "--backbone", backbone, "--no-probe")


def test_a_project_without_utterances_is_planned_without_the_time(tmp_path):
    new_project(tmp_path / "empty", 0).close()
    output = good("plan", tmp_path / "empty", "--backbone", save_llama(tmp_path / "llama"))
    assert "rows of 1024" in output
    assert "takes about" not in output


def test_the_pace_is_measured_with_a_real_backbone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("model.pace._TRAINING", 0.5)
    monkeypatch.setattr("model.pace._SCORING", 0.2)
    output = good("plan", folder, "--backbone", save_llama(tmp_path / "tiny"))
    assert re.search(r"takes about \d+ minutes?", output)
