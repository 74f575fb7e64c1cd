"""Every selector that the app's script and style sheet rely on finds something in this version of Streamlit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from annotator.codebook.definition import create_project
from annotator.codebook.draft import parse_codebook
from annotator.exchange.imports import add_utterances
from annotator.pages.components.browser import SELECTORS
from annotator.project import Project
from store import annotations, utterances
from store.annotations import NewAnnotation
from store.utterances import NewUtterance
from tests.browser.conftest import Visit, click

pytestmark = pytest.mark.slow


def label(visit: Visit, talk: Project) -> None:
    visit.open(project=talk.folder.name)
    visit.utterance()


def keys(visit: Visit, talk: Project) -> None:
    label(visit, talk)
    click(visit.page.locator(".st-key-keys button"))


def review(visit: Visit, talk: Project) -> None:
    disputed, *_ = utterances.ids_in(talk.db, "pool")
    for who, said in (("ben", 1), ("cleo", 2)):
        annotations.record(talk.db, NewAnnotation(disputed, who, "label", said, "random", 1))
    visit.open("review", project=talk.folder.name)


def search(visit: Visit, talk: Project) -> None:
    visit.open("search", project=talk.folder.name)


def codebook(visit: Visit, talk: Project) -> None:
    visit.open("codebook", project=talk.folder.name)


def data(visit: Visit, talk: Project) -> None:
    visit.open("data", project=talk.folder.name)
    click(visit.page.get_by_text("Start a new project"))


def large_codebook(visit: Visit, talk: Project) -> None:
    folder = talk.folder.with_name(f"{talk.folder.name}-large")
    with create_project(folder, parse_codebook({"labels": [{"name": f"intent {n}"} for n in range(77)]})) as project:
        project.config = replace(project.config, retrain_every=0)  # no round that outlives the test
        add_utterances(project, [NewUtterance(str(n), f"utterance {n}") for n in range(5)])
    visit.open(project=folder.name)


def groups(visit: Visit, talk: Project) -> None:
    folder = talk.folder.with_name(f"{talk.folder.name}-groups")
    content = {"labels": [{"name": "economy", "labels": [{"name": "growth"}, {"name": "taxes"}]}, {"name": "other"}]}
    with create_project(folder, parse_codebook(content)) as project:
        project.config = replace(project.config, retrain_every=0)
        add_utterances(project, [NewUtterance("1", "We will lower taxes.")])
    visit.open(project=folder.name)


PLACES: dict[str, Callable[[Visit, Project], None]] = {
    place.__name__.replace("_", " "): place
    for place in (label, keys, review, search, codebook, data, large_codebook, groups)
}


@pytest.mark.parametrize("place", PLACES)
def test_every_selector_in_use_finds_something(visit: Visit, talk: Project, place: str) -> None:
    PLACES[place](visit, talk)
    wanted = [selector for selector, where in SELECTORS.items() if where == place]
    assert wanted
    for selector in wanted:
        found = visit.page.locator(selector.replace("${answers()[key]}", "skip"))
        expect(found.first, selector).to_be_attached(timeout=30_000)


def test_every_place_is_known() -> None:
    assert set(SELECTORS.values()) == set(PLACES)
