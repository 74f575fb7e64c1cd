"""Diverging training stops and leaves nothing; settings that cannot be applied are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from annotator.errors import BackboneRefused, BadInput, NotFinite, RoundError
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone, load_backbone
from model.probe.heads import ASPECTS
from model.probe.probe import blend, fit_probe, out_of_fold, zero_shot_probe
from model.probe.scaling import fit_pool, fit_temperature, temperature_at
from model.scoring.trie_search import best_first
from model.training.training import _Learner
from model.types import Utterance
from tests.model import tiny, windows
from tests.model.scoring.test_scoring import NESTED, classifier_of
from tests.model.tiny import UTTERANCES, quick, toy

LABELS = [0, 1, 2, 3, 1]
BAD = [np.nan, np.inf, -np.inf]


def poisoned(values: np.ndarray, bad: float) -> np.ndarray:
    changed = np.array(values, dtype=np.float64)
    changed.flat[changed.size // 2] = bad
    return changed


# Training


@pytest.mark.parametrize("changes", [{"learning_rate": 1e30}, {"learning_rate": 1e30, "holdout": 0.4}])
def test_training_that_runs_away_stops_with_step_and_rate_and_leaves_nothing(
    llama: Backbone, tmp_path: Path, changes: dict[str, Any]
) -> None:
    unfinished, shares = tmp_path / "unfinished.pt", list[float]()
    classifier = classifier_of(llama, NESTED, epochs=8, batch_size=1, **changes)
    with pytest.raises(NotFinite, match=r"step \d+ of \d+: with a learning rate of 1e\+30") as caught:
        classifier.fit(UTTERANCES, LABELS, shares.append, unfinished)
    assert "learning_rate" in caught.value.hint
    assert isinstance(caught.value, RoundError)
    assert max(shares, default=0) < 0.5
    assert not unfinished.exists()
    assert llama.tuning is None
    assert not any("lora" in name for name, _ in llama.model.named_parameters())
    assert np.isfinite(classifier.zero_shot().logits(UTTERANCES)).all()


def test_what_was_stopped_and_runs_away_when_taken_up_is_not_taken_up_again(llama: Backbone, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished.pt"

    def stop(share: float) -> None:
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classifier_of(llama, NESTED, epochs=4).fit(UTTERANCES, LABELS, stop, unfinished)
    state = torch.load(unfinished, weights_only=True)
    state["weights"][0].fill_(torch.nan)
    torch.save(state, unfinished)
    with pytest.raises(NotFinite):
        classifier_of(llama, NESTED, epochs=4).fit(UTTERANCES, LABELS, unfinished=unfinished)
    assert not unfinished.exists()
    assert np.isfinite(classifier_of(llama, NESTED, epochs=4).fit(UTTERANCES, LABELS).logits(UTTERANCES)).all()


@pytest.mark.parametrize("bad", BAD)
def test_a_gradient_that_is_no_number_changes_no_weight(
    llama: Backbone, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped = list[int]()
    monkeypatch.setattr(_Learner, "record_held_out_loss", lambda *_: None)
    hook: Callable[[torch.Tensor], torch.Tensor] = lambda gradient: torch.full_like(gradient, bad)  # noqa: E731

    def backward(learner: Any, loss: torch.Tensor, **_: Any) -> None:
        learner_weights[0].register_hook(hook)
        loss.backward()  # type: ignore[no-untyped-call]

    learner_weights = list[torch.Tensor]()
    begin = _Learner.__init__

    def noting(self: _Learner, *given: Any) -> None:
        begin(self, *given)
        learner_weights.extend(self.weights)
        step = self.optimizer.step
        self.optimizer.step = lambda: stepped.append(1) or step()  # type: ignore[func-returns-value]

    monkeypatch.setattr(_Learner, "__init__", noting)
    monkeypatch.setattr("accelerate.Accelerator.backward", backward)
    with pytest.raises(NotFinite, match="step 1 of"):
        classifier_of(llama, NESTED).fit(UTTERANCES, LABELS)
    assert not stepped


def test_scores_that_are_no_numbers_are_refused(llama: Backbone) -> None:
    classifier = classifier_of(llama, NESTED)
    adapter = classifier.fit(UTTERANCES, LABELS)
    with torch.no_grad():
        next(w for name, w in llama.model.named_parameters() if "lora_B" in name).fill_(torch.nan)
    with pytest.raises(NotFinite):
        adapter.logits(UTTERANCES)


def test_a_backbone_whose_weights_are_no_numbers_is_refused_for_that(tmp_path: Path) -> None:
    backbone = load_backbone(tiny.save_llama(tmp_path))
    with torch.no_grad():
        backbone.model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(NotFinite, match="infinite or undefined"):
        classifier_of(backbone, NESTED)


def test_a_search_of_the_codebook_stops_at_what_is_no_number(llama: Backbone) -> None:
    trie = classifier_of(llama, tiny.LABEL_SETS["seventy-seven"]).tokens.trie

    def expand(owners: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        return np.full(int(np.isin(trie.edge_nodes, nodes).sum()), np.nan)

    with pytest.raises(NotFinite):
        best_first(trie, 1, expand, 1e-3, 1)


# The quick classifier and its scaling


def states(n: int, seed: int = 0, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, ASPECTS * width)).astype(np.float32)


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_number_teaches_nothing(bad: float) -> None:
    rows, labels, words = states(30), [i % 3 for i in range(30)], states(3, 1)
    for fit in (fit_probe, out_of_fold):
        with pytest.raises(NotFinite):
            fit(poisoned(rows, bad), labels, words)
        with pytest.raises(NotFinite):
            fit(rows, labels, poisoned(words, bad))
    with pytest.raises(NotFinite):
        zero_shot_probe(poisoned(rows, bad), words)
    with pytest.raises(NotFinite), np.errstate(invalid="ignore"):
        fit_probe(rows, labels, words).loglik(poisoned(rows, bad))
    logits = np.log(np.full((4, 3), 1 / 3))
    unknown = poisoned(logits, bad) if bad != -np.inf else np.full((4, 3), bad)  # one label of no mass is fine
    for given in ((unknown, logits, 0.5), (logits, poisoned(logits, bad), 0.5), (logits, logits, bad)):
        with pytest.raises(NotFinite), np.errstate(invalid="ignore"):
            blend(*given)


@pytest.mark.parametrize("bad", BAD)
def test_no_temperature_is_fitted_to_what_is_no_number(bad: float) -> None:
    logits, labels = np.random.default_rng(0).normal(size=(9, 3)), np.arange(9) % 3
    for call in (
        lambda: fit_temperature(poisoned(logits, bad), labels),
        lambda: fit_temperature(logits, labels, expected=bad),
        lambda: fit_temperature(logits, labels, spread=np.nan),
        lambda: fit_pool(poisoned(logits, bad)[None], labels, np.ones(1)),
        lambda: fit_pool(logits[None], labels, np.array([bad])),
        lambda: temperature_at(bad, logits),
        lambda: temperature_at(0.5, poisoned(logits, bad)),
    ):
        with pytest.raises(NotFinite), np.errstate(invalid="ignore", divide="ignore"):
            call()


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_copies_of_one_text_make_nothing_sure(noise: float) -> None:
    rng = np.random.default_rng(0)
    one, others = states(1), states(50, 1)
    rows = np.repeat(one, 20, axis=0) * (1 + noise * rng.normal(size=(20, one.shape[1]))).astype(np.float32)
    probe = fit_probe(rows, [i % 2 for i in range(20)], states(2, 2))
    bare = others @ probe.weights + probe.bias
    assert np.abs(bare).max() < 1e3


# Settings


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clip", "label_smoothing", "loraplus", "neftune"])
def test_a_recipe_with_a_number_that_is_none_is_refused(llama: Backbone, name: str, value: float) -> None:
    with pytest.raises(BadInput, match=name):
        classifier_of(llama, NESTED, **{name: value}).fit(UTTERANCES, LABELS)


def test_smoothing_that_would_have_no_effect_is_refused(llama: Backbone) -> None:
    with pytest.raises(BadInput, match=r"“label_smoothing” 0\.1 has no effect while “loss” is “tokens”"):
        classifier_of(llama, NESTED, loss="tokens", label_smoothing=0.1).fit(UTTERANCES, LABELS)


def test_layers_that_the_backbone_does_not_have_are_refused(llama: Backbone) -> None:
    with pytest.raises(BackboneRefused, match=r"has 2 layers .* 99"):
        classifier_of(llama, NESTED, layers=(0, 99)).fit(UTTERANCES, LABELS)


def test_modules_that_the_backbone_does_not_have_are_refused(llama: Backbone) -> None:
    with pytest.raises(BackboneRefused, match="cannot be adapted with these settings"):
        classifier_of(llama, NESTED, target_modules="no_such_module").fit(UTTERANCES, LABELS)


@pytest.mark.parametrize("kind", ["gpt2", "gpt-neo", "opt"])
def test_only_the_layers_asked_for_are_adapted_whatever_their_list_is_called(kind: str, tmp_path: Path) -> None:
    sizes = tiny.sizes()
    few = {"vocab_size": sizes["vocab_size"], "initializer_range": 0.15}
    config = {
        "gpt2": lambda: transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, **few),
        "gpt-neo": lambda: windows.gpt_neo(2048),
        "opt": lambda: transformers.OPTConfig(
            hidden_size=64, word_embed_proj_dim=64, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
            vocab_size=sizes["vocab_size"],
        ),
    }[kind]()  # fmt: skip
    backbone = load_backbone(windows.save(config, tmp_path))
    task, texts, labels = toy()
    LanguageModelClassifier(backbone, task, quick(layers=(1,), epochs=1), "options").fit(texts[:8], labels[:8])
    adapted = [name for name, _ in backbone.model.named_parameters() if "lora_A" in name]
    assert adapted
    assert all(".1." in name for name in adapted)


def test_a_text_alone_is_compared_too(llama: Backbone) -> None:
    found = classifier_of(llama, NESTED).zero_shot().logits([Utterance("refund")])
    assert np.isfinite(found).all()
