"""Test the summaries of rounds, including rounds of older versions without some metrics."""

from __future__ import annotations

import pytest

from annotator.cli.main import _round_table
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.summaries import summaries
from model.backbones.memory import in_gb
from store import rounds
from tests.annotator.scenes import classifier_of, new_project
from tests.store.frozen import FROZEN, thaw


def test_a_round_tells_the_most_memory_that_was_held(tmp_path, monkeypatch):
    monkeypatch.setattr("annotator.rounds.lifecycle.peak_memory", lambda: 1_300_000_000)
    with new_project(tmp_path / "p") as project:
        run_round(project, classifier_of(project), project.config)
        assert rounds.promoted(project.db).peak_memory == 1_300_000_000
        assert [one.memory for one in summaries(project)] == ["1.3 GB"]
        memory = next(column for column in _round_table(project).columns if column.header == "memory")
        assert list(memory.cells) == ["1.3 GB"]


def test_the_memory_noted_is_what_this_process_has_held(tmp_path):
    with new_project(tmp_path / "p") as project:
        run_round(project, classifier_of(project), project.config)
        noted = rounds.promoted(project.db).peak_memory
    assert 20e6 < noted < 1e12
    assert in_gb(noted)


@pytest.mark.parametrize("script", FROZEN, ids=lambda path: path.stem)
def test_rounds_of_an_old_project_are_shown_without_it(tmp_path, script):
    with Project.open(thaw(script.read_text(encoding="utf-8"), tmp_path / "old")) as project:
        told = summaries(project)
        assert told
        assert {one.memory for one in told} == {""}
