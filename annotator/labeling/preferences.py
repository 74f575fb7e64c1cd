"""Preferences of an annotator, stored in the project under their name."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic import TypeAdapter

from annotator.project import Project
from store import settings


@dataclass(frozen=True)
class Preferences:
    """One annotator's settings for the label page, and the language of all pages."""

    suggestions: bool = True  # show suggestions if the project does
    turns: int | None = None  # turns shown before the utterance; None: the model's context
    outcome: bool = False  # reveal the prediction after an answer
    goal: int = 0  # daily goal in answers; 0: none
    rest_after: int = 45  # suggest a break after this many minutes; 0: never
    language: str = ""  # language code of the app; "": the browser's


_READER = TypeAdapter(Preferences)


def preferences(project: Project, annotator: str) -> Preferences:
    """Return an annotator's preferences, or the defaults. Raises BadSetting."""
    return settings.read(project.db, _key(annotator), {}, _read)


def _read(stored: dict[str, Any]) -> Preferences:
    known = {field.name for field in fields(Preferences)}
    return _READER.validate_python({name: value for name, value in stored.items() if name in known})


def choose(project: Project, annotator: str, preferences: Preferences) -> None:
    """Store an annotator's preferences."""
    settings.put(project.db, _key(annotator), asdict(preferences))


def _key(annotator: str) -> str:
    return f"preferences of {annotator}"
