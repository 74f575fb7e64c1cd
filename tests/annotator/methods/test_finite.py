"""Test that infinite or undefined numbers are never certified, promoted or stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.config import RoundConfig, changed
from annotator.errors import AnnotatorError, BadInput, NotFinite, RoundError
from annotator.labeling import auto_accept
from annotator.labeling.auto_accept import accept, offer, withdraw_broken
from annotator.loop import run_round
from annotator.methods.calibration import (
    CalibrationPrior,
    Calibrator,
    cross_fitted,
    fit_calibrator,
)
from annotator.methods.guarantee import (
    WITHDRAWN_AT,
    Evidence,
    Guarantee,
    NotYet,
    Target,
    accepted,
    certify,
    certify_labels,
    evidence_against,
    missing_answers,
    passes,
)
from annotator.methods.metrics import evaluate
from annotator.methods.prediction_sets import fit_limit
from annotator.methods.query_strategies import DEFAULT, STRATEGIES, View, choose
from annotator.reporting import stopping
from annotator.reporting.stopping import ROUNDS, Advice
from annotator.rounds.label_errors import expected_wrong
from annotator.rounds.queueing import refill_queue
from store import rounds, states, utterances
from store.database import fetch_value
from tests.annotator.methods.test_guarantee import OFF, TARGET, drawn, population
from tests.annotator.scenes import classifier_of, label_pool, work_through
from tests.fake import FakeAdapter, FakeClassifier

BAD = st.sampled_from([np.nan, np.inf, -np.inf])
ROWS, TRUTH = population(2000, 0)
GOOD, _ = drawn(400, 0, ROWS, TRUTH)


def poisoned(values: np.ndarray, bad: float, place: int) -> np.ndarray:
    changed_ = np.array(values, dtype=np.float64)
    changed_.flat[place % changed_.size] = bad
    return changed_


def refused(call: Callable[[], Any]) -> bool:
    """Return whether it is refused, by an error with a message or by certifying nothing."""
    try:
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            found = call()
    except AnnotatorError:
        return True
    found = list(found.values()) if isinstance(found, dict) else [found]
    return all(isinstance(one, NotYet) for one in found)


# The certificate


def test_valid_numbers_are_certified() -> None:
    assert isinstance(certify(GOOD, TARGET), Guarantee)


@settings(deadline=None, max_examples=60)
@given(BAD, st.integers(0, 10**6), st.sampled_from(["audit", "pool", "spread"]))
def test_nothing_is_certified_on_an_invalid_number(bad: float, place: int, part: str) -> None:
    value = bad if part == "spread" else poisoned(getattr(GOOD, part), bad, place)
    evidence = replace(GOOD, **{part: value})
    assert refused(lambda: certify(evidence, TARGET))
    assert missing_answers(evidence, TARGET) is None


def test_no_label_is_certified_on_an_undefined_spread() -> None:
    assert refused(lambda: certify_labels(replace(GOOD, spread=np.nan), TARGET))


def test_numbers_that_are_no_probabilities_certify_nothing() -> None:
    assert refused(lambda: certify(replace(GOOD, pool=GOOD.pool * 2), TARGET))
    assert refused(lambda: certify(replace(GOOD, spread=-1.0), TARGET))


@pytest.mark.parametrize(
    "target", [(np.nan, 0.95), (0.95, np.nan), (1.0, 0.95), (0.95, 1.0), (0.95, 0.0), (-0.1, 0.95)]
)
def test_a_target_that_cannot_be_certified_is_refused(target: tuple[float, float]) -> None:
    with pytest.raises(BadInput, match="cannot be certified"):
        Target(*target)


@pytest.mark.parametrize(("n", "errors"), [(0, 0), (10, -1), (10, 11), (np.nan, 0), (100, np.nan)])
def test_counts_that_cannot_be_pass_nothing(n: float, errors: float) -> None:
    assert not passes(n, errors, TARGET)  # type: ignore[arg-type]


@given(BAD, st.integers(0, 100))
def test_a_row_that_is_no_probability_is_not_accepted(bad: float, place: int) -> None:
    rows = poisoned(np.full((5, 3), 0.99), bad, place)
    guarantee = Guarantee(TARGET, 0.9, 100, 0, 5)
    taken = accepted(rows, guarantee)
    assert taken[~np.isfinite(rows.max(axis=1))].tolist() == [-1] * int((~np.isfinite(rows.max(axis=1))).sum())
    assert (accepted(rows, replace(guarantee, threshold=np.nan)) == -1).all()


# Spot checks


@pytest.mark.parametrize(("n", "errors"), [(1000, 900), (5000, 5000)])
def test_so_many_errors_that_their_likelihood_underflows_withdraw_a_guarantee(n: int, errors: int) -> None:
    assert evidence_against(n, errors, 0.95) >= WITHDRAWN_AT
    assert evidence_against(n, 0, 0.95) < 1


def test_an_acceptance_whose_evidence_cannot_be_weighed_is_withdrawn(taught, monkeypatch) -> None:
    monkeypatch.setattr(auto_accept, "certify", lambda evidence, target: Guarantee(target, 0.0, 100, 0, 10))
    accept(taught, "ada", Target(0.9))
    monkeypatch.setattr(auto_accept, "evidence_against", lambda *_: np.nan)
    assert len(withdraw_broken(taught)) == 1


# Calibration, metrics, strategies


@settings(deadline=None, max_examples=40)
@given(BAD, st.integers(0, 10**6))
def test_numbers_that_are_none_are_refused_where_they_come_in(bad: float, place: int) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 3)), np.arange(60) % 3
    wrong, probabilities = poisoned(logits, bad, place), np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for call in (
        lambda: Calibrator(1.0)(wrong),
        lambda: fit_calibrator(wrong, labels, CalibrationPrior()),
        lambda: fit_calibrator(logits, labels, CalibrationPrior(temperature=bad)),
        lambda: fit_calibrator(logits, labels, CalibrationPrior(spread=bad)),
        lambda: cross_fitted(wrong, labels, CalibrationPrior()),
        lambda: CalibrationPrior.trained(wrong, logits),
        lambda: CalibrationPrior.trained(logits, wrong),
        lambda: evaluate(poisoned(probabilities, bad, place), labels),
        lambda: fit_limit(poisoned(probabilities, bad, place), labels),
        lambda: expected_wrong(wrong, labels),
    ):
        with pytest.raises(NotFinite), np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            call()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["temperature", "slope", "usual", "spread", "prior", "bias"])
def test_a_calibrator_that_was_stored_with_a_bad_number_is_refused(name: str, bad: float) -> None:
    good = Calibrator(1.2, label_prior=(0.0, 0.1), bias=(0.1, 0.0)).as_dict()
    stored = json.loads(json.dumps(good | {name: [bad, 0.0] if name in ("prior", "bias") else bad}))
    with pytest.raises(NotFinite):
        Calibrator.from_dict(stored)
    for impossible in ({"temperature": 0.0}, {"temperature": -1.0}, {"spread": -0.1}):
        with pytest.raises(NotFinite):
            Calibrator.from_dict(good | impossible)


@settings(deadline=None, max_examples=40)
@given(BAD, st.integers(0, 10**6), st.sampled_from(sorted(set(STRATEGIES) - {"random"})))
def test_no_strategy_chooses_by_a_number_that_is_none(bad: float, place: int, name: str) -> None:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(3), 30)
    wrong = poisoned(rows, bad, place)
    vectors = poisoned(rng.normal(size=(30, 6)), bad, place)
    view = View(
        wrong,
        states=lambda chosen: vectors[chosen],
        answered_states=lambda: vectors[:3],
        label_counts=[1, 2, 3],
    )
    with pytest.raises(NotFinite), np.errstate(invalid="ignore", divide="ignore"):
        choose(STRATEGIES[name], view, 5, rng)


def test_rounds_whose_agreement_is_no_number_are_not_steady() -> None:
    for place in range(ROUNDS - 1):
        kappas = [0.99] * (ROUNDS - 1)
        kappas[place] = np.nan
        advice = Advice(tuple(kappas), True, 1.0, 10)
        assert not advice.is_steady
        assert stopping.sentence(advice).startswith("Keep labeling")


# Rounds


def bad_logits(bad: float, place: int) -> Callable[..., np.ndarray]:
    compute = FakeAdapter.logits

    def logits(self: FakeAdapter, *given_: Any) -> np.ndarray:
        return poisoned(compute(self, *given_), bad, place)

    return logits


def not_finite(*_: Any, **__: Any) -> Any:
    raise NotFinite("Training stopped at step 1 of 8.", "Lower it.")


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "NaN": (FakeAdapter, "logits", bad_logits(np.nan, 7)),
    "infinite": (FakeAdapter, "logits", bad_logits(np.inf, 50)),
    "of an audit utterance": (FakeAdapter, "logits", bad_logits(np.nan, -1)),
    "the quick classifier": (FakeAdapter, "probe_logits", lambda self, given_: np.full((len(given_), 3), np.nan)),
    "the loss": (FakeClassifier, "fit", not_finite),
    "states": (FakeClassifier, "states", lambda self, given_, *_: np.full((len(given_), 9), np.nan, np.float32)),
    "probabilities": (Calibrator, "__call__", lambda self, logits: np.full(logits.shape, np.nan)),
    "too large to be stored": (FakeAdapter, "logits", bad_logits(-1e300, 7)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_round_with_a_number_that_is_none_is_refused_and_the_one_before_stays(project, monkeypatch, fault) -> None:
    run_round(project, classifier_of(project), project.config)
    before = rounds.promoted(project.db)
    adapters = sorted(path.name for path in (project.folder / "adapters").iterdir())
    label_pool(project, 9)
    classifier = classifier_of(project)
    if fault == "states":
        classifier.reading = "anew"
    with monkeypatch.context() as patch:
        patch.setattr(*FAULTS[fault])
        with pytest.raises(RoundError) as caught, np.errstate(all="ignore"):
            run_round(project, classifier, project.config)
    assert caught.value.hint
    assert rounds.promoted(project.db) == before
    newest = rounds.history(project.db)[0]
    assert fetch_value(project.db, "SELECT count(*) FROM prediction WHERE round_id = ?", (newest.id,)) == 0
    assert sorted(path.name for path in (project.folder / "adapters").iterdir()) == adapters
    assert len(work_through(project, 3)) == 3
    assert run_round(project, classifier_of(project), project.config).row.number == 2


def test_metrics_that_are_no_numbers_are_not_promoted(project, monkeypatch) -> None:
    label_pool(project, 9)
    monkeypatch.setattr("annotator.loop.fit_limit", lambda *_: np.nan)
    with pytest.raises(RoundError, match="metrics"):
        run_round(project, classifier_of(project), project.config)
    assert rounds.promoted(project.db) is None


def test_predictions_and_states_that_are_no_numbers_are_never_stored(trained) -> None:
    known = rounds.predictions_of(trained.db, rounds.promoted(trained.db))
    for part in ("probabilities", "logits"):
        wrong = replace(known, **{part: poisoned(getattr(known, part), np.nan, 3)})
        with pytest.raises(NotFinite):
            rounds.save_predictions(trained.db, 1, wrong)
    ids = utterances.ids_in(trained.db, "pool")[:2]
    with pytest.raises(NotFinite):
        states.save(trained.db, ids, np.full((2, 4), np.nan, np.float32))
    states.save(trained.db, ids, np.full((2, 4), 1e6, np.float32))
    assert np.isfinite(states.matrix(trained.db, ids)).all()


def test_predictions_of_an_earlier_version_that_are_no_numbers_are_not_used(trained) -> None:
    row = rounds.promoted(trained.db)
    width = len(row.label_ids)
    with trained.db.conn:
        trained.db.conn.execute("UPDATE prediction SET probabilities = ?", (np.full(width, np.nan, "<f4").tobytes(),))
    with pytest.raises(NotFinite, match="probabilities"):
        offer(trained, Target(0.9))
    asked = work_through(trained, 5)
    assert len(asked) == 5
    assert refill_queue(trained, "ada")
    assert all(question.suggestion is None for question in work_through(trained, 5))


# Settings


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize(
    "name",
    ["recipe.learning_rate", "recipe.label_smoothing", "recipe.weight_decay", "recipe.clip", "precision", "spot_share"],
)
def test_a_setting_that_is_no_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadInput, match=name.removeprefix("recipe.")):
        changed(RoundConfig(), [f"{name}={value}"])


@pytest.mark.parametrize(
    "changes", [["recipe.layers=-1"], ["recipe.loss=tokens", "recipe.label_smoothing=0.1"]], ids=["layers", "smoothing"]
)
def test_a_setting_that_would_do_nothing_is_refused(changes: list[str]) -> None:
    with pytest.raises(BadInput):
        changed(RoundConfig(), changes)


def test_the_evidence_of_these_tests_is_sound() -> None:
    assert GOOD.is_valid
    assert Evidence(GOOD.audit, GOOD.truth, GOOD.pool, OFF).is_valid
    assert DEFAULT in STRATEGIES
