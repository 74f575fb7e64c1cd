"""The strip of the tour: on which pages it stands, how it ends, how it begins again."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import parse_codebook
from annotator.exchange.imports import add_utterances
from annotator.labeling import onboarding
from annotator.labeling.session import Answer, answer, next_question, undo
from annotator.loop import run_round
from annotator.project import Project
from store import settings
from store.utterances import NewUtterance
from tests.fake import FakeClassifier
from tests.pages.test_pages import page, shown


@pytest.fixture
def trained(project: Project) -> Project:
    """Everything has been done but looking at what came of it."""
    for number in range(30):
        question = next_question(project, "anna")
        assert question
        answer(project, question, "anna", Answer("label", number % 3 + 1))
    undo(project, "anna")
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    return project


def step(app: AppTest) -> str:
    """Return which step the page shows."""
    said = shown(app)
    return said[said.index("Step ") :][:11] if "Step " in said else ""


def test_each_answer_leads_on(project: Project) -> None:
    app = page()
    assert step(app) == "Step 1 of 6"
    app.button(key="label-1").click().run()
    assert step(app) == "Step 2 of 6"
    app.button(key="undo").click().run()
    assert step(app) == "Step 3 of 6"
    assert step(page()) == "Step 3 of 6", "a reload loses nothing"


def test_other_pages_say_where_to_go(project: Project) -> None:
    for name in ("rounds", "insights", "export"):
        app = page(name)
        assert step(app) == "Step 1 of 6"
        assert [link.proto.label for link in app.get("page_link")] == ["Go there"]


@pytest.mark.parametrize("name", ["insights", "export"])
def test_it_ends_with_a_good_word_where_the_round_is_looked_at(trained: Project, name: str) -> None:
    assert step(page("rounds")) == "Step 6 of 6"
    app = page(name)
    assert "Well done" in shown(app)
    assert "Well done" in shown(app.run()), "it stands as long as the page does"
    assert "Well done" not in shown(page(name))
    assert step(page("rounds")) == ""


def test_dismissed_it_is_gone_from_every_page_and_asks_the_database_no_more(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page()
    app.button(key="end-tour").click().run()
    assert step(app) == ""
    assert step(page("rounds")) == ""
    monkeypatch.setattr(onboarding, "next_step", lambda *_: pytest.fail("it was asked again"))
    app.button(key="label-1").click().run()
    assert not app.exception


def test_it_begins_again_from_how_one_likes_to_work(project: Project) -> None:
    onboarding.end(project, "anna")
    app = page()
    app.button(key="preferences").click().run()
    app.button(key="tour-again").click().run()
    assert step(app) == "Step 1 of 6"


def test_a_project_of_ones_own_has_none(workspace: Path) -> None:
    with create_project(workspace / "own", parse_codebook({"labels": [{"name": "yes"}, {"name": "no"}]})) as project:
        add_utterances(project, [NewUtterance("a", "one"), NewUtterance("b", "two")])
        settings.put(project.db, "config", {"retrain_every": 0})
    app = page()
    assert step(app) == ""
    app.button(key="preferences").click().run()
    assert not [button for button in app.button if button.key == "tour-again"]
