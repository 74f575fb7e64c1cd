"""An incomplete checkpoint is refused with a reason, and a complete one loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from annotator.errors import BackboneMissing, BackboneRefused, ProjectError
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import load_backbone
from model.restore import restore
from tests.model import tiny
from tests.model.tiny import quick, toy

TASK, TEXTS, LABELS = toy()
Weights = dict[str, torch.Tensor]
Damage = Callable[[Weights], Weights]


def damaged(source: str, folder: Path, damage: Damage, file: str = "model.safetensors") -> str:
    """Copy a folder with other weights in it."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    save_file(damage(load_file(folder / file)), folder / file, {"format": "pt"})
    return str(folder)


def with_config(folder: Path, **changes: object) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(folder)


def altered(key: str, place: int, value: float) -> Damage:
    def alter(weights: Weights) -> Weights:
        found = next(name for name in weights if key in name)
        weights[found].view(-1)[place] = value
        return weights

    return alter


def without(part: str) -> Damage:
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


def test_weights_that_are_missing_are_named_and_counted(folders: dict[str, str], tmp_path: Path) -> None:
    name = with_config(shutil.copytree(folders["llama"], tmp_path / "m"), num_hidden_layers=4, layer_types=None)
    with pytest.raises(
        BackboneRefused, match=r"is incomplete: 18 weights are missing, as in model\.layers\.2"
    ) as caught:
        load_backbone(name)
    assert "Download the checkpoint again" in caught.value.hint


@pytest.mark.parametrize("part", ["lm_head", "layers.1.", "model.norm.weight", "embed_tokens"])
def test_no_weight_is_filled_at_random(folders: dict[str, str], tmp_path: Path, part: str) -> None:
    for quantization in ("none", "nf4"):
        with pytest.raises(BackboneRefused, match="is incomplete"):
            load_backbone(damaged(folders["llama"], tmp_path / quantization, without(part)), quantization)  # type: ignore[arg-type]


def test_an_encoder_decoder_without_its_decoder_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(BackboneRefused, match="is incomplete"):
        load_backbone(damaged(folders["flan-t5"], tmp_path / "m", without("decoder.block.1")))


def test_layers_too_many_are_refused(folders: dict[str, str], tmp_path: Path) -> None:
    name = with_config(shutil.copytree(folders["llama"], tmp_path / "m"), num_hidden_layers=1)
    with pytest.raises(BackboneRefused, match=r"9 weights have no place in the model, as in model\.layers\.1"):
        load_backbone(name)


