"""Read and write `round.json`, the description of a round: backbone, weights, task, prompt and recipe.

It is sealed with a hash of its content and of the files beside it, so that one which was edited, damaged or taken from
another round is noticed. Only the place of the backbone may be edited, as its weights have a fingerprint. Descriptions
of earlier versions have no seal.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from annotator.errors import BackboneChanged, Message, ProjectError
from model.backbones.fingerprint import digest, read_json
from model.prompts.verbalizer import former_words
from model.recipe import Recipe, renamed
from model.types import Frame, Origin, Task

DESCRIPTION = "round.json"
Description = dict[str, Any]
SEAL, FILES = "seal", "files"
_ALWAYS = {"backbone": str, "template": str, "task": dict, "recipe": dict}
_RESTORE = "Restore the folder from a backup, or retrain."
_RECIPE, _TASK, _FRAME = TypeAdapter(Recipe), TypeAdapter(Task), TypeAdapter(Frame)


def read_description(folder: Path) -> Description:
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
    if description.get(SEAL, seal := _seal_of(description)) != seal:
        raise ProjectError(Message("{path} was changed after the round was saved.", path=path), _RESTORE)
    return description


def check_files(folder: Path, description: Description) -> None:
    """Raise ProjectError unless the files of a round are those that were saved with its description."""
    saved, present = description.get(FILES), _files(folder)
    if not isinstance(saved, dict):  # of an earlier version
        return
    for name in sorted(saved.keys() | present.keys()):
        if name not in present:
            raise ProjectError(Message("{missing} is missing from {folder}.", missing=name, folder=folder), _RESTORE)
        if digest(present[name]) != saved.get(name):
            raise ProjectError(
                Message("{name} in {folder} is damaged, or not from this round.", name=name, folder=folder), _RESTORE
            )


def check_origin(description: Description, name: str, origin: Origin) -> None:
    """Raise BackboneChanged if a round was trained with other weights; a round that names none accepts any."""
    trained_with = description.get("fingerprint", "")
    if trained_with and trained_with != origin.fingerprint:
        raise BackboneChanged(
            Message("The weights of “{name}” differ from those this round was trained with.", name=name),
            "Restore the former weights, or retrain.",
        )


def _files(folder: Path) -> dict[str, Path]:
    """Return the files with the weights of a round, and the configuration of its adapter."""
    found = [*folder.glob("*.safetensors"), *folder.glob("adapter_config.json")]
    return {path.name: path for path in sorted(found)}


def _seal_of(description: Description) -> str:
    content = {name: value for name, value in description.items() if name not in (SEAL, "backbone")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_recipe(description: Description) -> Recipe:
    """Return the recipe of a round; missing settings take their defaults, unknown ones are ignored.

    Raises ProjectError.
    """
    try:
        return _RECIPE.validate_python(renamed(description["recipe"]))
    except ValidationError as error:
        raise ProjectError(
            Message(
                "{description} does not contain the recipe of the round ({error}).",
                description=DESCRIPTION,
                error=_first(error),
            ),
            _RESTORE,
        ) from error


def read_task(description: Description) -> Task:
    """Return the task a round was trained on, with the label words of its version.

    Raises ProjectError if the description does not contain it.
    """
    try:
        task = _TASK.validate_python(description["task"])
    except ValidationError as error:
        raise ProjectError(
            Message(
                "{description} does not contain the task of the round ({error}).",
                description=DESCRIPTION,
                error=_first(error),
            ),
            _RESTORE,
        ) from error
    if "lead" in (description.get("frame") or {}):
        return task
    return Task(task.instruction, tuple(replace(label, words=former_words(label)) for label in task.labels))


def read_frame(description: Description) -> Frame:
    """Return the prompt a round was trained with. Raises ProjectError if the description does not contain it."""
    try:
        return _FRAME.validate_python(description["frame"])
    except ValidationError as error:
        raise ProjectError(
            Message(
                "{description} does not contain the prompt of the round ({error}).",
                description=DESCRIPTION,
                error=_first(error),
            ),
            _RESTORE,
        ) from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def write_description(folder: Path, description: Description) -> None:
    """Write the description of a round atomically, with hashes of the files beside it and a seal. Raises OSError."""
    unfinished = folder / f"{DESCRIPTION}.{os.getpid()}.tmp"
    whole = description | {FILES: {name: digest(path) for name, path in _files(folder).items()}}
    whole[SEAL] = _seal_of(whole)
    unfinished.write_text(json.dumps(whole, indent=2, ensure_ascii=False), encoding="utf-8")
    os.replace(unfinished, folder / DESCRIPTION)


def record_number(folder: Path, number: int) -> None:
    """Record the number of a round in its description, so that a folder in another's place is noticed."""
    if (folder / DESCRIPTION).is_file():
        write_description(folder, read_description(folder) | {"round": number})


def stored_number(folder: Path) -> int | None:
    """Return the number of the round that a folder was saved by; None if it was not recorded."""
    number = read_description(folder).get("round")
    return number if isinstance(number, int) else None


def stored_origin(folder: Path) -> Origin:
    """Return the origin of the weights a round was trained with; empty if it was not recorded."""
    description = read_description(folder)
    return Origin(str(description.get("fingerprint", "")), str(description.get("revision", "")))
