"""Read a round back from its folder: with its own prompt and weights, also where an earlier version noted neither."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from annotator.errors import ProjectError
from model.adapter import LanguageModelClassifier, RoundAdapter, check_origin, short_hash, whole
from model.backbones.backbone import load_backbone
from model.backbones.fingerprint import pinned
from model.description import DESCRIPTION, description_of, frame_in, task_in, write_description
from model.prompts.chat import DAY, frame_of
from model.prompts.prompt import REASON
from model.recipe import Recipe, read_recipe
from model.scoring.hidden_states import MADE_OF
from model.types import Task

_LOG = logging.getLogger(__name__)


def restore(folder: Path) -> RoundAdapter:
    """Load the backbone a folder names and the adapter in it.

    What a round of an earlier version lacks, its prompt and the weights it is for, is taken down when it is first
    restored. Raises ProjectError, BackboneMissing, BackboneChanged.
    """
    described = whole(folder)
    recipe = read_recipe(described["recipe"])
    backbone = load_backbone(pinned(described["backbone"], described.get("revision", "")), recipe.quantization)
    check_origin(described, backbone)
    task = task_in(described)
    if "frame" in described:
        classifier = LanguageModelClassifier(backbone, task, recipe, described["template"], frame_in(described))
        if described.get("reading") not in (None, classifier.reading):
            raise ProjectError(f"The scout in {folder} is for states that are computed otherwise by now.", "Retrain.")
    else:
        plain = LanguageModelClassifier(backbone, task, recipe, described["template"])
        classifier = _as_it_was(plain, described, folder)
    adapter = classifier.load(folder)
    if not described.get("fingerprint"):
        _take_down(folder, described, classifier)
    return adapter


def explained(folder: Path | None, name: str, task: Task, recipe: Recipe) -> LanguageModelClassifier:
    """Load a bare backbone to ask it for reasons: with the weights and the frame of the round in a folder, if any."""
    described = description_of(folder) if folder and (folder / DESCRIPTION).is_file() else {}
    backbone = load_backbone(pinned(name, described.get("revision", "")), recipe.quantization)  # nothing is trained
    check_origin(described, backbone)
    frame = replace(frame_in(described), opening="") if "frame" in described else None
    return LanguageModelClassifier(backbone, task, recipe, REASON.name, frame)


# Rounds of versions that noted neither prompt nor weights


def _as_it_was(plain: LanguageModelClassifier, described: dict[str, Any], folder: Path) -> LanguageModelClassifier:
    """Give the classifier the prompt of a round that did not note it: with the date, if any, of the day it was made.

    Its reading tells whether that is right; a round without a scout has none, and gets the day its folder tells.
    """
    backbone, wanted = plain.backbone, described.get("reading")
    written = date.fromtimestamp((folder / DESCRIPTION).stat().st_mtime)
    for day in (written, written - timedelta(days=1), DAY):
        frame = frame_of(backbone.tokenizer, backbone.family, day)
        classifier = LanguageModelClassifier(backbone, plain.task, plain.recipe, plain.tokens.template, frame)
        about = (backbone.name, plain.recipe.quantization, plain.recipe.max_tokens)
        if not described.get("scout") and wanted in (None, short_hash([MADE_OF, *about, classifier.tokens.prefix])):
            return classifier
    raise ProjectError(f"The scout in {folder} is for states that are computed otherwise by now.", "Retrain.")


def _take_down(folder: Path, described: dict[str, Any], classifier: LanguageModelClassifier) -> None:
    """Note for a round what was found now that it was restored for the first time."""
    found = {
        "reading": classifier.reading if described.get("reading") else None,
        "frame": asdict(classifier.tokens.frame),
        **asdict(classifier.origin),
        "noted": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with suppress(OSError):  # a project that cannot be written is read as it is, each time
        write_description(folder, described | found)
        _LOG.warning("%s named no weights. Those it was restored with now were noted: %s", folder, classifier.origin)
