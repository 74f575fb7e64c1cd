"""Suggestions are accepted under a guarantee, in one act that can be undone, and never become people's answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annotator.codebook.changes import add, make, propose
from annotator.codebook.definition import codebook_of
from annotator.errors import RoundError
from annotator.exchange.export import ExportPlan, dataset_card, export_rows
from annotator.labeling import auto_accept
from annotator.labeling.auto_accept import accept, evidence_of, offer, pace, take_back, withdraw_broken
from annotator.labeling.session import Answer, answer, next_question, standing, undo
from annotator.loop import run_round
from annotator.methods.guarantee import Guarantee, NotYet, Target
from annotator.project import Project
from annotator.rounds.candidates import candidates
from annotator.rounds.lifecycle import roll_back
from annotator.rounds.queueing import queue_audit
from annotator.rounds.snapshot import take_snapshot
from store import acceptances, annotations, queue, rounds, utterances
from store.acceptances import SPOT_CHECK
from store.annotations import NewAnnotation
from store.database import immediate
from tests.annotator.scenes import (
    CONFIG,
    change,
    classifier_of,
    copied,
    label_pool,
    new_project,
    right,
    truth,
    work_through,
)

WISH = Target(0.9, 0.95)


def answer_audit(project: Project, wrong: int = 0) -> None:
    """Answer the whole audit sample, a number of them with another label than the text's."""
    codebook = codebook_of(project)
    taken = annotations.answered_ids(project.db)
    for row in utterances.read(project.db, [i for i in utterances.ids_in(project.db, "audit") if i not in taken]):
        label = codebook.id_of(truth(row.text))
        if wrong > 0:
            label, wrong = next(i for i in codebook.ids if i != label), wrong - 1
        annotations.record(project.db, NewAnnotation(row.id, "ada", "label", label, "audit", 1, milliseconds=2000))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A project whose model is nearly always right, measured on 60 audit answers."""
    with new_project(tmp_path_factory.mktemp("measured"), 300, replace(CONFIG, batch_size=20)) as project:
        label_pool(project, 40)
        answer_audit(project)
        run_round(project, classifier_of(project), project.config)
    return project.folder


@pytest.fixture
def project(measured, tmp_path):
    with copied(measured, tmp_path / "p") as project:
        yield project


def unmeasured(tmp_path: Path) -> Project:
    """A project of 300 with a round, none of its 60 audit utterances answered, a batch of the pool waiting."""
    project = new_project(tmp_path / "p", 300, replace(CONFIG, batch_size=20, audit_share=0.0))
    label_pool(project, 40)
    run_round(project, classifier_of(project), project.config)
    return project


def test_what_a_guarantee_lacks_is_asked_first_if_requested_blind_and_at_random(tmp_path):
    with unmeasured(tmp_path) as project:
        assert next_question(project, "ada").utterance.slice == "pool"
        assert queue_audit(project, 7) == 7
        asked = []
        for _ in range(7):
            question = next_question(project, "ada")
            asked.append(question.utterance.id)
            assert question.is_audit
            assert question.suggestion is None
            answer(project, question, "ada", Answer("skip") if len(asked) == 3 else right(project, question))
        assert next_question(project, "ada").utterance.slice == "pool"
        assert sorted(asked) != utterances.ids_in(project.db, "audit")[:7]
        assert len(evidence_of(project, rounds.promoted(project.db))[0].truth) == 6


def test_asked_for_twice_the_same_are_measured_and_never_more_than_are_left(tmp_path):
    with unmeasured(tmp_path) as project:
        queue_audit(project, 5)
        first = [row.utterance_id for row in queue.lease(project.db, "ada", 5)]
        queue_audit(project, 500)
        rows = [row.utterance_id for row in queue.lease(project.db, "ada", 60)]
        assert set(first) <= set(rows) == set(utterances.ids_in(project.db, "audit"))
        answer_audit(project)
        assert queue_audit(project, 5) == 0


def test_what_an_annotator_has_skipped_is_not_among_what_he_asks_for(tmp_path):
    with unmeasured(tmp_path) as project:
        queue_audit(project, 1, "ada")
        answer(project, next_question(project, "ada"), "ada", Answer("skip"))
        assert queue_audit(project, 500, "ada") == 59
        assert queue_audit(project, 500, "ben") == 60


# The offer


def test_the_offer_rests_on_audit_answers_alone_and_opens_what_nobody_has_answered(project):
    evidence, ids = evidence_of(project, rounds.promoted(project.db))
    assert len(evidence.truth) == 60
    assert len(ids) == len(evidence.pool) == 240 - 40
    assert set(ids.tolist()) == set(utterances.ids_in(project.db, "pool")) - annotations.answered_ids(project.db)


def test_a_round_whose_temperature_may_be_far_off_guarantees_nothing(project):
    row = rounds.promoted(project.db)
    stored = row.calibration
    assert evidence_of(project, row)[0].spread == stored["spread"]
    assert offer(project, WISH).accepts > 0
    project.db["round"].update(row.id, {"calibration": json.dumps({**stored, "spread": 3.0})})
    assert offer(project, WISH).accepts == 0


def test_audit_utterances_for_which_none_fits_count_against_a_guarantee(project):
    before = offer(project, WISH)
    for utterance in utterances.ids_in(project.db, "audit")[:15]:
        annotations.record(project.db, NewAnnotation(utterance, "ada", "none_fits", None, "audit", 1))
    evidence, _ = evidence_of(project, rounds.promoted(project.db))
    assert (len(evidence.truth), int((evidence.truth == -1).sum())) == (60, 15)
    assert before.accepts > 0
    assert offer(project, WISH).accepts == 0


def test_what_is_offered_is_what_lies_above_the_threshold_with_its_likeliest_label(project):
    made = offer(project, WISH)
    guarantee = made.guarantees[0]
    assert isinstance(guarantee, Guarantee)
    assert made.accepts == guarantee.accepts > 100
    known = rounds.predictions_of(project.db, rounds.promoted(project.db), made.utterance_ids.tolist())
    best = np.array(known.label_ids)[known.probabilities.argmax(axis=1)]
    above = known.probabilities.max(axis=1) >= guarantee.threshold
    np.testing.assert_array_equal(made.label_ids, np.where(above, best, 0))
    assert made.hours == pytest.approx(made.accepts * 2 / 3600)


def test_a_precision_that_needs_more_audit_answers_shows_how_many(project):
    (found,) = offer(project, Target(0.99, 0.95)).guarantees.values()
    assert isinstance(found, NotYet)
    assert found.missing > 100


def test_a_guarantee_for_each_label_names_each(project):
    made = offer(project, Target(0.5, 0.8), per_label=True)
    assert set(made.guarantees) == set(codebook_of(project).ids)
    assert made.accepts == sum(one.accepts for one in made.guarantees.values() if isinstance(one, Guarantee)) > 0


def test_a_round_of_an_earlier_version_that_was_trained_on_audit_answers_guarantees_nothing(project):
    (found,) = offer(project, Target(0.5, 0.5)).guarantees.values()
    assert isinstance(found, Guarantee)
    with immediate(project.db):
        project.db.execute("UPDATE round SET metrics = json_set(metrics, '$.cross_fitted', json('true'))")
    (found,) = offer(project, Target(0.5, 0.5)).guarantees.values()
    assert isinstance(found, NotYet)
    with immediate(project.db):
        project.db.execute("UPDATE round SET metrics = json_remove(metrics, '$.ece')")
    (found,) = offer(project, Target(0.5, 0.5)).guarantees.values()
    assert isinstance(found, NotYet), "also where the metrics are incomplete"


def test_without_a_round_there_is_nothing_to_accept(tmp_path):
    with new_project(tmp_path / "p") as project, pytest.raises(RoundError, match="no finished round"):
        offer(project, WISH)


def test_the_pace_is_a_guess_until_somebody_has_answered(tmp_path):
    with new_project(tmp_path / "p") as project:
        assert pace(project) == 12


# The act


def test_accepting_asks_for_none_of_it_again_and_counts_it_as_done(project):
    before = standing(project, "ada").labeled
    done = accept(project, "ada", WISH)
    (stored,) = acceptances.history(project.db)
    assert (stored.id, stored.annotator, stored.ended) == (done, "ada", None)
    assert standing(project, "ada").labeled == before + stored.size
    taken = acceptances.standing_ids(project.db)
    asked = {question.utterance.id for question in work_through(project, 1000) if question.entry.strategy != SPOT_CHECK}
    assert not asked & taken


def test_accepted_labels_are_never_trained_or_measured_on(project):
    accept(project, "ada", WISH)
    taken = acceptances.standing_ids(project.db)
    snapshot = take_snapshot(project, project.config, np.random.default_rng(0))
    assert not taken & {*snapshot.train, *snapshot.audit}
    assert not taken & annotations.answered_ids(project.db)
    assert taken <= set(snapshot.scored)


def test_nothing_is_accepted_twice(project):
    accept(project, "ada", WISH)
    first = acceptances.standing_ids(project.db)
    with pytest.raises(RoundError, match="No suggestions"):
        accept(project, "ada", WISH)
    assert acceptances.standing_ids(project.db) == first
    with pytest.raises(ValueError, match="have a label already"):
        acceptances.accept(
            project.db,
            acceptances.NewAcceptance(1, "ada", 0.9, 0.95, "{}", 1),
            {next(iter(first)): (1, 0.9)},
        )


def test_where_nothing_can_be_guaranteed_nothing_is_accepted(project):
    with pytest.raises(RoundError, match="at a precision of 99%"):
        accept(project, "ada", Target(0.99, 0.95))
    assert acceptances.history(project.db) == []


def test_an_acceptance_is_taken_back_as_a_whole_and_leaves_a_trace(project):
    done = accept(project, "ada", WISH)
    taken = acceptances.standing_ids(project.db)
    assert take_back(project, done, "ben")
    assert acceptances.standing_ids(project.db) == set()
    assert taken <= set(candidates(project, None).pool)
    (stored,) = acceptances.history(project.db)
    assert (stored.ended, stored.reason, stored.size) == ("undone", "undone by ben", len(taken))
    assert not take_back(project, done, "ben")
    assert offer(project, WISH).accepts == len(taken)


def test_an_acceptance_can_neither_be_changed_nor_deleted(project):
    accept(project, "ada", WISH)
    for statement in (
        "UPDATE accepted SET label_id = 1",
        "DELETE FROM acceptance",
        "UPDATE acceptance SET target = 0.1",
    ):
        with pytest.raises(Exception, match="append-only"):
            project.db.execute(statement)


# Spot checks


def spot_check(project: Project, wrong: bool, annotator: str = "ada") -> int:
    """Answer one accepted utterance as a spot check would ask it."""
    free = acceptances.standing_ids(project.db) - annotations.answered_ids(project.db)
    (row,) = utterances.read(project.db, [min(free)])
    label = codebook_of(project).id_of(truth(row.text))
    said = next(i for i in codebook_of(project).ids if i != label) if wrong else label
    annotations.record(project.db, NewAnnotation(row.id, annotator, "label", said, SPOT_CHECK, 1))
    withdraw_broken(project)
    return row.id


def only_checks(project: Project) -> None:
    """Accept, with a batch that does nothing but check, before anything is held for anyone."""
    change(project, spot_share=1.0, audit_share=0.0)
    queue.drop(project.db, queue.queued_ids(project.db))
    accept(project, "ada", WISH)


def test_spot_checks_come_with_the_batch_blind_and_say_why(project):
    accept(project, "ada", WISH)
    questions = [q for q in work_through(project, 40) if q.entry.strategy == SPOT_CHECK]
    assert questions
    taken = {row["utterance_id"] for row in project.db.query("SELECT utterance_id FROM accepted")}
    for question in questions:
        assert question.utterance.id in taken
        assert question.suggestion is None
        assert "auto-accepted" in question.reason
    (stored,) = acceptances.history(project.db)
    assert (stored.checks, stored.errors) == (len(questions), 0)


def test_a_guarantee_that_spot_checks_confirm_stands(project):
    accept(project, "ada", WISH)
    for _ in range(40):
        spot_check(project, wrong=False)
    assert acceptances.history(project.db)[0].checks == 40
    assert acceptances.history(project.db)[0].ended is None


def test_a_guarantee_is_withdrawn_when_spot_checks_contradict_it(project):
    accept(project, "ada", WISH)
    checked = []
    while not acceptances.history(project.db)[0].ended:
        checked.append(spot_check(project, wrong=len(checked) % 2 == 0))
    assert len(checked) < 20
    (stored,) = acceptances.history(project.db)
    assert stored.ended == "withdrawn"
    assert "spot checks contradicted the suggestion" in stored.reason
    assert acceptances.standing_ids(project.db) == set()
    assert not set(checked) & set(candidates(project, None).pool), "what a person has answered stays answered"


@pytest.mark.parametrize(("evidence", "withdrawn"), [(19.9, False), (20.0, True)])
def test_a_guarantee_is_withdrawn_at_odds_of_twenty_to_one_against_it(project, monkeypatch, evidence, withdrawn):
    done = accept(project, "ada", WISH)
    monkeypatch.setattr(auto_accept, "evidence_against", lambda *_: evidence)
    assert withdraw_broken(project) == ([done] if withdrawn else [])


def test_an_answer_through_the_label_page_withdraws_a_broken_guarantee(project):
    only_checks(project)
    none_fits = 0
    while not acceptances.history(project.db)[0].ended and none_fits < 20:
        question = next_question(project, "ada")
        answer(project, question, "ada", Answer("none_fits"))
        none_fits += 1
    assert acceptances.history(project.db)[0].ended == "withdrawn"


def test_a_spot_check_that_is_taken_back_counts_no_more(project):
    only_checks(project)
    question = next_question(project, "ada")
    answer(project, question, "ada", Answer("none_fits"))
    assert acceptances.history(project.db)[0].errors == 1
    undo(project, "ada")
    assert acceptances.history(project.db)[0].checks == 0
    assert question.utterance.id in acceptances.standing_ids(project.db)


# What leaves


def test_accepted_labels_are_exported_as_what_they_are(project):
    done = accept(project, "ada", WISH)
    rows = {row.id: row for row in export_rows(project, ExportPlan())}
    accepted = [row for row in rows.values() if row.source == "accepted"]
    assert len(accepted) == len(acceptances.standing_ids(project.db))
    for row in accepted:
        assert (row.acceptance, row.answers, row.annotator) == (done, 0, "ada")
        assert row.promise == "at least 90% right, at 95% confidence"
        assert row.suggested_probability >= 0.3
    assert all(row.acceptance is None for row in rows.values() if row.source != "accepted")
    assert "| in effect |" in dataset_card(project, ExportPlan(), len(rows))


def test_a_person_who_answers_an_accepted_utterance_has_the_last_word(project):
    accept(project, "ada", WISH)
    checked = spot_check(project, wrong=True)
    (row,) = [
        r for r in export_rows(project, ExportPlan()) if r.id == utterances.read(project.db, [checked])[0].external_id
    ]
    assert row.source == "expert"
    assert row.strategy == SPOT_CHECK


def test_what_was_taken_back_leaves_no_label_but_a_line_on_the_card(project):
    take_back(project, accept(project, "ada", WISH), "ben")
    assert not [row for row in export_rows(project, ExportPlan()) if row.source == "accepted"]
    assert "undone: undone by ben" in dataset_card(project, ExportPlan(), 1)


# Rolling back


def test_an_older_round_can_be_put_in_use_again_until_the_next_is_promoted(project):
    older = rounds.promoted(project.db)
    label_pool(project, 10)
    newer = run_round(project, classifier_of(project), project.config).row
    roll_back(project, older.id, "ada")
    assert rounds.promoted(project.db).id == older.id
    held = queue.leased_ids(project.db)
    queued = project.db.query("SELECT utterance_id, round_id FROM queue")
    assert {row["round_id"] for row in queued if row["utterance_id"] not in held} == {older.id}
    roll_back(project, newer.id, "ada")
    assert rounds.promoted(project.db).id == newer.id
    roll_back(project, older.id, "ada")
    newest = run_round(project, classifier_of(project), project.config).row
    assert rounds.promoted(project.db).id == newest.id
    assert len(list(project.db.query("SELECT * FROM roll_back"))) == 3


def test_a_round_that_was_never_in_use_cannot_be_rolled_back_to(project):
    with pytest.raises(ValueError, match="never in use"):
        roll_back(project, 99, "ada")


def test_a_codebook_with_other_labels_stops_accepting(project):
    assert not offer(project, WISH).stale
    make(project, propose(project, add(project, {"name": "threat"})), "ada")
    assert offer(project, WISH).stale
    with pytest.raises(RoundError, match="codebook has changed"):
        accept(project, "ada", WISH)