def test_weights_of_another_shape_are_refused(folders: dict[str, str], tmp_path: Path) -> None:
    name = with_config(shutil.copytree(folders["llama"], tmp_path / "m"), intermediate_size=96)
    with pytest.raises(BackboneRefused, match=r"6 weights have another shape, as in .*\[64, 128\] for \[64, 96\]"):
        load_backbone(name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_weights_that_are_no_finite_numbers_are_refused(
    folders: dict[str, str], tmp_path: Path, value: float, quantization: str
) -> None:
    for key, place in (("embed_tokens", -1), ("layers.1.mlp.up_proj", 77), ("norm", 0)):
        name = damaged(folders["llama"], tmp_path / key, altered(key, place, value))
        with pytest.raises(BackboneRefused, match=f"1 weights are not finite numbers, as in .*{key}"):
            load_backbone(name, quantization)  # type: ignore[arg-type]


def test_a_file_that_is_cut_off_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    for share in (0.999, 0.5, 0.001, 0):
        folder = shutil.copytree(folders["llama"], tmp_path / str(share))
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(BackboneRefused, match="damaged"):
            load_backbone(str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantized already \(gptq\)"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, r"quantized already \(awq\)"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "quantized already"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "quantized already"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized already"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "quantized already"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, r"quantized already \(mxfp4\)"),
        ({"quantization_config": {"bits": 4}}, "quantized already"),
        ({"model_type": "a-kind-of-its-own", "architectures": ["Own"]}, "cannot be loaded"),
        ({"model_type": "vit"}, "cannot be loaded"),
        ({"hidden_size": "wide"}, "cannot be loaded"),
    ],
)
def test_what_no_loader_takes_is_refused_in_words(
    folders: dict[str, str], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(BackboneRefused, match=message) as caught:
        load_backbone(with_config(shutil.copytree(folders["llama"], tmp_path / "m"), **changes))
    assert caught.value.hint


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_half_written_file_beside_the_weights_is_refused(folders: dict[str, str], tmp_path: Path, file: str) -> None:
    path = shutil.copytree(folders["llama"], tmp_path / "m") / file
    path.write_text(path.read_text()[:50])
    with pytest.raises((BackboneRefused, BackboneMissing)):
        load_backbone(str(tmp_path / "m"))


@pytest.mark.parametrize("content", ["{}", '{"model": {"type": "Own"}}', '{"version": "1.0", "model": 3}', "[]", "3"])
def test_a_tokenizer_that_cannot_be_read_is_refused(folders: dict[str, str], tmp_path: Path, content: str) -> None:
    (shutil.copytree(folders["llama"], tmp_path / "m") / "tokenizer.json").write_text(content)
    with pytest.raises((BackboneRefused, BackboneMissing)) as caught:
        LanguageModelClassifier(load_backbone(str(tmp_path / "m")), TASK, quick(), "options").logits(TEXTS[:2])
    assert caught.value.hint


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["money", "parcel"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(BackboneRefused, match=r"has 382 tokens, and the model knows 380"):
        load_backbone(str(folder))


def test_a_prompt_with_a_token_beyond_the_embeddings_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = tiny.CHATML.replace("<|im_start|>", "<|turn|>")
    tokenizer.save_pretrained(folder)
    with pytest.raises(BackboneRefused, match="contains token 380, and the model knows 380"):
        LanguageModelClassifier(load_backbone(str(folder)), TASK, quick(), "options")


def test_embeddings_padded_beyond_the_tokenizer_load(folders: dict[str, str], tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folders["llama"])
    model.resize_token_embeddings(512)
    folder = shutil.copytree(folders["llama"], tmp_path / "m")
    model.save_pretrained(folder)
    backbone = load_backbone(str(folder))
    assert LanguageModelClassifier(backbone, TASK, quick(), "options").zero_shot().logits(TEXTS[:2]).shape == (2, 2)


def test_integers_are_not_taken_for_weights(folders: dict[str, str], tmp_path: Path) -> None:
    def pack(weights: Weights) -> Weights:
        name = next(name for name in weights if "up_proj" in name)
        return weights | {name: (weights[name] * 100).to(torch.int8)}

    with pytest.raises(BackboneRefused, match=r"quantized already, as in .*up_proj"):
        load_backbone(damaged(folders["llama"], tmp_path / "m", pack))


def test_an_index_that_names_a_missing_file_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = load_file(folder / "model-00001-of-00002.safetensors")
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    with pytest.raises((BackboneRefused, BackboneMissing)) as caught:
        load_backbone(str(folder))
    assert caught.value.hint


@pytest.mark.parametrize("content", ["", "{", "[]", '{"weight_map": 3}', '{"metadata": {}}'])
def test_an_index_that_cannot_be_read_is_refused(folders: dict[str, str], tmp_path: Path, content: str) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises((BackboneRefused, BackboneMissing)) as caught:
        load_backbone(str(folder))
    assert caught.value.hint


def test_no_hint_asks_for_what_cannot_be_set(folders: dict[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "m")
    with_config(folder, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    (folder / "own.py").write_text("raise SystemExit")
    with pytest.raises(BackboneRefused) as caught:
        load_backbone(str(folder))
    assert "trust_remote_code" not in str(caught.value)


def test_an_adapter_is_not_taken_for_a_language_model(folders: dict[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "m")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": folders["qwen2"]}))
    with pytest.raises(BackboneRefused, match="is an adapter"):
        load_backbone(str(folder))


# Complete checkpoints ---------------------------------------------------------------------------------------------


def test_tied_weights_that_are_written_once_are_not_missing(folders: dict[str, str]) -> None:
    for name in ("qwen2", "qwen3", "gemma3", "t5"):
        written = load_file(Path(folders[name]) / "model.safetensors")
        assert "lm_head.weight" not in written
        load_backbone(folders[name])


def test_keys_that_the_architecture_drops_are_not_surplus(tmp_path: Path, folders: dict[str, str]) -> None:
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}  # older Llama checkpoints carry them
    load_backbone(damaged(folders["llama"], tmp_path / "m", lambda weights: weights | old))


def save_with_eyes(folder: Path) -> str:
    """Save a Gemma 3 that also reads pictures."""
    text = transformers.Gemma3TextConfig(**tiny._sizes(), num_key_value_heads=1, head_dim=16)
    eyes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text.to_dict(), vision_config=eyes | {"image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    return tiny._save(transformers.Gemma3ForConditionalGeneration, config, tiny._byte_level(tiny.CHATML), folder)


def test_a_model_that_also_reads_pictures_loads_and_parts_it_lacks_a_place_for_are_let_be(tmp_path: Path) -> None:
    name = save_with_eyes(tmp_path / "m")
    load_backbone(name)
    ears = {"model.audio_tower.layers.0.weight": torch.ones(3)}
    load_backbone(damaged(name, tmp_path / "ears", lambda weights: weights | ears))
    layer = {"model.language_model.layers.9.mlp.up_proj.weight": torch.ones(3)}
    with pytest.raises(BackboneRefused, match="no place in the model"):
        load_backbone(damaged(name, tmp_path / "layer", lambda weights: weights | layer))


def test_weights_in_several_files_load_and_each_is_looked_at(tmp_path: Path, folders: dict[str, str]) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folders["llama"])
    folder = shutil.copytree(folders["llama"], tmp_path / "m")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 1
    before = load_backbone(str(folder)).origin
    weights = load_file(files[-1])
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, files[-1], {"format": "pt"})
    assert load_backbone(str(folder)).origin != before
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, files[-1], {"format": "pt"})
    with pytest.raises(BackboneRefused, match="not finite"):
        load_backbone(str(folder))
    files[-1].unlink()
    with pytest.raises((BackboneMissing, BackboneRefused)):
        load_backbone(str(folder))


# Weights of a round --------------------------------------------------------------------------------------------


@pytest.fixture(params=["lora", "prompt", "full"])
def trained(request: pytest.FixtureRequest, folders: dict[str, str], tmp_path: Path) -> Path:
    recipe = quick(epochs=1, method=request.param, learning_rate=None)
    classifier = LanguageModelClassifier(load_backbone(folders["llama"]), TASK, recipe, "options")
    folder = tmp_path / "round"
    folder.mkdir()
    classifier.fit(TEXTS[:6], LABELS[:6]).save(folder)
    return folder


def drop_one(weights: Weights) -> Weights:
    return dict(list(weights.items())[1:])


def cut_one(weights: Weights) -> Weights:
    first = next(iter(weights))
    return weights | {first: weights[first][:-1].clone()}


@pytest.mark.parametrize(
    "damage",
    [
        drop_one,
        cut_one,
        altered("", 0, float("nan")),
        altered("", -1, float("inf")),
        lambda weights: weights | {"base_model.model.model.layers.9.lora_A.weight": torch.ones(2)},
    ],
    ids=["missing", "shape", "nan", "inf", "surplus"],
)
def test_damaged_weights_of_a_round_are_refused_and_leave_nothing_behind(
    trained: Path, damage: Damage, tmp_path: Path, folders: dict[str, str]
) -> None:
    file = next(path.name for path in trained.glob("*.safetensors"))
    tiny.unseal(trained)
    damaged(str(trained), tmp_path / "bad", damage, file)
    with pytest.raises(ProjectError) as caught:
        restore(tmp_path / "bad")
    assert caught.value.hint == "Restore the folder from a backup, or retrain."
    restore(trained)


def test_a_round_whose_weights_are_cut_off_is_refused(trained: Path) -> None:
    file = next(trained.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ProjectError, match="is damaged"):
        restore(trained)


def test_a_probe_that_is_damaged_is_refused_and_never_left_out(folders: dict[str, str], tmp_path: Path) -> None:
    recipe = quick(epochs=1, probe_weight=0.5)
    classifier = LanguageModelClassifier(load_backbone(folders["llama"]), TASK, recipe, "options")
    classifier.fit(TEXTS[:6], LABELS[:6]).save(tmp_path)
    file = tmp_path / "scout.safetensors"
    whole, weights = file.read_bytes(), load_file(file)
    tiny.unseal(tmp_path)
    file.write_bytes(whole[:-5])
    with pytest.raises(ProjectError, match="cannot be read"):
        restore(tmp_path)
    for damage in (drop_one, altered("bias", 0, float("nan"))):
        save_file(damage({name: weight.clone() for name, weight in weights.items()}), file)
        with pytest.raises(ProjectError, match="does not contain a trained quick classifier"):
            restore(tmp_path)
