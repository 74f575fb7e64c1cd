"""The search page: what was found, one answer for all of it after a preview, taken back with a button."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from streamlit.testing.v1 import AppTest

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import parse_codebook
from annotator.exchange.imports import add_utterances
from annotator.labeling.search import Search, find
from annotator.labeling.session import Answer, answer, next_question
from annotator.loop import run_round
from annotator.project import Project
from store import annotations, rounds, utterances
from store.annotations import Kind, NewAnnotation
from store.utterances import NewUtterance
from tests.fake import FakeClassifier
from tests.pages.test_pages import page, shown


def searched(words: str = "", pattern: str = "") -> AppTest:
    app = page("search")
    app.text_input(key="search-words").set_value(words)
    app.text_input(key="search-pattern").set_value(pattern)
    next(button for button in app.button if button.label == "Search").click().run()
    assert not app.exception
    return app


def headings(app: AppTest) -> list[str]:
    return [heading.value for heading in app.header]


def test_it_says_how_many_were_found_and_shows_them(project: Project) -> None:
    count = len(find(project, Search("really")))
    assert count > 2
    app = searched("really")
    assert headings(app) == [f"{count} utterances found"]
    assert "not answered yet" in shown(app)


def test_a_wrong_pattern_is_told_on_the_page(project: Project) -> None:
    app = searched(pattern="(")
    assert "is invalid" in app.error[0].value


def test_all_that_was_found_is_answered_and_taken_back(project: Project) -> None:
    app = searched("really")
    app.selectbox(key="bulk-label").select(1).run()
    pool = set(find(project, Search("really"))).intersection(utterances.ids_in(project.db, "pool"))
    assert f"{len(pool)} get this answer." in shown(app)
    assert "belong to the audit sample" in shown(app)
    app.button(key="bulk-do").click().run()
    assert not app.exception
    assert {row.utterance_id for row in annotations.answers(project.db)} == pool
    assert "Bulk answers" in headings(app)
    app.button(key="take-back-1").click().run()
    assert annotations.answers(project.db) == []
    assert app.button(key="take-back-1").disabled


def test_around_an_utterance_stands_its_conversation_and_what_is_like_it(project: Project) -> None:
    app = searched("really")
    found = find(project, Search("really"))[0]
    app.button(key=f"around-{found}").click().run()
    assert not app.exception
    assert 'class="turn here"' in shown(app)
    assert "Most similar" in [caption.value for caption in app.caption]
    app.button(key=f"around-{found}").click().run()
    assert 'class="turn here"' not in shown(app)


def test_what_was_found_is_shown_as_it_is(project: Project) -> None:
    add_utterances(project, [NewUtterance("x", "needle <b>bold</b> **stars**")])
    assert "&lt;b&gt;bold&lt;/b&gt; **stars**" in shown(searched("needle"))


def test_before_a_search_nothing_is_listed(project: Project) -> None:
    assert headings(page("search")) == []


def chosen(app: AppTest, **choices: object) -> list[str]:
    """Search with these conditions; return the headings of the results."""
    for key, value in choices.items():
        app.selectbox(key=f"search-{key}").set_value(value)
    next(button for button in app.button if button.label == "Search").click().run()
    assert not app.exception
    return headings(app)


def answered(project: Project, count: int) -> list[int]:
    """Answer so many utterances of the pool; return them."""
    done: list[int] = []
    while len(done) < count:
        question = next_question(project, "anna")
        assert question
        answer(project, question, "anna", Answer("label", 1 + len(done) % 2))
        done += [] if question.is_audit else [question.utterance.id]
    return done


def test_after_rounds_a_search_finds_what_it_did_and_what_each_round_has_asked(project: Project) -> None:
    count = len(find(project, Search("really")))
    for _ in range(2):
        run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
        assert headings(searched("really")) == [f"{count} utterances found"]
        answered(project, 8)
        project.config = replace(project.config, minimum_labels=0)
    asked = Counter(row.round_id for row in annotations.answers(project.db))
    assert len(asked) == 2
    for row in rounds.history(project.db):
        heading = chosen(page("search"), round=row.id)
        assert heading == [f"{asked[row.id]} utterances found"], row.number


def test_labels_and_people_named_like_our_own_words_are_told_apart(workspace: Path) -> None:
    names = [{"name": name} for name in ("any", "none fits", "other")]
    with create_project(workspace / "client-talk", parse_codebook({"labels": names})) as project:
        project.config = replace(project.config, retrain_every=0)
        add_utterances(project, [NewUtterance(str(i), f"text {i}") for i in range(5)])
        for utterance, label, who in zip(range(1, 6), (1, 2, 3, None, None), ("anyone", *"abcd"), strict=True):
            kind: Kind = "label" if label else "none_fits"
            annotations.record(project.db, NewAnnotation(utterance, who, kind, label, "random", 1))
    one, two, all_ = ([f"{n} found"] for n in ("1 utterance", "2 utterances", "5 utterances"))
    assert [chosen(page("search"), label=value) for value in (-1, 1, 2, 3, 0)] == [all_, one, one, one, two]
    assert [chosen(page("search"), by=value) for value in ("", "anyone")] == [all_, one]


def test_a_label_named_like_our_own_answer_is_given_to_all_that_was_found(workspace: Path) -> None:
    names = [{"name": name} for name in ("none fits", "other")]
    with create_project(workspace / "client-talk", parse_codebook({"labels": names})) as project:
        project.config = replace(project.config, retrain_every=0)
        add_utterances(project, [NewUtterance(str(i), f"text {i}") for i in range(5)])
        for choice, kind in ((1, "label"), (0, "none_fits")):
            app = searched("text")
            app.checkbox(key="bulk-replace").check()
            app.selectbox(key="bulk-label").set_value(choice).run()
            app.button(key="bulk-do").click().run()
            assert {row.kind for row in annotations.answers(project.db)} == {kind}
