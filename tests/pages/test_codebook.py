"""The codebook page: every change is shown with its effect, then applied for everybody, and can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import parse_codebook
from annotator.exchange.imports import add_utterances
from annotator.labeling.session import Answer, answer, next_question
from annotator.project import Project
from store import annotations, labels
from store.utterances import NewUtterance
from tests.pages.test_pages import page, shown


def answered(project: Project, count: int = 6) -> None:
    for number in range(count):
        answer(project, next_question(project, "ben"), "ben", Answer("label", 1 + number % 3))


def chosen(label: int, act: str = "Change") -> AppTest:
    app = page("codebook")
    app.button(key=f"choose-{label}").click().run()
    if act != "Change":
        app.segmented_control(key=f"act-{label}").set_value(act).run()
    assert not app.exception, app.exception
    return app


def submit(app: AppTest) -> AppTest:
    """Press the button of the one form or act that is open."""
    button = next(b for b in app.button if b.label == "Preview the change" and in_label(b))
    button.click().run()
    assert not app.exception, app.exception
    return app


def in_label(button) -> bool:
    return str(button.proto.form_id) not in ("instruction", "add", "new-group")


def said(app: AppTest) -> str:
    return shown(app)


def test_the_labels_stand_there_with_key_definition_and_answers(project: Project) -> None:
    answered(project)
    text = shown(page("codebook"))
    assert "2 answers" in text
    for label in codebook_of(project).labels:
        assert label.name in text
        assert f"<kbd>{label.key}</kbd>" in text


def test_a_change_is_shown_with_what_it_touches_before_it_is_made(project: Project) -> None:
    answered(project)
    app = chosen(1)
    next(t for t in app.text_input if t.label == "Name").set_value("towards change")
    submit(app)
    assert "2 answers by 1 person were given with the old text" in said(app)
    assert codebook_of(project).names[0] == "change"
    app.button(key="do-it").click().run()
    assert codebook_of(project).names[0] == "towards change"
    assert "name “change” → “towards change”" in said(app)
    assert "anna" in said(app)


def test_what_is_not_wanted_after_all_is_left(project: Project) -> None:
    app = submit(chosen(1, "Retire"))
    app.button(key="leave-it").click().run()
    assert len(codebook_of(project).labels) == 3
    assert [event.author for event in labels.events(project.db)] == ["", "", ""]


def test_a_split_leads_to_the_worklist_and_can_be_taken_back(project: Project) -> None:
    answered(project)
    before = annotations.answers(project.db)
    app = chosen(1, "Split")
    next(t for t in app.text_area if t.label.startswith("New labels")).set_value(
        "7:30 wish: Wants it.\nplan: Does it: now."
    )
    submit(app)
    app.button(key="do-it").click().run()
    assert codebook_of(project).names[:2] == ("7:30 wish", "plan")
    assert codebook_of(project).labels[1].definition == "Does it: now."
    assert "2 utterances** need review" in said(app)
    app.button(key="undo-4").click().run()
    assert annotations.answers(project.db) == before
    assert "need review" not in said(app)


def test_merging_moving_and_using_again(project: Project) -> None:
    answered(project)
    app = submit(chosen(1, "Merge"))
    assert "count as the other label. Nobody needs to answer again" in said(app)
    app.button(key="do-it").click().run()
    assert codebook_of(project).ids == (2, 3)
    app.button(key="restore-1").click().run()
    app.button(key="do-it").click().run()
    assert codebook_of(project).ids == (1, 2, 3)
    app = chosen(1, "Move")
    app.number_input(key="place-1").set_value(3).run()
    submit(app)
    app.button(key="do-it").click().run()
    assert codebook_of(project).ids == (2, 3, 1)


def test_a_label_is_added_and_what_none_fitted_is_looked_at_again(project: Project) -> None:
    answer(project, next_question(project, "ben"), "ben", Answer("none_fits"))
    app = page("codebook")
    app.text_input[0].set_value("ambivalent")
    next(b for b in app.button if b.proto.form_id == "add").click().run()
    assert "1 utterance where no label fitted should be reviewed" in said(app)
    app.button(key="do-it").click().run()
    assert codebook_of(project).names[3] == "ambivalent"
    assert "1 utterance** needs review" in said(app)


def test_the_instruction_changes_and_the_old_one_can_be_read(project: Project) -> None:
    old = codebook_of(project).instruction
    app = page("codebook")
    next(t for t in app.text_area if t.label == "Instruction").set_value("Decide.")
    next(b for b in app.button if b.proto.form_id == "instruction").click().run()
    app.button(key="do-it").click().run()
    assert codebook_of(project).instruction == "Decide."
    assert old in said(app), "the version before is at hand"


def test_what_cannot_be_is_refused_with_a_hint_and_changes_nothing(project: Project) -> None:
    app = chosen(1)
    next(t for t in app.text_input if t.label == "Name").set_value("neutral")
    submit(app)
    assert "have the same label words" in app.error[0].value
    assert labels.version(project.db) == 3


def test_somebody_else_came_first(project: Project) -> None:
    from annotator.codebook import changes

    app = submit(chosen(1, "Retire"))
    changes.make(project, changes.propose(project, changes.instruct(project, "Decide.")), "ben")
    app.button(key="do-it").click().run()
    assert "Somebody else has changed it" in app.error[0].value
    assert len(codebook_of(project).labels) == 3


def test_a_name_is_never_rendered(project: Project) -> None:
    from annotator.codebook import changes

    change = changes.revise(project, 1, {"name": "<b>x</b>", "definition": "<script>1</script>"})
    changes.make(project, changes.propose(project, change), "<i>eve</i>")
    text = shown(page("codebook"))
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "<script>" not in text
    assert "<i>eve" not in text


@pytest.fixture
def tree(workspace: Path) -> Iterator[Project]:
    content = {
        "labels": [
            {"name": "Money", "labels": [{"name": "refund"}, {"name": "charge"}]},
            {"name": "Delivery", "labels": [{"name": "late"}, {"name": "damaged"}]},
            {"name": "other"},
        ]
    }
    with create_project(workspace / "client-talk", parse_codebook(content)) as project:
        project.config = replace(project.config, retrain_every=0)
        yield project


def paths(project: Project) -> list[str]:
    book = codebook_of(project)
    return [book.path(label.id) for label in book.labels]


def act_on(project: Project, name: str, act: str) -> tuple[AppTest, int]:
    (node,) = (one.id for one in codebook_of(project).nodes if one.name == name)
    return chosen(node, act), node


def apply(app: AppTest, key: str) -> None:
    app.button(key=key).click().run()
    assert not app.exception, app.exception
    app.button(key="do-it").click().run()
    assert not app.exception, app.exception


def test_a_label_is_moved_into_a_group(tree: Project) -> None:
    app, node = act_on(tree, "other", "Move")
    assert app.selectbox(key=f"group-{node}-{labels.version(tree.db)}").options == ["(no group)", "Money", "Delivery"]
    app.selectbox(key=f"group-{node}-{labels.version(tree.db)}").select_index(1).run()
    apply(app, "move")
    assert paths(tree) == ["Money / refund", "Money / charge", "Money / other", "Delivery / late", "Delivery / damaged"]


def test_labels_are_put_into_a_new_group(tree: Project) -> None:
    app = page("codebook")
    app.text_input(key="group-name").set_value("Complaints")
    app.multiselect(key="group-members").set_value([codebook_of(tree).id_of(name) for name in ("damaged", "other")])
    next(b for b in app.button if b.proto.form_id == "new-group").click().run()
    assert "The model reads the new tree from the next round on" in said(app)
    app.button(key="do-it").click().run()
    assert paths(tree)[2:] == ["Delivery / late", "Delivery / Complaints / damaged", "Delivery / Complaints / other"]


def test_a_group_is_renamed_merged_and_dissolved(tree: Project) -> None:
    app, _ = act_on(tree, "Money", "Change")
    assert not [area for area in app.text_area if area.label.startswith("Examples")], "a group is no answer"
    next(t for t in app.text_input if t.label == "Name").set_value("Payments")
    submit(app).button(key="do-it").click().run()
    app, node = act_on(tree, "Payments", "Merge")
    assert app.selectbox(key=f"into-{node}").options == ["Delivery"]
    apply(app, "merge")
    assert {path.split(" / ")[0] for path in paths(tree)} == {"Delivery", "other"}
    apply(act_on(tree, "Delivery", "Dissolve")[0], "retire")
    assert sorted(paths(tree)) == ["charge", "damaged", "late", "other", "refund"]


def test_the_answers_of_a_group_are_counted_with_it(tree: Project) -> None:
    add_utterances(tree, [NewUtterance(str(n), f"text {n}") for n in range(3)])
    for name in ("refund", "charge", "late"):
        answer(tree, next_question(tree, "ben"), "ben", Answer("label", codebook_of(tree).id_of(name)))
    assert "group, 2 answers" in said(page("codebook"))


def test_a_new_label_goes_into_the_chosen_group(tree: Project) -> None:
    app = page("codebook")
    app.text_input(key="new-label").set_value("lost")
    app.selectbox(key=f"new-in-{labels.version(tree.db)}").select_index(2)
    next(b for b in app.button if b.proto.form_id == "add").click().run()
    app.button(key="do-it").click().run()
    assert "Delivery / lost" in paths(tree)
