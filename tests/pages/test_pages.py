"""Each page through Streamlit's own test harness: what it shows, and what its buttons do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Checkbox

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import parse_codebook
from annotator.config import changed
from annotator.exchange.imports import add_utterances
from annotator.labeling import onboarding
from annotator.labeling.session import Answer, answer, next_question
from annotator.loop import run_round
from annotator.project import Project
from model.backbones.memory import BF16, FP32, Machine
from store import annotations, jobs
from store.utterances import NewUtterance
from tests.fake import FakeClassifier

ROOT = Path(__file__).resolve().parents[2]


def page(name: str = "label") -> AppTest:
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60).run()
    if name != "label":
        from importlib import import_module

        module = import_module(f"annotator.pages.{name}")
        app = AppTest.from_function(_alone, args=(module.__name__,), default_timeout=60)
        app.session_state["annotator"] = "anna"
        app.session_state["project"] = "client-talk"
        app.run()
    assert not app.exception, app.exception
    return app


def _alone(name: str) -> None:
    from importlib import import_module

    from annotator.pages.components import layout

    with layout.errors_shown():
        layout.show_last_error()
        import_module(name).show()


def shown(app: AppTest) -> str:
    """Return all texts of the page."""
    pieces = [*app.markdown, *app.get("html"), *app.caption, *app.error, *app.info, *app.success]
    return "\n".join(str(getattr(piece, "value", None) or getattr(piece.proto, "body", "")) for piece in pieces)


def test_one_click_answers_and_the_next_utterance_is_there(project: Project) -> None:
    app = page()
    before = shown(app)
    app.button(key="label-1").click().run()
    assert not app.exception
    assert shown(app) != before
    (given,) = annotations.answers(project.db)
    assert (given.annotator, given.kind, given.label_id) == ("anna", "label", 1)
    assert given.strategy in ("random", "audit")
    assert given.milliseconds >= 0


def test_skip_none_fits_unsure_and_comment_are_stored(project: Project) -> None:
    app = page()
    app.button(key="skip").click().run()
    app.button(key="none-fits").click().run()
    app.checkbox(key="unsure").check()
    app.text_input(key="comment").set_value("hm")
    app.button(key="label-2").click().run()
    kinds = [(row.kind, row.unsure, row.comment) for row in annotations.answers(project.db)]
    assert kinds == [("skip", 0, ""), ("none_fits", 0, ""), ("label", 1, "hm")]
    assert app.text_input(key="comment").value == ""
    assert not app.checkbox(key="unsure").value


def test_undo_brings_the_utterance_back(project: Project) -> None:
    onboarding.end(project, "anna")  # which would go on
    app = page()
    first = shown(app)
    app.button(key="label-1").click().run()
    app.button(key="undo").click().run()
    assert shown(app) == first
    assert annotations.answers(project.db) == []


def test_the_bars_show_on_pool_utterances_and_never_on_audit_ones(project: Project) -> None:
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    seen = {"audit": 0, "pool": 0}
    app = page()
    for _ in range(25):
        entry = next_question(project, "anna")
        assert entry
        seen[entry.utterance.slice] += 1
        assert ('class="likely"' in shown(app)) is (entry.utterance.slice == "pool")
        app.button(key="label-2").click().run()
    assert all(seen.values())


def test_what_was_chosen_from_the_latest_answers_says_so(project: Project) -> None:
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    assert "before the next round" not in shown(page())
    answer(project, next_question(project, "anna"), "anna", Answer("label", 1))  # type: ignore[arg-type]
    project.db.execute("UPDATE queue SET chosen_after = ?", (annotations.last_id(project.db),))
    assert "Chosen from the latest answers, before the next round." in shown(page())


def test_without_a_project_the_app_says_where_to_start(workspace: Path) -> None:
    assert "no project yet" in shown(page())


def test_when_everything_is_answered_the_page_says_so(workspace: Path) -> None:
    draft = parse_codebook({"labels": [{"name": "yes"}, {"name": "no"}]})
    with create_project(workspace / "tiny", draft) as project:
        project.config = replace(project.config, retrain_every=0)
        add_utterances(project, [NewUtterance("a", "one"), NewUtterance("b", "two")])
    app = page()
    app.button(key="label-1").click().run()
    app.button(key="label-2").click().run()
    assert "Every utterance has an answer" in shown(app)


def test_many_labels_are_offered_without_breaking_the_page(workspace: Path) -> None:
    draft = parse_codebook({"labels": [{"name": f"intent {i}"} for i in range(77)]})
    with create_project(workspace / "many", draft) as project:
        project.config = replace(project.config, retrain_every=0)
        add_utterances(project, [NewUtterance(str(i), f"utterance {i}") for i in range(5)])
    app = page()
    app.button(key="label-77").click().run()
    assert not app.exception


def test_the_rounds_page_says_what_was_made_from_what(project: Project) -> None:
    assert "There is no round yet" in shown(page("rounds"))
    classifier = FakeClassifier(codebook_of(project).task())
    run_round(project, classifier, project.config)
    rng = np.random.default_rng(0)
    for _ in range(40):
        question = next_question(project, "anna")
        assert question
        answer(project, question, "anna", Answer("label", int(rng.integers(1, 4))))
    assert "40 new labels since" not in shown(page("rounds")), "audit answers are not trained on"
    run_round(project, classifier, project.config)
    app = page("rounds")
    assert "Round 1 is in use" in shown(app)
    assert list(app.dataframe[0].value["Round"]) == [1, 0]


def test_while_a_round_runs_none_can_be_started_and_it_can_be_cancelled(project: Project) -> None:
    jobs.begin(project.db, "another", 0)
    jobs.sign(project.db, 1)
    app = page("rounds")
    assert app.button(key="retrain").disabled
    app.button(key="cancel").click().run()
    job = jobs.active(project.db)
    assert job
    assert job.cancel


@pytest.mark.parametrize(
    ("column", "told"),
    [("heartbeat_at", "has not responded for"), ("progress_at", "running but has made no progress for")],
)
def test_a_round_that_hangs_says_so_beside_the_way_to_cancel_it(project: Project, column: str, told: str) -> None:
    job = jobs.begin(project.db, "another", 0)
    jobs.sign(project.db, job)
    jobs.report(project.db, job, "learn", 0.5, None)
    assert told not in shown(page("rounds"))
    project.db.execute(f"UPDATE job SET {column} = '2020-01-01T00:00:00+00:00'")
    app = page("rounds")
    assert told in shown(app)
    assert told in shown(page())
    app.button(key="cancel").click().run()
    assert "ended after 15 seconds" in app.toast[0].value
    assert "Stopping the round" in str([bar.proto.text for bar in page().get("progress")])


def test_a_failed_round_shows_message_and_hint(project: Project) -> None:
    job = jobs.begin(project.db, "the button", 0)
    jobs.finish(project.db, job, "failed", "The backbone is not here.", "Choose another.")
    assert "Choose another" in shown(page("rounds"))


def test_settings_are_saved(project: Project) -> None:
    app = page("rounds")
    for field, value in zip(app.number_input, (40, 50, 90), strict=True):
        field.set_value(value)
    next(button for button in app.button if button.label == "Save").click().run()
    config = project.config
    assert (config.batch_size, config.retrain_every, config.precision) == (40, 50, 0.9)


def on_machine(monkeypatch: pytest.MonkeyPatch, gigabytes: int, gpu: bool = False) -> None:
    machine = Machine(gigabytes * 10**9, gpu, BF16 if gpu else FP32)
    monkeypatch.setattr("annotator.pages.rounds.machine_without_torch", lambda: machine)


def test_the_plan_of_a_round_is_shown_before_the_choice_is_saved(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, 12)
    app = page("rounds")
    assert "smollm2-135m-instruct: fp32, rows of 1024" in shown(app)
    assert "of 12 GB" in shown(app)
    assert "Suits this computer best: qwen2.5-0.5b-instruct: fp32" in shown(app)
    assert not app.warning
    on_machine(monkeypatch, 5)
    app.text_input[0].set_value("flan-t5-xxl").run()
    assert "will not fit" in app.warning[0].value
    assert "the largest of the catalog that fits" in app.warning[0].value
    assert project.config.backbone != "flan-t5-xxl"
    next(button for button in app.button if button.label == "Save").click().run()
    assert project.config.backbone == "flan-t5-xxl"


def test_weights_in_4_bits_are_planned_where_nothing_else_fits_and_can_be_chosen(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, 12, gpu=True)
    app = page("rounds")
    app.text_input[0].set_value("llama-3.1-8b-instruct").run()
    assert "llama-3.1-8b-instruct: 4-bit, checkpointing, rows of" in shown(app)
    assert "This changes results slightly" in shown(app)
    assert not app.warning
    tick(app, "4 bits").check().run()
    assert "This changes results slightly" not in shown(app)
    next(button for button in app.button if button.label == "Save").click().run()
    assert project.config.recipe.quantization == "nf4"
    app = page("rounds")
    assert tick(app, "4 bits").value
    tick(app, "4 bits").uncheck().run()
    next(button for button in app.button if button.label == "Save").click().run()
    assert project.config.recipe.quantization == "none"


def test_weights_that_are_trained_themselves_are_not_offered_in_4_bits(project: Project) -> None:
    project.config = changed(project.config, ["recipe.method=full"])
    assert not [box for box in page("rounds").checkbox if "4 bits" in box.label]


def tick(app: AppTest, words: str) -> Checkbox:
    return next(box for box in app.checkbox if words in box.label)


def test_the_history_says_how_much_memory_a_round_has_held(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotator.rounds.lifecycle.peak_memory", lambda: 1_300_000_000)
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    assert list(page("rounds").dataframe[0].value["Memory"]) == ["1.3 GB"]


def test_the_data_page_counts_and_starts_a_sample(project: Project, workspace: Path) -> None:
    app = page("data")
    assert [metric.value for metric in app.metric][1] == "600"
    app.button(key="sample-political_promises").click().run()
    assert (workspace / "political-promises" / "project.db").exists()


def test_the_export_page_previews_and_prepares(project: Project) -> None:
    assert "nothing to export" in shown(page("export"))
    question = next_question(project, "anna")
    assert question
    answer(project, question, "anna", Answer("label", 1))
    app = page("export")
    assert len(app.dataframe[0].value) == 1
    assert "Utterances: 1 labeled + 599 without an answer = 600." in shown(app)
    assert "599 utterances are left out because they have no answer." in shown(app)
    app.button(key="prepare").click().run()
    assert not app.exception
    assert app.get("download_button")


def test_a_name_is_stored_without_the_spaces_around_it(project: Project) -> None:
    app = page()
    app.text_input(key="annotator").set_value("  anna ").run()
    app.button(key="label-1").click().run()
    assert [row.annotator for row in annotations.answers(project.db)] == ["anna"]


def test_an_answer_for_an_utterance_that_is_no_longer_shown_is_dropped(project: Project) -> None:
    app = page()
    screen = app.session_state["LabelState"].screen
    screen.answer(project, Answer("label", 2))  # a first press; the page still shows its buttons
    following = screen.question.utterance.id
    app.button(key="label-1").click().run()  # the second
    assert not app.exception
    assert [row.label_id for row in annotations.answers(project.db)] == [2]
    assert app.session_state["LabelState"].screen.question.utterance.id == following
    app.button(key="label-1").click().run()
    assert [row.label_id for row in annotations.answers(project.db)] == [2, 1]
