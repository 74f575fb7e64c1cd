"""Each setting of a recipe changes what is learned, or is refused; nothing is ignored."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.config import changed_recipe
from annotator.errors import AnnotatorError, BackboneRefused, BadInput
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import load_backbone
from model.recipe import Recipe
from tests.model.tiny import LABEL_SETS, UTTERANCES, quick

TASK, LABELS = LABEL_SETS["words that begin one another"], [0, 1, 2, 3, 1]
OTHER = {  # another value of each setting than the tests' recipe has
    "virtual_tokens": 5, "rank": 2, "alpha": 64, "dropout": 0.3, "target_modules": ".*(q_proj|q)",
    "learning_rate": 2e-2, "probe_weight": 0.5, "epochs": 2, "average": 0.9, "batch_size": 2, "warmup": 0.5,
    "weight_decay": 0.9,
    "optimizer": "adamw_8bit", "loss": "tokens", "label_smoothing": 0.3, "class_weights": True, "clip": 1e-3,
    "layers": (1,), "depth": "upper", "rslora": True, "dora": True, "loraplus": 16.0, "neftune": 50.0, "holdout": 0.4,
    "patience": 1, "max_tokens": 4, "seed": 5, "quantization": "nf4",
    "precision": "bf16",
}  # fmt: skip
NO_EFFECT_BY_DESIGN = {"method", "checkpointing", "row_tokens", "tolerance"}  # memory, and large codebooks

QUICK = (("llama", "lora", "labels"), ("t5", "prompt", "tokens"))


def test_every_setting_is_tried() -> None:
    assert {field.name for field in fields(Recipe)} == OTHER.keys() | NO_EFFECT_BY_DESIGN


@pytest.mark.parametrize(
    ("kind", "method", "loss"),
    [
        pytest.param(*cell, marks=() if cell in QUICK else pytest.mark.soak)
        for cell in product(("llama", "t5"), ("lora", "prompt", "full"), ("labels", "tokens"))
    ],
)
def test_every_setting_changes_what_is_learned_or_is_refused(
    folders: dict[str, str], kind: str, method: str, loss: str
) -> None:
    base: dict[str, Any] = {"method": method, "loss": loss, "epochs": 3, "learning_rate": None, "weight_decay": 0.01}
    plain, ignored = learned(folders[kind], base), []
    for name, value in OTHER.items():
        if (name, value) == ("loss", loss):
            continue
        try:
            found = learned(folders[kind], base | {name: value})
        except (BadInput, BackboneRefused):
            continue
        if np.array_equal(found, plain):
            ignored.append(name)
    assert ignored == []


def learned(folder: str, settings: dict[str, Any]) -> np.ndarray:
    recipe = quick(**settings)
    classifier = LanguageModelClassifier(load_backbone(folder, recipe.quantization, recipe), TASK, recipe, "options")
    return classifier.fit(UTTERANCES, LABELS).logits(UTTERANCES)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["method=prompt", "rank=8"], "rank"),
        (["method=full", "layers=1"], "layers"),
        (["method=full", "dora=true"], "dora"),
        (["method=prompt", "loraplus=4"], "loraplus"),
        (["method=full", "dropout=0.2"], "dropout"),
        (["method=prompt", "target_modules=q_proj"], "target_modules"),
        (["virtual_tokens=40"], "virtual_tokens"),
        (["patience=5"], "patience"),
        (["holdout=0.2", "average=0.3"], "average"),
        (["loss=tokens", "label_smoothing=0.1"], "label_smoothing"),
    ],
)
def test_a_setting_without_effect_is_refused_when_it_is_set(changes: list[str], named: str) -> None:
    with pytest.raises(BadInput, match=f"“{named}” .* has no effect while") as caught:
        changed_recipe(Recipe(), changes)
    assert f"recipe.{named}=" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    ["epochs=1000000000", "rank=100000000", "virtual_tokens=100000000", "rank=0", "layers=-1", "batch_size=0",
     "warmup=1.5", "average=2", "holdout=1", "max_tokens=0", "learning_rate=0", "clip=nan", "dropout=1"],
)  # fmt: skip
def test_a_value_no_round_could_use_is_refused_when_it_is_set(change: str) -> None:
    with pytest.raises(BadInput):
        changed_recipe(Recipe(), [change])


@pytest.mark.parametrize("pattern", ["*proj", "(", "q_proj,v_proj", "", "model"])
def test_a_pattern_of_modules_that_matches_none_is_refused(folders: dict[str, str], pattern: str) -> None:
    with pytest.raises(AnnotatorError) as caught:
        learned(folders["llama"], {"target_modules": pattern})
    assert caught.value.hint


@pytest.mark.parametrize("changes", [{"batch_size": 500}, {"warmup": 1.0}, {"average": 1.0}, {"max_tokens": 1}])
def test_a_value_at_the_end_of_its_range_works(
    folders: dict[str, str], changes: dict[str, Any], tmp_path: Path
) -> None:
    assert np.isfinite(learned(folders["llama"], changes | {"epochs": 1})).all()
