"""How an annotator likes to work: kept with the project under his name, so that it holds on every screen of his."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic import TypeAdapter

from annotator.project import Project
from store import settings


@dataclass(frozen=True)
class Preferences:
    """What one annotator has chosen for his label page, and the language of all pages."""

    suggestions: bool = True  # show the model's suggestion where the project does
    turns: int | None = None  # turns shown before the utterance; None: as many as the model reads
    outcome: bool = False  # say after an answer what the model had thought
    goal: int = 0  # answers aimed at in one sitting; 0: none
    rest_after: int = 45  # minutes of work without a pause, then a break is suggested; 0: never
    language: str = ""  # the code of a language of the app; "": as the browser asks for


_READER = TypeAdapter(Preferences)


def preferences(project: Project, annotator: str) -> Preferences:
    """Return what the annotator has chosen, or what everyone starts with. Raises BadSetting."""
    return settings.read(project.db, _key(annotator), {}, _read)


def _read(stored: dict[str, Any]) -> Preferences:
    known = {field.name for field in fields(Preferences)}
    return _READER.validate_python({name: value for name, value in stored.items() if name in known})


def choose(project: Project, annotator: str, preferences: Preferences) -> None:
    """Keep what an annotator has chosen."""
    settings.put(project.db, _key(annotator), asdict(preferences))


def _key(annotator: str) -> str:
    return f"preferences of {annotator}"
