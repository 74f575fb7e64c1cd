"""The label page while something happens elsewhere: in another tab, on another screen, in another program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from annotator.codebook.definition import create_project
from annotator.codebook.draft import parse_codebook
from annotator.exchange.imports import add_utterances
from annotator.labeling import onboarding
from annotator.labeling.session import Answer, answer, next_question
from annotator.project import Project
from store import annotations, utterances
from store.utterances import NewUtterance
from tests.annotator.scenes import another_writes
from tests.pages.test_pages import page, shown
from tests.pages.test_review import say

NOT_SAVED = "Not saved yet: another program is writing to this project"


@pytest.fixture
def talk(project: Project) -> Project:
    onboarding.end(project, "anna")  # which would go on
    return project


def given(project: Project) -> list[tuple[str, int | None, int, str]]:
    return [(row.kind, row.label_id, row.unsure, row.comment) for row in annotations.answers(project.db)]


def fields(app: AppTest) -> tuple[bool, str]:
    return app.checkbox(key="unsure").value, str(app.text_input(key="comment").value)


def warned(app: AppTest) -> str:
    return "\n".join(one.value for one in app.warning)


def note(app: AppTest, comment: str) -> AppTest:
    app.checkbox(key="unsure").check()
    app.text_input(key="comment").set_value(comment)
    return app


# Another tab


def test_a_stale_tab_says_that_its_utterance_is_answered_and_goes_on(talk: Project) -> None:
    first, second = page(), page()
    first.button(key="label-1").click().run()
    note(second, "typed in vain").button(key="label-2").click().run()
    assert not second.exception
    assert "You already answered this utterance in another window as “change”" in second.error[0].value
    assert "Undo there to change it" in second.error[0].value
    assert "Your comment was not stored: “typed in vain”" in shown(second)
    assert given(talk) == [("label", 1, 0, "")]
    assert fields(second) == (False, "")
    second.button(key="label-3").click().run()
    assert [label for _, label, *_ in given(talk)] == [1, 3]
    assert not second.error


def test_a_comment_typed_for_what_another_has_answered_meanwhile_is_not_stored_with_the_next(talk: Project) -> None:
    app = page()
    say(talk, app.session_state["LabelState"].screen.question.utterance.id, "ben", 1)
    note(app, "about the first").run()
    assert "Your comment was not stored: “about the first”" in shown(app)
    assert fields(app) == (False, "")


# Undo


def test_undo_brings_back_comment_and_mark_and_answering_stores_them_again(talk: Project) -> None:
    app = page()
    note(app, "because").button(key="label-1").click().run()
    assert fields(app) == (False, "")
    app.button(key="label-2").click().run()
    app.button(key="undo").click().run()
    assert fields(app) == (False, "")
    app.button(key="undo").click().run()
    assert fields(app) == (True, "because")
    assert fields(page()) == (True, "because"), "also after a reload"
    app.button(key="label-3").click().run()
    assert given(talk) == [("label", 3, 1, "because")]
    assert fields(app) == (False, "")


# Nothing to ask


@pytest.fixture
def two(workspace: Path) -> Project:
    draft = parse_codebook({"labels": [{"name": "yes"}, {"name": "no"}]})
    project = create_project(workspace / "two", draft)
    project.config = replace(project.config, retrain_every=0)
    add_utterances(project, [NewUtterance("a", "one"), NewUtterance("b", "two")])
    return project


def told(app: AppTest) -> str:
    return "\n".join(one.value for one in app.info)


def test_after_skipping_all_the_page_offers_them_again(two: Project) -> None:
    app = page()
    app.button(key="skip").click().run()
    app.button(key="skip").click().run()
    assert "Every utterance has an answer" not in shown(app)
    assert "2 utterances that you skipped have no answer yet." in told(app)
    app.button(key="skipped").click().run()
    app.button(key="label-1").click().run()
    app.button(key="label-2").click().run()
    assert sorted(label for _, label, *_ in given(two)) == [1, 2]  # type: ignore[type-var]
    assert "Every utterance has an answer" in shown(app)


def test_while_others_are_at_what_is_left_the_page_says_so_and_goes_on_when_it_is_free(two: Project) -> None:
    question = next_question(two, "ben")  # which reserves both
    assert question
    app = page()
    assert "Every utterance has an answer" not in shown(app)
    assert "Nothing to label right now: 2 utterances are reserved for others." in told(app)
    answer(two, question, "ben", Answer("label", 1))
    assert "1 utterance is reserved for others" in told(app.run())
    two.db.execute("UPDATE queue SET leased_until = '2020-01-01T00:00:00.000+00:00'")
    app.run()
    app.button(key="label-2").click().run()
    assert "Every utterance has an answer" in shown(app)


# Another program is writing


def test_an_answer_is_kept_while_another_program_writes_and_stored_once_when_it_can_be(talk: Project) -> None:
    app = page()
    before = app.session_state["LabelState"].screen.question.utterance
    with another_writes(talk.folder):
        note(app, "because").button(key="label-1").click().run()
        assert not app.exception
        assert not app.error
        assert f"{NOT_SAVED}. Your answer “change” is kept" in warned(app)
        assert app.session_state["LabelState"].screen.question.utterance == before
        assert given(talk) == []
        assert fields(app) == (True, "because")
        app.button(key="label-2").click().run()
        assert "Key ignored" in app.toast[0].value
        assert f"{NOT_SAVED}. Your answer “change” is kept" in warned(app)
        app.text_input(key="comment").set_value("because of this").run()
    app.run()
    assert given(talk) == [("label", 1, 1, "because of this")]
    assert not app.warning
    assert app.session_state["LabelState"].screen.question.utterance != before
    assert fields(app) == (False, "")
    app.run()
    app.button(key="label-2").click().run()
    assert [label for _, label, *_ in given(talk)] == [1, 2]


def test_an_answer_that_waits_can_be_taken_back(talk: Project) -> None:
    app = page()
    with another_writes(talk.folder):
        app.button(key="label-1").click().run()
        app.button(key="undo").click().run()
        assert not app.warning
    app.run()
    assert given(talk) == []
    app.button(key="label-2").click().run()
    assert [label for _, label, *_ in given(talk)] == [2]


def test_an_answer_that_waits_is_refused_like_any_other_if_it_comes_too_late(talk: Project) -> None:
    app, other = page(), page()
    with another_writes(talk.folder):
        app.button(key="label-1").click().run()
    other.button(key="label-2").click().run()
    app.run()
    assert [label for _, label, *_ in given(talk)] == [2]
    assert "another window as “neutral”" in app.error[0].value


@pytest.mark.parametrize("name", ["search", "review", "codebook", "rounds", "insights", "data", "export"])
def test_every_page_opens_while_another_program_writes(talk: Project, name: str) -> None:
    answer(talk, next_question(talk, "anna"), "anna", Answer("label", 1))  # type: ignore[arg-type]
    with another_writes(talk.folder):
        assert not page(name).error


def test_the_label_page_opens_as_soon_as_it_can_where_nothing_is_on_screen_yet(talk: Project) -> None:
    with another_writes(talk.folder):
        app = page()
        assert "This page appears as soon as it can be read" in told(app)
        assert not app.error
    app.run()
    app.button(key="label-1").click().run()
    assert len(given(talk)) == 1


def test_the_label_page_stays_as_it_is_when_it_is_drawn_again_while_another_program_writes(talk: Project) -> None:
    app = page()
    before = shown(app)
    with another_writes(talk.folder):
        assert shown(app.run()) == before
        assert not app.error


def _with_what_waits(name: str) -> None:
    from importlib import import_module

    from annotator.pages.components import layout, pending

    with layout.errors_shown():
        pending.show()
        layout.show_last_error()
        import_module(f"annotator.pages.{name}").show()


def beside(name: str) -> AppTest:
    app = AppTest.from_function(_with_what_waits, args=(name,), default_timeout=60)
    app.session_state["annotator"] = "anna"
    app.session_state["project"] = "client-talk"
    return app.run()


def test_a_decision_waits_as_an_answer_does(talk: Project) -> None:
    first, second = utterances.ids_in(talk.db, "pool")[:2]
    for disputed in (first, second):
        say(talk, disputed, "ben", 1)
        say(talk, disputed, "cleo", 2)
    app = beside("review")
    with another_writes(talk.folder):
        app.button(key="adjudicate-2").click().run()
        assert not app.exception
        assert "Your answer “neutral” is kept" in warned(app)
    app.run()
    assert not app.warning
    assert annotations.adjudicated_ids(talk.db) == {first}
    app.button(key="adjudicate-1").click().run()
    assert annotations.adjudicated_ids(talk.db) == {first, second}


def test_one_answer_for_many_waits_as_an_answer_does(talk: Project) -> None:
    app = beside("search")
    app.text_input(key="search-words").set_value("really")
    next(button for button in app.button if button.label == "Search").click().run()
    app.selectbox(key="bulk-label").select(1).run()
    with another_writes(talk.folder):
        app.button(key="bulk-do").click().run()
        assert "Your answer “change” is kept" in warned(app)
        assert given(talk) == []
    app.run()
    count = len(given(talk))
    assert count > 1
    app.run()
    assert len(given(talk)) == count


@pytest.mark.parametrize(
    "press",
    [
        lambda app: app.button(key="retrain").click(),
        lambda app: next(button for button in app.button if button.label == "Save").click(),
    ],
)
def test_what_cannot_be_done_while_another_program_writes_says_so(
    talk: Project, press: Callable[[AppTest], AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.database.BUSY_SECONDS", 0.1)
    app = page("rounds")
    with another_writes(talk.folder):
        press(app).run()
        assert not app.exception
        assert "Another program is writing to this project" in app.error[0].value


def test_an_answer_that_waits_is_not_lost_when_another_answers_first_and_the_page_is_drawn_again(
    talk: Project,
) -> None:
    app = page()
    asked = app.session_state["LabelState"].screen.question.utterance.id
    with another_writes(talk.folder):
        note(app, "mine").button(key="label-1").click().run()
    say(talk, asked, "ben", 2)
    app.run()
    assert "“ben” has answered this utterance in the meantime" in app.error[0].value
    assert "Your comment was not stored: “mine”" in shown(app)
    assert given(talk) == [("label", 2, 0, "")]
    assert fields(app) == (False, "")
