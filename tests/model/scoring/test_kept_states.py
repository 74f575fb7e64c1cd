"""Hidden states of the lower layers are kept on disk, and scoring from them gives the numbers of whole passes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from annotator.errors import BackboneRefused
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import load_backbone
from model.load import load_classifier
from model.scoring import frozen_layers, kept_states
from model.scoring.hidden_states import layer_stack
from model.types import Task, Utterance
from tests.model import tiny, windows
from tests.model.tiny import quick, task_of, toy

TASK, UTTERANCES, LABELS = toy()
FEW, FEW_LABELS = UTTERANCES[:10], LABELS[:10]
NESTED = task_of("refund", "refund request", "joy")  # labels with tokens behind others
MANY = task_of(*(f"label {a} {b}" for a in "abcdef" for b in "stuvw"))  # a trie that scoring searches
LAYERS, BELOW = 6, 3


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a model with enough layers to divide."""
    config = transformers.LlamaConfig(**(tiny.sizes() | {"num_hidden_layers": LAYERS}))
    return tiny.save(transformers.LlamaForCausalLM, config, tmp_path_factory.mktemp("deep"))


def opened(backbone: str, cache: Path | None, task: Task = TASK, **changes: Any) -> LanguageModelClassifier:
    recipe = quick(**({"depth": "upper"} | changes))
    classifier = LanguageModelClassifier(load_backbone(backbone), task, recipe, "options")
    if cache:
        classifier.keep_in(cache)
    return classifier


def learned(backbone: str, cache: Path | None, task: Task = TASK, **changes: Any) -> np.ndarray:
    """Return the logits of all utterances by a round trained on a few."""
    classifier = opened(backbone, cache, task, **changes)
    return classifier.fit(FEW, FEW_LABELS).logits(UTTERANCES)


def count_lower_passes(classifier: LanguageModelClassifier) -> list[int]:
    """Return a list that grows by the number of tokens that pass the first layer."""
    tokens: list[int] = []
    norm: Any = layer_stack(classifier.backbone.model)[0].input_layernorm
    norm.register_forward_hook(lambda _, given, __: tokens.append(given[0].shape[0] * given[0].shape[1]))
    return tokens


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.safetensors"))


@pytest.mark.parametrize("task", [TASK, NESTED], ids=["plain", "nested"])
@pytest.mark.parametrize("probe_weight", [0.0, 0.5])
def test_a_round_from_kept_states_equals_one_of_whole_passes(
    deep: str, tmp_path: Path, task: Task, probe_weight: float
) -> None:
    plain = learned(deep, None, task, probe_weight=probe_weight)
    for _ in range(2):  # the first round keeps the states, the second begins with them
        np.testing.assert_allclose(learned(deep, tmp_path / "cache", task, probe_weight=probe_weight), plain, atol=3e-4)
    assert files(tmp_path / "cache")


def test_context_and_the_untrained_round_equal_whole_passes(deep: str, tmp_path: Path) -> None:
    texts = [Utterance(one.text, ("counselor: And how was it?", "client: Well.")) for one in FEW]
    plain = opened(deep, None).zero_shot().logits(texts)
    np.testing.assert_allclose(opened(deep, tmp_path / "cache").zero_shot().logits(texts), plain, atol=3e-4)


def test_no_text_passes_the_lower_layers_again(deep: str, tmp_path: Path) -> None:
    many = [Utterance(f"{one.text} {number}") for number in range(10) for one in UTTERANCES]
    opened(deep, tmp_path / "cache").states(many)
    passed = {}
    for cache in (None, tmp_path / "cache"):
        classifier = opened(deep, cache)
        classifier.fit(FEW, FEW_LABELS)
        tokens = count_lower_passes(classifier)
        classifier.logits(many)
        passed[cache] = sum(tokens)
    assert passed[tmp_path / "cache"] < passed[None] / 4  # the instruction, and texts that are compared


def test_lower_layers_are_not_trained(deep: str, tmp_path: Path) -> None:
    classifier = opened(deep, None)
    classifier.fit(FEW, FEW_LABELS)
    assert classifier.backbone.tuning.unchanged_layers() == BELOW
    every = opened(deep, None, depth="all")
    every.fit(FEW, FEW_LABELS)
    assert every.backbone.tuning.unchanged_layers() == 0


