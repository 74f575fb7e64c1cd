"""Labels in groups: a key opens a group, the likeliest labels come first, and a flat codebook is as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from annotator.codebook import changes
from annotator.codebook.definition import codebook_of
from annotator.labeling.session import next_question
from annotator.project import Project
from store import annotations, utterances
from store.annotations import NewAnnotation
from tests.annotator.scenes import change, half_answered
from tests.pages.test_pages import page, shown


@pytest.fixture
def tree(workspace: Path) -> Iterator[Project]:
    """Twelve labels, of which eleven are in two groups, and suggestions from a round before there were groups."""
    with half_answered(workspace / "client-talk", 12) as project:
        change(project, retrain_every=0)
        ids = codebook_of(project).ids
        for name, members in (("low", ids[:5]), ("high", ids[5:11])):
            proposal = changes.propose(project, changes.group(project, {"name": name}, members))
            changes.make(project, proposal, "ada")
        while (question := next_question(project, "anna")) and not question.suggestion:  # audit utterances have none
            annotations.record(project.db, NewAnnotation(question.utterance.id, "anna", "skip", None, "test", 1))
        yield project


def keys(app: AppTest) -> dict[str, str]:
    return dict(json.loads(unescape(shown(app).split('data-keys="')[1].split('"')[0])))


def buttons(app: AppTest, of: str) -> list[str]:
    return [button.key for button in app.button if (button.key or "").startswith(of)]


def group_id(project: Project, name: str) -> int:
    return next(group.id for group in codebook_of(project).groups if group.name == name)


def test_the_likeliest_labels_come_first_and_the_tree_is_one_key_away(tree: Project) -> None:
    app = page()
    assert set(buttons(app, "label-")) <= {f"label-{i}" for i in codebook_of(tree).ids}
    assert keys(app)["0"] == "group-tree"
    app.button(key="group-tree").click().run()
    low, high, other = group_id(tree, "low"), group_id(tree, "high"), codebook_of(tree).ids[-1]
    assert keys(app) == {
        "1": f"group-{low}", "2": f"group-{high}", codebook_of(tree).node(other).key: f"label-{other}",
        "n": "none-fits", "s": "skip", "backspace": "group-up", "escape": "group-up",
    }  # fmt: skip
    app.button(key="group-up").click().run()
    assert "group-tree" in keys(app).values()


def test_a_group_is_opened_then_a_label_chosen_and_the_next_utterance_begins_anew(tree: Project) -> None:
    app, asked = page(), next_question(tree, "anna").utterance.id
    high = group_id(tree, "high")
    app.button(key="group-tree").click().run()
    app.button(key=f"group-{high}").click().run()
    assert "high" in shown(app)
    assert buttons(app, "label-") == [f"label-{node.id}" for node in codebook_of(tree).held(high)]
    chosen = codebook_of(tree).held(high)[2]
    app.button(key=f"label-{chosen.id}").click().run()
    assert not app.exception
    given = [row for row in annotations.answers(tree.db) if row.utterance_id == asked]
    assert [(row.annotator, row.label_id) for row in given] == [("anna", chosen.id)]
    assert {"group-tree", f"group-{high}"} & set(keys(app).values()), "the list, or the top where nothing is suggested"


def test_a_group_is_as_likely_as_its_labels_together(tree: Project) -> None:
    app = page()
    likely = dict(next_question(tree, "anna").suggestion.probabilities)
    app.button(key="group-tree").click().run()
    for name in ("low", "high"):
        share = sum(likely[i] for i in codebook_of(tree).under(group_id(tree, name)))
        assert f"probability {share:.0%}" in shown(app)


def test_without_a_suggestion_the_top_of_the_tree_is_shown(tree: Project) -> None:
    change(tree, show_suggestions=False)
    app = page()
    assert buttons(app, "group-") == [f"group-{group.id}" for group in codebook_of(tree).groups]
    assert not {"backspace", "0"} & keys(app).keys()


def test_any_label_is_found_by_a_part_of_its_path(tree: Project) -> None:
    app, asked = page(), next_question(tree, "anna").utterance.id
    found = app.selectbox(key=f"search-{asked}").options
    assert found == [codebook_of(tree).path(i) for i in codebook_of(tree).ids]


def test_labels_to_adjudicate_have_a_key_each(tree: Project) -> None:
    disputed, ids = utterances.ids_in(tree.db, "pool")[0], codebook_of(tree).ids
    for who, label in (("ben", ids[0]), ("cleo", ids[5])):
        annotations.record(tree.db, NewAnnotation(disputed, who, "label", label, "test", 1))
    app = page("review")
    given = [button.proto.shortcut for button in app.button if (button.key or "").startswith("adjudicate-")]
    assert len(given) == len(set(given))


def test_the_top_is_shown_if_the_open_group_is_dissolved_meanwhile(tree: Project) -> None:
    app, high = page(), group_id(tree, "high")
    app.button(key="group-tree").click().run()
    app.button(key=f"group-{high}").click().run()
    changes.make(tree, changes.propose(tree, changes.dissolve(tree, high)), "ben")
    app.run()
    assert not app.exception
    assert buttons(app, "label-") == [f"label-{node.id}" for node in codebook_of(tree).held(None) if not node.is_group]
