"""A workspace with one sample project that starts no round by itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from annotator.exchange.samples import create_sample
from annotator.project import Project
from tests.annotator.scenes import copied


@pytest.fixture(autouse=True)
def main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the main module back afterwards: the framework sets its script there, where new processes look for theirs."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANNOTATOR_PROJECTS", str(tmp_path))
    monkeypatch.setattr("getpass.getuser", lambda: "anna")
    return tmp_path


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "client-talk"
    create_sample("client_talk", folder).close()
    return folder


@pytest.fixture
def project(workspace: Path, sample: Path) -> Iterator[Project]:
    with copied(sample, workspace / "client-talk") as project:
        project.config = replace(project.config, retrain_every=0, withheld_share=0.0)
        yield project
