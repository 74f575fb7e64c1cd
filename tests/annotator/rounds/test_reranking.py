"""Test re-ranking between rounds: the latest answers change the rest of the batch and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from annotator.codebook import changes
from annotator.codebook.definition import codebook_of
from annotator.exchange.export import ExportPlan, export_rows
from annotator.labeling.session import Answer, Question, answer, next_question, undo
from annotator.loop import run_round
from annotator.project import Project
from annotator.reporting.summary import queried_accuracy
from annotator.rounds.reranking import CHOSEN, EVERY, OF_ALL, every, fit_to_answers, reorder, reorder_in_background
from annotator.rounds.snapshot import training_labels
from store import annotations, queue, rounds, utterances
from store.annotations import NewAnnotation
from store.database import fetch, immediate
from tests.annotator.scenes import LABELS, change, classifier_of, label_pool, new_project, truth


@pytest.fixture
def project(tmp_path: Path):
    with new_project(tmp_path / "p", 200) as made:
        change(made, retrain_every=0, batch_size=40)
        run_round(made, classifier_of(made), made.config)
        yield made


def teach(project: Project, count: int, only: tuple[str, ...] = LABELS) -> None:
    """Give pool utterances their labels outside the batch."""
    codebook = codebook_of(project)
    pool = utterances.read(project.db, utterances.ids_in(project.db, "pool"))
    queued = queue.queued_ids(project.db)
    rows = [row for row in pool if truth(row.text) in only and row.id not in queued][:count]
    for row in rows:
        label = codebook.id_of(truth(row.text))
        annotations.record(project.db, NewAnnotation(row.id, "ada", "label", label, "test", 1))


def queued(project: Project) -> list[dict]:
    return fetch(project.db, "SELECT * FROM queue ORDER BY rank")


def test_what_is_left_of_the_batch_follows_the_latest_answers(project):
    before = queued(project)
    teach(project, 30)
    assert reorder(project) == sum(row["strategy"] in CHOSEN for row in before)
    after = queued(project)
    assert [row["rank"] for row in after] == [row["rank"] for row in before]
    assert [row["utterance_id"] for row in after] != [row["utterance_id"] for row in before]
    assert {row["strategy"] for row in after if row["strategy"] in CHOSEN} == {"margin_diverse"}


@pytest.mark.parametrize(
    "alter",
    [
        lambda project: changes.merge(project, [3], 2),
        lambda project: changes.split(project, 3, [{"name": "hope"}, {"name": "dream"}]),
        lambda project: changes.add(project, {"name": "vow"}),
        lambda project: changes.retire(project, 3),
        lambda project: changes.reorder(project, [3, 1, 2]),
    ],
    ids=["merge", "split", "add", "retire", "reorder"],
)
def test_it_goes_on_in_the_labels_in_use_after_a_change_of_the_codebook(project, alter):
    before = queued(project)
    teach(project, 30)
    changes.make(project, changes.propose(project, alter(project)), "ben")
    assert reorder(project) == sum(row["strategy"] in CHOSEN for row in before)
    after = queued(project)
    assert [row["utterance_id"] for row in after] != [row["utterance_id"] for row in before]
    assert all(np.isfinite(row["score"]) for row in after if row["strategy"] in CHOSEN)


def test_what_was_drawn_at_random_stays_where_it_is(project):
    drawn = [row for row in queued(project) if row["strategy"] not in CHOSEN]
    assert drawn
    teach(project, 30)
    reorder(project)
    assert [row for row in queued(project) if row["strategy"] not in CHOSEN] == drawn


def test_what_somebody_has_on_screen_stays(project):
    held = [row.utterance_id for row in queue.lease(project.db, "ada", 10)]
    teach(project, 30)
    reorder(project)
    assert [row["utterance_id"] for row in queued(project)][:10] == held
    asked = next_question(project, "ada")
    assert asked is not None
    assert asked.utterance.id == held[0]


def test_nothing_is_asked_twice_and_nothing_that_has_an_answer(project):
    label_pool(project, 6)
    teach(project, 30)
    reorder(project)
    ids = [row["utterance_id"] for row in queued(project)]
    assert len(ids) == len(set(ids))
    left = {row["utterance_id"] for row in queued(project)} - set(annotations.answered_ids(project.db))
    assert next_question(project, "ada") is not None
    assert left


def test_suggestions_stay_those_of_the_round(project):
    promoted = rounds.promoted(project.db)
    before = rounds.predictions_of(project.db, promoted)
    teach(project, 30)
    reorder(project)
    after = rounds.predictions_of(project.db, rounds.promoted(project.db))
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    assert rounds.promoted(project.db) == promoted


@pytest.mark.parametrize("settings", [{"strategy": "random"}, {"minimum_labels": 500}])
def test_it_does_nothing_where_the_draw_is_random_or_answers_are_few(project, settings):
    teach(project, 30)
    change(project, **settings)
    before = queued(project)
    assert reorder(project) == 0
    assert queued(project) == before


def test_one_label_alone_is_not_enough_to_train(project):
    teach(project, 30, only=("promise",))
    assert reorder(project) == 0


def test_before_a_round_there_is_nothing_to_reorder(tmp_path):
    with new_project(tmp_path / "q") as project:
        teach(project, 20)
        assert reorder(project) == 0


def test_audit_answers_are_never_used(project):
    codebook = codebook_of(project)
    for row in utterances.read(project.db, utterances.ids_in(project.db, "audit")):
        label = codebook.id_of(truth(row.text))
        annotations.record(project.db, NewAnnotation(row.id, "ada", "label", label, "test", 1))
    assert fit_to_answers(project, codebook.ids) is None
    assert training_labels(project, codebook.ids) == {}


def test_every_fifth_answer_counts_until_five_are_few_among_many(project):
    assert every(project) == EVERY
    teach(project, 30)
    with immediate(project.db):
        for _ in range(0, 1_200, 30):
            teach(project, 30)
    assert every(project) == annotations.last_id(project.db) // OF_ALL == 12


def test_it_runs_beside_the_page_one_at_a_time(project):
    teach(project, 30)
    before = [row["utterance_id"] for row in queued(project)]
    first = reorder_in_background(project.folder)
    assert first is not None
    first.join()
    assert [row["utterance_id"] for row in queued(project)] != before
    second = reorder_in_background(project.folder)
    assert second is not None
    second.join()


def test_an_answer_given_meanwhile_is_kept(project):
    question = next_question(project, "ada")
    teach(project, 30)
    reorder(project)
    answer(project, question, "ada", Answer("label", codebook_of(project).ids[0]))
    assert question.utterance.id in annotations.answered_ids(project.db)


def test_what_was_chosen_between_rounds_says_so_until_the_next_round(project):
    assert all(row["chosen_after"] is None for row in queued(project)), "a round chose these"
    teach(project, 30)
    last = annotations.last_id(project.db)
    reorder(project)
    assert {row["chosen_after"] for row in queued(project) if row["strategy"] in CHOSEN} == {last}
    assert {row["chosen_after"] for row in queued(project) if row["strategy"] not in CHOSEN} == {None}
    run_round(project, classifier_of(project), project.config)
    assert all(row["chosen_after"] is None for row in queued(project))


def test_the_answer_and_its_question_keep_the_last_answer_they_were_chosen_after(project):
    teach(project, 30)
    reorder(project)
    question = chosen_question(project)
    assert question.is_ahead
    answer(project, question, "ada", Answer("label", 1))
    (given,) = annotations.answers_to(project.db, [question.utterance.id])
    assert (given.chosen_after, given.strategy) == (question.entry.chosen_after, "margin_diverse")
    undo(project, "ada")
    again = next_question(project, "ada")
    assert again is not None
    assert (again.utterance.id, again.entry.chosen_after) == (
        question.utterance.id,
        question.entry.chosen_after,
    )


def test_an_export_tells_what_was_chosen_between_rounds_and_by_which_strategy(project):
    teach(project, 30)
    reorder(project)
    question = chosen_question(project)
    answer(project, question, "ada", Answer("label", 1))
    rows = {row.id: row for row in export_rows(project, ExportPlan(with_model=True))}
    asked = rows.pop(question.utterance.external_id)
    assert (asked.between_rounds, asked.strategy) == (True, "margin_diverse")
    assert {row.between_rounds for row in rows.values() if row.source == "expert"} == {False}
    assert {row.between_rounds for row in rows.values() if row.source == "model"} == {None}


def test_what_was_chosen_between_rounds_counts_as_chosen_by_its_strategy(project):
    teach(project, 30)
    reorder(project)
    question = chosen_question(project)
    answer(project, question, "ada", Answer("label", 1))
    assert [one.n for one in queried_accuracy(project)] == [1]
    teach(project, 10)
    assert reorder(project) > 0, "and goes on being exchanged"


def chosen_question(project: Project) -> Question:
    """Pass over what was drawn at random."""
    while (question := next_question(project, "ada")) and question.entry.strategy not in CHOSEN:
        answer(project, question, "ada", Answer("skip"))
    assert question is not None
    return question
