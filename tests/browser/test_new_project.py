"""Whoever types a codebook quickly into the form of a new project finds every letter of it in the project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, expect

from annotator.codebook.definition import codebook_of
from annotator.project import Project
from tests.browser.conftest import A_LOOK, App, click, rest

pytestmark = pytest.mark.slow
TYPED = {f"label number {n}": f"the definition of the {n}th of them, in so many words" for n in range(1, 7)}
ROWS = "text,speaker,label\nI will,client,yes\nI did,client,no\nWell,agent,small talk\nGone,client,\n"


@pytest.fixture
def page(context: BrowserContext, app: App, tmp_path: Path) -> Iterator[Page]:
    path = tmp_path / "quick typing.csv"
    path.write_text(ROWS)
    page = context.new_page()
    page.set_viewport_size({"width": 1280, "height": 1600})
    page.goto(f"{app.url}/data")
    upload(page, path)
    expect(field(page)).to_be_visible()
    yield page
    page.close()


def upload(page: Page, file: Path | FilePayload) -> None:
    """Choose the file of a new project, in a form that is open only while there is no project."""
    new = page.get_by_test_id("stExpander").filter(has_text="Start a new project")
    expect(new).to_be_visible()
    rest(page, A_LOOK)
    if not new.get_by_text("From a file").is_visible():
        click(new.get_by_text("Start a new project"))
    new.locator("input[type=file]").first.set_input_files(file)


def field(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Labels, one per line")


def choose(page: Page, what: str, option: str) -> None:
    click(page.get_by_role("combobox", name=what))
    click(page.get_by_role("option", name=option, exact=True))
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)


def create(page: Page, name: str) -> None:
    page.get_by_role("textbox", name="Project name").fill(name)
    click(page.get_by_role("button", name="Create project"))
    expect(page.get_by_text("Added 4 utterances")).to_be_visible()


def test_no_letter_of_a_codebook_typed_quickly_is_lost(page: Page, app: App) -> None:
    choose(page, "Existing labels", "none")
    expect(field(page)).to_have_value("")
    click(field(page))
    for name, definition in TYPED.items():
        page.keyboard.type(f"{name}: {definition}\n")
    page.get_by_role("textbox", name="Project name").click()  # sends what was typed; the page is drawn anew
    field(page).click()
    page.keyboard.press("Control+End")
    page.keyboard.type("the last: typed while the page was drawn", delay=20)
    create(page, "typed quickly")
    with Project.open(app.projects / "typed-quickly") as project:
        labels = {label.name: label.definition for label in codebook_of(project).labels}
    assert labels == {**TYPED, "the last": "typed while the page was drawn"}


def test_what_was_typed_stays_whatever_column_of_labels_is_chosen(page: Page, app: App) -> None:
    expect(field(page)).to_have_value("no\nsmall talk\nyes")
    choose(page, "Existing labels", "none")
    expect(field(page)).to_have_value("")
    field(page).fill("mine: what I typed\nalso mine")
    choose(page, "Existing labels", "label")
    expect(page.get_by_role("button", name="Add 3 labels from the file")).to_be_visible()
    expect(field(page)).to_have_value("mine: what I typed\nalso mine")
    page.get_by_role("textbox", name="Speakers to label").fill("client")
    page.get_by_role("textbox", name="Speakers to label").press("Enter")
    click(page.get_by_role("button", name="Add 2 labels from the file"))
    expect(field(page)).to_have_value("mine: what I typed\nalso mine\nno\nyes")
    click(page.get_by_role("link", name="Export"))
    click(page.get_by_role("link", name="Data"))
    upload(page, {"name": "other.csv", "mimeType": "text/csv", "buffer": b"text\nWhat was it?\n"})
    expect(field(page)).to_have_value("mine: what I typed\nalso mine\nno\nyes")


def test_labels_of_rows_that_are_context_are_not_offered(page: Page, app: App) -> None:
    page.get_by_role("textbox", name="Speakers to label").fill("client")
    page.get_by_role("textbox", name="Speakers to label").press("Enter")
    expect(field(page)).to_have_value("no\nyes")
