"""The label page in real tabs and beside a real other program: no key answers twice, and none is lost unsaid."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from annotator.labeling import onboarding
from annotator.project import Project
from store import annotations
from tests.annotator.scenes import another_writes
from tests.browser.conftest import A_LOOK, SECOND, Visit, click
from tests.browser.test_room import given

pytestmark = pytest.mark.slow
# For a moment both utterances are in the page: the framework removes the former one last.
ANOTHER_ALONE = """before => {
    const shown = [...document.querySelectorAll(".utterance")];
    return shown.length === 1 && shown[0].innerText !== before;
}"""


def test_a_key_in_a_second_tab_does_not_overwrite_the_answer_given_in_the_first(
    visit: Visit, other: Visit, talk: Project
) -> None:
    onboarding.end(talk, "anna")
    for one in (visit, other):
        one.open(project=talk.folder.name)
    assert visit.utterance() == other.utterance()
    comment = other.page.locator(".st-key-comment input")
    comment.fill("typed in vain")
    comment.press("Enter")
    visit.press("1")
    other.page.wait_for_timeout(A_LOOK)
    other.page.keyboard.press("2")
    expect(other.page.get_by_text("You already answered this utterance in another window as “change”")).to_be_visible()
    expect(other.page.get_by_text("Your comment was not stored: “typed in vain”")).to_be_visible()
    assert given(talk) == [("label", 1, 0, "")]
    assert other.utterance() == visit.utterance()
    other.press("3")
    assert given(talk) == [("label", 1, 0, ""), ("label", 3, 0, "")]


def test_undo_brings_back_comment_and_mark_by_key(visit: Visit, talk: Project) -> None:
    visit.open(project=talk.folder.name)
    visit.utterance()
    page = visit.page
    page.keyboard.press("q")
    expect(page.locator(".st-key-unsure input")).to_be_checked()
    page.keyboard.press("m")
    expect(page.locator(".st-key-comment input")).to_be_focused()
    page.keyboard.type("because")
    page.keyboard.press("Enter")
    visit.press("2")
    expect(page.locator(".st-key-comment input")).to_have_value("")
    visit.press("u")
    expect(page.locator(".st-key-comment input")).to_have_value("because")
    expect(page.locator(".st-key-unsure input")).to_be_checked()
    visit.press("3")
    assert given(talk) == [("label", 3, 1, "because")]


def test_an_answer_given_while_another_program_writes_is_kept_and_stored_by_itself(visit: Visit, talk: Project) -> None:
    visit.open(project=talk.folder.name)
    before, page = visit.utterance(), visit.page
    waits = page.get_by_text("Your answer “neutral” is kept and will be saved as soon as possible")
    with another_writes(talk.folder):
        page.wait_for_timeout(300)
        page.keyboard.press("2")
        expect(waits).to_be_visible()
        page.wait_for_timeout(4 * SECOND)  # a key counts again, and several tries have failed
        page.keyboard.press("1")
        expect(page.get_by_test_id("stToast")).to_contain_text("Key ignored")
        expect(waits).to_be_visible()
        assert page.locator(".utterance").inner_text() == before
        assert given(talk) == []
    page.wait_for_function(ANOTHER_ALONE, arg=before)
    expect(waits).to_have_count(0)
    assert given(talk) == [("label", 2, 0, "")]
    visit.press("1")
    assert [label for _, label, *_ in given(talk)] == [2, 1]
    assert len(annotations.answers(talk.db)) == talk.db["annotation"].count == 2


def test_a_page_opened_while_another_program_writes_appears_by_itself(visit: Visit, talk: Project) -> None:
    with another_writes(talk.folder):
        visit.open(project=talk.folder.name)
        expect(visit.page.get_by_text("This page appears as soon as it can be read")).to_be_visible()
        visit.page.wait_for_timeout(2 * SECOND)
    visit.utterance()
    visit.press("1")
    assert given(talk) == [("label", 1, 0, "")]


def test_who_waits_for_others_goes_on_by_himself_when_something_is_free(
    visit: Visit, other: Visit, talk: Project
) -> None:
    talk.db.execute("UPDATE utterance SET slice = 'context' WHERE id NOT IN (SELECT utterance_id FROM queue LIMIT 2)")
    talk.db.execute("DELETE FROM queue WHERE utterance_id IN (SELECT id FROM utterance WHERE slice = 'context')")
    other.open(project=talk.folder.name, annotator="ben")
    other.utterance()
    visit.open(project=talk.folder.name)
    expect(visit.page.get_by_text("Nothing to label right now: 2 utterances are reserved for others.")).to_be_visible()
    other.press("s")
    assert visit.utterance()
    visit.page.wait_for_timeout(300)
    visit.page.keyboard.press("s")
    expect(visit.page.get_by_text("1 utterance that you skipped has no answer yet.")).to_be_visible()
    click(visit.page.get_by_role("button", name="Return to the skipped utterances"))
    visit.utterance()
