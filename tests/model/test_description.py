"""What a round stored of itself is read back whole, or refused: nothing edited, swapped or left behind is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from annotator.errors import BackboneChanged, ProjectError
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import load_backbone
from model.probe.probe import PROBE_FILE
from model.restore import restore
from tests.model.tiny import quick, save_t5, toy, unseal

TASK, TEXTS, LABELS = toy()


def saved(folders: dict[str, str], folder: Path, **changes: Any) -> tuple[Path, np.ndarray]:
    """Train and save a round of the tiny Llama; return its folder and its logits."""
    recipe = quick(epochs=1, probe_weight=0.5, **changes)
    classifier = LanguageModelClassifier(load_backbone(folders["llama"]), TASK, recipe, "options")
    folder.mkdir()
    adapter = classifier.fit(TEXTS[:6], LABELS[:6])
    adapter.save(folder)
    return folder, adapter.logits(TEXTS)


@pytest.fixture(scope="module")
def made(folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save two rounds that differ in their seed; return the folder of both."""
    folder = tmp_path_factory.mktemp("rounds")
    saved(folders, folder / "one")
    saved(folders, folder / "two", seed=1)
    return folder


@pytest.fixture
def two(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return the folders of both rounds, copied to be damaged."""
    copy = shutil.copytree(made, tmp_path / "rounds")
    return copy / "one", copy / "two"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", PROBE_FILE])
def test_a_file_of_another_round_is_refused(two: tuple[Path, Path], name: str) -> None:
    one, other = two
    if name == "adapter_config.json":  # equal in both
        (other / name).write_text((other / name).read_text().replace('"lora_alpha": 8', '"lora_alpha": 80'))
    if name == PROBE_FILE:  # does not depend on the seed
        save_file({key: part + 1 for key, part in load_file(other / name).items()}, other / name)
    shutil.copy(other / name, one / name)
    with pytest.raises(ProjectError, match=f"{name} in .* is damaged, or not from this round") as caught:
        restore(one)
    assert caught.value.hint == "Restore the folder from a backup, or retrain."


def test_weights_put_beside_those_of_a_round_are_refused(two: tuple[Path, Path], folders: dict[str, str]) -> None:
    weights = load_file(Path(folders["llama"]) / "model.safetensors")
    save_file({name: weight + 0.1 for name, weight in weights.items()}, two[0] / "model.safetensors")
    with pytest.raises(ProjectError, match=r"model\.safetensors in .* not from this round"):
        restore(two[0])


def test_weights_put_beside_an_untrained_round_are_refused(two: tuple[Path, Path], folders: dict[str, str]) -> None:
    folder = two[0].with_name("untrained")
    folder.mkdir()
    LanguageModelClassifier(load_backbone(folders["llama"]), TASK, quick(), "options").zero_shot().save(folder)
    restore(folder)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copy(two[0] / name, folder)
    with pytest.raises(ProjectError, match="not from this round"):
        restore(folder)


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of one value, at a path of keys."""

    def change(described: dict[str, Any]) -> None:
        *above, key, value = path
        for step in above:
            described = described[step]
        described[key] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda described: described["task"]["labels"].reverse(),  # labels would flip
        _set("task", "labels", 0, "words", "anger"),
        _set("recipe", "probe_weight", 1.0),
        _set("recipe", "tolerance", 0.5),
        _set("frame", "before", ""),
        _set("frame", "end", 5),
        _set("frame", "opening", "Decide."),
        _set("template", "definitions"),
        _set("reading", None),
        _set("fingerprint", ""),
        lambda described: described.pop("fingerprint"),
        lambda described: described.pop("frame"),
        lambda described: described.pop("files"),
    ],
)
def test_an_edited_description_is_refused(two: tuple[Path, Path], change: Callable[[dict[str, Any]], None]) -> None:
    path = two[0] / "round.json"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))
    with pytest.raises(ProjectError, match="was changed after the round was saved"):
        restore(two[0])


def test_a_backbone_that_was_moved_may_be_named_anew(folders: dict[str, str], tmp_path: Path) -> None:
    folder, expected = saved(folders, tmp_path / "round")
    moved = shutil.copytree(folders["llama"], tmp_path / "moved")
    described = json.loads((folder / "round.json").read_text())
    (folder / "round.json").write_text(json.dumps(described | {"backbone": str(moved)}))
    np.testing.assert_allclose(restore(folder).logits(TEXTS), expected, atol=1e-4)


def test_a_round_of_a_version_without_a_seal_is_restored(folders: dict[str, str], tmp_path: Path) -> None:
    folder, expected = saved(folders, tmp_path / "round")
    unseal(folder)
    np.testing.assert_allclose(restore(folder).logits(TEXTS), expected, atol=1e-4)


def test_other_tokens_at_which_a_decoder_begins_are_noticed(tmp_path: Path) -> None:
    backbone = Path(save_t5(tmp_path / "t5"))
    folder = tmp_path / "round"
    folder.mkdir()
    LanguageModelClassifier(load_backbone(str(backbone)), TASK, quick(), "options").zero_shot().save(folder)
    path = backbone / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"forced_bos_token_id": 7}))
    with pytest.raises(BackboneChanged, match="tokenizes text otherwise") as caught:
        restore(folder)
    assert "generation_config.json" in caught.value.hint
