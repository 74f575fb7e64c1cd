"""Load a classifier or a trained round: the only way to torch, which is imported when a function is called."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from annotator.errors import BackboneRefused
from model.types import Adapter, Classifier, Task, Utterance

if TYPE_CHECKING:
    from model.backbones.catalog import Family
    from model.backbones.shape import Shape
    from model.pace import Pace
    from model.prompts.lengths import Lengths
    from model.recipe import Recipe
    from model.scoring.generation import Rationale


def load_classifier(
    backbone: str, task: Task, recipe: Recipe, template: str = "definitions", cache: Path | None = None
) -> Classifier:
    """Load a backbone by catalog name, hub id or folder.

    If rounds adapt the upper layers alone, the states below are kept in the folder `cache`.
    """
    from model.adapter import LanguageModelClassifier
    from model.backbones.backbone import load_backbone

    loaded = load_backbone(backbone, recipe.quantization, recipe)
    classifier = LanguageModelClassifier(loaded, task, recipe, template)
    if cache and recipe.depth == "upper":
        classifier.keep_in(cache)
    return classifier


def measure_texts(
    backbone: str, task: Task, recipe: Recipe, template: str, utterances: Sequence[Utterance]
) -> tuple[Shape | None, Lengths]:
    """Return a backbone's shape, None if it cannot be known, and the lengths of texts in its tokens.

    Loads its configuration and tokenizer alone. Raises BackboneMissing, BackboneRefused, BadCodebook.
    """
    from model.backbones.architecture import shape_from
    from model.backbones.backbone import open_backbone
    from model.prompts.lengths import count_tokens
    from model.prompts.tokens import PromptTokens

    config, tokenizer = open_backbone(backbone)
    family: Family = "encoder-decoder" if config.is_encoder_decoder else "causal"
    tokens = PromptTokens(tokenizer, family, task, template, recipe.max_tokens)
    return shape_from(config), count_tokens(tokens, utterances)


def measure_pace(backbone: str, task: Task, recipe: Recipe, template: str, utterances: Sequence[Utterance]) -> Pace:
    """Load a backbone, train and score for ten seconds or a few steps, and return the utterances a second."""
    from model.adapter import LanguageModelClassifier
    from model.backbones.backbone import load_backbone
    from model.pace import take_pace

    loaded = load_backbone(backbone, recipe.quantization, recipe)
    return take_pace(LanguageModelClassifier(loaded, task, recipe, template), utterances)


def load_adapter(folder: Path) -> Adapter:
    """Restore a round from its folder, which names its backbone, task and recipe.

    Raises ProjectError if the folder is incomplete, BackboneMissing if the backbone is not on this machine,
    BackboneChanged if its weights have changed.
    """
    from model.restore import restore

    return restore(folder)


def explain_label(
    backbone: str, task: Task, recipe: Recipe, utterance: Utterance, round_folder: Path | None = None
) -> Rationale:
    """Load an untrained backbone and generate a label with a reason.

    The prompt is that of the round in `round_folder`, if given. Raises BackboneMissing, BackboneRefused,
    BackboneChanged, UtteranceTooLong, BadCodebook.
    """
    if find_spec("outlines") is None:
        raise BackboneRefused(
            "Reasons need the package outlines, which is not installed.",
            "It is installed on Python 3.11 to 3.13, not on later versions.",
        )
    from model.restore import load_for_explanation
    from model.scoring.generation import explain

    return explain(load_for_explanation(round_folder, backbone, task, recipe), utterance)
