"""What a round's folder says of it, `round.json`: backbone and its weights, task, prompt and recipe."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from annotator.errors import ProjectError
from model.backbones.fingerprint import read_json
from model.types import Frame, Label, Origin, Task

DESCRIPTION = "round.json"
_ALWAYS = {"backbone": str, "template": str, "task": dict, "recipe": dict}
_RESTORE = "Restore the folder from a backup, or retrain."


def description_of(folder: Path) -> dict[str, Any]:
    """Read what a round's folder says of it. Raises ProjectError if that is not whole."""
    path = folder / DESCRIPTION
    try:
        described = read_json(path)
    except FileNotFoundError as error:
        raise ProjectError(f"{folder} lacks {DESCRIPTION}.", "Restore the folder from a backup, or retrain.") from error
    except (OSError, ValueError) as error:
        raise ProjectError(f"{path} cannot be read: {error}.", _RESTORE) from error
    if not isinstance(described, dict):
        raise ProjectError(f"{path} does not describe a round.", _RESTORE)
    lacking = sorted(name for name, kind in _ALWAYS.items() if not isinstance(described.get(name), kind))
    if lacking:
        raise ProjectError(f"{path} lacks {', '.join(lacking)}.", _RESTORE)
    return described


def task_in(described: dict[str, Any]) -> Task:
    """Return the task a round was trained on. Raises ProjectError if the description does not hold it."""
    try:
        labels = [Label(**{**label, "examples": tuple(label["examples"])}) for label in described["task"]["labels"]]
        return Task(described["task"]["instruction"], tuple(labels))
    except (LookupError, TypeError) as error:
        raise ProjectError(f"{DESCRIPTION} does not hold the task of the round ({error}).", _RESTORE) from error


def frame_in(described: dict[str, Any]) -> Frame:
    """Return the prompt a round was trained with. Raises ProjectError if the description does not hold it."""
    try:
        return Frame(**described["frame"])
    except TypeError as error:
        raise ProjectError(f"{DESCRIPTION} does not hold the prompt of the round ({error}).", _RESTORE) from error


def write_description(folder: Path, described: dict[str, Any]) -> None:
    """Write what there is to say of a round, whole or not at all. Raises OSError."""
    unfinished = folder / f"{DESCRIPTION}.{os.getpid()}.tmp"
    unfinished.write_text(json.dumps(described, indent=2, ensure_ascii=False), encoding="utf-8")
    os.replace(unfinished, folder / DESCRIPTION)


def made_with(folder: Path) -> Origin:
    """Return the weights a round's folder says it is for; nothing where it does not say."""
    described = description_of(folder)
    return Origin(str(described.get("fingerprint", "")), str(described.get("revision", "")))
