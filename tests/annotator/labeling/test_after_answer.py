"""What follows an answer is decided once, from the database, whoever gave the answer and wherever."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotator.errors import ProjectBusy, RoundRunning
from annotator.labeling import after_answer
from annotator.labeling.after_answer import FollowUp, due_now, follow_up
from annotator.labeling.session import undo
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds import reranking
from annotator.rounds.reranking import EVERY, reorder
from store import annotations, jobs, utterances
from store.annotations import NewAnnotation
from tests.annotator.scenes import change, classifier_of, label_pool, new_project


@pytest.fixture
def project(tmp_path: Path):
    with new_project(tmp_path / "p", 200) as made:
        change(made, retrain_every=0, batch_size=40)
        run_round(made, classifier_of(made), made.config)
        yield made


def say(project: Project, place: int, who: str, kind: str = "label") -> None:
    utterance = utterances.ids_in(project.db, "pool")[place]
    label = 1 + place % 2 if kind == "label" else None
    annotations.record(project.db, NewAnnotation(utterance, who, kind, label, "random", 1))  # type: ignore[arg-type]


def test_answers_of_all_annotators_count_towards_a_re_ranking(project):
    for place in range(EVERY - 1):
        say(project, place, f"annotator {place}")
    assert not due_now(project).rerank
    say(project, 50, "skipper", "skip")
    assert not due_now(project).rerank, "a skip teaches nothing"
    say(project, 51, "one more", "none_fits")
    assert due_now(project).rerank
    assert due_now(project) == due_now(project), "asking changes nothing"


@pytest.mark.parametrize("enough", [True, False], ids=["re-ranked", "too few answers to learn from"])
def test_after_a_re_ranking_counting_begins_anew_also_where_nothing_was_exchanged(project, enough):
    change(project, minimum_labels=4 if enough else 100)
    for place in range(EVERY):
        say(project, place, "ada")
    assert (reorder(project) > 0) is enough
    assert not due_now(project).rerank
    for place in range(EVERY, 2 * EVERY):
        say(project, place, "ben")
    assert due_now(project).rerank


def test_after_a_round_counting_begins_anew(project):
    for place in range(EVERY):
        say(project, place, "ada")
    run_round(project, classifier_of(project), project.config)
    assert not due_now(project).rerank


def test_an_undo_counts_as_it_changes_what_is_learned(project):
    label_pool(project, EVERY)
    reorder(project)
    for _ in range(EVERY):
        undo(project, "ada")
    assert due_now(project).rerank


def test_before_a_round_and_for_random_batches_nothing_is_re_ranked(project, tmp_path):
    for place in range(EVERY):
        say(project, place, "ada")
    change(project, strategy="random")
    assert not due_now(project).rerank
    with new_project(tmp_path / "q") as other:
        change(other, retrain_every=0)
        for place in range(EVERY):
            say(other, place, "ada")
        assert due_now(other) == FollowUp(None, False)


@pytest.fixture
def started(monkeypatch):
    """Record what is started, and start nothing."""
    found = []
    monkeypatch.setattr(after_answer, "start_round", lambda project, reason: found.append(reason))
    monkeypatch.setattr(reranking, "reorder_in_background", lambda folder: found.append(folder))
    return found


def test_both_are_started_when_they_are_due(project, started):
    change(project, retrain_every=10)
    jobs.finish(project.db, jobs.begin(project.db, "test", 0), "done")
    assert follow_up(project) == FollowUp(None, False)
    assert started == []
    label_pool(project, 10)
    assert follow_up(project) == FollowUp("10 new labels", True)
    assert started == ["10 new labels", project.folder]


@pytest.mark.parametrize("error", [ProjectBusy("busy"), RoundRunning("running")])
def test_a_round_that_cannot_start_now_stays_due(project, started, monkeypatch, error):
    def refuse(*_: object) -> None:
        raise error

    change(project, retrain_every=10)
    jobs.finish(project.db, jobs.begin(project.db, "test", 0), "done")
    label_pool(project, 10)
    monkeypatch.setattr(after_answer, "start_round", refuse)
    assert follow_up(project) == FollowUp(None, True)
    assert due_now(project).round == "10 new labels"


def test_deciding_writes_nothing_and_asks_nothing_that_grows_with_the_answers(project):
    for place in range(60):
        say(project, place, "ada")
    asked: list[str] = []
    project.db.conn.set_trace_callback(asked.append)
    due_now(project)
    project.db.conn.set_trace_callback(None)
    assert not [one for one in asked if one.startswith(("BEGIN", "INSERT", "UPDATE", "DELETE"))]
    for sql in asked:
        if "annotation" in sql and sql.startswith("SELECT"):
            plan = [row[3] for row in project.db.execute(f"EXPLAIN QUERY PLAN {sql}")]
            assert not [step for step in plan if step == "SCAN annotation"], sql
