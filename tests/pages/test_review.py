"""The review page: a case side by side with its context, settled by one key; what is settled wins and is marked."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from annotator.codebook import changes
from annotator.codebook.definition import codebook_of
from annotator.labeling.review import (
    MOST_UNUSUAL,
    QUEUES,
    against_model,
    case,
    disagreements,
    flips,
    missing_labels,
    settle,
    to_label_again,
)
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.consensus import consensus_labels
from store import annotations, labels, rounds, utterances
from store.annotations import NewAnnotation
from tests.fake import FakeClassifier
from tests.pages.test_pages import page, shown


def say(project: Project, utterance: int, who: str, label: int) -> None:
    new = NewAnnotation(utterance, who, "label", label, "random", labels.version(project.db))
    annotations.record(project.db, new)


def pool(project: Project) -> list[int]:
    return utterances.ids_in(project.db, "pool")


def trained(project: Project) -> None:
    for n, utterance in enumerate(pool(project)[:20]):
        say(project, utterance, "ben", 1 + n % 3)
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)


def opened(name: str) -> AppTest:
    app = page("review")
    return app.segmented_control(key="review_queue").set_value(name).run()


def make(project: Project, change) -> None:
    changes.make(project, changes.propose(project, change), "anna")


# What is found


def test_answers_that_differ_are_found_until_somebody_settles_them(project: Project) -> None:
    one, two, *_ = pool(project)
    say(project, one, "ben", 1)
    say(project, one, "cleo", 2)
    say(project, two, "ben", 1)
    say(project, two, "cleo", 1)
    assert disagreements(project) == [one]
    settle(project, case(project, one), "anna", "label", 2)
    assert disagreements(project) == []
    assert consensus_labels(annotations.answers(project.db))[one] == 2


def test_labels_that_were_merged_are_no_disagreement(project: Project) -> None:
    one, *_ = pool(project)
    say(project, one, "ben", 1)
    say(project, one, "cleo", 2)
    make(project, changes.merge(project, [1], 2))
    assert disagreements(project) == []


def test_answers_against_the_model_are_found_surest_first_and_none_that_measure(project: Project) -> None:
    trained(project)
    said = rounds.predictions_of(project.db, rounds.promoted(project.db))
    best = dict(zip(said.utterance_ids.tolist(), said.probabilities.argmax(axis=1), strict=True))
    sure = dict(zip(said.utterance_ids.tolist(), said.probabilities.max(axis=1), strict=True))
    asked = [i for i in best if i in pool(project)][:4] + utterances.ids_in(project.db, "audit")[:4]
    for i in asked:
        say(project, i, "ben", (1, 2, 3)[(best[i] + 1) % 3])
    found = against_model(project)
    assert set(found) == set(asked[:4])
    assert [sure[i] for i in found] == sorted((sure[i] for i in found), reverse=True)
    assert case(project, asked[0]).suggestion is not None
    assert case(project, asked[-1]).suggestion is None, "what measures the model never shows what it says"


def test_flips_are_open_utterances_of_which_the_rounds_differ(project: Project) -> None:
    assert flips(project) == []
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    assert flips(project) == []
    trained(project)
    assert flips(project) == [], "the round before had learned nothing"
    for utterance in pool(project)[20:40]:
        say(project, utterance, "ben", 3)
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    found = flips(project)
    assert found
    assert not set(found) & (annotations.answered_ids(project.db) | set(utterances.ids_in(project.db, "audit")))
    assert "Round 1 predicted" in case(project, found[0]).notes[-1]


def test_what_a_change_of_the_codebook_calls_into_question_is_found_with_the_reason(project: Project) -> None:
    one, two, *_ = pool(project)
    say(project, one, "ben", 1)
    say(project, two, "ben", 2)
    make(project, changes.split(project, 1, [{"name": "wish"}, {"name": "plan"}]))
    assert to_label_again(project) == [one]
    assert case(project, one).notes == ("“change” split into “wish”, “plan” by anna.",)
    settle(project, case(project, one), "ben", "label", codebook_of(project).id_of("plan"))
    assert to_label_again(project) == []


def test_what_may_lack_a_label_is_open_and_measures_nothing(project: Project) -> None:
    assert missing_labels(project) == []
    trained(project)
    found = missing_labels(project)
    assert 0 < len(found) <= MOST_UNUSUAL
    assert not set(found) & (annotations.answered_ids(project.db) | set(utterances.ids_in(project.db, "audit")))


def test_as_long_as_people_are_divided_on_all_they_have_answered_the_least_sure_come_first(project: Project) -> None:
    run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
    first = pool(project)[0]
    say(project, first, "ben", 1)
    say(project, first, "cleo", 2)
    row = rounds.promoted(project.db)
    assert row
    said = rounds.predictions_of(project.db, row, missing_labels(project))
    sure = dict(zip(said.utterance_ids.tolist(), said.probabilities.max(axis=1), strict=True))
    found = [sure[i] for i in missing_labels(project)]
    assert found == sorted(found)
    assert len(found) > 1
    assert disagreements(project) == [first]
    assert not page("review").exception


# The page


@pytest.mark.parametrize("name", QUEUES)
def test_an_empty_queue_says_so(project: Project, name: str) -> None:
    app = opened(name)
    assert not app.exception
    assert QUEUES[name].empty in shown(app)


def test_one_click_settles_and_the_next_case_is_there(project: Project) -> None:
    for one in pool(project)[:2]:
        say(project, one, "ben", 1)
        say(project, one, "cleo", 2)
    app = page("review")
    text = shown(app)
    assert "ben" in text
    assert "cleo" in text
    before = text
    app.button(key="settle-2").click().run()
    assert not app.exception
    assert shown(app) != before
    (adjudicated,) = (a for a in annotations.answers(project.db) if a.strategy == "adjudicated")
    assert (adjudicated.annotator, adjudicated.label_id, adjudicated.utterance_id) == (
        "anna",
        2,
        pool(project)[0],
    )
    app.button(key="undo-settled").click().run()
    assert shown(app) == before
    assert disagreements(project) == pool(project)[:2]


def test_a_case_can_wait_and_none_may_fit(project: Project) -> None:
    for one in pool(project)[:2]:
        say(project, one, "ben", 1)
        say(project, one, "cleo", 2)
    app = page("review")
    app.button(key="later").click().run()
    app.button(key="settle-none").click().run()
    assert "No more cases in this list. 1 postponed." in shown(app)
    (adjudicated,) = (a for a in annotations.answers(project.db) if a.strategy == "adjudicated")
    assert (adjudicated.kind, adjudicated.utterance_id) == ("none_fits", pool(project)[1])
    app.button(key="again").click().run()
    assert "cleo" in shown(app)


def test_settling_takes_no_answer_back_on_the_label_page(project: Project) -> None:
    one, *_ = pool(project)
    say(project, one, "anna", 1)
    say(project, one, "cleo", 2)
    settle(project, case(project, one), "anna", "label", 3)
    assert annotations.undo(project.db, "anna").label_id == 1
    assert consensus_labels(annotations.answers(project.db))[one] == 3


def test_what_was_said_is_never_rendered(project: Project) -> None:
    one, *_ = pool(project)
    new = NewAnnotation(one, "<b>eve</b>", "label", 1, "random", 3, comment="<script>1</script>")
    annotations.record(project.db, new)
    say(project, one, "cleo", 2)
    text = shown(page("review"))
    assert "&lt;b&gt;eve&lt;/b&gt;" in text
    assert "<script>1" not in text
