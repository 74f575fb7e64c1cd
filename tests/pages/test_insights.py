"""The insights page: its texts in an empty project, and its buttons."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import parse_codebook
from annotator.exchange.imports import add_utterances
from annotator.exchange.samples import SAMPLES
from annotator.labeling.auto_accept import offer
from annotator.labeling.session import Answer, answer, next_question
from annotator.loop import run_round
from annotator.methods.guarantee import Target
from annotator.project import Project
from annotator.reporting import stopping
from store import acceptances, annotations, rounds, utterances
from store.annotations import NewAnnotation
from store.utterances import NewUtterance
from tests.annotator.scenes import CONFIG, answers_read, classifier_of, copied, draft, label_pool, new_project, truth
from tests.fake import FakeClassifier


def page(project: str = "client-talk") -> AppTest:
    app = AppTest.from_function(_alone, default_timeout=60)
    app.session_state["annotator"] = "anna"
    app.session_state["project"] = project
    app.run()
    assert not app.exception, app.exception
    return app


def _alone() -> None:
    from annotator.pages import insights
    from annotator.pages.components import layout

    with layout.errors_shown():
        layout.show_last_error()
        insights.show()


def shown(app: AppTest) -> str:
    pieces = [*app.markdown, *app.get("html"), *app.caption, *app.error, *app.info]
    said = "\n".join(str(getattr(piece, "value", None) or getattr(piece.proto, "body", "")) for piece in pieces)
    return said.replace("\\", "")


def charts(app: AppTest) -> int:
    return len(app.get("vega_lite_chart"))


def make_round(project: Project) -> None:
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose labels follow from a word, with all audit answers and a round that is nearly always right."""
    with new_project(tmp_path_factory.mktemp("easy"), 400, replace(CONFIG, retrain_every=0, precision=0.9)) as project:
        make_round(project)
        codebook = codebook_of(project)
        for row in utterances.read(project.db, utterances.ids_in(project.db, "audit")):
            label = codebook.id_of(truth(row.text))
            new = NewAnnotation(row.id, "ada", "label", label, "audit", codebook.version, milliseconds=6000)
            annotations.record(project.db, new)
        label_pool(project, 60)
        make_round(project)
    return project.folder


@pytest.fixture
def easy(workspace: Path, measured: Path) -> Iterator[Project]:
    with copied(measured, workspace / "easy") as project:
        yield project


def test_without_a_project_the_page_says_where_to_start(workspace: Path) -> None:
    app = AppTest.from_function(_alone, default_timeout=60).run()
    assert "Start one on the Data page" in shown(app)


def test_without_a_round_the_page_says_how_to_get_one(project: Project) -> None:
    app = page()
    assert "Retrain now" in shown(app)
    assert not charts(app)


def test_without_audit_answers_nothing_is_claimed(project: Project) -> None:
    make_round(project)
    app = page()
    assert "not known yet" in shown(app)
    assert "Accuracy: about" not in shown(app)
    assert "Not yet: about 59 more audit answers are needed" in shown(app)
    assert not [button for button in app.button if button.key == "accept"]


def test_what_a_guarantee_lacks_is_asked_next_by_a_button(project: Project) -> None:
    make_round(project)
    (button,) = (button for button in page().button if button.key == "measure")
    assert button.label == "Queue 59 audit utterances next"
    button.click().run()
    for _ in range(3):
        question = next_question(project, "anna")
        assert question
        assert question.is_audit
        answer(project, question, "anna", Answer("label", codebook_of(project).ids[0]))


def test_one_sentence_says_how_often_the_model_is_right_and_how_surely(project: Project) -> None:
    with SAMPLES["client_talk"].data.open(encoding="utf-8", newline="") as file:
        known = {row["id"]: row["label"] for row in csv.DictReader(file)}
    codebook = codebook_of(project)
    for _ in range(60):
        question = next_question(project, "anna")
        assert question
        answer(project, question, "anna", Answer("label", codebook.id_of(known[question.utterance.external_id])))
    make_round(project)
    row = rounds.promoted(project.db)
    assert row
    app = page()
    assert f"measured on {row.audited_on} audit answers. The true value is probably between" in shown(app)
    assert "well calibrated" not in shown(app)
    assert "“Not yet” below 30 audit answers" in shown(app)
    assert charts(app) >= 5


