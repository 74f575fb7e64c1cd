"""Everyday tasks apart from labeling, each from the first click to the result in the project."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from annotator.codebook.definition import codebook_of
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.consensus import consensus_labels
from store import annotations, utterances
from store.annotations import NewAnnotation
from tests.annotator.scenes import CONFIG, classifier_of, label_pool, new_project, truth
from tests.browser.conftest import SECOND, Visit, click

pytestmark = pytest.mark.slow

FILE = b"id,text\n1,We will build it.\n2,It rained.\n3,They built it last year.\n4,We shall mend the road.\n"


def say(project: Project, utterance: int, who: str, label: int) -> None:
    annotations.record(project.db, NewAnnotation(utterance, who, "label", label, "random", 1))


def test_a_file_of_ones_own_becomes_a_project_with_labels_typed_in(visit: Visit, talk: Project) -> None:
    visit.open("data", project=talk.folder.name)
    page = visit.page
    click(page.get_by_text("Start a new project"))
    new = page.get_by_test_id("stExpander").filter(has_text="Start a new project")
    new.locator("input[type=file]").first.set_input_files(
        {"name": "speeches.csv", "mimeType": "text/csv", "buffer": FILE}
    )
    expect(new.get_by_text("Preview", exact=True)).to_be_visible()
    create = page.get_by_role("button", name="Create project")
    click(create)
    expect(page.get_by_text("Enter at least two labels.")).to_be_visible()
    new.get_by_role("textbox", name="Labels, one per line").press_sequentially("promise: what will be done\nother")
    click(create)
    expect(page.get_by_text("4 utterances")).to_be_visible()
    with Project.open(visit.app.projects / "speeches") as made:
        made.config = replace(made.config, retrain_every=0)  # the starter backbone has other tests
    click(page.get_by_role("link", name="Label", exact=True))
    visit.utterance()
    expect(page.locator(".st-key-label-2")).to_contain_text("other")
    with Project.open(visit.app.projects / "speeches") as made:
        assert codebook_of(made).names == ("promise", "other")
        assert codebook_of(made).labels[0].definition == "what will be done"


def test_two_labels_are_merged_and_the_change_is_taken_back(visit: Visit, talk: Project) -> None:
    first, second, *_ = utterances.ids_in(talk.db, "pool")
    say(talk, first, "anna", 1)
    say(talk, second, "anna", 2)
    visit.open("codebook", project=talk.folder.name)
    page = visit.page
    click(page.locator(".st-key-choose-2").get_by_role("button"))  # hidden there is another, for narrow screens
    click(page.get_by_role("radio", name="Merge"))
    expect(page.get_by_text("Count answers “neutral” as")).to_be_visible()  # the last form's button has this name, too
    click(page.get_by_role("button", name="Preview the change"))
    click(page.get_by_role("button", name="Apply"))
    expect(page.get_by_text("counts as “change”")).to_be_attached()
    assert consensus_labels(annotations.answers(talk.db)) == {first: 1, second: 1}
    click(page.get_by_role("button", name="Undo"))
    expect(page.get_by_role("button", name="Redo")).to_be_visible()
    assert consensus_labels(annotations.answers(talk.db)) == {first: 1, second: 2}


def test_a_disagreement_is_adjudicated_by_one_key(visit: Visit, talk: Project) -> None:
    disputed, *_ = utterances.ids_in(talk.db, "pool")
    say(talk, disputed, "ben", 1)
    say(talk, disputed, "cleo", 2)
    visit.open("review", project=talk.folder.name)
    page = visit.page
    expect(page.get_by_text("People disagree · 1")).to_be_visible()
    expect(page.locator(".answers")).to_contain_text("cleo")
    visit.look(disputed)
    page.keyboard.press("2")
    expect(page.get_by_text("People disagree · 0")).to_be_visible()
    assert consensus_labels(annotations.answers(talk.db)) == {disputed: 2}


def test_a_key_held_down_or_pressed_twice_adjudicates_only_what_was_seen(visit: Visit, talk: Project) -> None:
    first, second, third, fourth = utterances.ids_in(talk.db, "pool")[:4]
    for utterance in (first, second, third, fourth):
        say(talk, utterance, "ben", 1)
        say(talk, utterance, "cleo", 2)
    visit.open("review", project=talk.folder.name)
    page = visit.page
    visit.look(first)
    for _ in range(20):
        page.keyboard.down("1")  # as a held key does
    page.keyboard.up("1")
    visit.look(second)
    page.keyboard.press("2")
    page.keyboard.press("2")
    visit.look(third)
    page.locator(".st-key-adjudicate-3 button").first.dblclick()
    visit.look(fourth)
    page.wait_for_timeout(1 * SECOND)
    expect(page.get_by_text("People disagree · 1")).to_be_visible()
    assert talk.db["annotation"].count == 2 * 4 + 3, "nothing unseen is settled, and nothing twice"


def test_suggestions_are_auto_accepted_and_taken_back(visit: Visit, folder: Path) -> None:
    with new_project(folder, 400, replace(CONFIG, retrain_every=0, precision=0.9)) as project:
        measured(project)
        visit.open("insights", project=folder.name)
        page = visit.page
        click(page.get_by_role("button", name="Accept"))
        back = page.get_by_role("button", name="Undo")
        expect(back).to_be_visible()
        accepted = project.db["standing"].count
        assert accepted > 100
        click(back)
        expect(back).to_have_count(0)
        assert project.db["standing"].count == 0


def measured(project: Project) -> None:
    """Make a round that is nearly always right, with every audit answer to prove it."""
    label_pool(project, 60)
    codebook, answered = codebook_of(project), annotations.answered_ids(project.db)
    for row in utterances.read(project.db, utterances.ids_in(project.db, "audit")):
        if row.id not in answered:
            say(project, row.id, "ada", codebook.id_of(truth(row.text)) or 0)
    run_round(project, classifier_of(project), project.config)


def test_two_people_at_work_are_asked_different_utterances(visit: Visit, other: Visit, talk: Project) -> None:
    asked: dict[str, list[str]] = {"anna": [], "ben": []}
    visit.open(project=talk.folder.name, annotator="anna")
    other.open(project=talk.folder.name, annotator="ben")
    for _ in range(3):
        for who, where in (("anna", visit), ("ben", other)):
            asked[who].append(where.utterance())
            where.press("1")
    assert not set(asked["anna"]) & set(asked["ben"])
    said = [row.annotator for row in annotations.answers(talk.db)]
    assert (said.count("anna"), said.count("ben")) == (3, 3)
