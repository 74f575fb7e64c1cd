"""Training improves, is reproducible, survives saving, and leaves the backbone unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from annotator.errors import BackboneRefused, ProjectError, RoundCancelled
from model.adapter import LanguageModelClassifier, RoundAdapter
from model.backbones.backbone import Backbone, load_backbone
from tests.model.tiny import quick, toy

TASK, UTTERANCES, LABELS = toy()
FEW, FEW_LABELS = UTTERANCES[:6], LABELS[:6]


def classifier_of(backbone: Backbone, **changes: Any) -> LanguageModelClassifier:
    return LanguageModelClassifier(backbone, TASK, quick(**changes), "options")


def nll(adapter: RoundAdapter) -> float:
    logits = torch.from_numpy(adapter.logits(UTTERANCES))
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS)))


def saved(adapter: RoundAdapter, folder: Path) -> Path:
    folder.mkdir()
    adapter.save(folder)
    return folder


def weights(adapter: RoundAdapter, folder: Path) -> dict[str, torch.Tensor]:
    return load_file(saved(adapter, folder) / "adapter_model.safetensors")


def test_learning_lowers_the_loss_and_learns_a_task_that_one_word_decides(backbone: Backbone) -> None:
    classifier = classifier_of(backbone, epochs=6)
    before = nll(classifier.zero_shot())
    adapter = classifier.fit(UTTERANCES, LABELS)
    assert nll(adapter) < 0.5 * before
    assert (adapter.logits(UTTERANCES).argmax(axis=1) == LABELS).mean() > 0.9


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_same_seed_gives_the_same_adapter_bit_for_bit_and_another_another(
    folders: dict[str, str], family: str, tmp_path: Path
) -> None:
    backbone = load_backbone(folders[family])
    found = []
    for number, seed in enumerate([0, 0, 1]):
        torch.manual_seed(number)  # what ran before must not matter
        adapter = classifier_of(backbone, seed=seed, epochs=1, dropout=0.1).fit(FEW, FEW_LABELS)
        found.append(weights(adapter, tmp_path / str(number)))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not all(torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_learning_leaves_the_random_state_of_others_alone(llama: Backbone) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    classifier_of(llama, epochs=1).fit(FEW, FEW_LABELS)
    assert torch.equal(torch.rand(3), expected)


def test_an_adapter_read_back_gives_the_same_logits(
    backbone: Backbone, folders: dict[str, str], tmp_path: Path
) -> None:
    adapter = classifier_of(backbone, epochs=1).fit(FEW, FEW_LABELS)
    expected = adapter.logits(UTTERANCES)
    folder = saved(adapter, tmp_path / "round")
    again = classifier_of(load_backbone(backbone.name)).load(folder)
    np.testing.assert_allclose(again.logits(UTTERANCES), expected, atol=1e-5)


def test_in_bf16_an_adapter_read_back_gives_the_same_logits_too(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.backbones.backbone.preferred_dtype", lambda device: torch.bfloat16)
    for quantization in ("none", "nf4"):
        backbone = load_backbone(folders["llama"], quantization)  # type: ignore[arg-type]
        adapter = classifier_of(backbone, epochs=1).fit(FEW, FEW_LABELS)
        expected = adapter.logits(FEW)
        folder = saved(adapter, tmp_path / quantization)
        np.testing.assert_array_equal(classifier_of(backbone).load(folder).logits(FEW), expected)


def test_a_zero_shot_round_is_saved_without_weights_and_read_back(llama: Backbone, tmp_path: Path) -> None:
    adapter = classifier_of(llama).zero_shot()
    expected = adapter.logits(FEW)
    folder = saved(adapter, tmp_path / "round")
    assert [path.name for path in folder.iterdir()] == ["round.json"]
    np.testing.assert_array_equal(classifier_of(llama).load(folder).logits(FEW), expected)


@pytest.mark.parametrize("left", [["adapter_model.bin"], ["adapter_model.bin", "adapter_config.json", "round.json"]])
def test_a_folder_with_pickled_weights_only_is_refused_unopened(
    llama: Backbone, tmp_path: Path, left: list[str]
) -> None:
    classifier = classifier_of(llama, epochs=1)
    folder = saved(classifier.fit(FEW, FEW_LABELS), tmp_path / "round")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    for path in [path for path in folder.iterdir() if path.name not in left]:
        path.unlink()
    with pytest.raises(ProjectError, match=r"adapter_model\.safetensors.* missing"):
        classifier.load(folder)
    assert not Path("pwned").exists()


def test_a_folder_that_is_no_round_is_refused(llama: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"round\.json is missing"):
        classifier_of(llama).load(tmp_path)
    with pytest.raises(ProjectError):
        classifier_of(llama).load(tmp_path / "nowhere")


def test_an_older_adapter_refuses_after_a_newer_one(llama: Backbone, tmp_path: Path) -> None:
    classifier = classifier_of(llama, epochs=1)
    first = classifier.fit(FEW, FEW_LABELS)
    second = classifier.fit(FEW, FEW_LABELS)
    with pytest.raises(BackboneRefused, match="replaced"):
        first.logits(FEW)
    with pytest.raises(BackboneRefused, match="replaced"):
        first.save(tmp_path)
    assert second.logits(FEW).shape == (6, 2)
    LanguageModelClassifier(llama, TASK, quick(), "definitions").zero_shot()  # another task on the same backbone
    with pytest.raises(BackboneRefused, match="replaced"):
        second.logits(FEW)


class StopAfter:
    """Progress that cancels the work at a share."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, share: float) -> None:
        if share >= self.share:
            raise RoundCancelled("Stopped.")


