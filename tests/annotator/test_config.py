"""Test that settings are written and read, take defaults if missing, and are refused if invalid."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.config import RoundConfig, changed, changed_recipe
from annotator.errors import BadInput
from model.recipe import Recipe

configs = st.builds(
    RoundConfig,
    backbone=st.text(max_size=20),
    recipe=st.builds(
        Recipe, rank=st.integers(1, 64), learning_rate=st.floats(1e-6, 1), quantization=st.sampled_from(["none", "nf4"])
    ),
    strategy=st.sampled_from(["margin", "entropy"]),
    batch_size=st.integers(1, 500),
    audit_share=st.floats(0, 1),
    withheld_share=st.floats(0, 0.9),
    seed=st.integers(0, 2**31),
)


@given(configs)
def test_settings_are_read_back_as_written(config):
    assert RoundConfig.from_json(config.to_json()) == config


def test_settings_that_are_missing_take_their_defaults():
    assert RoundConfig.from_json("{}") == RoundConfig()
    stored = RoundConfig.from_json('{"batch_size": 7, "recipe": {"rank": 4}}')
    assert stored == RoundConfig(batch_size=7, recipe=Recipe(rank=4))


def test_settings_of_a_later_version_are_passed_over():
    assert RoundConfig.from_json('{"batch_size": 7, "telepathy": true}') == RoundConfig(batch_size=7)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"batch_size": "many"}', '{"recipe": 3}', '{"recipe": {"quantization": "int2"}}'],
)
def test_broken_settings_are_refused_with_a_hint(text):
    with pytest.raises(BadInput, match="cannot be read") as caught:
        RoundConfig.from_json(text)
    assert caught.value.hint


def test_the_recipe_is_written_out_whole():
    assert set(json.loads(RoundConfig().to_json())["recipe"]) == {field.name for field in dataclasses.fields(Recipe)}


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RoundConfig().seed = 3


def test_settings_of_the_recipe_are_changed_by_name():
    changed = changed_recipe(Recipe(), ["epochs=3", "learning_rate=5e-4", "dora=true", "layers=1,2", "loss=tokens"])
    assert changed == Recipe(epochs=3, learning_rate=5e-4, dora=True, layers=(1, 2), loss="tokens")
    assert changed_recipe(Recipe(), []) == Recipe()


def test_settings_of_rounds_and_of_their_recipe_are_changed_by_name_together():
    before = RoundConfig(audit_share=0.3, recipe=Recipe(rank=4))
    changes = ["backbone=llama-3.2-1b-instruct", "recipe.quantization=nf4", "strategy=entropy", "batch_size=40"]
    after = changed(before, changes)
    assert (after.backbone, after.strategy, after.batch_size) == ("llama-3.2-1b-instruct", "entropy", 40)
    assert after.recipe == Recipe(rank=4, quantization="nf4")
    assert after.audit_share == 0.3
    assert changed(after, []) == after
    assert changed(changed(after, ["recipe.learning_rate=1e-4"]), ["recipe.learning_rate=none"]) == after


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("batch=3", "There is no setting called “batch”. Choose one of: audit_share, backbone, "),
        ("strategy=luck", "There is no strategy called “luck”. Choose one of: "),
        ("template=rhyme", "There is no template called “rhyme”. Choose one of: "),
        ("audit_share=2", "“audit_share” cannot be set to “2”: Input should be less than or equal to 1"),
        ("recipe=none", "There is no setting called “recipe”"),
        ("recipe.epoch=3", "There is no recipe setting called “epoch”. Choose one of: alpha, "),
        ("recipe.epochs=many", "“epochs” cannot be set to “many”"),
        ("recipe.epochs", "“epochs” cannot be set to “”"),
        ("recipe.loss=hinge", "“loss” cannot be set to “hinge”"),
        ("recipe.epochs=0", "“epochs” cannot be set to “0”: Input should be greater than or equal to 1"),
        ("recipe.holdout=-0.1", "“holdout” cannot be set to “-0.1”: Input should be greater than or equal to 0"),
        ("recipe.holdout=1", "“holdout” cannot be set to “1”: Input should be less than 1"),
        ("recipe.probe_weight=1.5", "“probe_weight” cannot be set to “1.5”: Input should be less than or equal to 1"),
        ("recipe.learning_rate=0", "“learning_rate” cannot be set to “0”: Input should be greater than 0"),
        ("recipe.quantization=int2", "“quantization” cannot be set to “int2”"),
        ("epochs=1", "There is no setting called “epochs”. .* recipe.epochs"),
    ],
)
def test_a_change_that_names_or_means_nothing_is_refused(change, says):
    with pytest.raises(BadInput, match=says):
        changed(RoundConfig(), [change])


def test_stored_settings_with_a_removed_strategy_or_setting_are_read():
    stored = json.loads(RoundConfig(batch_size=40).to_json())
    read = RoundConfig.from_json(json.dumps(stored | {"strategy": "disagreement", "cross_fit_below": 30}))
    assert read == RoundConfig(batch_size=40)


def test_settings_without_effect_that_a_project_stored_open_and_are_mended_by_the_hint():
    stored = '{"recipe": {"method": "full", "rank": 8, "dora": true, "layers": [1], "patience": 3}}'
    opened = RoundConfig.from_json(stored)
    with pytest.raises(BadInput, match="“rank” 8 has no effect while “method” is “full”") as caught:
        changed(opened, ["batch_size=30"])
    hint = str(caught.value.hint)
    defaults = hint.removeprefix("Change recipe.method, or set the defaults: ").removesuffix(".").split(" ")
    assert len(defaults) == 4
    assert changed(opened, defaults).recipe == Recipe(method="full")
