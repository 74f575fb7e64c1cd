"""What follows an answer is the same on every page; a page that is only looked at writes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from annotator.codebook.definition import codebook_of
from annotator.labeling import after_answer
from annotator.loop import run_round
from annotator.project import Project
from store import database, jobs, utterances
from tests.annotator.scenes import another_writes
from tests.fake import FakeClassifier
from tests.pages.test_pages import page
from tests.pages.test_review import opened, say
from tests.pages.test_search import searched

WRITES = ("BEGIN IMMEDIATE", "INSERT", "UPDATE", "DELETE", "REPLACE")


def on_label(project: Project) -> tuple[AppTest, str, str]:
    return page(), "label-1", "undo"


def on_review(project: Project) -> tuple[AppTest, str, str]:
    one = utterances.ids_in(project.db, "pool")[0]
    say(project, one, "ben", 1)
    say(project, one, "cleo", 2)
    return opened("disagreements"), "adjudicate-2", "undo-adjudicated"


def on_search(project: Project) -> tuple[AppTest, str, str]:
    app = searched("really")
    app.selectbox(key="bulk-label").select(1).run()
    return app, "bulk-do", "take-back-1"


@pytest.mark.parametrize("open_page", [on_label, on_review, on_search], ids=["label", "review", "search"])
def test_a_due_round_starts_after_an_answer_and_after_its_undo_on_every_page(
    project: Project, monkeypatch: pytest.MonkeyPatch, open_page: Callable[[Project], tuple[AppTest, str, str]]
) -> None:
    started: list[str] = []
    monkeypatch.setattr(after_answer, "start_round", lambda _, reason: started.append(reason))
    project.config = replace(project.config, retrain_every=1)
    app, act, take_back = open_page(project)
    for button in (act, take_back):
        before = len(started)
        app.button(key=button).click().run()
        assert not app.exception, app.exception
        assert len(started) == before + 1, button


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what every connection is asked from now on."""
    found: list[str] = []
    connect = database.connect

    def traced(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = connect(*arguments, **options)  # type: ignore[arg-type]
        connection.set_trace_callback(found.append)
        return connection

    monkeypatch.setattr(database, "connect", traced)
    return found


@pytest.mark.parametrize("name", ["label", "review", "search", "codebook", "insights", "rounds", "data", "export"])
def test_a_page_that_is_run_again_without_an_answer_takes_no_write_lock(
    project: Project, statements: list[str], name: str
) -> None:
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    job = jobs.begin(project.db, "test", 0)  # so that its status is polled, too
    jobs.sign(project.db, job)
    app = page(name)  # leases what it shows
    statements.clear()
    app.run()
    assert not app.exception, app.exception
    assert [one for one in statements if one.startswith("SELECT")]
    assert [one for one in statements if one.lstrip().upper().startswith(WRITES)] == []
    with another_writes(project.folder):
        app.run()
        assert not app.exception, app.exception
        assert not app.error
