"""Of a mixture of experts, LoRA adapts the layers that all tokens pass, not experts and routers; it is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.adapter import LanguageModelClassifier
from model.backbones.backbone import load_backbone
from model.types import Extent, Utterance
from tests.model import zoo
from tests.model.tiny import LABEL_SETS, UTTERANCES, quick

TASK = LABEL_SETS["words that begin one another"]


def trained(name: str, folder: Path, **changes: object) -> tuple[list[str], Extent]:
    """Train a step; return the names of the trained weights, and the extent."""
    backbone = load_backbone(zoo.save(name, folder))
    classifier = LanguageModelClassifier(backbone, TASK, quick(epochs=1, **changes), "options")
    adapter = classifier.fit(UTTERANCES[:4], [0, 1, 2, 3])
    weights = [name for name, weight in backbone.model.named_parameters() if weight.requires_grad]
    return weights, adapter.extent(UTTERANCES)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "llama4_text", "jetmoe"])
def test_experts_and_routers_are_not_adapted_and_dropout_is_no_obstacle(name: str, tmp_path: Path) -> None:
    weights, extent = trained(name, tmp_path, dropout=0.05)
    assert weights
    assert not [weight for weight in weights if "router" in weight or ".experts." in weight or "mlp.gate." in weight]
    assert extent.frozen_experts > extent.trained > 0


def test_a_selection_of_layers_holds_for_a_mixture_of_experts(tmp_path: Path) -> None:
    weights, _ = trained("mixtral", tmp_path, layers=(1,))
    assert weights
    assert all(".layers.1." in weight for weight in weights)


def test_a_backbone_without_experts_freezes_none(tmp_path: Path) -> None:
    weights, extent = trained("llama", tmp_path)
    assert len(weights) == 28
    assert extent.frozen_experts == 0


def test_an_untrained_round_trained_nothing(tmp_path: Path) -> None:
    backbone = load_backbone(zoo.save("mixtral", tmp_path))
    adapter = LanguageModelClassifier(backbone, TASK, quick(), "options").zero_shot()
    assert adapter.extent(UTTERANCES) == Extent()


def test_texts_with_characters_unknown_to_the_tokenizer_are_counted(folders: dict[str, str]) -> None:
    texts = [Utterance("refund"), Utterance("我要退款"), Utterance("取消订单")]
    for name, count in (("t5", 2), ("llama", 0)):
        classifier = LanguageModelClassifier(load_backbone(folders[name]), TASK, quick(), "options")
        assert classifier.zero_shot().extent(texts).unspelled == count
        bodies = [classifier.tokens.body(text) for text in texts]
        assert (bodies[1] == bodies[2]) == (name == "t5")
