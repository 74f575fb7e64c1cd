"""A wrong answer stands out to a scout that was fitted without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from annotator.loop import run_round
from annotator.mistakes import LEAST, doubts, expected_wrong
from model.scout import out_of_fold
from store import annotations, utterances
from store.annotations import NewAnnotation
from tests.annotator.scenes import LABELS, change, classifier_of, new_project, truth


@pytest.fixture
def project(tmp_path: Path):
    with new_project(tmp_path / "p", 200) as made:
        change(made, retrain_every=0)
        run_round(made, classifier_of(made), made.config)
        yield made


def label(project, count: int, wrong: int) -> set[int]:
    """Label so many pool utterances, the first few of them wrongly; return those."""
    codebook, erred = project.codebook(), set()
    for place, row in enumerate(utterances.read(project.db, utterances.ids_in(project.db, "pool")[:count])):
        right = LABELS.index(truth(row["text"]))
        said = LABELS[(right + 1) % len(LABELS)] if place < wrong else LABELS[right]
        erred |= {row["id"]} if place < wrong else set()
        annotations.record(project.db, NewAnnotation(row["id"], "ada", "label", codebook.id_of(said), "test", 1))
    return erred


def test_most_slips_are_among_the_few_that_are_looked_at_again(project):
    erred = label(project, 120, wrong=12)
    found = doubts(project, project.codebook().ids)
    assert len(found.chances) == 120
    assert len(erred & set(found.first(0.2))) >= 10
    assert list(found.chances.values()) == sorted(found.chances.values())
    assert 6 <= found.wrong <= 24


def test_where_nothing_is_wrong_few_are_expected_to_be(project):
    label(project, 120, wrong=0)
    assert doubts(project, project.codebook().ids).wrong <= 6


def test_few_answers_cannot_judge_one_another(project):
    label(project, LEAST - 1, wrong=0)
    found = doubts(project, project.codebook().ids)
    assert (found.chances, found.wrong, found.first(0.5)) == ({}, 0.0, [])


def test_no_answer_is_judged_by_a_scout_that_has_seen_it():
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(100, 60)).astype(np.float32), np.arange(100) % 2
    chances = np.exp(out_of_fold(noise, labels.tolist(), 2))[np.arange(100), labels]
    assert chances.mean() < 0.6, "labels that follow no rule cannot be known without having been seen"


def test_a_label_that_is_as_likely_as_usual_where_another_was_given_counts_as_wrong():
    said = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.05, 0.95], [0.02, 0.98]])
    assert expected_wrong(said, np.array([0, 0, 1, 1, 0])) == 1
