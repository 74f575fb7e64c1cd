"""Restore a round from its folder with its own prompt and weights, also if an earlier version recorded neither."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from annotator.errors import Message, ProjectError
from model.adapter import LanguageModelClassifier, RoundAdapter, complete_description
from model.backbones.backbone import load_backbone
from model.backbones.fingerprint import pinned, short_hash
from model.description import (
    DESCRIPTION,
    check_origin,
    read_description,
    read_frame,
    read_recipe,
    read_task,
    write_description,
)
from model.prompts.chat import DAY, former_frame
from model.prompts.prompt import REASON
from model.recipe import Recipe
from model.scoring.hidden_states import STATE_FORMAT
from model.types import Task

_LOG = logging.getLogger(__name__)


def restore(folder: Path) -> RoundAdapter:
    """Load the backbone named in a folder, and the adapter.

    For rounds of earlier versions, the prompt and the weights are recorded when the round is first restored.
    Raises ProjectError, BackboneMissing, BackboneChanged.
    """
    description = complete_description(folder)
    recipe = read_recipe(description)
    name = pinned(description["backbone"], description.get("revision", ""))
    backbone = load_backbone(name, recipe.quantization, precision=recipe.precision)
    check_origin(description, backbone.name, backbone.origin)
    task = read_task(description)
    if "frame" in description:
        classifier = LanguageModelClassifier(backbone, task, recipe, description["template"], read_frame(description))
        if description.get("reading") not in (None, classifier.reading):
            raise ProjectError(
                Message(
                    "The quick classifier in {folder} needs hidden states that this version computes differently.",
                    folder=folder,
                ),
                "Retrain.",
            )
    else:
        plain = LanguageModelClassifier(backbone, task, recipe, description["template"])
        classifier = _reconstruct_prompt(plain, description, folder)
    adapter = classifier.load(folder)
    if not description.get("fingerprint"):
        _record_origin(folder, description, classifier)
    return adapter


def load_for_explanation(folder: Path | None, name: str, task: Task, recipe: Recipe) -> LanguageModelClassifier:
    """Load an untrained backbone to generate reasons, with the weights and frame of the round in a folder, if any."""
    description = read_description(folder) if folder and (folder / DESCRIPTION).is_file() else {}
    pin = pinned(name, description.get("revision", ""))
    backbone = load_backbone(pin, recipe.quantization, precision=recipe.precision)
    check_origin(description, backbone.name, backbone.origin)
    frame = replace(read_frame(description), opening="") if "frame" in description else None
    return LanguageModelClassifier(backbone, task, recipe, REASON.name, frame)


# Rounds of versions that recorded neither prompt nor weights


def _reconstruct_prompt(
    plain: LanguageModelClassifier, description: dict[str, Any], folder: Path
) -> LanguageModelClassifier:
    """Return the classifier with the prompt of a round that did not record it, dated on the day the round was made.

    The stored reading confirms the day; a round without a probe has none, and gets the date of its folder.
    """
    backbone, stored_reading = plain.backbone, description.get("reading")
    written = date.fromtimestamp((folder / DESCRIPTION).stat().st_mtime)
    for day in (written, written - timedelta(days=1), DAY):
        frame = former_frame(backbone.tokenizer, backbone.family, day)
        classifier = LanguageModelClassifier(backbone, plain.task, plain.recipe, plain.tokens.template, frame)
        about = (backbone.name, plain.recipe.quantization, plain.recipe.max_tokens)
        if not description.get("scout") and stored_reading in (
            None,
            short_hash([STATE_FORMAT, *about, classifier.tokens.prefix]),
        ):
            return classifier
    raise ProjectError(
        Message(
            "The quick classifier in {folder} needs hidden states that this version computes differently.",
            folder=folder,
        ),
        "Retrain.",
    )


def _record_origin(folder: Path, description: dict[str, Any], classifier: LanguageModelClassifier) -> None:
    """Record the prompt and the weights of a round that was restored for the first time."""
    recorded = {
        "reading": classifier.reading if description.get("reading") else None,
        "frame": asdict(classifier.tokens.frame),
        **asdict(classifier.origin),
        "noted": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with suppress(OSError):  # in a read-only project this is repeated each time
        write_description(folder, description | recorded)
        _LOG.warning("%s did not name its weights. Recorded those it was restored with: %s", folder, classifier.origin)
