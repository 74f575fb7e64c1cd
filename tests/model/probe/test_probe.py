"""The probe is fitted to hidden states of the untrained backbone, calibrated, and blended with the given weight."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy.special import log_softmax, logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from annotator.errors import ProjectError
from model import constants
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone
from model.probe.heads import ASPECTS, TrainingExamples, aspects, make_heads, semantic_states
from model.probe.probe import EVEN_SHARES, Probe, blank, blend, fit_probe, out_of_fold, zero_shot_probe
from model.prompts.verbalizer import label_words
from model.restore import restore
from model.scoring.hidden_states import spelling_states
from model.types import Label, Task, Utterance
from tests.model import tiny
from tests.model.conftest import ROUNDING
from tests.model.tiny import quick, toy

TASK, UTTERANCES, LABELS = toy()
SIZE = len(TASK.labels)


def classifier_of(backbone: Backbone, **changes: Any) -> LanguageModelClassifier:
    return LanguageModelClassifier(backbone, TASK, quick(**changes), "options")


def plain_states(classifier: LanguageModelClassifier, utterance: Utterance) -> np.ndarray:
    """Compute the state of one utterance by itself: mean over its tokens halfway up, and a later layer's last token."""
    backbone, tokens = classifier.backbone, classifier.tokens
    body, alone = tokens.body(utterance), tokens.body(Utterance(utterance.text))
    ids = torch.tensor([[*tokens.prefix, *body]], device=backbone.device)
    own = slice(ids.shape[1] - len(alone), ids.shape[1] - len(tokens.suffix))
    with torch.inference_mode():
        if backbone.family == "encoder-decoder":
            halfway = further = backbone.model.get_encoder()(input_ids=ids).last_hidden_state
        else:
            found: list[torch.Tensor] = []
            layers = backbone.model.get_decoder().layers
            keep = lambda _, __, output: found.append(output[0] if isinstance(output, tuple) else output)  # noqa: E731
            hooks = [layers[i].register_forward_hook(keep) for i in (len(layers) // 2, 3 * len(layers) // 5)]
            backbone.model(input_ids=ids)
            for hook in hooks:
                hook.remove()
            halfway, further = found
    probe_logits = torch.cat([halfway[0, own].float().mean(dim=0), further[0, -1].float()]).cpu().numpy()
    return np.concatenate([probe_logits, spelling_states([utterance.text], len(probe_logits) // 2)[0]])


def states(n: int = 60, width: int = 12, k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return states, every aspect of which is informative, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    each = rng.normal(size=(n, ASPECTS, width)) + 2 * np.eye(k, width)[labels][:, None]
    return each.reshape(n, -1).astype(np.float32), labels


def undescribed(k: int, width: int = 12) -> np.ndarray:
    return np.zeros((k, ASPECTS * width), dtype=np.float32)


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
        own = tokens.own_slice(Utterance(text, turns), body)
        assert own.stop == len(body) - len(tokens.suffix)
        assert body[own] == tokens.body(Utterance(text))[: -len(tokens.suffix)]


@pytest.mark.parametrize("method", ["lora", "prompt", "full"])
def test_training_changes_no_state(backbone: Backbone, method: str) -> None:
    classifier = classifier_of(backbone, method=method)
    before = classifier.states(UTTERANCES)
    adapter = classifier.fit(UTTERANCES, LABELS)
    learned = adapter.logits(UTTERANCES)
    np.testing.assert_allclose(classifier.states(UTTERANCES), before, rtol=0, atol=ROUNDING)
    again = adapter.logits(UTTERANCES)  # and reading changes nothing that was learned
    np.testing.assert_allclose(again, learned, rtol=0, atol=ROUNDING)


def test_what_is_remembered_is_not_read_again(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = classifier_of(llama)
    known = np.ones((3, 4), dtype=np.float32)
    classifier.remember(UTTERANCES[:3], known)
    monkeypatch.setattr(classifier._scorer, "states", lambda *_: pytest.fail("read again"))
    np.testing.assert_array_equal(classifier.states(UTTERANCES[:3]), known)


def test_a_reading_is_named_after_all_that_states_depend_on(llama: Backbone) -> None:
    plain = classifier_of(llama).reading
    assert classifier_of(llama, epochs=9, probe_weight=0.3).reading == plain
    assert classifier_of(llama, max_tokens=40).reading != plain
    assert LanguageModelClassifier(llama, TASK, quick(), "definitions").reading != plain


@pytest.mark.parametrize("weight", [0.4, 1.0])
def test_a_round_with_a_probe_is_saved_and_read_back(backbone: Backbone, weight: float, tmp_path: Path) -> None:
    adapter = classifier_of(backbone, probe_weight=weight).fit(UTTERANCES, LABELS)
    learned = adapter.logits(UTTERANCES)
    adapter.save(tmp_path)
    np.testing.assert_allclose(restore(tmp_path).logits(UTTERANCES), learned, atol=1e-4)
    assert restore(tmp_path).logits([]).shape == (0, SIZE)
    as_written = tiny.unseal(tmp_path).read_text()
    (tmp_path / "round.json").write_text(re.sub('"reading": "[0-9a-f]+"', '"reading": "another"', as_written))
    with pytest.raises(ProjectError, match="computes differently"):
        restore(tmp_path)
    (tmp_path / "round.json").write_text(as_written)
    (tmp_path / "scout.safetensors").unlink()
    with pytest.raises(ProjectError, match=r"scout\.safetensors"):
        restore(tmp_path)


def test_a_probe_alone_trains_nothing(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.adapter.train", lambda *_: pytest.fail("trained"))
    logits = classifier_of(llama, probe_weight=1.0).fit(UTTERANCES, LABELS).logits(UTTERANCES)
    np.testing.assert_allclose(logsumexp(logits, axis=1), 0, atol=1e-9)
    assert (logits.argmax(axis=1) == LABELS).mean() > 0.9


def test_a_round_says_what_adapter_and_probe_say_together(llama: Backbone) -> None:
    alone = classifier_of(llama, probe_weight=0.0).fit(UTTERANCES, LABELS).logits(UTTERANCES)
    probe_logits = classifier_of(llama, probe_weight=1.0).fit(UTTERANCES, LABELS).logits(UTTERANCES)
    both = classifier_of(llama, probe_weight=0.4).fit(UTTERANCES, LABELS).logits(UTTERANCES)
    np.testing.assert_allclose(both, blend(alone, probe_logits, 0.4), atol=1e-6)


def test_a_round_tells_what_its_probe_says_alone_and_nothing_where_there_is_none(llama: Backbone) -> None:
    alone = classifier_of(llama, probe_weight=1.0).fit(UTTERANCES, LABELS).logits(UTTERANCES)
    both = classifier_of(llama, probe_weight=0.4).fit(UTTERANCES, LABELS)
    np.testing.assert_allclose(both.probe_logits(UTTERANCES), alone, atol=ROUNDING)
    assert both.probe_logits([]) is None
    assert classifier_of(llama, probe_weight=0.0).zero_shot().probe_logits(UTTERANCES) is None


@pytest.mark.parametrize("k", [2, 3, 7])
def test_a_head_is_the_logistic_regression_of_scikit_learn(k: int) -> None:
    given_states, labels = states(70, k=k)
    head = make_heads(TrainingExamples(given_states, labels, undescribed(k)))[0]
    vectors = StandardScaler().fit_transform(semantic_states(given_states).astype(np.float64)) / np.sqrt(12)
    theirs = LogisticRegression(C=constants.PENALTY, max_iter=500)
    theirs.fit(np.concatenate([vectors, np.zeros((k, 12))]), [*labels, *range(k)])  # a first example that says nothing
    np.testing.assert_allclose(head.loglik(given_states), theirs.predict_log_proba(vectors), atol=1e-5)


def test_rare_letters_count_more_than_common_ones_by_the_root_of_their_deviation() -> None:
    given_states, labels = states(70)
    part = aspects(given_states.shape[1])[-1]
    given_states[:, part.start] *= 4
    head = make_heads(TrainingExamples(given_states, labels, undescribed(3)))[ASPECTS - 1]
    vectors = given_states[:, part].astype(np.float64)
    deviation = vectors.std(axis=0)
    vectors = (vectors - vectors.mean(axis=0)) / np.sqrt(np.maximum(deviation, deviation.mean()))
    vectors /= np.sqrt((vectors**2).sum(axis=1).mean())
    theirs = LogisticRegression(C=constants.PENALTY, max_iter=500)
    theirs.fit(np.concatenate([vectors, np.zeros((3, 12))]), [*labels, 0, 1, 2])
    np.testing.assert_allclose(head.loglik(given_states), theirs.predict_log_proba(vectors), atol=1e-5)


def test_it_gives_the_weighted_sum_of_its_heads() -> None:
    given_states, labels = states()
    described = np.random.default_rng(1).normal(size=(3, given_states.shape[1])).astype(np.float32)
    probe = fit_probe(given_states, labels.tolist(), described)
    heads = make_heads(TrainingExamples(given_states, labels, described))
    summed = sum(share * head.loglik(given_states) for head, share in zip(heads, probe.shares, strict=True))
    np.testing.assert_allclose(probe.loglik(given_states), log_softmax(summed + probe.label_bias, axis=1), atol=1e-9)


def test_a_head_without_information_loses_its_share() -> None:
    given_states, labels = states(120)
    noise = np.random.default_rng(3).normal(size=given_states.shape).astype(np.float32)
    for aspect, part in enumerate(aspects(given_states.shape[1])):
        only = noise.copy()
        only[:, part] = given_states[:, part]
        shares = fit_probe(only, labels.tolist(), undescribed(3)).shares[:ASPECTS]
        assert shares.argmax() == aspect
        assert np.delete(shares, aspect).max() < shares[aspect] / 2


def likened(k: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return states of utterances similar to their label words, labels, and the states of the label words."""
    rng = np.random.default_rng(5)
    described = rng.normal(size=(k, ASPECTS * 40)).astype(np.float32)
    labels = rng.permutation(np.repeat(np.arange(k), 10))
    return (described[labels] + rng.normal(size=(len(labels), ASPECTS * 40))).astype(np.float32), labels, described


def test_labels_that_nobody_has_given_are_known_by_what_the_codebook_says_of_them() -> None:
    utterances, labels, described = likened()
    few = np.flatnonzero(labels < 10)[:40]  # two in three labels never given
    others = labels >= 10
    probe = fit_probe(utterances[few], labels[few].tolist(), described)
    told = (probe.loglik(utterances[others]).argmax(axis=1) == labels[others]).mean()
    held_out = fit_probe(utterances[few], labels[few].tolist(), np.zeros_like(described)).loglik(utterances[others])
    assert told > 0.8
    assert (held_out.argmax(axis=1) == labels[others]).mean() < 0.2


def test_before_any_answer_utterances_are_compared_with_the_codebook() -> None:
    utterances, labels, described = likened()
    said = zero_shot_probe(utterances, described).loglik(utterances)
    assert (said.argmax(axis=1) == labels).mean() > 0.9
    np.testing.assert_allclose(np.exp(said).sum(axis=1), 1)


def muddled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return states with one slightly informative direction, and labels, one of which is common."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=count, p=[0.7, 0.2, 0.1])
    found = rng.normal(size=(count, 180)).astype(np.float32)
    found[:, 0] += labels
    return found, labels


def test_it_is_as_sure_as_it_is_right() -> None:
    (given_states, labels), (others, truth) = muddled(150, 0), muddled(5_000, 1)
    nothing = np.zeros((3, 180), dtype=np.float32)
    head = make_heads(TrainingExamples(given_states, labels, nothing))[0].loglik(others)
    calibrated = fit_probe(given_states, labels.tolist(), nothing).loglik(others)
    assert too_sure(head, truth) > 0.1, "a head alone is too sure where there is little to learn"
    assert abs(too_sure(calibrated, truth)) < too_sure(head, truth) / 2
    assert log_loss(truth, np.exp(calibrated)) < log_loss(truth, np.exp(head)) - 0.1


def too_sure(said: np.ndarray, truth: np.ndarray) -> float:
    """Return overconfidence: the mean probability of the likeliest label minus accuracy."""
    return float(np.exp(said).max(axis=1).mean() - (said.argmax(axis=1) == truth).mean())


def test_it_is_calibrated_by_answers_that_it_has_not_seen() -> None:
    (given_states, labels), nothing = muddled(150, 0), np.zeros((3, 180), dtype=np.float32)
    calibrated = fit_probe(given_states, labels.tolist(), nothing).loglik(given_states)
    assert too_sure(calibrated, labels) < 0, "it has learned these answers, and is as sure as it was before it had"
    assert abs(too_sure(out_of_fold(given_states, labels.tolist(), nothing), labels)) < 0.05


def test_shares_fitted_to_few_answers_do_not_make_it_too_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    (others, truth), nothing = muddled(2_000, 99), np.zeros((3, 180), dtype=np.float32)

    def surplus() -> float:
        training_examples = [muddled(40, seed) for seed in range(8)]
        probe_logits = [
            fit_probe(given_states, labels.tolist(), nothing).loglik(others)
            for given_states, labels in training_examples
        ]
        return float(np.mean([too_sure(said, truth) for said in probe_logits]))

    calibrated = surplus()
    monkeypatch.setattr("model.probe.probe.fit_temperature", lambda *_: 1.0)
    assert abs(calibrated) < 0.04
    assert surplus() > calibrated + 0.02


def test_with_a_handful_of_answers_every_head_counts_the_same() -> None:
    given_states, labels = muddled(4, 0)
    few = fit_probe(given_states, labels.tolist(), np.zeros((3, 180), dtype=np.float32))
    np.testing.assert_array_equal(few.shares, EVEN_SHARES)
    assert not few.label_bias.any()


def test_refitted_to_the_same_answers_it_says_the_same_and_to_others_it_keeps_the_shares() -> None:
    given_states, labels = states()
    probe = fit_probe(given_states[:40], labels[:40].tolist(), undescribed(3))
    again, more = (probe.refitted(given_states[:n], labels[:n].tolist()) for n in (40, 60))
    np.testing.assert_array_equal(again.weights, probe.weights)
    np.testing.assert_array_equal(more.shares, probe.shares)
    assert not np.array_equal(more.weights, probe.weights)


def test_a_codebook_in_another_order_finds_what_was_known_of_its_labels() -> None:
    utterances, labels, described = likened(5)
    probe = fit_probe(utterances, labels.tolist(), described)
    turned = probe.for_labels([4, None, 3, 2, 1, 0])  # one is new
    np.testing.assert_array_equal(turned.label_states[[5, 4, 3, 2, 0]], probe.label_states)
    np.testing.assert_array_equal(turned.label_bias[[5, 4, 3, 2, 0]], probe.label_bias)
    assert not turned.label_states[1].any()
    place = np.array([5, 4, 3, 2, 0])
    said = turned.refitted(utterances, place[labels].tolist()).loglik(utterances)
    assert (said.argmax(axis=1) == place[labels]).mean() > 0.9
    assert np.exp(said[:, 1]).mean() < 0.05


def test_a_blank_one_finds_all_labels_equally_likely() -> None:
    np.testing.assert_allclose(blank(6, 4).loglik(np.ones((2, 6), dtype=np.float32)), -np.log(4))


@given(seed=st.integers(0, 50), weight=st.floats(0, 1))
def test_a_blend_keeps_the_mass_and_lies_between_the_two(seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    adapter = log_softmax(rng.normal(size=(5, 4)), axis=1) - rng.random((5, 1))
    probe_logits = log_softmax(rng.normal(size=(5, 4)), axis=1)
    mixed = blend(adapter, probe_logits, weight)
    np.testing.assert_allclose(logsumexp(mixed, axis=1), logsumexp(adapter, axis=1), atol=1e-9)
    np.testing.assert_allclose(blend(adapter, probe_logits, 0.0), adapter, atol=1e-9)
    odds = np.diff(mixed, axis=1)
    expected = (1 - weight) * np.diff(adapter, axis=1) + weight * np.diff(probe_logits, axis=1)
    np.testing.assert_allclose(odds, expected, atol=1e-9)


def test_a_probe_is_read_back_as_it_was(tmp_path: Path) -> None:
    given_states, labels = states()
    probe = fit_probe(given_states, labels.tolist(), undescribed(3) + np.eye(3, ASPECTS * 12, dtype=np.float32))
    probe.save(tmp_path)
    found = Probe.load(tmp_path)
    assert found is not None
    for name, array in vars(probe).items():
        np.testing.assert_array_equal(getattr(found, name), array)
    assert Probe.load(tmp_path / "elsewhere") is None
    save_file({"weights": probe.weights, "bias": probe.bias}, tmp_path / "scout.safetensors")
    assert Probe.load(tmp_path) is None, "a probe of one head, as in earlier versions"


def test_labels_are_read_as_if_somebody_said_their_words_definition_and_examples(backbone: Backbone) -> None:
    told = Task("Decide.", (Label("joy"), Label("lost_card", "My card is lost.", examples=("Gone!", "Where is it?"))))
    classifier = LanguageModelClassifier(backbone, told, quick(), "options")
    said = [Utterance(text) for text in ("joy", "lost card", "My card is lost.", "Gone!", "Where is it?")]
    read = classifier.states(said)
    np.testing.assert_allclose(classifier.label_states, [read[0], read[1:].mean(axis=0)], atol=1e-4)


def test_before_any_answer_a_probe_alone_compares_what_was_read_and_asks_no_language_model(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = classifier_of(llama, probe_weight=1.0)
    monkeypatch.setattr("model.adapter.score", lambda *_: pytest.fail("asked the language model for labels"))
    np.testing.assert_allclose(classifier.zero_shot().logits(UTTERANCES), -np.log(SIZE))  # nothing has been read yet
    words = [Utterance(label_words(label)) for label in TASK.labels]
    classifier.remember(words, classifier.states(words))
    classifier.remember(UTTERANCES, classifier.states(UTTERANCES))
    assert (classifier.zero_shot().logits(words).argmax(axis=1) == np.arange(SIZE)).mean() > 0.5