def test_what_another_batch_gives_is_weighed_last_and_at_once_when_known(
    easy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[bool] = []
    real = stopping.with_gain
    monkeypatch.setattr(
        stopping, "with_gain", lambda p, a, wait=True, **given: waited.append(wait) or real(p, a, wait, **given)
    )
    app = page("easy")
    assert waited == [False, True]
    (told,) = [piece.value for piece in app.markdown if "unanswered utterances, about" in piece.value]
    assert "Another" in told, "the sentence that could be told at once is not there beside it"


def test_a_run_reads_all_answers_once(easy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    read = answers_read(monkeypatch)
    page("easy")
    assert len(read) == 1


def test_suggestions_are_accepted_and_taken_back(easy: Project) -> None:
    target = Target(0.9)
    guaranteed = offer(easy, target).accepts
    assert guaranteed > 0, "else this test tests nothing"
    app = page("easy")
    assert f"These {guaranteed:,} suggestions can be auto-accepted: at least 90 in 100" in shown(app)
    assert "none of them wrong" in shown(app) or "of them wrong" in shown(app)
    app.button(key="accept").click().run()
    assert not app.exception
    (one,) = acceptances.history(easy.db)
    assert (one.size, one.annotator, one.ended) == (guaranteed, "anna", None)
    assert f"{guaranteed} suggestions of round 1, accepted by anna" in shown(app)
    assert "In effect" in shown(app)
    app.button(key=f"take-back-{one.id}").click().run()
    assert acceptances.history(easy.db)[0].ended == "undone"
    assert "Undone by anna" in shown(app)
    assert not [button for button in app.button if (button.key or "").startswith("take-back")]


def test_the_target_that_is_chosen_is_the_one_accepted_at(easy: Project) -> None:
    app = page("easy")
    app.slider(key="target").set_value(80).run()
    assert "at least 80 in 100" in shown(app)
    app.button(key="accept").click().run()
    assert acceptances.history(easy.db)[0].target == pytest.approx(0.8)


def test_for_each_label_by_itself_every_label_has_its_own_line(easy: Project) -> None:
    app = page("easy")
    app.checkbox(key="per-label").check().run()
    assert not app.exception
    assert list(app.dataframe[0].value["Label"]) == ["promise", "report", "wish"]


def test_a_refused_acceptance_is_said_and_not_raised(easy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from annotator.errors import RoundError

    def refuse(*_: object) -> int:
        raise RoundError("The codebook has changed since this round was made.", "Retrain first, then accept.")

    monkeypatch.setattr("annotator.pages.insights.accept", refuse)
    app = page("easy")
    app.button(key="accept").click().run()
    assert not app.exception
    assert "Retrain first, then accept" in shown(app)


def test_what_the_last_round_changed_is_listed_and_can_be_undone(easy: Project) -> None:
    app = page("easy")
    flipped = next(table.value for table in app.dataframe if "utterance" in table.value)
    assert len(flipped) > 0
    app.button(key="roll-back").click().run()
    assert not app.exception
    back = rounds.promoted(easy.db)
    assert back
    assert back.number == 0
    assert "no earlier round" in shown(app)
    assert "Use round 1" in [button.label for button in app.button]


def test_the_report_is_made_when_asked_for_and_offered(easy: Project) -> None:
    app = page("easy")
    assert not app.get("download_button")
    app.button(key="prepare-report").click().run()
    assert not app.exception
    assert app.get("download_button")


def test_hostile_texts_are_never_rendered(workspace: Path) -> None:
    evil = "<img src=x onerror=alert(1)> **bold** [link](http://evil.example) $x$"
    names = [{"name": f"{evil} {i}"} for i in range(2)]
    with create_project(workspace / "evil", parse_codebook({"labels": names}), replace(CONFIG, retrain_every=0)) as p:
        add_utterances(p, [NewUtterance(str(i), f"{evil} {i}") for i in range(40)])
        for _ in range(2):
            run_round(p, classifier_of(p), p.config)
            for utterance in utterances.ids_in(p.db, "audit" if not annotations.last_id(p.db) else "pool")[:8]:
                annotations.record(p.db, NewAnnotation(utterance, evil, "label", 1 + utterance % 2, "audit", 1))
        run_round(p, classifier_of(p), p.config)
    app = page("evil")
    pieces = [*app.markdown, *app.get("html"), *app.info]
    for piece in pieces:
        body = str(getattr(piece, "value", None) or getattr(piece.proto, "body", ""))
        assert "<img" not in body
        assert "](http" not in body


def test_a_codebook_of_77_labels_does_not_break_the_page(workspace: Path) -> None:
    names = [f"intent {i} with a name that is longer than anybody would like" for i in range(77)]
    with create_project(workspace / "many", draft(*names), replace(CONFIG, retrain_every=0)) as project:
        add_utterances(project, [NewUtterance(str(i), f"utterance {i} about {i % 9}") for i in range(100)])
        for utterance in utterances.ids_in(project.db, "audit"):
            annotations.record(project.db, NewAnnotation(utterance, "ada", "label", 1 + utterance % 77, "audit", 1))
        make_round(project)
    app = page("many")
    assert "the 10 most confused of 77 labels" in shown(app)
