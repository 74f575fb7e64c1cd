"""The search page: what was found, one answer for all of it after a preview, taken back with a button."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from annotator.project import Project
from annotator.search import Search, find
from store import annotations, utterances
from store.utterances import NewUtterance
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
    assert "cannot be read" in app.error[0].value


def test_all_that_was_found_is_answered_and_taken_back(project: Project) -> None:
    app = searched("really")
    app.selectbox(key="bulk-label").select(1).run()
    pool = set(find(project, Search("really"))).intersection(utterances.ids_in(project.db, "pool"))
    assert f"{len(pool)} get this answer." in shown(app)
    assert "measure the model" in shown(app)
    app.button(key="bulk-do").click().run()
    assert not app.exception
    assert {row["utterance_id"] for row in annotations.answers(project.db)} == pool
    assert "Answered at once" in headings(app)
    app.button(key="take-back-1").click().run()
    assert annotations.answers(project.db) == []
    assert app.button(key="take-back-1").disabled


def test_around_an_utterance_stands_its_conversation_and_what_is_like_it(project: Project) -> None:
    app = searched("really")
    found = find(project, Search("really"))[0]
    app.button(key=f"around-{found}").click().run()
    assert not app.exception
    assert 'class="turn here"' in shown(app)
    assert "Most like it" in [caption.value for caption in app.caption]
    app.button(key=f"around-{found}").click().run()
    assert 'class="turn here"' not in shown(app)


def test_what_was_found_is_shown_as_it_is(project: Project) -> None:
    project.add([NewUtterance("x", "needle <b>bold</b> **stars**")])
    assert "&lt;b&gt;bold&lt;/b&gt; **stars**" in shown(searched("needle"))


def test_before_a_search_nothing_is_listed(project: Project) -> None:
    assert headings(page("search")) == []
