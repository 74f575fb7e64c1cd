"""Layers below the first trained one are computed once, and training computes the same numbers as with whole passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone, load_backbone
from model.scoring import frozen_layers
from model.scoring.frozen_layers import FrozenStates
from model.scoring.hidden_states import layer_stack
from tests.model import zoo
from tests.model.tiny import quick, task_of, toy, without_dropout

TASK, UTTERANCES, LABELS = toy()
FEW, FEW_LABELS = UTTERANCES[:10], LABELS[:10]
NESTED = task_of("refund", "refund request", "joy")  # labels with tokens behind others
MANY = task_of(*(f"label {a} {b}" for a in "abcdef" for b in "stuvw"))  # a trie that scoring searches


def trained(backbone: Backbone, task: Any = TASK, **changes: Any) -> np.ndarray:
    classifier = LanguageModelClassifier(backbone, task, quick(**({"layers": (1,)} | changes)), "options")
    return classifier.fit(FEW, FEW_LABELS).logits(FEW)


def passes_through_the_lower_layer(backbone: Backbone) -> list[int]:
    """Return a list that grows with each pass through the lower layer."""
    passes: list[int] = []
    layer_stack(backbone.model)[0].input_layernorm.register_forward_hook(lambda *_: passes.append(1))
    return passes


@pytest.fixture
def whole_passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(frozen_layers, "_count_frozen", lambda model: 0)


@pytest.mark.parametrize(
    "changes",
    [{}, {"checkpointing": True}, {"loss": "tokens"}, {"holdout": 0.2}, {"row_tokens": 64}, {"batch_size": 1}],
    ids=lambda changes: next(iter(changes), "default"),
)
def test_training_from_the_frozen_layers_up_equals_whole_passes(
    folders: dict[str, str], whole_passes: Callable[[], None], changes: dict[str, Any]
) -> None:
    begun = trained(load_backbone(folders["llama"]), **changes)
    whole_passes()
    np.testing.assert_allclose(begun, trained(load_backbone(folders["llama"]), **changes), atol=2e-4)


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text", "gpt2", "gpt_oss", "mixtral", "gpt_neox", "falcon"])
def test_other_families_equal_whole_passes_too(name: str, tmp_path: Path, whole_passes: Callable[[], None]) -> None:
    folder = zoo.save(name, tmp_path)
    begun = trained(without_dropout(load_backbone(folder)))
    whole_passes()
    np.testing.assert_allclose(begun, trained(without_dropout(load_backbone(folder))), atol=1e-3)


def test_a_large_codebook_equals_whole_passes(folders: dict[str, str], whole_passes: Callable[[], None]) -> None:
    begun = trained(load_backbone(folders["llama"]), MANY)
    whole_passes()
    np.testing.assert_allclose(begun, trained(load_backbone(folders["llama"]), MANY), atol=2e-4)


def test_frozen_layers_are_computed_once_whatever_the_epochs(folders: dict[str, str]) -> None:
    few, many = load_backbone(folders["llama"]), load_backbone(folders["llama"])
    after_few, after_many = passes_through_the_lower_layer(few), passes_through_the_lower_layer(many)
    trained(few, epochs=1)
    trained(many, epochs=6)
    assert len(after_few) == len(after_many)


@pytest.mark.parametrize("changes", [{"layers": ()}, {"layers": (0,)}, {"neftune": 5.0}], ids=str)
def test_layers_whose_output_changes_are_computed_every_time(folders: dict[str, str], changes: dict[str, Any]) -> None:
    few, many = load_backbone(folders["llama"]), load_backbone(folders["llama"])
    after_few, after_many = passes_through_the_lower_layer(few), passes_through_the_lower_layer(many)
    trained(few, epochs=1, **changes)
    trained(many, epochs=3, **changes)
    assert len(after_many) > len(after_few)


def with_another_prefix(found: FrozenStates) -> FrozenStates:
    return replace(found, prefix=found.prefix + 1.0)


def with_other_nodes(found: FrozenStates) -> FrozenStates:
    changed = {
        body: torch.cat([states[: len(body)], states[len(body) :] + 1]) for body, states in found.of_bodies.items()
    }
    return replace(found, of_bodies=changed)


def undefined(found: FrozenStates) -> FrozenStates:
    return replace(found, prefix=found.prefix * torch.nan)


@pytest.mark.parametrize("alter", [with_another_prefix, with_other_nodes, undefined])
def test_states_that_lead_to_other_numbers_are_not_used(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, alter: Callable[[FrozenStates], FrozenStates]
) -> None:
    compute, expected = frozen_layers._compute, trained(load_backbone(folders["llama"]), NESTED)
    monkeypatch.setattr(frozen_layers, "_compute", lambda *given: alter(compute(*given)))
    np.testing.assert_allclose(trained(load_backbone(folders["llama"]), NESTED), expected, atol=2e-4)


def test_memory_that_ends_on_the_way_leaves_whole_passes(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> FrozenStates:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    expected = trained(load_backbone(folders["llama"]))
    monkeypatch.setattr(frozen_layers, "_compute", full)
    np.testing.assert_allclose(trained(load_backbone(folders["llama"])), expected, atol=2e-4)


def test_layers_are_whole_again_after_training(folders: dict[str, str]) -> None:
    backbone = load_backbone(folders["llama"])
    trained(backbone)
    assert all("forward" not in layer.__dict__ for layer in layer_stack(backbone.model))
