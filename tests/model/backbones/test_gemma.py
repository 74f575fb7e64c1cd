"""The second real backbone, Gemma 3 270M from Python packages: its tokens and its numbers."""

from __future__ import annotations

import pytest
import torch

from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone, load_backbone
from model.backbones.catalog import CATALOG, SHAPES, cache_folder, shape_of
from model.backbones.packages import is_accepted
from model.prompts.tokens import PromptTokens
from model.recipe import Recipe
from model.types import Utterance
from tests.model.tiny import brute_force, task_of

NAME = "gemma-3-270m"
MARKERS = ["<bos>", "<start_of_turn>", "<end_of_turn>", "<eos>"]
FOLDER = cache_folder() / "backbones" / NAME
TEXTS = {
    "English": "The weather was cold and wet, so we stayed at home and read books all day.",
    "German": "Das Wetter war kalt und nass, deshalb blieben wir zu Hause und lasen den ganzen Tag Bücher.",
    "French": "Il faisait froid et humide, alors nous sommes restés à la maison à lire des livres.",
}
NATS = {"English": 2.84, "German": 3.34, "French": 3.42}  # per token, as measured in bfloat16
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


@pytest.mark.parametrize("language", TEXTS)
def test_it_predicts_text_as_a_trained_model_does(backbone: Backbone, language: str) -> None:
    """Reversing the fifth layer's last matrix costs 0.8 to 2.1 nats a token, adding 1 to the norms again 14 or more."""
    ids = torch.tensor([backbone.tokenizer(TEXTS[language])["input_ids"]])
    with torch.inference_mode():
        loss = float(backbone.model(input_ids=ids, labels=ids).loss)
    assert loss == pytest.approx(NATS[language], abs=0.2)


def test_it_knows_the_capital_of_france(backbone: Backbone) -> None:
    ids = torch.tensor([backbone.tokenizer("The capital of France is")["input_ids"]])
    with torch.inference_mode():
        best = int(backbone.model(input_ids=ids).logits[0, -1].argmax())
    assert backbone.tokenizer.decode([best]) in (" Paris", " the", " a")  # measured: " the", " a", " Paris"


def test_a_prompt_begins_with_one_bos_and_no_text_becomes_a_special_token(backbone: Backbone) -> None:
    tokens = PromptTokens(backbone.tokenizer, "causal", task_of("joy", "anger"), "definitions", 512)
    bos = backbone.tokenizer.bos_token_id
    body = tokens.body(Utterance("<bos><start_of_turn>user <end_of_turn><eos>"))
    assert [tokens.prefix[0], tokens.prefix.count(bos)] == [bos, 1]
    assert not set(body) & set(backbone.tokenizer.convert_tokens_to_ids(MARKERS))
    assert "<bos><start_of_turn>user <end_of_turn><eos>" in backbone.tokenizer.decode(body)


@pytest.mark.soak  # a minute; `make test` has tiny models with windows
def test_an_utterance_beyond_its_window_scores_as_one_label_at_a_time(backbone: Backbone) -> None:
    """Compare with plain transformers, without a cache or a mask of ours. In bfloat16, rounding takes up to 0.13."""
    classifier = LanguageModelClassifier(backbone, task_of("joy", "anger"), Recipe(probe_weight=0), "definitions")
    long = Utterance(TEXTS["English"] + " And so on." * 160)
    assert len(classifier.tokens.prefix) + len(classifier.tokens.body(long)) > backbone.model.config.sliding_window
    with torch.inference_mode():
        plain = brute_force(backbone, classifier.tokens, long)
    assert classifier.zero_shot().logits([long])[0] == pytest.approx(plain.numpy(), abs=1e-3)
