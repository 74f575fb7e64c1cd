"""What tests share: an empty project's database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from store.database import create_database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """Return the database of a new project in `tmp_path / "project"`."""
    with closing(create_database(tmp_path / "project")) as database:
        yield database
