"""Test that candidates use the labels in use, whatever the codebook was when a round was made."""

from __future__ import annotations

import numpy as np
import pytest

from annotator.codebook import changes
from annotator.loop import run_round
from annotator.methods.query_strategies import View
from annotator.project import Project
from annotator.rounds.candidates import candidates
from store import rounds
from tests.annotator.scenes import classifier_of, label_pool, new_project

PROMISE, REPORT, WISH = 1, 2, 3


@pytest.fixture
def project(tmp_path):
    with new_project(tmp_path / "p", 90) as project:
        for _ in range(2):
            label_pool(project, 12)
            run_round(project, classifier_of(project), project.config)
        yield project


def seen(project: Project) -> View:
    found = candidates(project, rounds.predictions_of(project.db, rounds.promoted(project.db))).view
    assert found is not None
    return found


def make(project: Project, change: changes.Change) -> None:
    changes.make(project, changes.propose(project, change), "ada")


def test_a_merged_label_is_added_to_the_other_in_all_that_a_strategy_sees(project):
    before = seen(project)
    make(project, changes.merge(project, [WISH], REPORT))
    after = seen(project)
    merged = np.array([[1, 0], [0, 1], [0, 1]])
    np.testing.assert_allclose(after.probabilities, before.probabilities @ merged)
    assert list(after.label_counts) == list(before.label_counts @ merged)


def test_a_round_under_way_sees_what_it_said_in_the_labels_that_are_in_use_by_then(project):
    row = rounds.promoted(project.db)
    said = rounds.predictions_of(project.db, row)
    make(project, changes.split(project, WISH, [{"name": "hope"}, {"name": "dream"}]))
    view = candidates(project, said).view
    assert view.probabilities.shape[1] == len(view.label_counts) == 4
    np.testing.assert_allclose(view.probabilities.sum(axis=1), 1)
