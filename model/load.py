"""Load a classifier or a trained round: the one door to torch. Everything heavy is imported when called."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from annotator.errors import BackboneRefused
from model.types import Adapter, Classifier, Task, Utterance

if TYPE_CHECKING:
    from model.recipe import Recipe
    from model.scoring.generation import Rationale


def load_classifier(backbone: str, task: Task, recipe: Recipe, template: str = "definitions") -> Classifier:
    """Load a backbone by catalog name, hub id or folder. This and the two below are the doors to torch."""
    from model.adapter import LanguageModelClassifier
    from model.backbones.backbone import load_backbone

    return LanguageModelClassifier(load_backbone(backbone, recipe.quantization, recipe), task, recipe, template)


def load_adapter(folder: Path) -> Adapter:
    """Read a round back from its folder alone: it names its backbone, its task and how it was trained.

    Raises ProjectError if the folder is not whole, BackboneMissing if the backbone is not on this machine,
    BackboneChanged if it has other weights by now.
    """
    from model.restore import restore

    return restore(folder)


def explain_label(
    backbone: str, task: Task, recipe: Recipe, utterance: Utterance, round_folder: Path | None = None
) -> Rationale:
    """Load a backbone and let it say, untrained, why it would give which label.

    It is asked as the round in `round_folder` asks it, if there is one. Raises BackboneMissing, BackboneRefused,
    BackboneChanged, UtteranceTooLong, BadCodebook.
    """
    if find_spec("outlines") is None:
        raise BackboneRefused(
            "Reasons need the package outlines, which is not installed.",
            "It comes with the installation on Python 3.11 to 3.13, not on later ones.",
        )
    from model.restore import explained
    from model.scoring.generation import explain

    return explain(explained(round_folder, backbone, task, recipe), utterance)
