"""Batches are composed between rounds from the round in use, without what is skipped or on other screens."""

from __future__ import annotations

from annotator.loop import run_round
from annotator.rounds.queueing import queue_audit, refill_queue
from store import annotations, queue, rounds, utterances
from store.database import fetch
from tests.annotator.scenes import PROMISE, change, classifier_of, say


def entries(project):
    return fetch(project.db, "SELECT * FROM queue ORDER BY rank")


def test_before_a_round_a_refill_is_random_and_belongs_to_no_round(project):
    assert refill_queue(project) == project.config.batch_size == queue.size(project.db)
    assert {row["strategy"] for row in entries(project)} == {"random", "audit"}
    assert {row["round_id"] for row in entries(project)} == {None}
    assert queue_audit(project, 2) == 2
    assert {row["round_id"] for row in entries(project)} == {None}


def test_after_a_round_a_refill_is_chosen_by_its_predictions(trained):
    assert refill_queue(trained) == trained.config.batch_size
    assert {row["strategy"] for row in entries(trained)} == {"margin_diverse", "audit"}
    assert {row["round_id"] for row in entries(trained)} == {rounds.promoted(trained.db).id}
    queue.drop(trained.db, [row["utterance_id"] for row in entries(trained)])
    assert queue_audit(trained, 2) == 2
    assert {row["round_id"] for row in entries(trained)} == {rounds.promoted(trained.db).id}


def test_a_refill_depends_on_the_seed_and_on_the_answers_so_far(project):
    def refilled() -> list[int]:
        refill_queue(project)
        return [row["utterance_id"] for row in entries(project)]

    first = refilled()
    assert refilled() == first
    change(project, seed=1)
    assert refilled() != first
    change(project, seed=0)
    say(project, utterances.ids_in(project.db, "pool")[-1], "ben", PROMISE)
    assert refilled() != first


def test_an_audit_on_request_depends_on_the_answers_so_far_and_leaves_out_the_answered_ones(project):
    def asked() -> list[int]:
        queue.drop(project.db, queue.queued_ids(project.db))
        queue_audit(project, 4)
        return [row["utterance_id"] for row in entries(project)]

    first = asked()
    assert asked() == first
    say(project, first[0], "ben", PROMISE)
    assert first[0] not in asked() != first


def test_what_is_skipped_or_on_another_screen_is_left_out(project):
    change(project, batch_size=100)
    pool, audit = (utterances.ids_in(project.db, name) for name in ("pool", "audit"))
    for utterance in (pool[0], audit[0]):
        annotations.record(project.db, annotations.NewAnnotation(utterance, "ada", "skip", None, "random", 1))
    queue_audit(project, 2, "ada")
    (held,) = (row.utterance_id for row in queue.lease(project.db, "ben", 1))
    assert refill_queue(project, "ada") == 60 - 2 - 1
    assert {pool[0], audit[0]} & queue.queued_ids(project.db) == set()
    assert refill_queue(project, "eve") == 60 - 1
    assert queue_audit(project, 99, "ada") == len(audit) - 1 - 1
    assert queue.holder(project.db, held) == "ben"


def test_a_refill_of_a_project_that_is_all_answered_is_empty(project):
    for name in ("pool", "audit"):
        for utterance in utterances.ids_in(project.db, name):
            say(project, utterance, "ada", PROMISE)
    assert refill_queue(project) == queue_audit(project, 5) == 0
    assert queue.size(project.db) == 0


def test_a_round_that_was_promoted_meanwhile_is_the_one_that_chooses(trained):
    before = rounds.promoted(trained.db).id
    run_round(trained, classifier_of(trained), trained.config)
    refill_queue(trained)
    assert {row["round_id"] for row in entries(trained)} == {rounds.promoted(trained.db).id} != {before}
