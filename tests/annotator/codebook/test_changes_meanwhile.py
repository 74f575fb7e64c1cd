"""Test changes of the codebook during rounds, adjudication and labeling."""

from __future__ import annotations

import pytest

from annotator import loop
from annotator.codebook import changes
from annotator.codebook.definition import codebook_of
from annotator.errors import RoundError
from annotator.labeling.session import Answer, answer, next_question
from annotator.loop import run_round
from annotator.reporting.summary import in_use, label_counts
from annotator.rounds.consensus import consensus, consensus_labels
from store import annotations
from store.annotations import ADJUDICATED
from tests.annotator.scenes import REPORT, WISH, classifier_of, make, promoted, say, skip_to_suggestion


@pytest.fixture
def project(taught):
    return taught


def test_a_codebook_changed_while_a_round_starts_stops_it_with_a_hint(project):
    classifier = classifier_of(project)
    make(project, changes.add(project, {"name": "threat"}))
    with pytest.raises(RoundError, match="codebook was changed to version 4") as caught:
        run_round(project, classifier, project.config)
    assert "Retrain" in caught.value.hint


def test_a_round_under_way_keeps_to_the_codebook_it_began_with(project, monkeypatch):
    save = loop.save_adapter

    def change_meanwhile(project, row, adapter):
        make(project, changes.split(project, WISH, [{"name": "hope"}, {"name": "dream"}]))
        return save(project, row, adapter)

    monkeypatch.setattr(loop, "save_adapter", change_meanwhile)
    done = run_round(project, classifier_of(project), project.config)
    assert (done.row.codebook_version, done.row.label_ids) == (3, (1, 2, 3))
    assert promoted(project).label_ids == codebook_of(project).ids
    assert next_question(project, "ada")


def test_an_adjudicated_answer_wins_and_stands_beside_the_answers_of_its_annotator(project):
    answered = annotations.answers(project.db)[0]
    other = next(i for i in codebook_of(project).ids if i != answered.label_id)
    say(project, answered.utterance_id, answered.annotator, other, ADJUDICATED)
    both = [a for a in annotations.answers(project.db) if a.utterance_id == answered.utterance_id]
    assert [a.label_id for a in both] == [answered.label_id, other]
    for late in ("ben", "cleo"):
        say(project, answered.utterance_id, late, answered.label_id)
    assert consensus(annotations.answers(project.db))[answered.utterance_id] == other
    make(project, changes.retire(project, other))
    assert consensus(annotations.answers(project.db))[answered.utterance_id] == answered.label_id, (
        "what two have said since it was settled counts"
    )


def test_what_had_been_overruled_stays_so_when_the_adjudicated_label_goes_out_of_use(project):
    answered = annotations.answers(project.db)[0]
    other = next(i for i in codebook_of(project).ids if i != answered.label_id)
    say(project, answered.utterance_id, "cleo", other, ADJUDICATED)
    make(project, changes.retire(project, other))
    assert answered.utterance_id not in consensus(annotations.answers(project.db))
    assert answered.utterance_id in {row.utterance_id for row in annotations.to_look_at(project.db, 0)}


def test_insights_count_labels_as_they_count_now(project):
    make(project, changes.merge(project, [WISH], REPORT))
    counted = {one.name: one for one in label_counts(project, in_use(project))}
    agreed = consensus_labels(annotations.answers(project.db))
    assert counted["report"].pool + counted["report"].audit == sum(label == REPORT for label in agreed.values())
    assert set(counted) == {"promise", "report"}


def test_an_answer_in_a_label_that_went_out_of_use_while_it_was_on_screen_is_kept_to_be_looked_at(project):
    question = next_question(project, "ben")
    make(project, changes.retire(project, WISH), "ada")
    answer(project, question, "ben", Answer("label", WISH))
    (late,) = (a for a in annotations.answers(project.db) if a.annotator == "ben")
    assert (late.kind, late.said_label_id) == ("out_of_use", WISH)
    assert late.id in {row.id for row in annotations.to_look_at(project.db, 0)}


def test_a_suggestion_that_was_shown_is_told_in_the_label_it_counts_as(project):
    question = skip_to_suggestion(project)
    shown = question.suggestion.best[0]
    answer(project, question, "ada", Answer("label", shown))
    into = next(i for i in codebook_of(project).ids if i != shown)
    make(project, changes.merge(project, [shown], into))
    last = annotations.answers(project.db)[-1]
    assert (last.label_id, last.suggested_label_id) == (into, into), "who agreed still agrees"