@pytest.mark.parametrize("changes", [{}, {"layers": (1, 5)}, {"method": "prompt"}, {"method": "full"}])
def test_rounds_that_train_lower_layers_make_whole_passes(deep: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    learned(deep, tmp_path / "cache")
    found = learned(deep, tmp_path / "cache", **(changes | {"depth": "all"}))
    np.testing.assert_allclose(found, learned(deep, None, **(changes | {"depth": "all"})), atol=3e-4)
    assert files(tmp_path / "cache")  # for the next round of the upper layers


def test_a_restored_round_that_trained_all_layers_makes_whole_passes(deep: str, tmp_path: Path) -> None:
    (tmp_path / "round").mkdir()
    trained = opened(deep, None, depth="all").fit(FEW, FEW_LABELS)
    trained.save(tmp_path / "round")
    other = opened(deep, tmp_path / "cache")
    other.states(FEW)
    np.testing.assert_allclose(other.load(tmp_path / "round").logits(FEW), trained.logits(FEW), atol=3e-4)


def test_states_of_another_instruction_or_codebook_are_deleted(deep: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    learned(deep, cache)
    before = files(cache)
    np.testing.assert_allclose(learned(deep, cache, NESTED), learned(deep, None, NESTED), atol=3e-4)
    assert before
    assert not set(before) & set(files(cache))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    path.write_bytes(b"not safetensors")


def alter(path: Path) -> None:
    """Change the states of the shortest text, which no comparison reads, as a failing disk may."""
    content, metadata = load_file(path), {"key": key_of(path)}
    ends = content["ends"].tolist()
    starts = [0, *ends[:-1]]
    first, end = min(zip(starts, ends, strict=True), key=lambda part: part[1] - part[0])
    content["states"][first:end] += 1
    save_file(content, path, metadata=metadata)


def key_of(path: Path) -> str:
    file: Any = kept_states.safe_open(path, framework="pt")
    return str(file.metadata()["key"])


@pytest.mark.parametrize("damage", [truncate, overwrite, alter])
def test_damaged_files_are_not_used(deep: str, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    cache = tmp_path / "cache"
    plain = learned(deep, cache)
    damage(files(cache)[0])
    np.testing.assert_allclose(learned(deep, cache), plain, atol=3e-4)


def test_states_that_lead_to_other_numbers_are_deleted(
    deep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, plain = tmp_path / "cache", learned(deep, None)
    add = kept_states.KeptStates.add

    def add_others(self: kept_states.KeptStates, bodies: Any, states: Any) -> None:
        add(self, bodies, [one + 1 for one in states])

    with monkeypatch.context() as patch:
        patch.setattr(kept_states.KeptStates, "add", add_others)
        opened(deep, cache).states(UTTERANCES)
    assert files(cache)
    np.testing.assert_allclose(learned(deep, cache), plain, atol=3e-4)
    assert not files(cache)


def test_memory_that_ends_in_the_comparison_leaves_whole_passes(
    deep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> bool:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    plain = learned(deep, None)
    monkeypatch.setattr(frozen_layers, "_are_equal", full)
    np.testing.assert_allclose(learned(deep, tmp_path / "cache"), plain, atol=3e-4)
    assert files(tmp_path / "cache")


def test_texts_that_fill_a_window_of_columns_are_compared_in_rows_that_fit(tmp_path: Path) -> None:
    folder = windows.save(windows.gpt_neo(256), tmp_path)
    texts = [Utterance(f"my card is lost {number} " * 7) for number in range(8)]
    plain = opened(folder, None).zero_shot().logits(texts)
    kept = opened(folder, tmp_path / "cache")
    kept.states(texts)
    np.testing.assert_allclose(kept.zero_shot().logits(texts), plain, atol=3e-4)


def test_states_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    kept = kept_states.KeptStates(tmp_path, "key", 3)
    kept.add([[1, 2]], [torch.tensor([[1.0], [torch.nan]])])
    assert (1, 2) not in kept


def test_no_more_than_the_limit_is_kept(deep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    learned(deep, cache)
    size = sum(path.stat().st_size for path in files(cache))
    for path in files(cache):
        path.unlink()
    monkeypatch.setattr(kept_states, "LIMIT", size // 2)
    np.testing.assert_allclose(learned(deep, cache, row_tokens=64), learned(deep, None), atol=3e-4)
    assert sum(path.stat().st_size for path in files(cache)) <= size // 2


def test_a_full_disk_costs_time_only(deep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_states, "save_file", full)
    np.testing.assert_allclose(learned(deep, tmp_path / "cache"), learned(deep, None), atol=3e-4)
    assert not list((tmp_path / "cache").iterdir())


def test_other_accounts_cannot_read_the_states(deep: str, tmp_path: Path) -> None:
    learned(deep, tmp_path / "cache")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache", *files(tmp_path / "cache"))]
    assert not any(mode & 0o077 for mode in modes)


def test_half_a_file_of_a_process_that_died_is_removed(deep: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "half.tmp").write_bytes(b"half")
    learned(deep, cache)
    assert not list(cache.glob("*.tmp"))


def test_the_upper_half_of_an_encoder_decoder_is_refused(folders: dict[str, str]) -> None:
    with pytest.raises(BackboneRefused, match="no upper half") as refused:
        learned(folders["t5"], None)
    assert refused.value.hint == "Set recipe.depth to all."


def test_states_are_kept_only_for_rounds_that_begin_with_them(deep: str, tmp_path: Path) -> None:
    for depth in ("all", "upper"):
        load_classifier(deep, TASK, quick(depth=depth), "options", tmp_path / depth).states(FEW)
    assert not (tmp_path / "all").exists()
    assert files(tmp_path / "upper")


def test_large_codebooks_and_encoder_decoders_keep_none(deep: str, folders: dict[str, str], tmp_path: Path) -> None:
    np.testing.assert_allclose(learned(deep, tmp_path / "a", MANY), learned(deep, None, MANY), atol=3e-4)
    learned(folders["t5"], tmp_path / "b", depth="all")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
