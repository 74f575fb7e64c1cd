"""The scout hears what the untrained backbone makes of an utterance, and its word counts as much as was asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from annotator.errors import ProjectError
from model.adapter import LanguageModelClassifier, restore
from model.backbone import Backbone
from model.scout import PENALTY, Scout, blend, fit_head, fit_scout, out_of_fold
from model.task import Utterance
from tests.model.tiny import quick, toy

TASK, UTTERANCES, LABELS = toy()
SIZE = len(TASK.labels)


def classifier_of(backbone: Backbone, **changes: Any) -> LanguageModelClassifier:
    return LanguageModelClassifier(backbone, TASK, quick(**changes), "options")


def plain_states(classifier: LanguageModelClassifier, utterance: Utterance) -> np.ndarray:
    """Read one utterance by itself, all layers, and take the mean of the middle one over its own tokens."""
    backbone, tokens = classifier.backbone, classifier.tokens
    body, alone = tokens.body(utterance), tokens.body(Utterance(utterance.text))
    ids = torch.tensor([[*tokens.prefix, *body]])
    own = slice(ids.shape[1] - len(alone), ids.shape[1] - len(tokens.suffix))
    with torch.inference_mode():
        if backbone.family == "encoder-decoder":
            hidden = backbone.model.get_encoder()(input_ids=ids).last_hidden_state
        else:
            found: list[torch.Tensor] = []
            layers = backbone.model.get_decoder().layers
            keep = lambda _, __, output: found.append(output[0] if isinstance(output, tuple) else output)  # noqa: E731
            hook = layers[len(layers) // 2].register_forward_hook(keep)
            backbone.model(input_ids=ids)
            hook.remove()
            hidden = found[0]
    return hidden[0, own].float().mean(dim=0).numpy()


def states(n: int = 60, width: int = 12, k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    return (rng.normal(size=(n, width)) + 2 * np.eye(k, width)[labels]).astype(np.float32), labels


def test_states_read_together_equal_those_of_one_utterance_at_a_time(any_backbone: Backbone) -> None:
    classifier = classifier_of(any_backbone)
    said = [*UTTERANCES, Utterance("Yes.", ("client: I could try it.", "therapist: Would you?"))]
    alone = [plain_states(classifier, utterance) for utterance in said]
    np.testing.assert_allclose(classifier.states(said), alone, atol=1e-4)


def test_an_utterance_keeps_its_own_words_where_its_context_and_its_middle_are_cut(llama: Backbone) -> None:
    tokens = classifier_of(llama, max_tokens=40).tokens
    turns = ("client: " + "before " * 60, "therapist: and then?")
    for text in ("Yes.", "long " * 200):
        body = tokens.body(Utterance(text, turns))
        own = tokens.own(Utterance(text, turns), body)
        assert own.stop == len(body) - len(tokens.suffix)
        assert body[own] == tokens.body(Utterance(text))[: -len(tokens.suffix)]


@pytest.mark.parametrize("method", ["lora", "prompt", "full"])
def test_training_changes_no_state(backbone: Backbone, method: str) -> None:
    classifier = classifier_of(backbone, method=method)
    before = classifier.states(UTTERANCES)
    adapter = classifier.fit(UTTERANCES, LABELS)
    learned = adapter.logits(UTTERANCES)
    np.testing.assert_array_equal(classifier.states(UTTERANCES), before)
    np.testing.assert_array_equal(adapter.logits(UTTERANCES), learned)  # and reading changes nothing that was learned


def test_what_is_remembered_is_not_read_again(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = classifier_of(llama)
    known = np.ones((3, 4), dtype=np.float32)
    classifier.remember(UTTERANCES[:3], known)
    monkeypatch.setattr(classifier._scorer, "states", lambda *_: pytest.fail("read again"))
    np.testing.assert_array_equal(classifier.states(UTTERANCES[:3]), known)


def test_a_reading_is_named_after_all_that_states_depend_on(llama: Backbone) -> None:
    plain = classifier_of(llama).reading
    assert classifier_of(llama, epochs=9, scout=0.3).reading == plain
    assert classifier_of(llama, max_tokens=40).reading != plain
    assert LanguageModelClassifier(llama, TASK, quick(), "definitions").reading != plain


@pytest.mark.parametrize("weight", [0.4, 1.0])
def test_a_round_with_a_scout_is_saved_and_read_back(backbone: Backbone, weight: float, tmp_path: Path) -> None:
    adapter = classifier_of(backbone, scout=weight).fit(UTTERANCES, LABELS)
    learned = adapter.logits(UTTERANCES)
    adapter.save(tmp_path)
    np.testing.assert_allclose(restore(tmp_path).logits(UTTERANCES), learned, atol=1e-4)
    assert restore(tmp_path).logits([]).shape == (0, SIZE)
    as_written = (tmp_path / "round.json").read_text()
    (tmp_path / "round.json").write_text(re.sub('"reading": "[0-9a-f]+"', '"reading": "another"', as_written))
    with pytest.raises(ProjectError, match="computed otherwise"):
        restore(tmp_path)
    (tmp_path / "round.json").write_text(as_written)
    (tmp_path / "scout.safetensors").unlink()
    with pytest.raises(ProjectError, match=r"scout\.safetensors"):
        restore(tmp_path)


def test_a_scout_alone_trains_nothing(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.adapter.train", lambda *_: pytest.fail("trained"))
    logits = classifier_of(llama, scout=1.0).fit(UTTERANCES, LABELS).logits(UTTERANCES)
    np.testing.assert_allclose(logsumexp(logits, axis=1), 0, atol=1e-9)
    assert (logits.argmax(axis=1) == LABELS).mean() > 0.9


def test_a_round_says_what_adapter_and_scout_say_together(llama: Backbone) -> None:
    alone = classifier_of(llama, scout=0.0).fit(UTTERANCES, LABELS).logits(UTTERANCES)
    heard = classifier_of(llama, scout=1.0).fit(UTTERANCES, LABELS).logits(UTTERANCES)
    both = classifier_of(llama, scout=0.4).fit(UTTERANCES, LABELS).logits(UTTERANCES)
    np.testing.assert_allclose(both, blend(alone, heard, 0.4), atol=1e-6)


@pytest.mark.parametrize("k", [2, 3, 7])
def test_it_is_the_logistic_regression_of_scikit_learn(k: int) -> None:
    given_states, labels = states(70, k=k)
    ours = fit_head(given_states, labels.tolist(), k).loglik(given_states)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY / 12, max_iter=500))
    theirs = reference.fit(given_states.astype(np.float64), labels).predict_log_proba(given_states)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("seen", [1, 2, 3])
def test_labels_that_nobody_has_given_share_about_the_chance_of_one_more_answer(seen: int) -> None:
    given_states, labels = states(60, k=seen)
    said = np.exp(fit_head(given_states, labels.tolist(), 5).loglik(given_states))
    np.testing.assert_allclose(said.sum(axis=1), 1)
    assert 0.5 / 61 < said[:, seen:].sum(axis=1).mean() < 2 / 61
    assert np.ptp(said[:, seen:], axis=1).max() < 1e-12


@pytest.mark.parametrize("once", [0, 6, 18])
def test_new_labels_are_expected_as_often_as_labels_came_only_once(once: int) -> None:
    given_states, labels = states(60, k=3)
    labels[:once] = np.arange(3, 3 + once)
    said = np.exp(fit_head(given_states, labels.tolist(), 30).loglik(given_states))
    expected = max(once, 1) / 61
    assert expected / 2 < said[:, 3 + once :].sum(axis=1).mean() < expected * 2


def muddled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return states of which one direction tells of the label a little and the rest nothing; one label is common."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=count, p=[0.7, 0.2, 0.1])
    found = rng.normal(size=(count, 60)).astype(np.float32)
    found[:, 0] += labels
    return found, labels


def test_it_is_as_sure_as_it_is_right() -> None:
    (given_states, labels), (others, truth) = muddled(150, 0), muddled(5_000, 1)
    head, honest = (fit(given_states, labels.tolist(), 3).loglik(others) for fit in (fit_head, fit_scout))
    assert too_sure(head, truth) > 0.1, "a head alone is too sure where there is little to learn"
    assert abs(too_sure(honest, truth)) < too_sure(head, truth) / 2
    assert log_loss(truth, np.exp(honest)) < log_loss(truth, np.exp(head)) - 0.1


def too_sure(said: np.ndarray, truth: np.ndarray) -> float:
    """Return by how much the mean probability of the likeliest label is above the share where it is right."""
    return float(np.exp(said).max(axis=1).mean() - (said.argmax(axis=1) == truth).mean())


def test_it_is_made_honest_by_answers_that_it_has_not_seen() -> None:
    given_states, labels = muddled(150, 0)
    honest = fit_scout(given_states, labels.tolist(), 3).loglik(given_states)
    assert too_sure(honest, labels) < 0, "it has learned these answers, and is as sure as it was before it had"
    assert abs(too_sure(out_of_fold(given_states, labels.tolist(), 3), labels)) < 0.03


def test_a_handful_of_answers_makes_a_head_and_no_more() -> None:
    given_states, labels = muddled(4, 0)
    given, few = labels.tolist(), fit_scout(given_states, labels.tolist(), 3)
    np.testing.assert_array_equal(few.weights, fit_head(given_states, given, 3).weights)


@given(seed=st.integers(0, 50), weight=st.floats(0, 1))
def test_a_blend_keeps_the_mass_and_lies_between_the_two(seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    adapter = log_softmax(rng.normal(size=(5, 4)), axis=1) - rng.random((5, 1))
    heard = log_softmax(rng.normal(size=(5, 4)), axis=1)
    mixed = blend(adapter, heard, weight)
    np.testing.assert_allclose(logsumexp(mixed, axis=1), logsumexp(adapter, axis=1), atol=1e-9)
    np.testing.assert_allclose(blend(adapter, heard, 0.0), adapter, atol=1e-9)
    odds = np.diff(mixed, axis=1)
    expected = (1 - weight) * np.diff(adapter, axis=1) + weight * np.diff(heard, axis=1)
    np.testing.assert_allclose(odds, expected, atol=1e-9)


def test_a_scout_is_read_back_as_it_was(tmp_path: Path) -> None:
    given_states, labels = states()
    scout = fit_scout(given_states, labels.tolist(), 3)
    scout.save(tmp_path)
    found = Scout.load(tmp_path)
    assert found is not None
    np.testing.assert_array_equal(found.loglik(given_states), scout.loglik(given_states))
    assert Scout.load(tmp_path / "elsewhere") is None


def test_a_scout_alone_knows_nothing_before_it_is_taught(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = classifier_of(llama, scout=1.0)
    monkeypatch.setattr("model.adapter.score", lambda *_: pytest.fail("asked the language model for labels"))
    np.testing.assert_allclose(classifier.zero_shot().logits(UTTERANCES), -np.log(SIZE))
