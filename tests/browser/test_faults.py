"""Broken projects and failing pages in a real browser: the rest goes on, and nothing asks another site for help."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from annotator.exchange.samples import create_sample
from tests.browser.conftest import A_LOOK, App, Visit, click, serve
from tests.disks import filled, small_disk

PAGES = ("", "search", "review", "codebook", "rounds", "insights", "data", "export")


def run(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "project.db")) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.fixture(scope="module")
def app(context: BrowserContext, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A workspace whose first project is empty, with one that nobody foresaw and one that is sound."""
    folder = tmp_path_factory.mktemp("faults")
    with create_sample("client_talk", folder / "sound") as project:
        project.config = replace(project.config, retrain_every=0)  # no round that outlives the test
    (folder / "a-broken").mkdir()
    (folder / "a-broken" / "project.db").touch()
    shutil.copytree(folder / "sound", folder / "unforeseen")
    run(folder / "unforeseen", "UPDATE label SET examples = '7'")
    running = serve(folder)
    yield running
    running.kill()


def chosen_project(page: Page) -> Locator:
    return page.get_by_test_id("stSidebar").get_by_role("combobox")


def no_box_of_streamlit(page: Page) -> None:
    assert page.get_by_test_id("stException").count() == 0
    for site in ("google", "chatgpt", "openai"):
        assert page.locator(f"a[href*='{site}']").count() == 0


def test_a_broken_project_that_sorts_first_is_listed_and_the_sound_one_is_opened(visit: Visit) -> None:
    visit.page.goto(visit.app.url)
    assert visit.utterance()
    click(chosen_project(visit.page))
    expect(visit.page.get_by_role("option", name="a-broken (cannot be opened)")).to_be_visible()
    assert visit.foreign == []


def test_every_page_of_a_broken_project_says_what_to_do_beside_the_sidebar(visit: Visit) -> None:
    for name in PAGES:
        visit.open(name, "a-broken")
        expect(visit.page.get_by_test_id("stMain").get_by_text("project.db is empty")).to_be_visible()
        expect(visit.page.get_by_test_id("stMain").get_by_text("from a backup")).to_be_visible()
        no_box_of_streamlit(visit.page)
    expect(chosen_project(visit.page)).to_have_value("a-broken (cannot be opened)")
    visit.open("data", "a-broken")
    expect(visit.page.get_by_text("Start a new project")).to_be_visible()


def test_what_nobody_foresaw_is_told_in_words_of_ours_and_written_down(visit: Visit) -> None:
    visit.open("codebook", "unforeseen")
    expect(visit.page.get_by_text("An unexpected error occurred")).to_be_visible()
    expect(chosen_project(visit.page)).to_have_value("unforeseen")
    no_box_of_streamlit(visit.page)
    log = visit.app.projects / "annotator.log"
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    visit.open("", "sound")
    assert visit.utterance()


def test_no_page_asks_another_site_for_anything_or_breaks_its_own_rules(visit: Visit) -> None:
    refused: list[str] = []
    visit.page.on("console", lambda said: refused.append(said.text) if "Content Security Policy" in said.text else None)
    for name in PAGES:
        visit.open(name, "sound")
        visit.page.wait_for_load_state("networkidle")
    assert (visit.foreign, refused) == ([], [])
    assert not visit.app.attempts.exists()


def test_no_other_site_can_show_the_app_in_a_frame(visit: Visit, tmp_path: Path) -> None:
    site = tmp_path / "site.html"
    site.write_text(f"<iframe src='{visit.app.url}'></iframe>")
    visit.page.goto(site.as_uri())
    inside = visit.page.frames[1]
    assert "Annotator" not in inside.content()
    assert not inside.url.startswith(visit.app.url)


def test_an_answer_that_a_full_disk_refuses_stays_on_screen_with_a_word(
    context: BrowserContext, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        with create_sample("client_talk", disk / "sound") as project:
            project.config = replace(project.config, retrain_every=0)
        running = serve(disk)
        try:
            page = context.new_page()
            visit = Visit(page, running)
            visit.open("", "sound")
            visit.press("1")
            run(disk / "sound", "PRAGMA wal_checkpoint(TRUNCATE)")  # else the journal has a little room
            with filled(disk):
                said = page.get_by_text("is full: the last step was not saved")
                before = visit.utterance()
                page.wait_for_timeout(A_LOOK)
                page.keyboard.press("1")
                expect(said.first).to_be_visible()
                assert visit.utterance() == before
                no_box_of_streamlit(page)
            page.wait_for_timeout(3000)  # so long a key that has brought nothing is not taken again
            visit.press("1")
            expect(said).to_have_count(0)
            page.close()
        finally:
            running.kill()
