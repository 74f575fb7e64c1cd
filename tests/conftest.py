"""What tests share: an empty project's database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from sqlite_utils import Database

from store.database import create_database

# The same examples every time: a change is judged by what it changes. `--hypothesis-profile=explore` draws new ones.
# No deadline: a busy machine is no fault of the code.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile("same")
LONGEST = ("test_journeys.py", "test_access.py", "test_room.py", "test_examples.py", "test_scoring.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process has it left when the other is done."""
    items.sort(key=lambda item: ("browser" not in item.path.parts, item.path.name not in LONGEST))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """Return the database of a new project in `tmp_path / "project"`."""
    with closing(create_database(tmp_path / "project")) as database:
        yield database
