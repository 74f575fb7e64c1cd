"""What an expert does in the app, in a real browser, over a real server, with the starter backbone."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, expect

from annotator.exchange.samples import create_sample
from annotator.project import Project
from store import annotations, jobs, rounds
from tests.browser.conftest import SECOND, Visit, answers, click, free_port, rest

pytestmark = pytest.mark.slow
MINUTE = 60 * SECOND


def test_label_retrain_label_on_and_export_with_the_network_cut(visit: Visit, speeches: Project) -> None:
    page = visit.page
    speeches.config = replace(speeches.config, recipe=replace(speeches.config.recipe, epochs=1))
    visit.open(project=speeches.folder.name)
    # The first look, before any label: utterances are there at once, suggestions once the model has read them.
    expect(page.locator(".utterance")).to_be_visible()
    expect(page.get_by_test_id("stProgress")).to_be_visible()
    expect(page.get_by_test_id("stProgress")).to_have_count(0, timeout=5 * MINUTE)

    shown = 0
    for number in range(20):
        shown += page.locator(".likely").count() > 0
        visit.press("1" if number % 2 else "2")
    assert shown > 5, "suggestions appear from round 0 on, save on audit utterances"

    click(page.get_by_role("link", name="Rounds"))
    click(page.get_by_role("button", name="Retrain now"))
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    click(page.get_by_role("link", name="Label"))
    expect(page.locator(".utterance")).to_be_visible()
    for _ in range(3):
        visit.press("1")
    assert jobs.active(speeches.db), "the three answers were given while the round was under way"

    click(page.get_by_role("link", name="Rounds"))
    expect(page.get_by_text(re.compile("Round 2 is in use"))).to_be_visible(timeout=8 * MINUTE)
    promoted = rounds.promoted(speeches.db)
    assert promoted
    assert promoted.number == 2, "the first answers train the quick classifier alone, then the model too"
    queued = {row["round_id"] for row in speeches.db.query("SELECT round_id FROM queue")}
    assert queued == {promoted.id}
    assert annotations.counts(speeches.db)["label"] == 23

    click(page.get_by_role("link", name="Export"))
    click(page.get_by_role("button", name="Create export"))
    with page.expect_download() as download:
        click(page.get_by_role("button", name="Download", exact=True))
    rows, card = unpacked(download.value.path().read_bytes())
    assert len(rows) == 23
    assert {row["annotator"] for row in rows} == {"anna"}
    assert {row["source"] for row in rows} == {"expert"}
    assert {row["strategy"] for row in rows} <= {"random", "typical", "margin_diverse", "audit"}
    assert all(row["at"] and row["pool_size"] and row["milliseconds"] for row in rows)
    assert all(row["suggested_label"] == "" for row in rows if row["slice"] == "audit")
    assert "| 2 |" in card

    assert visit.foreign == []
    assert not visit.app.attempts.exists(), visit.app.attempts.read_text()


def unpacked(archive: bytes) -> tuple[list[dict[str, str]], str]:
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        names = files.namelist()
        table = files.read(next(name for name in names if name.endswith(".csv"))).decode("utf-8-sig")
        card = files.read(next(name for name in names if name.endswith("README.md"))).decode()
    return list(csv.DictReader(io.StringIO(table))), card


def test_undo_a_reload_and_a_killed_server_lose_nothing(visit: Visit, folder: Path) -> None:
    with create_sample("client_talk", folder) as project:  # closed: the killed server alone had it open
        project.config = replace(project.config, retrain_every=0)
    page = visit.page
    visit.open(project=folder.name)
    expect(page.locator(".utterance")).to_be_visible()
    first = visit.utterance()
    visit.press("1")
    visit.press("2")
    page.reload()
    expect(page.locator(".utterance")).to_be_visible()
    visit.press("u")
    visit.press("u")
    assert visit.utterance() == first, "undo goes back any number of steps, across reloads"
    visit.press("3")
    visit.press("3")

    visit.app.restart()
    visit.open(project=folder.name)
    expect(page.get_by_text("All: 2 of 600")).to_be_visible()
    assert visit.utterance() != first


def test_a_newcomer_is_led_by_keyboard_to_a_trained_model(visit: Visit, speeches: Project) -> None:
    quick = replace(speeches.config.recipe, probe_weight=1.0)  # the quick classifier alone
    speeches.config = replace(speeches.config, retrain_every=0, recipe=quick)
    page, strip = visit.page, visit.page.locator(".tour")
    onward = page.get_by_role("link", name="Go there")
    visit.open(project=speeches.folder.name)
    expect(strip).to_contain_text("Step 1 of 6")
    visit.press("1")
    expect(strip).to_contain_text("Step 2 of 6")
    visit.press("u")
    places = set()
    for number in range(25):
        places.add(page.locator(".st-key-label-1 button").bounding_box()["y"])  # type: ignore[index]
        if "Step 3 of 6" not in strip.inner_text():
            break
        visit.press("1" if number % 2 else "2")
    expect(strip).to_contain_text("Step 4 of 6")
    assert len(places) == 1, "the strip keeps its height"
    by_keyboard(onward)
    by_keyboard(page.get_by_role("button", name="Retrain now"))
    expect(strip).to_contain_text("Step 5 of 6")
    by_keyboard(onward)
    visit.press("1")
    expect(strip).to_contain_text("Step 6 of 6", timeout=4 * MINUTE)
    by_keyboard(onward)
    expect(strip).to_contain_text("you have trained a model")
    expect(page.get_by_text(re.compile("Accuracy: about"))).to_be_visible()
    visit.open(project=speeches.folder.name)
    visit.utterance()
    expect(strip).to_have_count(0)


def by_keyboard(target: Locator) -> None:
    """Tab to a link or a button, and press Enter there."""
    expect(target).to_be_visible()
    for _ in range(60):
        target.page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            target.page.keyboard.press("Enter")
            return
    raise AssertionError("it cannot be reached by Tab")


@pytest.mark.parametrize("visit", [390], indirect=True)
def test_on_a_telephone_everything_can_be_reached_without_scrolling_sideways(visit: Visit, talk: Project) -> None:
    for name in ("", "rounds", "insights", "data", "export"):
        visit.open(name, project=talk.folder.name)
        visit.rest()
        width = visit.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, name or "label"


def test_the_app_opens_without_a_terminal_to_ask_on_and_with_nothing_over_it(
    tmp_path: Path, context: BrowserContext
) -> None:
    """The framework asks for an e-mail address at a first start, and offers developers a window, unless told not to."""
    (tmp_path / ".claude").mkdir()  # by this it takes somebody for a developer
    port = free_port()
    command = [sys.executable, "-m", "annotator.cli.main", "serve", "--browser", "--port", str(port)]
    surroundings = {"HOME": str(tmp_path), "PATH": str(Path(sys.executable).parent)}  # no desktop to open a window on
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--projects", str(tmp_path)], env=surroundings, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        assert answers(port), (tmp_path / "log").read_text()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}")
        expect(page.get_by_test_id("stSidebar")).to_be_attached()
        rest(page, 2 * SECOND)
        assert page.get_by_text("agents").count() == 0
        page.close()
        assert str(port) in (tmp_path / "log").read_text(), "it says where the app opens"
    finally:
        process.kill()
        process.wait()
