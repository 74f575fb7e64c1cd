"""Read and write `round.json`, the description of a round: backbone, weights, task, prompt and recipe."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from annotator.errors import Message, ProjectError
from model.backbones.fingerprint import read_json
from model.prompts.verbalizer import former_words
from model.types import Frame, Label, Origin, Task

DESCRIPTION = "round.json"
_ALWAYS = {"backbone": str, "template": str, "task": dict, "recipe": dict}
_RESTORE = "Restore the folder from a backup, or retrain."


def read_description(folder: Path) -> dict[str, Any]:
    """Return the description in a round's folder. Raises ProjectError if it is missing or incomplete."""
    path = folder / DESCRIPTION
    try:
        description = read_json(path)
    except FileNotFoundError as error:
        raise ProjectError(
            Message("{description} is missing from {folder}.", description=DESCRIPTION, folder=folder),
            "Restore the folder from a backup, or retrain.",
        ) from error
    except (OSError, ValueError) as error:
        raise ProjectError(Message("{path} cannot be read: {error}.", path=path, error=error), _RESTORE) from error
    if not isinstance(description, dict):
        raise ProjectError(Message("{path} does not describe a round.", path=path), _RESTORE)
    missing = sorted(name for name, kind in _ALWAYS.items() if not isinstance(description.get(name), kind))
    if missing:
        raise ProjectError(
            Message("{path} is incomplete: it has no {missing}.", path=path, missing=", ".join(missing)), _RESTORE
        )
    return description


def read_task(description: dict[str, Any]) -> Task:
    """Return the task a round was trained on, with the label words of its version.

    Raises ProjectError if the description does not contain it.
    """
    try:
        labels = [Label(**{**label, "examples": tuple(label["examples"])}) for label in description["task"]["labels"]]
        if "lead" not in description.get("frame", {}):
            labels = [replace(label, words=former_words(label)) for label in labels]
        return Task(description["task"]["instruction"], tuple(labels))
    except (LookupError, TypeError, AttributeError) as error:
        raise ProjectError(
            Message(
                "{description} does not contain the task of the round ({error}).", description=DESCRIPTION, error=error
            ),
            _RESTORE,
        ) from error


def read_frame(description: dict[str, Any]) -> Frame:
    """Return the prompt a round was trained with. Raises ProjectError if the description does not contain it."""
    try:
        return Frame(**description["frame"])
    except TypeError as error:
        raise ProjectError(
            Message(
                "{description} does not contain the prompt of the round ({error}).",
                description=DESCRIPTION,
                error=error,
            ),
            _RESTORE,
        ) from error


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write the description of a round atomically. Raises OSError."""
    unfinished = folder / f"{DESCRIPTION}.{os.getpid()}.tmp"
    unfinished.write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
    os.replace(unfinished, folder / DESCRIPTION)


def stored_origin(folder: Path) -> Origin:
    """Return the origin of the weights a round was trained with; empty if it was not recorded."""
    description = read_description(folder)
    return Origin(str(description.get("fingerprint", "")), str(description.get("revision", "")))