def test_stopping_while_learning_leaves_the_backbone_usable(backbone: Backbone) -> None:
    classifier = classifier_of(backbone, epochs=1, dropout=0.5)
    zero_shot = classifier.zero_shot()
    expected = zero_shot.logits(FEW)
    older = classifier.fit(FEW, FEW_LABELS)
    with pytest.raises(RoundCancelled):
        classifier.fit(UTTERANCES, LABELS, StopAfter(0.5))
    with pytest.raises(BackboneRefused):
        older.logits(FEW)  # not the half-trained one in its place
    assert not backbone.model.training
    np.testing.assert_array_equal(classifier.zero_shot().logits(FEW), expected)


def test_stopping_while_scoring_leaves_the_adapter_usable(llama: Backbone) -> None:
    adapter = classifier_of(llama, row_tokens=1).zero_shot()
    expected = adapter.logits(FEW)
    with pytest.raises(RoundCancelled):
        adapter.logits(FEW, StopAfter(0.3))
    np.testing.assert_array_equal(adapter.logits(FEW), expected)
    assert classifier_of(llama, epochs=1).fit(FEW, FEW_LABELS).logits(FEW).shape == (6, 2)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_learning_does_not_touch_the_weights_of_the_backbone(folders: dict[str, str], quantization: Any) -> None:
    backbone = load_backbone(folders["llama"], quantization)
    classifier = classifier_of(backbone, epochs=1)
    before = {name: weight.clone() for name, weight in backbone.model.state_dict().items()}
    expected = classifier.zero_shot().logits(FEW)
    classifier.fit(FEW, FEW_LABELS)
    np.testing.assert_array_equal(classifier.zero_shot().logits(FEW), expected)
    after = backbone.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


def test_a_4_bit_backbone_learns_on_the_processor(folders: dict[str, str]) -> None:
    backbone = load_backbone(folders["llama"], "nf4")
    assert backbone.quantized
    assert any(type(module).__name__ == "Linear4bit" for module in backbone.model.modules())
    classifier = classifier_of(backbone, quantization="nf4", epochs=3)
    before = nll(classifier.zero_shot())
    assert nll(classifier.fit(UTTERANCES, LABELS)) < 0.5 * before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_4_bit_backbone_computes_in_what_the_machine_is_quick_at(
    folders: dict[str, str], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.backbones.backbone.preferred_dtype", lambda device: dtype)
    model = load_backbone(folders["llama"], "nf4").model
    assert {module.compute_dtype for module in model.modules() if type(module).__name__ == "Linear4bit"} == {dtype}


def test_a_4_bit_backbone_has_the_same_weights_and_gradients_after_it_has_answered(folders: dict[str, str]) -> None:
    import bitsandbytes.functional

    backbone = load_backbone(folders["llama"], "nf4")
    layers = [module for module in backbone.model.modules() if type(module).__name__ == "Linear4bit"]
    before = [bitsandbytes.functional.dequantize_4bit(one.weight.data, one.weight.quant_state) for one in layers]
    given = torch.randn(3, layers[0].in_features, device=backbone.device)

    def gradient() -> torch.Tensor:
        asked = given.clone().requires_grad_()
        layers[0](asked).sum().backward()
        assert asked.grad is not None
        return asked.grad

    first = gradient()
    with torch.inference_mode():
        layers[0](given)  # only read, which is when bitsandbytes packs weights where the processor has bf16
    classifier_of(backbone, quantization="nf4").zero_shot().logits(UTTERANCES)
    after = [bitsandbytes.functional.dequantize_4bit(one.weight.data, one.weight.quant_state) for one in layers]
    for was, is_now in zip(before, after, strict=True):
        torch.testing.assert_close(is_now, was, rtol=0, atol=0)
    torch.testing.assert_close(gradient(), first, rtol=0, atol=0)


def test_progress_while_learning_rises_to_one(llama: Backbone) -> None:
    shares: list[float] = []
    classifier_of(llama, epochs=2, batch_size=4).fit(FEW, FEW_LABELS, shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_the_description_names_all_that_is_needed_to_score_again(llama: Backbone, tmp_path: Path) -> None:
    folder = saved(classifier_of(llama).zero_shot(), tmp_path / "round")
    description = json.loads((folder / "round.json").read_text(encoding="utf-8"))
    assert description["backbone"] == llama.name
    assert description["template"] == "options"
    assert [label["name"] for label in description["task"]["labels"]] == ["joy", "anger"]
    assert description["recipe"]["learning_rate"] == 1e-2
