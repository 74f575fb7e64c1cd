"""A tree of labels is labeled by keyboard alone, however fast somebody types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import parse_codebook
from annotator.exchange.imports import add_utterances
from annotator.project import Project
from store import annotations
from store.utterances import NewUtterance
from tests.browser.conftest import A_LOOK, Visit
from tests.browser.test_access import objections

pytestmark = pytest.mark.slow


@pytest.fixture
def tree(folder: Path) -> Iterator[Project]:
    content = {
        "labels": [
            {
                "name": "Money",
                "definition": "What is paid.",
                "labels": [
                    {"name": "Cards", "labels": [{"name": "lost card"}, {"name": "new card"}]},
                    {"name": "refund"},
                ],
            },
            {"name": "Delivery", "labels": [{"name": "late"}, {"name": "damaged"}]},
            {"name": "other"},
        ]
    }
    with create_project(folder, parse_codebook(content)) as project:
        project.config = replace(project.config, retrain_every=0)
        add_utterances(project, [NewUtterance(str(n), f"utterance {n}") for n in range(9)])
        yield project


def given(project: Project) -> list[str]:
    book = codebook_of(project)
    return [book.path(row.label_id) for row in annotations.answers(project.db) if row.label_id]


def opened(visit: Visit, tree: Project) -> Page:
    visit.open(project=tree.folder.name)
    visit.utterance()
    visit.page.wait_for_timeout(A_LOOK)
    return visit.page


def typed(visit: Visit, keys: str) -> None:
    """Type keys without a pause, and wait for the next utterance."""
    before = visit.utterance()
    visit.page.wait_for_timeout(A_LOOK)
    for key in keys:
        visit.page.keyboard.press(key)
    expect(visit.page.locator(".utterance")).not_to_have_text(before)


def test_digits_typed_at_once_open_groups_and_choose(visit: Visit, tree: Project) -> None:
    opened(visit, tree)
    for keys in ("112", "22", "3", "12"):
        typed(visit, keys)
    assert given(tree) == ["Money / Cards / new card", "Delivery / damaged", "other", "Money / refund"]


def test_backspace_and_escape_leave_a_group(visit: Visit, tree: Project) -> None:
    page = opened(visit, tree)
    page.keyboard.press("1")
    page.keyboard.press("1")
    expect(page.get_by_role("button", name="lost card")).to_be_visible()
    assert objections(visit) == []
    page.keyboard.press("Backspace")
    expect(page.get_by_role("button", name="refund")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Delivery")).to_be_visible()
    typed(visit, "21")
    assert given(tree) == ["Delivery / late"]


def test_a_label_is_found_by_typing(visit: Visit, tree: Project) -> None:
    page, before = opened(visit, tree), visit.utterance()
    page.keyboard.press("/")
    page.keyboard.type("Cards / lost")
    page.keyboard.press("Enter")
    expect(page.locator(".utterance")).not_to_have_text(before)
    assert given(tree) == ["Money / Cards / lost card"]
