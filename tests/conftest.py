"""What tests share: an empty project's database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from sqlite_utils import Database

from store.database import create_database

settings.register_profile("patient", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process has it left when the other is done."""
    items.sort(key=lambda item: "browser" not in item.path.parts)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """Return the database of a new project in `tmp_path / "project"`."""
    with closing(create_database(tmp_path / "project")) as database:
        yield database
