"""The label page as an instrument: keys, windows, hostile and unusual texts, narrow screens. No round runs here."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, TimeoutError, expect

from annotator.codebook.definition import create_project
from annotator.codebook.draft import parse_codebook
from annotator.exchange.imports import add_utterances
from annotator.labeling import onboarding
from annotator.project import Project
from store import annotations, queue
from store.utterances import NewUtterance
from tests.browser.conftest import A_LOOK, SECOND, Visit, click

pytestmark = pytest.mark.slow

HOSTILE = '<img src=x onerror="document.title=1"> **bold** <b>b</b> [link](http://example.org) $x^2$ :smile:'
UNUSUAL = {
    "hostile": HOSTILE,
    "several-lines": "First line.\n\n  Third, indented.",
    "right-to-left": "אני לא בטוח שאני רוצה לשנות את זה.",
    "emoji": "Well 👩‍👩‍👧‍👦 … 🤷🏽‍♀️ fine 🙂",
    "endless-word": "a" * 600,
    "very-long": "I have thought about it for a long time. " * 400,
}


def labeling(visit: Visit, project: Project) -> Page:
    visit.open(project=project.folder.name)
    visit.utterance()
    return visit.page


def given(project: Project) -> list[tuple[str, int | None, int, str]]:
    return [(row.kind, row.label_id, row.unsure, row.comment) for row in annotations.answers(project.db)]


def ask(project: Project, texts: dict[str, str]) -> None:
    """Put these texts into the queue in place of all others."""
    ids = add_utterances(project, [NewUtterance(name, text) for name, text in texts.items()])
    queue.replace(project.db, None, [queue.QueueEntry(i, "random", None, 1.0, len(ids)) for i in ids])


def test_undo_goes_back_over_a_reload_and_over_labels_skips_and_none_fits(visit: Visit, talk: Project) -> None:
    page, seen = labeling(visit, talk), []
    for key in ("1", "s", "n", "2"):
        seen.append(visit.utterance())
        visit.press(key)
    page.reload()
    visit.utterance()
    for text in reversed(seen):
        visit.press("u")
        assert visit.utterance() == text
    assert given(talk) == []


def test_a_message_leaves_the_page_as_it_looks(visit: Visit, talk: Project) -> None:
    page = labeling(visit, talk)
    text = page.locator(".utterance")
    large = text.evaluate("element => getComputedStyle(element).fontSize")
    assert large != page.locator(".turn").first.evaluate("element => getComputedStyle(element).fontSize")
    page.wait_for_timeout(300)
    page.keyboard.press("u")
    expect(page.get_by_test_id("stToast")).to_contain_text("no answer to undo")
    page.wait_for_timeout(500)
    expect(text).to_have_css("font-size", large)


@pytest.mark.parametrize("visit", [390, 1280], indirect=True)
def test_nothing_empty_stands_above_the_utterance(visit: Visit, talk: Project) -> None:
    onboarding.end(talk, "anna")  # its strip would be there
    page = labeling(visit, talk)
    margin = page.locator(".stMainBlockContainer").evaluate("block => parseFloat(getComputedStyle(block).paddingTop)")
    progress, panel = (page.locator(place).bounding_box() for place in (".status", ".reading"))
    assert progress
    assert panel
    assert progress["y"] == pytest.approx(margin, abs=1), "only the margin of the page"
    assert panel["y"] - progress["y"] - progress["height"] == pytest.approx(16, abs=1), "only the gap between elements"


def test_comment_and_unsure_by_key(visit: Visit, talk: Project) -> None:
    page = labeling(visit, talk)
    page.keyboard.press("q")
    expect(page.locator(".st-key-unsure input")).to_be_checked()
    page.keyboard.press("m")
    page.keyboard.type("12? so-so, nsu")
    page.keyboard.press("Enter")
    assert given(talk) == [], "in a text field letters are letters"
    visit.press("2")
    assert given(talk) == [("label", 2, 1, "12? so-so, nsu")]
    expect(page.locator(".st-key-comment input")).to_have_value("")
    expect(page.locator(".st-key-unsure input")).not_to_be_checked()


def test_a_key_pressed_before_its_place_is_drawn_is_obeyed_for_the_same_utterance_only(
    visit: Visit, talk: Project
) -> None:
    page = labeling(visit, talk)
    tick, place = page.locator(".st-key-unsure input"), page.locator(".st-key-unsure").element_handle()
    assert place
    hide = "element => element.classList.remove('st-key-unsure')"  # as if it were not there yet
    draw = "element => { element.classList.add('st-key-unsure'); element.append(document.createComment('')) }"
    place.evaluate(hide)
    page.keyboard.press("q")
    place.evaluate(draw)
    expect(tick).to_be_checked()
    page.keyboard.press("q")
    expect(tick).not_to_be_checked()
    place.evaluate(hide)
    page.keyboard.press("q")
    before = visit.utterance()
    click(page.locator(".st-key-label-1 button"))
    expect(page.locator(".utterance")).not_to_have_text(before)
    place.evaluate(draw)
    page.wait_for_timeout(500)
    expect(tick).not_to_be_checked()


def test_a_label_key_pressed_before_its_button_stands_answers_as_soon_as_it_does(visit: Visit, talk: Project) -> None:
    page = labeling(visit, talk)
    before, place = visit.utterance(), page.locator(".st-key-label-2").element_handle()
    assert place
    page.wait_for_timeout(300)  # until a key counts
    place.evaluate("element => element.classList.remove('st-key-label-2')")  # as if it were not there yet
    page.keyboard.press("2")
    page.wait_for_timeout(300)
    assert given(talk) == []
    place.evaluate("element => { element.classList.add('st-key-label-2'); element.append(document.createComment('')) }")
    expect(page.locator(".utterance")).not_to_have_text(before)
    assert given(talk) == [("label", 2, 0, "")]


def test_a_question_mark_lists_the_keys_and_nothing_is_answered_behind_the_list(visit: Visit, talk: Project) -> None:
    page = labeling(visit, talk)
    page.keyboard.press("?")
    window = page.get_by_role("dialog")
    expect(window).to_contain_text("none of the labels fits")
    page.keyboard.press("1")
    page.wait_for_timeout(500)
    page.keyboard.press("Escape")
    expect(window).to_have_count(0)
    assert given(talk) == []
    visit.press("1")
    assert given(talk) == [("label", 1, 0, "")]


def test_the_whole_conversation_is_a_key_away_with_the_turn_marked(visit: Visit, talk: Project) -> None:
    page = labeling(visit, talk)
    asked = visit.utterance()
    page.keyboard.press("t")
    expect(page.locator(".transcript .here")).to_have_text(asked)
    assert page.locator(".transcript .turn").count() > 4


def test_how_one_likes_to_work_is_chosen_in_a_window_and_kept_over_a_reload(visit: Visit, talk: Project) -> None:
    page = labeling(visit, talk)
    while not page.locator(".reading .turn").count():  # the first turn of a conversation has none before it
        visit.press("s")
    click(page.get_by_role("button", name="Preferences"))
    page.get_by_label("Turns shown before the utterance").fill("0")
    page.keyboard.press("Tab")
    page.wait_for_timeout(500)
    page.keyboard.press("Escape")
    expect(page.locator(".reading .turn")).to_have_count(0)
    page.reload()
    visit.utterance()
    expect(page.locator(".reading .turn")).to_have_count(0)


def test_a_key_held_down_or_pressed_twice_answers_only_what_was_seen(visit: Visit, talk: Project) -> None:
    page = labeling(visit, talk)

    def hold() -> None:
        for _ in range(20):
            page.keyboard.down("1")  # as a held key does
        page.keyboard.up("1")

    def press_twice() -> None:
        page.keyboard.press("2")
        page.keyboard.press("2")

    for answer in (hold, press_twice, page.locator(".st-key-label-3 button").dblclick):
        before = visit.utterance()
        page.wait_for_timeout(A_LOOK)
        answer()
        expect(page.locator(".utterance")).not_to_have_text(before)
    page.wait_for_timeout(1 * SECOND)
    assert [label for _, label, _, _ in given(talk)] == [1, 2, 3]


def test_any_label_of_a_long_codebook_is_found_by_typing(visit: Visit, folder: Path) -> None:
    draft = parse_codebook({"labels": [{"name": f"intent {n}"} for n in range(77)]})
    with create_project(folder, draft) as project:
        project.config = replace(project.config, retrain_every=0)
        add_utterances(project, [NewUtterance(str(n), f"utterance {n}") for n in range(10)])
        page = labeling(visit, project)
        before = visit.utterance()
        page.keyboard.press("/")
        page.keyboard.type("intent 63")
        page.keyboard.press("Enter")
        expect(page.locator(".utterance")).not_to_have_text(before)
        assert given(project) == [("label", 64, 0, "")]


def test_a_long_name_of_a_label_is_shown_whole(visit: Visit, folder: Path) -> None:
    name = "balance not updated after cheque or cash deposit"
    with create_project(folder, parse_codebook({"labels": [{"name": name}, {"name": "other"}]})) as project:
        project.config = replace(project.config, retrain_every=0)
        add_utterances(project, [NewUtterance("1", "Where is my money?")])
        button = labeling(visit, project).locator(".st-key-label-1 button").first
        cut = "one => one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1"
        assert not button.evaluate(f"button => [button, ...button.querySelectorAll('div, p')].some({cut})")


def test_a_text_fades_where_there_is_more_to_read_and_nowhere_else(visit: Visit, talk: Project) -> None:
    ask(talk, {"very-long": UNUSUAL["very-long"]})
    page = labeling(visit, talk)
    place = page.locator("div.reading")
    expect(place).to_have_attribute("data-below", "")
    assert place.get_attribute("data-above") is None
    place.evaluate("place => place.scrollTop = place.scrollHeight")
    expect(place).to_have_attribute("data-above", "")
    expect(place).not_to_have_attribute("data-below", "")


@pytest.mark.parametrize("visit", [390, 1280], indirect=True)
def test_texts_of_every_kind_are_shown_as_they_are_and_move_nothing(visit: Visit, talk: Project) -> None:
    ask(talk, UNUSUAL)
    page, places = labeling(visit, talk), set()
    for text in UNUSUAL.values():
        shown = page.locator(".utterance")
        assert " ".join(visit.utterance().split()) == " ".join(text.split())
        assert page.locator(".reading :is(img, b, a, em, strong, code)").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]
        places.add(page.locator(".st-key-label-1 button").bounding_box()["y"])  # type: ignore[index]
        top = page.locator(".reading").bounding_box()["y"]  # type: ignore[index]
        assert shown.bounding_box()["y"] >= top - 1, "also of a long text the beginning is in sight"  # type: ignore[index]
        faded = page.locator(".reading").evaluate("place => getComputedStyle(place).maskImage") != "none"
        assert faded == page.locator(".reading").evaluate("place => place.scrollHeight > place.clientHeight + 1")
        if text is not list(UNUSUAL.values())[-1]:
            visit.press("1")
    assert len(places) == 1, "the labels stay where they are"
    assert page.title() != "1"


@pytest.mark.parametrize("visit", [390, 1280], indirect=True)
def test_the_tour_moves_no_label_from_step_to_step(visit: Visit, talk: Project) -> None:
    page, places = labeling(visit, talk), []
    for key in ("1", "u", "2", "3", "1"):
        places.append(page.locator(".st-key-label-1 button").bounding_box()["y"])  # type: ignore[index]
        visit.press(key)
    expect(page.locator(".tour")).to_contain_text("Step 3 of 6")
    assert len(set(places)) == 1
    click(page.get_by_role("button", name="End the tour"))
    expect(page.locator(".tour")).to_have_count(0)


def test_what_a_search_found_is_answered_at_once_and_taken_back_at_once(visit: Visit, talk: Project) -> None:
    visit.open("search", project=talk.folder.name)
    page = visit.page
    page.get_by_label("Words").fill("really")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="utterances found")).to_be_visible()
    click(page.get_by_text("at once"))
    expect(page.get_by_label("Answer", exact=True)).to_be_visible()
    for _ in range(8):  # a list that opens before the page has come to rest closes again
        click(page.get_by_label("Answer", exact=True))
        with suppress(TimeoutError):
            page.get_by_role("option", name="neutral").click(timeout=3 * SECOND)
            break
    expect(page.get_by_text("get this answer.")).to_be_visible()
    click(page.get_by_role("button", name="with “neutral”"))
    back = page.get_by_role("button", name="Undo")
    expect(back).to_be_enabled()
    assert {row.strategy for row in annotations.answers(talk.db)} == {"bulk"}
    click(back)
    expect(page.get_by_role("button", name="Undone")).to_be_disabled()
    assert given(talk) == []


@pytest.mark.parametrize("visit", [390], indirect=True)
def test_the_search_page_needs_no_scrolling_sideways_on_a_telephone(visit: Visit, talk: Project) -> None:
    ask(talk, UNUSUAL)
    visit.open("search", project=talk.folder.name)
    page = visit.page
    click(page.get_by_role("button", name="Search"))
    expect(page.get_by_role("heading", name="utterances found")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
