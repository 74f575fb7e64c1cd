"""What is to be looked at after a split comes in an order that helps; nothing waits for that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from annotator.codebook import changes, history, presort
from annotator.labeling.review import case, to_label_again
from annotator.project import Project
from store import annotations, guesses, jobs, labels, utterances
from store.annotations import NewAnnotation
from tests.annotator.scenes import new_project
from tests.fake import FakeClassifier


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with new_project(tmp_path / "p") as project:
        for i in [*utterances.ids_in(project.db, "pool")[:12], *utterances.ids_in(project.db, "audit")[:2]]:
            annotations.record(project.db, NewAnnotation(i, "ada", "label", 1 + (i % 40 == 39), "random", 3))
        yield project


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let the fake classifier stand in, and note what it was loaded for."""
    heard: list[Any] = []

    def load(backbone, task, recipe, template):
        heard.append(task)
        return FakeClassifier(task)

    monkeypatch.setattr(load, "load_classifier", load)
    return heard


def split(project: Project) -> int:
    change = changes.split(project, 1, [{"name": "vow", "definition": "Swears it."}, {"name": "plan"}])
    return changes.make(project, changes.propose(project, change), "ada")


def test_the_untrained_model_reads_the_parts_alone_and_nothing_that_measures(
    project: Project, loaded: list[Any]
) -> None:
    version = split(project)
    count = presort.presort(project, version)
    (task,) = loaded
    assert [(label.name, label.definition) for label in task.labels] == [("vow", "Swears it."), ("plan", "")]
    audit = set(utterances.ids_in(project.db, "audit"))
    found = guesses.latest(project.db, to_label_again(project))
    assert len(found) == count > 10
    assert not audit & set(found)
    assert {label for label, _ in found.values()} <= {4, 5}


def test_alike_ones_follow_one_another_the_surest_first_and_the_rest_comes_last(
    project: Project, loaded: list[Any]
) -> None:
    before = to_label_again(project)
    version = split(project)
    asked = set(to_label_again(project))
    presort.presort(project, version)
    order = to_label_again(project)
    found = guesses.latest(project.db, order)
    keys = [(found[i][0], -found[i][1]) for i in order if i in found]
    assert before == []
    assert set(order) == asked
    assert keys == sorted(keys)
    assert all(i in found for i in order[: len(found)])
    name = labels.names(project.db)[found[order[0]][0]]
    assert case(project, order[0]).notes[-1] == f"The untrained model takes it for “{name}”."


def test_a_guess_is_no_answer_and_goes_with_the_split(project: Project, loaded: list[Any]) -> None:
    before = annotations.answers(project.db)
    version = split(project)
    presort.presort(project, version)
    history.undo(project, version, "ada")
    assert annotations.answers(project.db) == before
    assert to_label_again(project) == []


def test_it_is_not_started_for_a_few_nor_while_a_round_runs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    version = split(project)
    assert presort.start(project, version)
    assert started == [
        [sys.executable, "-m", "annotator.codebook.definition.presort", str(project.folder.resolve()), str(version)]
    ]
    job = jobs.begin(project.db, "test", 0)
    assert not presort.start(project, version)
    jobs.finish(project.db, job, "done")
    monkeypatch.setattr(presort, "FEW", 99)
    assert not presort.start(project, version)
