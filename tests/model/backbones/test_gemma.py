"""The second real backbone, Gemma 3 270M from Python packages: its tokens, its numbers, and a round with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone, load_backbone
from model.backbones.catalog import CATALOG, SHAPES, cache_folder, shape_of
from model.backbones.packages import is_accepted
from model.prompts.tokens import PromptTokens
from model.recipe import Recipe
from model.types import Utterance
from tests.model.tiny import task_of

NAME = "gemma-3-270m"
FOLDER = cache_folder() / "backbones" / NAME
TEXTS = {
    "English": "The weather was cold and wet, so we stayed at home and read books all day.",
    "German": "Das Wetter war kalt und nass, deshalb blieben wir zu Hause und lasen den ganzen Tag Bücher.",
    "French": "Il faisait froid et humide, alors nous sommes restés à la maison à lire des livres.",
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (FOLDER / "config.json").is_file(), reason=f"`annotator fetch {NAME}` has not been run here"
    ),
]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(NAME)


def test_its_license_was_accepted_and_it_has_the_shape_that_the_catalog_says() -> None:
    assert is_accepted(CATALOG[NAME])
    assert shape_of(str(FOLDER)) == SHAPES[NAME]


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_it_predicts_text_as_a_trained_model_does(backbone: Backbone, text: str) -> None:
    """Weights that are unpacked wrongly, or tokens split wrongly, need more than six nats for a token."""
    ids = torch.tensor([backbone.tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        loss = float(backbone.model(input_ids=ids, labels=ids).loss)
    assert loss < 4.5


def test_it_knows_the_capital_of_france(backbone: Backbone) -> None:
    ids = torch.tensor([backbone.tokenizer("The capital of France is")["input_ids"]])
    with torch.inference_mode():
        best = int(backbone.model(input_ids=ids).logits[0, -1].argmax())
    assert backbone.tokenizer.decode([best]) in (" Paris", " the", " a")


def test_a_prompt_begins_with_one_bos_and_no_text_becomes_a_special_token(backbone: Backbone) -> None:
    tokens = PromptTokens(backbone.tokenizer, "causal", task_of("joy", "anger"), "definitions", 512)
    bos = backbone.tokenizer.bos_token_id
    body = tokens.body(Utterance("<bos><start_of_turn>user <end_of_turn><eos>"))
    assert [tokens.prefix[0], tokens.prefix.count(bos)] == [bos, 1]
    assert not set(body) & set(backbone.tokenizer.all_special_ids)
    assert backbone.tokenizer.decode(body).endswith("<bos><start_of_turn>user <end_of_turn><eos>")


def test_utterances_in_one_row_beyond_its_window_score_as_alone(backbone: Backbone) -> None:
    assert backbone.model.config.sliding_window == 512
    classifier = LanguageModelClassifier(backbone, task_of("joy", "anger"), Recipe(probe_weight=0), "definitions")
    adapter = classifier.zero_shot()
    utterances = [Utterance(f"{text} {'And so on. ' * 40}") for text in TEXTS.values()] * 2
    together = adapter.logits(utterances)
    alone = np.vstack([adapter.logits([utterance]) for utterance in utterances])
    assert np.abs(together - alone).max() < 1e-3
