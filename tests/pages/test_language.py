"""The app in German: what a page shows, and that nothing of it enters the rows."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from annotator import i18n
from annotator.codebook.definition import codebook_of
from annotator.exchange.export import ExportPlan, export_rows
from annotator.labeling.preferences import Preferences, choose, preferences
from annotator.loop import run_round
from annotator.project import Project
from store import annotations
from tests.fake import FakeClassifier
from tests.pages.test_pages import ROOT, _alone, shown


def in_german(name: str) -> AppTest:
    app = AppTest.from_function(_alone, args=(f"annotator.pages.{name}",), default_timeout=60)
    for key, value in {"annotator": "anna", "project": "client-talk", "language": "de"}.items():
        app.session_state[key] = value
    app.run()
    assert not app.exception, app.exception
    return app


def label_page() -> AppTest:
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60).run()
    assert not app.exception, app.exception
    return app


def test_an_annotator_who_has_chosen_german_reads_german(project: Project) -> None:
    choose(project, "anna", Preferences(language="de"))
    app = label_page()
    assert app.button(key="skip").label == "Überspringen"
    assert app.button(key="undo").label == "Zurücknehmen"
    assert app.text_input(key="annotator").label == "Ihr Name"
    assert "Dieser Stapel: 0 von" in shown(app)
    assert "gezogen" in shown(app)


def test_an_answer_is_the_same_row_in_either_language(project: Project) -> None:
    choose(project, "anna", Preferences(language="de"))
    app = label_page()
    app.text_input(key="comment").set_value("hm")
    app.button(key="none-fits").click().run()
    assert not app.exception
    assert app.button(key="skip").label == "Überspringen"  # a run of the fragment alone speaks German, too
    app.button(key="label-1").click().run()
    first, second = annotations.answers(project.db)
    assert (first.kind, first.comment, second.kind, second.label_id) == ("none_fits", "hm", "label", 1)
    assert {first.strategy, second.strategy} <= {"random", "audit", "typical"}
    with_german = list(export_rows(project, ExportPlan("csv")))
    choose(project, "anna", Preferences())
    assert with_german == list(export_rows(project, ExportPlan("csv")))


def test_others_go_on_in_their_own_language(project: Project) -> None:
    choose(project, "berta", Preferences(language="de"))
    assert label_page().button(key="skip").label == "Skip"


def test_a_language_that_is_not_there_is_english(project: Project) -> None:
    choose(project, "anna", Preferences(language="xx"))
    app = label_page()
    assert app.button(key="skip").label == "Skip"
    app.button(key="wishes").click().run()
    assert not app.exception


def test_the_language_is_chosen_in_the_window_and_kept(project: Project) -> None:
    app = label_page()
    app.button(key="wishes").click().run()
    app.selectbox(key="wish-language").set_value("de").run()
    assert not app.exception
    assert preferences(project, "anna").language == "de"
    assert label_page().button(key="skip").label == "Überspringen"


def test_without_a_choice_the_browser_decides(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(i18n, "best", lambda wished: wished or "de")  # as from a browser in German
    assert label_page().button(key="skip").label == "Überspringen"


def test_the_rounds_page_is_german_whatever_the_round_was_called(project: Project) -> None:
    app = in_german("rounds")
    assert app.title[0].value == "Runden"
    assert app.button(key="retrain").label == "Jetzt neu trainieren"
    assert "Noch gibt es keine Runde." in shown(app)
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    app = in_german("rounds")
    assert "Runde 0 gilt" in shown(app) or "Runde 1 gilt" in shown(app)
    (table,) = app.dataframe
    assert {"Runde", "Zustand", "Genauigkeit"} <= set(table.value.columns)
    assert set(table.value["Zustand"]) == {"fertig"}


@pytest.mark.parametrize("name", ["codebook", "data", "export", "insights", "label", "review", "rounds", "search"])
def test_every_page_opens_in_german(project: Project, name: str) -> None:
    in_german(name)
