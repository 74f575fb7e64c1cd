"""Test that wrong answers are found by a quick classifier fitted without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from annotator.codebook.definition import codebook_of
from annotator.loop import run_round
from annotator.rounds.label_errors import LEAST, expected_wrong, find_label_errors
from model.probe.probe import out_of_fold
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
    codebook, erred = codebook_of(project), set()
    for place, row in enumerate(utterances.read(project.db, utterances.ids_in(project.db, "pool")[:count])):
        right = LABELS.index(truth(row.text))
        said = LABELS[(right + 1) % len(LABELS)] if place < wrong else LABELS[right]
        erred |= {row.id} if place < wrong else set()
        annotations.record(project.db, NewAnnotation(row.id, "ada", "label", codebook.id_of(said), "test", 1))
    return erred


def test_most_slips_are_among_the_few_that_are_looked_at_again(project):
    erred = label(project, 120, wrong=12)
    found = find_label_errors(project, codebook_of(project).ids)
    assert len(found.probabilities) == 120
    assert len(erred & set(found.first(0.2))) >= 10
    assert list(found.probabilities.values()) == sorted(found.probabilities.values())
    assert 6 <= found.expected_wrong <= 24


def test_where_nothing_is_wrong_few_are_expected_to_be(project):
    label(project, 120, wrong=0)
    assert find_label_errors(project, codebook_of(project).ids).expected_wrong <= 6


def test_few_answers_cannot_judge_one_another(project):
    label(project, LEAST - 1, wrong=0)
    found = find_label_errors(project, codebook_of(project).ids)
    assert (found.probabilities, found.expected_wrong, found.first(0.5)) == ({}, None, [])


def test_no_answer_is_evaluated_by_a_probe_fitted_on_it():
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(100, 60)).astype(np.float32), np.arange(100) % 2
    chances = np.exp(out_of_fold(noise, labels.tolist(), np.zeros((2, 60), dtype=np.float32)))[np.arange(100), labels]
    assert chances.mean() < 0.6, "labels that follow no rule cannot be known without having been seen"


def probe(confidence: float, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Return calibrated log-probabilities for 300 answers with four labels, of which `wrong` are replaced."""
    rng = np.random.default_rng(0)
    said = rng.dirichlet(np.full(4, 1 - confidence), 300)
    labels = np.array([rng.choice(4, p=row) for row in said])
    labels[:wrong] = (labels[:wrong] + rng.integers(1, 4, wrong)) % 4
    return np.log(said + 1e-9), labels


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("wrong", [0, 15, 30])
def test_the_number_of_wrong_answers_is_estimated_at_every_confidence(confidence: float, wrong: int):
    assert expected_wrong(*probe(confidence, wrong)) == pytest.approx(wrong, abs=6)


def test_an_inaccurate_probe_gives_no_estimate():
    assert expected_wrong(*probe(0.0, wrong=30)) is None
