"""“Why?” on the label page: where it is offered, what it shows, and that labeling continues in the meantime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import parse_codebook
from annotator.errors import BackboneMissing
from annotator.exchange.imports import add_utterances
from annotator.labeling.explanation import Explanation, PendingExplanation
from annotator.labeling.screen import Screen
from annotator.labeling.session import next_question
from annotator.loop import run_round
from annotator.project import Project
from store import annotations, jobs
from store.utterances import NewUtterance
from tests.fake import FakeClassifier

ROOT = Path(__file__).resolve().parents[2]
WORDS = "**Because** <b>it</b> is $x$ :smile:."


class Process:
    """Stands in for the process that asks the backbone."""

    started: list[tuple[Path, int]] = []  # noqa: RUF012
    stopped = 0
    found: Explanation | Exception | None = None

    def answer(self) -> Explanation | None:
        if isinstance(Process.found, Exception):
            raise Process.found
        return Process.found

    def stop(self) -> None:
        Process.stopped += 1


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> type[Process]:
    monkeypatch.setattr(Process, "started", [])
    monkeypatch.setattr(Process, "stopped", 0)
    monkeypatch.setattr(Process, "found", None)

    def start(folder: Path, utterance_id: int) -> Process:
        Process.started.append((folder, utterance_id))
        return Process()

    monkeypatch.setattr(PendingExplanation, "start", start)
    return Process


def label_page() -> AppTest:
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60).run()
    assert not app.exception, app.exception
    return app


def offered(app: AppTest) -> bool:
    return any(button.key == "ask-why" for button in app.button)


def with_suggestion(project: Project) -> AppTest:
    """Bring the label page to an utterance that shows a suggestion."""
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    app = label_page()
    while (question := next_question(project, "anna")) and question.is_audit:
        app.button(key="skip").click().run()
    assert offered(app)
    return app


def test_it_is_offered_beside_suggestions_and_never_on_audit_utterances(project: Project) -> None:
    assert not offered(label_page()), "there is no suggestion before the first round"
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    app, seen = label_page(), {"audit": 0, "pool": 0}
    for _ in range(25):
        question = next_question(project, "anna")
        assert question
        seen[question.utterance.slice] += 1
        assert offered(app) is not question.is_audit
        app.button(key="label-2").click().run()
    assert all(seen.values())


def test_it_is_not_offered_where_suggestions_are_hidden(project: Project) -> None:
    project.config = replace(project.config, show_suggestions=False)
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    app = label_page()
    for _ in range(8):
        assert not offered(app)
        app.button(key="skip").click().run()


def test_the_answer_is_shown_as_it_is_with_what_it_is_not(project: Project, process: type[Process]) -> None:
    app = with_suggestion(project)
    question = next_question(project, "anna")
    assert question
    app.button(key="ask-why").click().run()
    assert process.started == [(project.folder, question.utterance.id)]
    assert app.button(key="ask-why").disabled
    assert "You can keep labeling" in app.status[0].label
    process.found = Explanation(WORDS, "neutral", "smollm2-135m-instruct")
    app.run()
    assert not app.exception
    assert [text.value for text in app.text] == [WORDS], "plain text, nothing in it rendered"
    (caption,) = (text.value for text in app.caption)
    assert "without any training" in caption
    assert "“neutral”" in caption
    assert "does not explain how the probabilities" in caption
    assert not app.status
    app.run()
    assert len(process.started) == 1


def test_labeling_goes_on_while_it_is_being_answered(project: Project, process: type[Process]) -> None:
    app = with_suggestion(project)
    app.button(key="ask-why").click().run()
    before = len(annotations.answers(project.db))
    app.button(key="label-1").click().run()
    assert not app.exception
    assert len(annotations.answers(project.db)) == before + 1
    assert process.stopped == 1, "nobody waits for it any more"
    assert not app.status
    assert not app.text


def test_an_answer_is_gone_with_its_utterance(project: Project, process: type[Process]) -> None:
    app = with_suggestion(project)
    process.found = Explanation(WORDS, "neutral", "some-model")
    app.button(key="ask-why").click().run()
    assert app.text
    app.button(key="label-1").click().run()
    assert not app.text
    assert process.stopped == 0, "it had ended"


def test_an_error_is_shown_and_it_can_be_asked_again(project: Project, process: type[Process]) -> None:
    app = with_suggestion(project)
    process.found = BackboneMissing("It is not here.", "Fetch it.")
    app.button(key="ask-why").click().run()
    assert not app.exception
    assert "Fetch it" in app.error[0].value
    assert not app.button(key="ask-why").disabled


def test_a_key_that_arrives_late_asks_nothing_about_another_utterance(
    project: Project, process: type[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    from annotator.pages.components import explanation, state

    question = next_question(project, "anna")
    assert question
    shown = question.utterance.id
    page = state.LabelState(Screen(project, "anna"))
    monkeypatch.setattr(state.st, "session_state", {"LabelState": page})
    for pressed in (shown + 1, shown, shown):
        explanation._ask(project.folder, pressed)
    assert process.started == [(project.folder, shown)]


def test_it_is_not_offered_to_a_machine_that_trains(project: Project) -> None:
    app = with_suggestion(project)
    jobs.begin(project.db, "the button", 0)
    jobs.sign(project.db, 1)
    assert app.run().button(key="ask-why").disabled


@pytest.mark.parametrize(("labels", "shortcut"), [(3, "w"), (40, "")])
def test_its_key_is_w_unless_a_label_has_that(workspace: Path, labels: int, shortcut: str) -> None:
    draft = parse_codebook({"labels": [{"name": f"intent {i}"} for i in range(labels)]})
    with create_project(workspace / "many", draft) as project:
        project.config = replace(project.config, retrain_every=0, withheld_share=0.0)
        add_utterances(project, [NewUtterance(str(i), f"utterance {i}") for i in range(30)])
        app = with_suggestion(project)
    assert app.button(key="ask-why").proto.shortcut == shortcut
    keys = [button.proto.shortcut for button in app.button if button.proto.shortcut]
    assert len(keys) == len(set(keys))
