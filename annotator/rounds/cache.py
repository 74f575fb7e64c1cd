"""What was found out last, kept until what it rests on changes: a page need not wait for it again."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from annotator.codebook.definition import codebook_of
from annotator.project import Project
from store import rounds

Found = TypeVar("Found")
FEW = 10  # answers that change little


class Cache(Generic[Found]):
    """One finding, for the project that was looked at last. Sessions may ask at once: each gets what it asked for."""

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Found] | None = None

    def knows(self, rests_on: Hashable) -> bool:
        """Say whether there is something found for these grounds."""
        kept = self._kept
        return kept is not None and kept[0] == rests_on

    def of(self, rests_on: Hashable, find: Callable[[], Found]) -> Found:
        """Return what was found for the same grounds, or find it."""
        kept = self._kept
        if kept is None or kept[0] != rests_on:
            kept = self._kept = (rests_on, find())
        return kept[1]


def grounds(project: Project, *answers: int) -> Hashable:
    """Say what a finding about a project rests on: its round, its labels, and numbers of answers, by tens."""
    tens = tuple(count // FEW for count in answers)
    return str(project.folder.resolve()), rounds.promoted_id(project.db), codebook_of(project).ids, tens
