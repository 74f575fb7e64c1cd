"""What another batch is expected to give follows from how the errors have fallen, and is not told of a handful."""

from __future__ import annotations

import numpy as np
import pytest

from annotator.codebook.definition import codebook_of
from annotator.loop import run_round
from annotator.reporting import gain
from annotator.reporting.gain import EXAMPLES, MOST, TESTS, Answered, expected_gain, hits, recent_gain
from annotator.rounds.snapshot import training_labels
from model.probe.heads import ASPECTS
from model.probe.probe import Probe, blank
from store import utterances
from tests.annotator.scenes import change, classifier_of, label_pool, new_project

SIZE = 4


def drawn(count: int, seed: int, noise: float = 1.0) -> Answered:
    """Draw answers whose labels lie in different directions, some nearer each other than the noise."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(SIZE, size=count)
    states = 2.5 * np.eye(SIZE, 12)[columns] + noise * rng.normal(size=(count, 12))
    return Answered(np.tile(states, ASPECTS).astype(np.float32), columns)


def untrained() -> Probe:
    return blank(12 * ASPECTS, SIZE)


def falling(monkeypatch: pytest.MonkeyPatch, power: float, start: float = 1.0) -> list[int]:
    """Let errors fall by a power of the lessons, and keep how many lessons were taught each time."""
    taught: list[int] = []

    def right(training_examples: Answered, judges: Answered, probe: Probe) -> np.ndarray:
        taught.append(len(training_examples))
        wrong = start * len(training_examples) ** -power
        return np.arange(len(judges)) >= round(wrong * len(judges))

    monkeypatch.setattr(gain, "hits", right)
    return taught


@pytest.mark.parametrize("power", [0.2, 0.5, 0.9])
def test_errors_that_fall_by_a_power_are_carried_on(monkeypatch, power):
    falling(monkeypatch, power)
    found = expected_gain(drawn(100, 0), drawn(100_000, 1), untrained(), 50)
    assert found == pytest.approx(100**-power - 150**-power, rel=0.02)


def test_errors_that_do_not_fall_predict_no_gain(monkeypatch):
    falling(monkeypatch, 0.0, start=0.3)
    assert expected_gain(drawn(100, 0), drawn(40, 1), untrained(), 50) == pytest.approx(0)
    falling(monkeypatch, -0.2, start=0.1)
    assert expected_gain(drawn(100, 0), drawn(40, 1), untrained(), 50) == pytest.approx(0)


def test_no_error_among_few_is_no_proof_that_there_are_none(monkeypatch):
    falling(monkeypatch, 0.0, start=0.0)
    assert expected_gain(drawn(100, 0), drawn(40, 1), untrained(), 50) == pytest.approx(0)


def test_of_many_training_examples_some_are_used_and_the_curve_is_extrapolated(monkeypatch):
    taught = falling(monkeypatch, 0.5)
    found = expected_gain(drawn(4 * MOST, 0), drawn(100_000, 1), untrained(), 100)
    assert max(taught) == MOST
    assert found == pytest.approx((4 * MOST) ** -0.5 - (4 * MOST + 100) ** -0.5, rel=0.05)


@pytest.mark.parametrize(("training_examples", "judges"), [(EXAMPLES - 1, 100), (100, TESTS - 1)])
def test_of_a_handful_nothing_is_told(training_examples, judges):
    assert expected_gain(drawn(training_examples, 0), drawn(judges, 1), untrained(), 25) is None


def test_a_real_probe_still_gains_early_and_hardly_late():
    judges = drawn(300, 1)
    early, late = (expected_gain(drawn(count, 0), judges, untrained(), 25) for count in (40, 400))
    assert early is not None
    assert late is not None
    assert early > 2 * late >= 0
    training_examples = drawn(425, 0)
    came = (
        hits(training_examples.at(np.arange(425)), judges, untrained()).mean()
        - hits(training_examples.at(np.arange(400)), judges, untrained()).mean()
    )
    assert late == pytest.approx(came, abs=0.03)


def test_in_a_project_audit_answers_measure_and_are_not_trained_on(tmp_path, monkeypatch):
    with new_project(tmp_path / "p", 240) as project:
        change(project, retrain_every=0)
        assert recent_gain(project) is None
        label_pool(project, 90)
        run_round(project, classifier_of(project), project.config)
        asked = []
        monkeypatch.setattr(gain, "expected_gain", lambda *given: asked.append(given) or 0.1)
        assert recent_gain(project, wait=False) is None, "nothing is computed where nobody waits"
        assert not asked
        assert recent_gain(project) == 0.1
        assert recent_gain(project) == recent_gain(project, wait=False) == 0.1
        assert len(asked) == 1, "remembered until there are a few more answers"
        training_examples, judges, _, more = asked[0]
        audit = set(utterances.ids_in(project.db, "audit"))
        labels_of = training_labels(project, codebook_of(project).ids)
        assert len(training_examples) == len(labels_of.keys() - audit) >= 90
        assert len(judges) >= TESTS
        assert more == project.config.batch_size
