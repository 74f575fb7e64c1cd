"""Cache a result until what it depends on changes, so that a page need not compute it again."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from annotator.codebook.definition import codebook_of
from annotator.project import Project
from store import rounds

Value = TypeVar("Value")
FEW = 10  # answers that change a result little


class Cache(Generic[Value]):
    """The latest result and its key. Sessions may use it at the same time: each gets the result for its own key."""

    def __init__(self) -> None:
        self._entry: tuple[Hashable, Value] | None = None

    def has(self, key: Hashable) -> bool:
        """Return whether the result for this key is cached."""
        entry = self._entry
        return entry is not None and entry[0] == key

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the cached result for this key, or compute and cache it."""
        entry = self._entry
        if entry is None or entry[0] != key:
            entry = self._entry = (key, compute())
        return entry[1]


def cache_key(project: Project, *answers: int) -> Hashable:
    """Return a key that changes with the project, its round in use, its labels, and the counts in steps of ten."""
    tens = tuple(count // FEW for count in answers)
    return str(project.folder.resolve()), rounds.promoted_id(project.db), codebook_of(project).ids, tens
