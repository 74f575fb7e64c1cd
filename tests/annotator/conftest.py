"""Tests of what is computed do not wait for the disk; those of crashes do, as the program does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlite_utils import Database

from annotator import project


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.path.name == "test_crash.py":
        return
    for name in ("create_database", "open_database"):
        monkeypatch.setattr(project, name, _hasty(getattr(project, name)))


def _hasty(opening: Callable[[Path], Database]) -> Callable[[Path], Database]:
    def open_hastily(folder: Path) -> Database:
        db = opening(folder)
        db.execute("PRAGMA synchronous = OFF")
        return db

    return open_hastily
