"""A backbone is identified by its weights: changed ones are noticed, copies elsewhere are the same."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from annotator.errors import BackboneChanged, BackboneMissing, BackboneRefused
from model import load
from model.adapter import LanguageModelClassifier
from model.backbones import backbone as loading
from model.backbones import fingerprint
from model.backbones.backbone import load_backbone
from model.backbones.fingerprint import digest, has_changed, newest_known, pinned, source_of, split_pin
from model.recipe import Recipe
from model.restore import restore
from model.types import Origin
from tests.model.tiny import UTTERANCES, quick, save_llama, toy

TASK, TEXTS, LABELS = toy()
ORG = "some-people/tiny-llama"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache hashes in a folder of this test."""
    monkeypatch.setenv("ANNOTATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mine(folders: dict[str, str], tmp_path: Path) -> Path:
    """A folder of weights that may be changed."""
    return Path(shutil.copytree(folders["llama"], tmp_path / "mine"))


def replace_weights(folder: Path) -> None:
    """Put weights of the same shapes and the same size in place, and set the times back."""
    path = folder / "model.safetensors"
    before, weights = path.stat(), load_file(path)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_file({name: weight + 0.1 * torch.randn_like(weight) for name, weight in weights.items()}, path,
                  {"format": "pt"})  # fmt: skip
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat files as written long ago, so that hashes are cached."""
    monkeypatch.setattr(fingerprint, "_STABLE", -1)


def round_of(folder: Path, place: Path, **changes: Any) -> tuple[Path, np.ndarray]:
    quantization = changes.get("quantization", "none")
    backbone = load_backbone(str(folder), quantization)
    classifier = LanguageModelClassifier(backbone, TASK, quick(epochs=1, **changes), "options")
    place.mkdir()
    adapter = classifier.fit(TEXTS[:6], LABELS[:6])
    adapter.save(place)
    return place, adapter.logits(TEXTS)


@pytest.mark.parametrize(
    "changes",
    [{"probe_weight": 0.5}, {"probe_weight": 1.0}, {"method": "prompt"}, {"method": "full"}, {"quantization": "nf4"}],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_a_round_is_refused_with_replaced_weights_and_right_again_when_they_are_back(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    age(monkeypatch)
    place, expected = round_of(mine, tmp_path / "round", learning_rate=None, **changes)
    kept = shutil.copytree(mine, tmp_path / "kept")
    replace_weights(mine)
    with pytest.raises(BackboneChanged, match="differ from those this round was trained with") as caught:
        restore(place)
    assert "retrain" in caught.value.hint
    shutil.rmtree(mine)
    shutil.copytree(kept, mine)
    np.testing.assert_allclose(restore(place).logits(TEXTS), expected, atol=1e-4)


def test_a_round_of_other_weights_is_refused_by_a_classifier_and_by_whoever_asks_for_reasons(
    mine: Path, tmp_path: Path
) -> None:
    place, _ = round_of(mine, tmp_path / "round")
    assert load.explain_label(str(mine), TASK, quick(), UTTERANCES[0], place)
    replace_weights(mine)
    with pytest.raises(BackboneChanged):
        LanguageModelClassifier(load_backbone(str(mine)), TASK, quick(), "options").load(place)
    with pytest.raises(BackboneChanged):
        load.explain_label(str(mine), TASK, quick(), UTTERANCES[0], place)


def test_states_of_other_weights_do_not_count_and_training_does_not_go_on_with_them(mine: Path) -> None:
    first = LanguageModelClassifier(load_backbone(str(mine)), TASK, quick(), "options")
    replace_weights(mine)
    other = LanguageModelClassifier(load_backbone(str(mine)), TASK, quick(), "options")
    assert first.reading != other.reading
    from model.training.training import TrainingSet

    example = TrainingSet([first.tokens.body(TEXTS[0])], np.array([0]), first.recipe)
    assert first._fingerprint(example) != other._fingerprint(example)


def test_the_same_weights_are_the_same_elsewhere_and_in_4_bit(mine: Path, tmp_path: Path) -> None:
    first = load_backbone(str(mine)).origin
    moved = shutil.copytree(mine, tmp_path / "moved")
    assert load_backbone(str(moved)).origin == first
    assert load_backbone(str(mine), "nf4").origin == first


@pytest.mark.parametrize(
    ("file", "changes", "same"),
    [
        ("config.json", {"rope_theta": 5.0}, False),
        ("config.json", {"rms_norm_eps": 0.1}, False),
        ("config.json", {"transformers_version": "6.0.0"}, True),
        ("tokenizer_config.json", {"unk_token": "<|im_end|>"}, False),
        ("tokenizer_config.json", {"chat_template": "new"}, True),  # a round keeps its own prompt
    ],
)
def test_settings_that_change_numbers_make_another_backbone(
    mine: Path, file: str, changes: dict[str, Any], same: bool
) -> None:
    first = fingerprint.fingerprint_of(mine)
    (mine / file).write_text(json.dumps(json.loads((mine / file).read_text()) | changes))
    assert (fingerprint.fingerprint_of(mine) == first) is same


def test_another_vocabulary_makes_another_backbone(mine: Path, folders: dict[str, str]) -> None:
    first = fingerprint.fingerprint_of(mine)
    text = (mine / "tokenizer.json").read_text(encoding="utf-8")
    (mine / "tokenizer.json").write_text(text.replace('"refund"', '"Refund"'), encoding="utf-8")
    assert fingerprint.fingerprint_of(mine) != first


# The cache of hashes ------------------------------------------------------------------------------------------------


def test_a_file_is_hashed_once_and_again_when_it_is_replaced_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(monkeypatch)
    path, hashed = tmp_path / "file", []
    hashing = fingerprint.hashlib.file_digest
    monkeypatch.setattr(fingerprint.hashlib, "file_digest", lambda *a: hashed.append(1) or hashing(*a))
    path.write_bytes(b"one")
    first = digest(path)
    assert digest(path) == first
    assert len(hashed) == 1
    before = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digest(path) != first
    (tmp_path / "other").write_bytes(b"one")
    os.utime(tmp_path / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(tmp_path / "other", path)
    assert digest(path) == first
    assert len(hashed) == 3


def test_a_file_that_was_just_written_is_hashed_again(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "file").write_bytes(b"one")
    digest(tmp_path / "file")
    assert not list(cache.rglob("*.json"))


@pytest.mark.parametrize("left", ["", "{", "[]", '{"stamp": 1}'])
def test_a_memory_that_is_damaged_or_cannot_be_written_costs_time_alone(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    age(monkeypatch)
    (tmp_path / "file").write_bytes(b"one")
    first = digest(tmp_path / "file")
    (record,) = cache.rglob("*.json")
    record.write_text(left)
    assert digest(tmp_path / "file") == first
    shutil.rmtree(cache)
    cache.write_text("no folder")
    assert digest(tmp_path / "file") == first


def test_weights_are_looked_at_once_and_again_when_a_hash_was_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(monkeypatch)
    (tmp_path / "file").write_bytes(b"one")
    looked: list[Path] = []
    digest(tmp_path / "file")
    for _ in range(2):
        digest(tmp_path / "file", looked.append)
    assert len(looked) == 1


def test_weights_that_change_while_they_are_loaded_are_refused(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = loading.check_loaded
    monkeypatch.setattr(loading, "check_loaded", lambda *about: (check(*about), replace_weights(mine)))
    with pytest.raises(BackboneRefused, match="changed while they were being loaded"):
        load_backbone(str(mine))


def test_a_page_can_tell_replaced_weights_without_torch(mine: Path, tmp_path: Path) -> None:
    made_with = load_backbone(str(mine)).origin
    assert not has_changed(str(mine), made_with)
    assert not has_changed(str(mine), Origin())
    assert not has_changed(str(tmp_path / "nowhere"), made_with)
    replace_weights(mine)
    assert has_changed(str(mine), made_with)
    (mine / "config.json").write_text("{")
    assert not has_changed(str(mine), made_with)


# The hub -------------------------------------------------------------------------------------------------------------


class Hub:
    """The hub's cache on this machine, with one repository whose branch can move."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / f"models--{ORG.replace('/', '--')}"

    def add(self, commit: str, source: Path) -> None:
        shutil.copytree(source, self.place / "snapshots" / commit)

    def point(self, branch: str, commit: str) -> None:
        (self.place / "refs").mkdir(parents=True, exist_ok=True)
        (self.place / "refs" / branch).write_text(commit)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: Path) -> Hub:
    """Put two commits into a cache of its own, the branch at the first, and cut the network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for module in (huggingface_hub.constants, huggingface_hub.file_download, loading.transformers.utils.hub):
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, str(tmp_path / "hub"))
    hub = Hub(tmp_path / "hub")
    hub.add("a" * 40, mine)
    replace_weights(mine)
    hub.add("b" * 40, mine)
    hub.point("main", "a" * 40)
    hub.point("v2", "b" * 40)
    return hub


def test_a_hub_id_is_loaded_at_the_commit_it_was_at_and_stays_there(hub: Hub, tmp_path: Path) -> None:
    first = load_backbone(ORG)
    assert (first.name, first.origin.revision) == (ORG, "a" * 40)
    classifier = LanguageModelClassifier(first, TASK, quick(epochs=1, probe_weight=0.5), "options")
    adapter = classifier.fit(TEXTS[:6], LABELS[:6])
    place = tmp_path / "round"
    place.mkdir()
    adapter.save(place)
    expected = adapter.logits(TEXTS)
    hub.point("main", "b" * 40)
    np.testing.assert_allclose(restore(place).logits(TEXTS), expected, atol=1e-4)
    again = load_backbone(pinned(ORG, "a" * 40), "none", Recipe())
    assert (again.name, again.origin) == (ORG, first.origin)
    moved = load_backbone(ORG)
    assert moved.origin.revision == "b" * 40
    assert moved.origin.fingerprint != first.origin.fingerprint
    assert newest_known(ORG) == "b" * 40


def test_a_revision_may_be_requested_and_one_that_is_not_here_is_missing(hub: Hub) -> None:
    assert load_backbone(f"{ORG}@v2").origin.revision == "b" * 40
    assert load_backbone(f"{ORG}@v2").name == f"{ORG}@v2"
    with pytest.raises(BackboneMissing):
        load_backbone(f"{ORG}@v3")
    with pytest.raises(BackboneMissing):
        load_backbone(pinned(ORG, "c" * 40))


def test_files_in_the_hubs_cache_that_were_replaced_are_noticed(hub: Hub) -> None:
    made_with = load_backbone(ORG).origin
    assert not has_changed(ORG, made_with)
    replace_weights(hub.place / "snapshots" / ("a" * 40))
    assert has_changed(ORG, made_with)
    assert load_backbone(ORG).origin.fingerprint != made_with.fingerprint


@pytest.mark.parametrize("name", ["org/name", "org/name@v1", "llama-3.2-1b-instruct", "./a@b", "@", ""])
def test_a_pin_is_split_off_again(name: str) -> None:
    assert split_pin(pinned(name, "0123456789" * 4)) == (name, "0123456789" * 4) or not name
    assert split_pin(name) == (name, "")


def test_a_catalog_name_with_a_revision_is_found_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_of("llama-3.2-1b-instruct@v1") == ("meta-llama/Llama-3.2-1B-Instruct", "v1")
    monkeypatch.chdir(tmp_path)
    save_llama(Path("my@model"))
    assert source_of("my@model") == ("my@model", "")
    assert load_backbone("my@model").name == "my@model"
