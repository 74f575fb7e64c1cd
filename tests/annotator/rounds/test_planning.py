"""A round takes the settings that fit into memory, and stores them; the project's own settings stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from annotator.config import RoundConfig, changed
from annotator.errors import BackboneRefused
from annotator.project import Project
from annotator.rounds import planning
from annotator.rounds.planning import estimated, plan, planned, sample_texts
from annotator.rounds.summaries import about_training
from annotator.rounds.worker import work
from model import load
from model.backbones.catalog import SHAPES
from model.backbones.memory import BF16, Machine
from model.backbones.plan import best_first
from model.prompts.lengths import Lengths
from model.recipe import Recipe
from store import annotations, jobs, rounds
from tests.annotator.scenes import change, label_pool, new_project, texts
from tests.fake import FakeClassifier

LLAMA = "llama-3.1-8b-instruct"
GPU_12 = Machine(12 * 10**9, True, BF16)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "measure_texts", lambda name, *_: (SHAPES.get(name), Lengths(counted=True)))
    with new_project(tmp_path / "p") as project:
        yield project


def on(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(planning, "this_machine", lambda: machine)


def run_due(project):
    """Run the rounds that are due, as the worker does."""
    job = jobs.begin(project.db, "test", annotations.last_id(project.db))
    jobs.sign(project.db, job)
    work(project, job)


def test_a_round_that_fits_as_it_is_takes_the_settings_of_the_project_and_reads_no_tokenizer(project, monkeypatch):
    on(monkeypatch, Machine(64 * 10**9))
    monkeypatch.setattr(load, "measure_texts", lambda *_: pytest.fail("the tokenizer was loaded"))
    assert planned(project, project.config) == project.config


def test_a_round_that_does_not_fit_as_it_is_takes_what_fits_and_stores_it(project, monkeypatch):
    on(monkeypatch, GPU_12)
    change(project, backbone=LLAMA)
    loaded: list[Recipe] = []
    fake = lambda _, task, recipe, *__: loaded.append(recipe) or FakeClassifier(task)  # noqa: E731
    monkeypatch.setattr(load, "load_classifier", fake)
    label_pool(project, 9)
    run_due(project)
    row = rounds.promoted(project.db)
    stored = RoundConfig.from_json(row.config)
    assert (stored.recipe.quantization, stored.recipe.checkpointing) == ("nf4", True)
    assert loaded == [stored.recipe]
    assert project.config.recipe == Recipe()
    assert any("4-bit, checkpointing, rows of 1024" in note for note in about_training(row))


def test_a_round_with_default_settings_has_no_notice_of_them(project, monkeypatch):
    on(monkeypatch, Machine(64 * 10**9))
    monkeypatch.setattr(load, "load_classifier", lambda _, task, *__: FakeClassifier(task))
    run_due(project)
    assert not [note for note in about_training(rounds.promoted(project.db)) if "settings" in note]


def test_the_first_round_of_two_has_the_weights_of_the_second_so_hidden_states_stay_comparable(project, monkeypatch):
    on(monkeypatch, GPU_12)
    change(project, backbone=LLAMA)
    loaded: list[Recipe] = []
    fake = lambda _, task, recipe, *__: loaded.append(recipe) or FakeClassifier(task)  # noqa: E731
    monkeypatch.setattr(load, "load_classifier", fake)
    for count in (0, 9):
        label_pool(project, count)
        run_due(project)
    assert [recipe.probe_weight == 1 for recipe in loaded] == [False, True, False]
    assert {recipe.quantization for recipe in loaded} == {"nf4"}


def test_the_settings_of_a_person_stay(project, monkeypatch):
    on(monkeypatch, Machine(64 * 10**9))
    project.config = changed(project.config, ["recipe.row_tokens=300", "recipe.checkpointing=true"])
    assert planned(project, project.config) == project.config


def test_a_round_that_fits_nowhere_is_refused_with_a_backbone_that_fits(project, monkeypatch):
    on(monkeypatch, Machine(3 * 10**9, True, BF16))
    with pytest.raises(BackboneRefused, match="needs at least") as caught:
        planned(project, change(project, backbone=LLAMA))
    assert "the largest of the catalog that fits" in caught.value.hint


def test_an_architecture_that_cannot_be_judged_is_tried_as_it_is(project, monkeypatch):
    on(monkeypatch, Machine(10**9))
    config = change(project, backbone="somebody/some-model")
    assert planned(project, config) == config
    assert plan(project) is None
    assert estimated(project, config, Machine(10**9)) is None


def test_another_machine_and_another_backbone_are_planned_without_changing_the_project(project):
    before = project.config
    small, large = plan(project, LLAMA, GPU_12), plan(project, LLAMA, Machine(80 * 10**9, True, BF16))
    assert (small.recipe.quantization, large.recipe.quantization) == ("nf4", "none")
    assert small.need < 12e9 < large.need
    assert project.config == before


def test_lengths_are_estimated_from_the_longest_utterances_and_a_share_of_all(tmp_path):
    with new_project(tmp_path / "q", count=0) as project:
        add(project, [*texts(2000), "long " * 400])
        config = replace(project.config, context_turns=0)
        chosen = sample_texts(project, config)
        assert 300 < len(chosen) < 600
        assert max(len(text.text) for text in chosen) == len("long " * 400)
        found = estimated(project, config, Machine()).lengths
    assert found.longest > config.recipe.max_tokens > found.typical
    assert found.count == 2001
    assert not found.counted


def add(project: Project, given: list[str]) -> None:
    from annotator.exchange.imports import add_utterances
    from store.utterances import NewUtterance

    add_utterances(project, [NewUtterance(f"t{i}", text) for i, text in enumerate(given)])


def test_the_plan_of_a_page_is_that_of_a_round_where_lengths_are_alike(project, monkeypatch):
    on(monkeypatch, GPU_12)
    config: Any = change(project, backbone=LLAMA)
    job = estimated(project, config, GPU_12)
    monkeypatch.setattr(load, "measure_texts", lambda name, *_: (SHAPES[name], job.lengths))
    shown = best_first(job)[0].recipe
    assert planned(project, config).recipe == shown != config.recipe
