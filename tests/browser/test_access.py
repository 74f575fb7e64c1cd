"""Everybody can use every page: axe-core finds nothing to object to, in light and dark, wide and narrow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, expect

from annotator.codebook.definition import codebook_of
from annotator.exchange.samples import create_sample
from annotator.labeling.session import Answer, answer, next_question
from annotator.loop import run_round
from annotator.project import Project
from tests.browser.conftest import App, Visit, click
from tests.fake import FakeClassifier

pytestmark = pytest.mark.slow

PAGES = ("", "rounds", "insights", "data", "export", "codebook", "review", "search")
WIDE, NARROW = (1280, 900), (390, 844)
WIDE_LIGHT, WIDE_DARK, NARROW_DARK = (WIDE, "light"), (WIDE, "dark"), (NARROW, "dark")


@pytest.fixture(scope="module")
def projects(app: App) -> App:
    """One project that nobody has worked in, and one in full use."""
    for name in ("fresh", "used"):
        with create_sample("client_talk", app.projects / name) as project:
            project.config = replace(project.config, retrain_every=0)
    work(app.projects / "used")
    return app


def work(folder: Path) -> None:
    """Answer, two people at odds among them, with rounds in between, and begin another batch."""
    with Project.open(folder) as project:
        ids = codebook_of(project).ids
        for target in (0, 60, 120):
            while project.db["annotation"].count < target and (question := next_question(project, "anna")):
                said = ids[len(question.utterance.text) % len(ids)]
                answer(project, question, "anna", Answer("label", said, milliseconds=3000))
            run_round(project, FakeClassifier(codebook_of(project).task()), project.config)


@pytest.fixture(params=[WIDE_DARK], ids=["wide-dark"])
def visit(context: BrowserContext, projects: App, request: pytest.FixtureRequest) -> Iterator[Visit]:
    (width, height), scheme = request.param
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme)
    yield Visit(page, projects)
    page.close()


def objections(visit: Visit) -> list[str]:
    """Return what axe-core objects to once the page has faded in: contrast is measured on what is seen."""
    visit.rest()
    page = visit.page
    if folder := os.environ.get("ANNOTATOR_SCREENSHOTS"):  # to be looked at
        page.screenshot(path=Path(folder) / f"{len(list(Path(folder).iterdir())):03}.png", full_page=True)
    found = Axe().run(page).response["violations"]
    return [f"{one['impact']}: {one['id']}: {node['html']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize(
    ("visit", "project"), [(WIDE_LIGHT, "fresh"), (WIDE_LIGHT, "used"), (NARROW_DARK, "used")], indirect=["visit"]
)
def test_axe_objects_to_no_page(visit: Visit, project: str) -> None:
    found = {}
    for name in PAGES:
        visit.open(name, project=project)
        found[name] = objections(visit)
    assert found == {name: [] for name in PAGES}


@pytest.mark.parametrize("opens", ["Keys", "Conversation", "Preferences"])
def test_axe_objects_to_no_window_of_the_label_page(visit: Visit, opens: str) -> None:
    visit.open(project="used")
    visit.utterance()
    click(visit.page.get_by_role("button", name=opens))
    expect(visit.page.get_by_role("dialog")).to_contain_text(opens)
    assert objections(visit) == []
