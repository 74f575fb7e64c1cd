"""A small project to begin with. Tests do not wait for the disk; those of crashes do, as the program does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database

from annotator import project as projects
from annotator.codebook import definition
from annotator.loop import run_round
from annotator.project import Project
from tests.annotator.scenes import classifier_of, copied, label_pool, new_project, texts, truth, write_csv


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.path.name == "test_crash.py":
        return
    monkeypatch.setattr(projects, "open_database", _hasty(projects.open_database))
    monkeypatch.setattr(definition, "create_database", _hasty(definition.create_database))


def _hasty(opening: Callable[[Path], Database]) -> Callable[[Path], Database]:
    def open_hastily(folder: Path) -> Database:
        db = opening(folder)
        db.execute("PRAGMA synchronous = OFF")
        return db

    return open_hastily


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Sixty utterances that nobody has answered."""
    with new_project(tmp_path / "p") as made:
        yield made


@pytest.fixture(scope="module")
def rounds_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make projects with a round once a module, which holds longer than a lease of what has been asked."""
    folder = tmp_path_factory.mktemp("made")
    for name, count, answers in (("trained", 60, 9), ("taught", 90, 24)):
        with new_project(folder / name, count) as made:
            label_pool(made, answers)
            run_round(made, classifier_of(made), made.config)
    return folder


@pytest.fixture
def trained(rounds_made: Path, tmp_path: Path) -> Iterator[Project]:
    """Sixty utterances with nine answers that have been learned from."""
    with copied(rounds_made / "trained", tmp_path / "p") as made:
        yield made


@pytest.fixture
def taught(rounds_made: Path, tmp_path: Path) -> Iterator[Project]:
    """Ninety utterances, and a round that has learned from 24 answers: enough to suggest labels."""
    with copied(rounds_made / "taught", tmp_path / "p") as made:
        yield made


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    """A file of 120 labeled rows, a quarter of them for testing."""
    rows = [
        {"id": f"r{i}", "text": text, "label": truth(text), "split": "test" if i % 4 == 0 else "train"}
        for i, text in enumerate(texts(120))
    ]
    return write_csv(tmp_path / "labelled.csv", rows)
