"""The memory of a round is estimated before loading, agrees with measurements, and is refused if too large."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from annotator.errors import BackboneRefused
from model.adapter import LanguageModelClassifier
from model.backbones import machine, memory
from model.backbones.backbone import load_backbone
from model.backbones.catalog import CATALOG, SHAPES, STARTER, cache_folder, shape_of
from model.backbones.memory import (
    BF16,
    FP32,
    Job,
    Machine,
    MemoryNeed,
    estimate,
    in_gb,
    largest_row,
    least,
    weight_bytes,
)
from model.backbones.shape import Shape, read_shape
from model.depth import first_adapted
from model.load import load_classifier
from model.prompts.lengths import count_tokens
from model.recipe import LEAST_TOKENS, Recipe
from model.scoring import causal
from model.training.tuning import start_tuning
from tests.model.conftest import DEVICE
from tests.model.tiny import LABEL_SETS, Utterance, save_bloom

FAMILIES = ["llama", "qwen2", "qwen3", "gemma3", "mistral", "t5"]
TASK = LABEL_SETS["words that begin one another"]
BILLION = SHAPES["llama-3.2-1b-instruct"]


def on_meta(folder: str) -> Any:
    """Return the architecture without any memory for its weights."""
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    model.tie_weights()
    return model


def shape_at(folder: str) -> Shape:
    shape = shape_of(folder)
    assert shape
    return shape


def job_of(shape: Shape = BILLION, width: int = FP32, **changes: Any) -> Job:
    return Job(shape, replace(Recipe(), **changes), Machine(width=width))


def need(shape: Shape = BILLION, **changes: Any) -> MemoryNeed:
    return estimate(job_of(shape, **changes))


# Weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_the_weights_counted_are_those_of_the_architecture(folders: dict[str, str], name: str) -> None:
    model = on_meta(folders[name])
    assert weight_bytes(shape_at(folders[name]), quantized=False) == sum(p.nbytes for p in model.parameters())


@pytest.mark.parametrize("name", [*FAMILIES, "flan-t5"])
def test_the_weights_counted_are_those_that_are_loaded(folders: dict[str, str], name: str) -> None:
    model = load_backbone(folders[name]).model
    assert weight_bytes(shape_at(folders[name]), quantized=False) == sum(p.nbytes for p in model.parameters())
    assert read_shape(model.config.to_dict()) == shape_at(folders[name])


@pytest.mark.parametrize("name", list(CATALOG))
def test_the_shapes_of_the_catalog_have_as_many_weights_as_published(name: str) -> None:
    assert round(SHAPES[name].parameters / 1e6) == CATALOG[name].millions
    assert bool(SHAPES[name].encoder_layers) == (CATALOG[name].family == "encoder-decoder")
    assert shape_of(name) == shape_of(CATALOG[name].source) == SHAPES[name]


@pytest.mark.slow
def test_the_starter_has_the_shape_that_the_catalog_says() -> None:
    folder = cache_folder() / "backbones" / STARTER
    if not (folder / "config.json").is_file():
        pytest.skip("the starter backbone has not been converted here")
    assert shape_of(str(folder)) == SHAPES[STARTER]


@pytest.mark.parametrize("name", ["llama", "flan-t5"])
def test_4_bit_weights_take_the_bytes_counted(folders: dict[str, str], name: str) -> None:
    if not machine.can_load_4bit():
        pytest.skip("no 4-bit kernels")
    model = load_backbone(folders[name], "nf4").model
    states = [state for p in model.parameters() if (state := getattr(p, "quant_state", None))]
    scales = sum(state.absmax.nbytes + state.state2.absmax.nbytes for state in states)  # the tables are a constant
    counted = weight_bytes(shape_at(folders[name]), quantized=True)
    assert counted == pytest.approx(sum(p.nbytes for p in model.parameters()) + scales, rel=0.02)
    assert counted < weight_bytes(shape_at(folders[name]), quantized=False)


@pytest.mark.parametrize("config", [{}, {"model_type": "mamba"}, {"model_type": "llama"}, {"model_type": "t5"}])
def test_an_architecture_we_cannot_judge_has_no_shape(config: dict[str, Any], tmp_path: Path) -> None:
    assert read_shape(config) is None
    (tmp_path / "config.json").write_text(json.dumps([config]))
    assert shape_of(str(tmp_path)) is shape_of(str(tmp_path / "nowhere")) is shape_of("some/hub-id") is None


# What is trained ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("changes", [{}, {"rank": 4, "dora": True}, {"layers": (1,)}, {"method": "prompt"}])
def test_the_trained_weights_counted_are_those_that_peft_makes(
    folders: dict[str, str], name: str, changes: dict[str, Any]
) -> None:
    backbone, recipe = load_backbone(folders[name]), replace(Recipe(), **changes)
    tuning = start_tuning(backbone, recipe)
    made = sum(p.nbytes for p in tuning.peft.parameters() if p.requires_grad)  # type: ignore[attr-defined]
    counted = estimate(Job(shape_at(folders[name]), recipe))
    assert counted.trained == counted.gradients == made
    assert counted.optimizer == 2 * made


def test_the_precision_of_adapters_is_fp32_whatever_the_backbones_is() -> None:
    for half in (job_of(width=BF16), job_of(precision="bf16")):
        assert estimate(half).trained == need().trained
        assert estimate(half).weights == need().weights / 2
    assert estimate(job_of(width=BF16, precision="fp32")) == need()


def test_full_tuning_counts_gradients_state_and_the_weights_that_are_put_back() -> None:
    full, weights = need(method="full", average=0.0), need().weights
    assert (full.weights, full.trained, full.gradients, full.copies) == (weights, 0, weights, weights)
    assert full.optimizer == 2 * weights


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"optimizer": "adamw_8bit"}, "optimizer"),
        ({"checkpointing": True}, "activations"),
        ({"dropout": 0.0}, "activations"),
        ({"row_tokens": 256}, "activations"),
        ({"row_tokens": 256}, "logits"),
    ],
)
def test_what_saves_memory_is_counted_as_less_in_its_part_alone(changes: dict[str, Any], part: str) -> None:
    for shape in (BILLION, SHAPES["flan-t5-base"]):
        before, after = need(shape), need(shape, **changes)
        assert getattr(after, part) < getattr(before, part)
        same = {part} | ({"retained"} if {"row_tokens", "dropout"} & set(changes) else set())
        same |= {"activations", "logits"} if "row_tokens" in changes else set()
        changed = {name for name in vars(before) if getattr(before, name) != getattr(after, name)}
        assert changed == same


def test_layers_below_the_adapted_ones_take_no_memory_for_training() -> None:
    upper, every = need(depth="upper"), need()
    share = (BILLION.layers - first_adapted(BILLION.layers)) / BILLION.layers
    assert upper.trained == pytest.approx(share * every.trained)
    assert upper.optimizer == pytest.approx(share * every.optimizer)
    assert upper.activations < (share + 0.05) * every.activations
    assert need(layers=(BILLION.layers - 1,)).activations < 0.5 * upper.activations
    assert need(layers=(0, BILLION.layers - 1)).activations == every.activations


def test_4_bit_weights_are_counted_as_less_than_half_and_the_round_too() -> None:
    assert need(quantization="nf4").weights < need().weights / 2
    assert need(quantization="nf4").total < need().total


def test_what_stays_allocated_depends_on_where_memory_is() -> None:
    small = SHAPES[STARTER]
    assert need(small, checkpointing=True).retained == need(small).retained > 0
    assert need(small, quantization="nf4").retained > need(small).retained
    on_gpu = [
        estimate(Job(small, Recipe(checkpointing=on, quantization="nf4"), Machine(gpu=True))).retained
        for on in (True, False)
    ]
    assert on_gpu[0] < on_gpu[1] / 2
    scored = [estimate(job_of(small, quantization=kind), training=False) for kind in ("none", "nf4")]
    assert scored[1].retained - scored[0].retained == small.quantizable * FP32
    wide = replace(small, hidden=4096, intermediate=14336, heads=64, key_heads=64)  # in blocks that are given back
    assert need(wide, quantization="nf4").retained == need(wide).retained


def test_averages_and_best_weights_are_copies() -> None:
    assert need(average=0.0).copies == 0
    assert need(average=0.2).copies == need(average=0.0, holdout=0.1).copies == need().trained
    assert need(average=0.2, holdout=0.1).copies == 2 * need().trained


def test_to_ask_takes_less_than_to_train() -> None:
    asking = estimate(job_of(), training=False)
    assert (asking.trained, asking.gradients, asking.optimizer, asking.copies) == (0, 0, 0, 0)
    assert asking.weights == need().weights
    assert 0 < asking.activations < need().activations


# Activations ----------------------------------------------------------------------------------------------------


def unlike_texts(count: int) -> list[str]:
    """Return texts with different beginnings, because a common start would be computed once."""
    return [f"{number} times I want my money back, please cancel the order " for number in range(count)]


def kept_by_autograd(folder: str, recipe: Recipe) -> tuple[int, int]:
    """Return the bytes of activations kept for the backward pass of one row, and those estimated for it."""
    backbone = load_backbone(folder)
    ours = LanguageModelClassifier(backbone, TASK, recipe, "definitions")
    backbone.tuning = start_tuning(backbone, recipe)
    backbone.model.train()
    own = {p.untyped_storage().data_ptr() for p in backbone.model.parameters()}
    seen: dict[int, torch.Tensor] = {}  # held, so that no address is given twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    texts = [Utterance(text * 3) for text in unlike_texts(8)]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ours._scorer.loglik([ours.tokens.body(text) for text in texts]).sum()
    job = Job(
        shape_at(folder), replace(recipe, batch_size=8, row_tokens=10_000), lengths=count_tokens(ours.tokens, texts)
    )
    row = largest_row(job, training=True)
    one_layer = memory._kept(job, row, training=True) * row.tokens  # which is added for the way back
    kept = sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
    return kept, memory._activations(job, row, training=True) - one_layer


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "t5", "flan-t5"])
@pytest.mark.parametrize("changes", [{}, {"dropout": 0.0}, {"method": "full"}, {"method": "prompt"}])
def test_what_is_kept_for_the_way_back_is_estimated_within_a_quarter(
    folders: dict[str, str], name: str, changes: dict[str, Any]
) -> None:
    if DEVICE.type != "cpu":
        pytest.skip("what a GPU's kernels keep depends on the kernel")
    kept, estimated = kept_by_autograd(folders[name], replace(Recipe(), **changes))
    assert estimated == pytest.approx(kept, rel=0.25)


# Caches ---------------------------------------------------------------------------------------------------------


def scored_job(folder: str) -> tuple[LanguageModelClassifier, list[Utterance], Job]:
    """Return a classifier, texts of several lanes, and the job of scoring them."""
    ours = LanguageModelClassifier(load_backbone(folder), TASK, Recipe(), "definitions")
    texts = [Utterance(text) for text in unlike_texts(80)]
    return ours, texts, Job(shape_at(folder), lengths=count_tokens(ours.tokens, texts))


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
def test_what_lanes_cache_while_a_row_is_scored_is_counted_within_a_quarter(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    widen, caches = causal._expand_cache, list[Any]()
    monkeypatch.setattr(causal, "_expand_cache", lambda *given: caches.append(widen(*given)) or caches[-1])
    ours, texts, job = scored_job(folders[name])
    ours.zero_shot().logits(texts)
    held = [sum(one.keys.nbytes + one.values.nbytes for one in cache.layers) for cache in caches]
    assert estimate(job, training=False).caches == pytest.approx(max(held), rel=0.25)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
def test_what_attention_holds_of_all_pairs_while_a_row_is_scored_is_counted_within_a_third_and_not_as_less(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    softmax, held = torch.nn.functional.softmax, list[int]()

    def counted(pairs: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        shares = softmax(pairs, *given, **named)
        held.append(pairs.nbytes + shares.nbytes)
        return shares

    if DEVICE.type != "cpu":
        pytest.skip("what a GPU's kernel holds of them depends on the kernel")
    ours, texts, job = scored_job(folders[name])
    monkeypatch.setattr(torch.nn.functional, "softmax", counted)
    ours.zero_shot().logits(texts)
    row = largest_row(job, training=False)
    pairs = (memory._pairs(job, row) - row.reach * FP32) * row.tokens  # without the masks
    assert max(held) <= pairs <= max(held) * 4 / 3  # these lanes are not quite full


def test_caches_are_counted_for_asking_alone_and_not_where_utterances_are_read_apart() -> None:
    asking = estimate(job_of(), training=False)
    assert asking.caches > 0
    assert need().caches == 0
    assert estimate(job_of(SHAPES["flan-t5-base"]), training=False).caches == 0
    assert least(job_of(), training=False) < asking.total - asking.caches


# Before loading -------------------------------------------------------------------------------------------------


def has_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("model.backbones.backbone.this_machine", lambda: Machine(free))


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        pytest.fail("weights were loaded")

    for kind in (transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM):
        monkeypatch.setattr(kind, "from_pretrained", fail)


@pytest.mark.parametrize("name", ["llama", "flan-t5"])
def test_what_does_not_fit_is_refused_before_loading_with_both_numbers_and_a_hint(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    forbid_loading(monkeypatch)
    monkeypatch.setattr("model.backbones.backbone.read_shape", lambda config: BILLION)  # a tiny model would say 0.0 GB
    has_free(monkeypatch, 2_000_000_000)
    with pytest.raises(BackboneRefused) as caught:
        load_backbone(folders[name])
    assert f"at least {in_gb(least(job_of(), training=False))}" in caught.value.message
    assert "2.0 GB are free" in caught.value.message
    assert "recipe.quantization=nf4" in caught.value.hint


def test_what_may_be_asked_but_not_trained_is_refused_for_a_round_alone(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, recipe = shape_at(folders["llama"]), Recipe(method="full")
    between = least(Job(shape, recipe)) - 1
    assert least(Job(shape, recipe), training=False) < between
    has_free(monkeypatch, between)
    load_backbone(folders["llama"])
    forbid_loading(monkeypatch)
    with pytest.raises(BackboneRefused, match="of memory"):
        load_classifier(folders["llama"], TASK, recipe)


def test_a_backbone_that_cannot_be_judged_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    has_free(monkeypatch, 0)
    assert load_backbone(save_bloom(tmp_path)).family == "causal"


def test_the_least_is_what_rows_are_cut_down_to() -> None:
    assert need().weights < least(job_of()) < need(row_tokens=LEAST_TOKENS).total


# The machine ----------------------------------------------------------------------------------------------------

PEAK = """
import sys
import annotator.doctor
from model.backbones import catalog, machine
before = machine.peak_memory()
b"." * 200_000_000
assert "torch" not in sys.modules
print(before, machine.peak_memory(), machine.free_main_memory(), machine.processor_width(), machine.may_have_gpu())
"""


def test_the_peak_is_this_process_s_own_and_is_known_without_torch() -> None:
    held = bytearray(b".") * 400_000_000  # what a process inherits from the one that started it must not count
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    del held
    before, after, free, width, _ = done.stdout.split()
    assert 5e6 < int(before) < 250e6
    assert 180e6 < int(after) - int(before) < 260e6
    assert int(free) > 0
    assert int(width) in (memory.FP32, memory.BF16)


def test_what_a_gpu_has_held_is_what_counts_if_it_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1_300_000_000)
    assert in_gb(machine.peak_memory()) == "1.3 GB"
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    assert machine.peak_memory() == machine._peak_resident() > 0


@pytest.mark.parametrize(("size", "said"), [(0, "0.0 GB"), (1.26e9, "1.3 GB"), (9.96e9, "10 GB"), (53.4e9, "53 GB")])
def test_bytes_are_written_for_people(size: float, said: str) -> None:
    assert in_gb(size) == said
