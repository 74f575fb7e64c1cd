"""More labels than there are number keys: the likeliest on the keys, every other one a few letters away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from annotator.labeling.review import case
from annotator.labeling.session import next_question
from annotator.project import Project
from annotator.rounds.consensus import consensus_labels
from store import annotations, rounds, utterances
from store.annotations import NewAnnotation
from tests.annotator.scenes import change, half_answered
from tests.pages.test_pages import page, shown


@pytest.fixture
def large(workspace: Path) -> Iterator[Project]:
    with half_answered(workspace / "client-talk", 12) as project:
        change(project, retrain_every=0)
        while (question := next_question(project, "anna")) and not question.suggestion:  # audit utterances have none
            annotations.record(project.db, NewAnnotation(question.utterance.id, "anna", "skip", None, "test", 1))
        yield project


def test_the_short_list_is_on_the_number_keys_and_the_rest_is_found_by_name(large: Project) -> None:
    app = page()
    suggestion = next_question(large, "anna").suggestion
    short = [i for i, _ in suggestion.probabilities[: max(3, len(suggestion.shortlist))]]
    assert set(suggestion.shortlist) <= set(short)
    keys = [button.key for button in app.button if (button.key or "").startswith("label-")]
    assert keys == [f"label-{i}" for i in short]
    assert [app.button(key=key).proto.shortcut for key in keys] == [str(i) for i in range(1, len(keys) + 1)]
    counting = json.loads(unescape(shown(app).split('data-keys="')[1].split('"')[0]))
    assert counting == dict(zip("123456789", keys, strict=False)) | {"n": "none-fits", "s": "skip"}
    assert "95 times in 100" in shown(app)
    asked = next_question(large, "anna").utterance.id
    search = app.selectbox(key=f"search-{asked}")
    assert len(search.options) == 12
    search.select(12).run()
    assert not app.exception
    given = [row for row in annotations.answers(large.db) if row.utterance_id == asked]
    assert [(row.annotator, row.label_id) for row in given] == [("anna", 12)]
    assert next_question(large, "anna").utterance.id != asked


def test_before_a_list_can_promise_anything_the_nine_likeliest_are_on_the_number_keys(large: Project) -> None:
    promoted = rounds.promoted(large.db)
    metrics = json.dumps({**promoted.metrics, "shortlist_limit": None})
    large.db["round"].update(promoted.id, {"metrics": metrics})
    likeliest = [i for i, _ in next_question(large, "anna").suggestion.probabilities[:9]]
    app = page()
    assert [button.key for button in app.button if (button.key or "").startswith("label-")] == [
        f"label-{i}" for i in likeliest
    ]
    assert "95 times" not in shown(app)
    assert "The 9 likeliest labels." in shown(app)


def test_without_a_suggestion_every_label_has_its_button(large: Project) -> None:
    change(large, show_suggestions=False)
    app = page()
    assert len([button for button in app.button if (button.key or "").startswith("label-")]) == 12


def test_review_offers_the_labels_that_were_named_on_the_number_keys_and_finds_any_other(large: Project) -> None:
    disputed = utterances.ids_in(large.db, "pool")[0]
    for who, label in (("ben", 11), ("cleo", 7)):
        annotations.record(large.db, NewAnnotation(disputed, who, "label", label, "test", 1))
    app = page("review")
    offered = {button.key: button.proto.shortcut for button in app.button if (button.key or "").startswith("settle-")}
    named = sorted(case(large, disputed).named)
    assert {7, 11} <= set(named)
    assert offered == {f"settle-{label}": str(key) for key, label in enumerate(named, 1)} | {"settle-none": "n"}
    app.selectbox(key=f"search-{disputed}").select(12).run()
    assert not app.exception
    assert consensus_labels(annotations.answers(large.db))[disputed] == 12
