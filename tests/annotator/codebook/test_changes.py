"""Test every change of the codebook: its effects are counted beforehand, apply to all, and can be undone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from annotator.codebook import changes, history
from annotator.codebook.definition import codebook_of
from annotator.errors import BadCodebook, BadInput, RoundError
from annotator.labeling.auto_accept import accept, offer
from annotator.labeling.session import next_question, standing
from annotator.loop import run_round
from annotator.methods.guarantee import Target
from annotator.project import Project
from annotator.reporting.summary import in_use
from annotator.rounds.consensus import consensus, consensus_labels
from annotator.rounds.snapshot import take_snapshot
from store import acceptances, annotations, labels, rounds, utterances
from tests.annotator.scenes import (
    PROMISE,
    REPORT,
    WISH,
    classifier_of,
    make,
    promoted,
    say,
    skip_to_suggestion,
    work_through,
)


@pytest.fixture
def project(taught):
    return taught


def kinds(project: Project) -> Counter:
    return Counter((a.kind, a.label_id) for a in annotations.answers(project.db))


# Merging


def test_a_merged_label_counts_as_the_other_for_everybody_and_needs_no_round(project):
    before, said = kinds(project), promoted(project)
    make(project, changes.merge(project, [WISH], REPORT))
    after, now = kinds(project), promoted(project)
    assert after["label", REPORT] == before["label", REPORT] + before["label", WISH]
    assert ("label", WISH) not in after
    assert now.label_ids == (PROMISE, REPORT)
    assert np.allclose(now.probabilities[:, 0], said.probabilities[:, 0])
    assert np.allclose(now.probabilities[:, 1], said.probabilities[:, 1] + said.probabilities[:, 2])
    assert np.allclose(now.mass, said.mass)
    assert not offer(project, Target(0.9)).stale
    assert in_use(project).names == ("promise", "report")


def test_taking_a_merge_back_brings_every_answer_back(project):
    before, said = kinds(project), promoted(project)
    version = make(project, changes.merge(project, [WISH], PROMISE))
    history.undo(project, version, "ben")
    assert kinds(project) == before
    assert np.array_equal(promoted(project).probabilities, said.probabilities)


def test_merges_follow_one_another(project):
    make(project, changes.add(project, {"name": "hope"}))
    make(project, changes.merge(project, [WISH], REPORT))
    make(project, changes.merge(project, [REPORT], PROMISE))
    assert {label for kind, label in kinds(project) if kind == "label"} == {PROMISE}
    assert labels.names(project.db).keys() >= {WISH, REPORT}, "labels are never deleted"


def test_the_next_round_learns_a_merged_label_as_the_other(project):
    make(project, changes.merge(project, [WISH], REPORT))
    done = run_round(project, classifier_of(project), project.config)
    assert done.row.label_ids == (PROMISE, REPORT)
    assert done.row.trained_on == len(
        [i for i in consensus_labels(annotations.answers(project.db)) if i in pool(project)]
    )


def pool(project: Project) -> set[int]:
    return set(utterances.ids_in(project.db, "pool"))


def test_what_was_accepted_in_a_merged_label_stands_as_the_other(project):
    make_acceptance(project)
    make(project, changes.merge(project, [WISH], REPORT))
    assert {row.label_id for row in acceptances.standing(project.db)} <= {PROMISE, REPORT}
    assert len(acceptances.standing(project.db)) == 3


def make_acceptance(project: Project) -> None:
    open_ids = [i for i in utterances.ids_in(project.db, "pool") if i not in annotations.answered_ids(project.db)][:3]
    new = acceptances.NewAcceptance(rounds.promoted(project.db).id, "ada", 0.9, 0.9, "{}", 3)
    acceptances.accept(project.db, new, {i: (label, 0.99) for i, label in zip(open_ids, (1, 2, 3), strict=True)})


# Splitting and retiring


def test_a_split_label_leaves_its_utterances_to_be_answered_again_and_its_answers_remembered(project):
    given = annotations.count_labels(project.db)[WISH]
    asked = annotations.count_answered(project.db)
    make(project, changes.split(project, WISH, [{"name": "hope"}, {"name": "dream"}]))
    assert codebook_of(project).names == ("promise", "report", "hope", "dream")
    assert kinds(project)["out_of_use", None] == given
    assert annotations.count_answered(project.db) == asked - given
    doubtful = annotations.to_look_at(project.db, 0)
    assert len(doubtful) == given
    assert {row.said_label_id for row in doubtful} == {WISH}
    assert standing(project, "ada").labeled == asked - given


def test_a_split_label_is_replaced_where_it_stood(project):
    make(project, changes.split(project, REPORT, [{"name": "fact"}, {"name": "boast"}]))
    assert codebook_of(project).names == ("promise", "fact", "boast", "wish")
    fact = codebook_of(project).id_of("fact")
    make(project, changes.split(project, fact, [{"name": "figure"}, {"name": "deed"}]))
    assert codebook_of(project).names == ("promise", "figure", "deed", "boast", "wish")


def test_the_round_in_use_divides_what_it_knew_of_a_split_label_between_its_parts(project):
    said = promoted(project)
    make(project, changes.split(project, WISH, [{"name": "hope"}, {"name": "dream"}]))
    now = promoted(project)
    assert np.allclose(now.probabilities[:, 2:], said.probabilities[:, [2, 2]] / 2)
    assert np.allclose(now.mass, said.mass)
    assert offer(project, Target(0.9)).stale, "nothing is accepted in labels that the round cannot tell apart"
    with pytest.raises(RoundError):
        accept(project, "ada", Target(0.9))


def test_an_answer_since_takes_an_utterance_off_the_worklist(project):
    make(project, changes.split(project, WISH, [{"name": "hope"}, {"name": "dream"}]))
    first, *rest = annotations.to_look_at(project.db, 0)
    say(project, first.utterance_id, "ben", codebook_of(project).id_of("hope"))
    assert [row.id for row in annotations.to_look_at(project.db, 0)] == [row.id for row in rest]
    assert consensus(annotations.answers(project.db))[first.utterance_id] == codebook_of(project).id_of("hope")


def test_taking_a_split_back_counts_its_parts_as_the_whole(project):
    before = kinds(project)
    version = make(project, changes.split(project, WISH, [{"name": "hope"}, {"name": "dream"}]))
    first = annotations.to_look_at(project.db, 0)[0]
    say(project, first.utterance_id, first.annotator, codebook_of(project).id_of("hope"))
    history.undo(project, version, "ada")
    assert kinds(project) == before
    assert codebook_of(project).names == ("promise", "report", "wish")


def test_a_retired_label_is_not_trained_on_until_it_is_restored(project):
    before = kinds(project)
    make(project, changes.retire(project, WISH))
    snapshot = take_snapshot(project, project.config, np.random.default_rng(0))
    assert WISH not in {*snapshot.train.values(), *snapshot.audit.values()}
    assert len(annotations.to_look_at(project.db, 0)) == before["label", WISH]
    make(project, changes.restore(project, WISH))
    assert kinds(project) == before
    assert annotations.to_look_at(project.db, 0) == []


def test_who_gave_a_retired_label_is_asked_again(project):
    make(project, changes.retire(project, WISH))
    run_round(project, classifier_of(project), project.config)
    again = {row.utterance_id for row in annotations.to_look_at(project.db, 0)}
    asked = set()
    while question := next_question(project, "ada"):
        asked.add(question.utterance.id)
        say(project, question.utterance.id, "ada", PROMISE)
    assert again <= asked


def test_what_was_accepted_in_a_retired_label_is_open_again(project):
    make_acceptance(project)
    version = make(project, changes.retire(project, WISH))
    assert {row.label_id for row in acceptances.standing(project.db)} == {PROMISE, REPORT}
    assert acceptances.count_standing(project.db) == 2
    history.undo(project, version, "ada")
    assert acceptances.count_standing(project.db) == 3


def test_an_utterance_accepted_twice_counts_once(project):
    make_acceptance(project)
    (gone,) = (row.utterance_id for row in acceptances.standing(project.db) if row.label_id == WISH)
    version = make(project, changes.retire(project, WISH))
    new = acceptances.NewAcceptance(rounds.promoted(project.db).id, "ada", 0.9, 0.9, "{}", version)
    acceptances.accept(project.db, new, {gone: (REPORT, 0.99)})
    history.undo(project, version, "ada")
    (row,) = (row for row in acceptances.standing(project.db) if row.utterance_id == gone)
    assert row.label_id == REPORT


# Adding and writing


def test_a_new_label_has_a_free_key_and_no_suggestions(project):
    make(project, changes.add(project, {"name": "threat"}))
    label = codebook_of(project).label(4)
    assert label.key == "4"
    assert promoted(project).unknown == {4}
    question = skip_to_suggestion(project)
    assert 4 not in dict(question.suggestion.probabilities)


def test_what_none_fitted_is_looked_at_again_if_asked(project):
    (one, two) = (q.utterance.id for q in work_through(project, 2, "ben"))
    say(project, one, "ben", None)
    proposal = changes.propose(project, changes.add(project, {"name": "threat"}, look=True))
    assert proposal.to_look_at == 1
    version = changes.make(project, proposal, "ada")
    assert [row.utterance_id for row in annotations.to_look_at(project.db, version)] == [one]
    say(project, two, "ben", None)
    assert len(annotations.to_look_at(project.db, version)) == 1, "the second was said with the new label in sight"


def test_a_changed_meaning_flags_answers_that_are_still_trained_on(project):
    before = kinds(project)
    make(project, changes.revise(project, WISH, {"definition": "Only wishes."}, look=True))
    assert kinds(project) == before
    assert len(annotations.to_look_at(project.db, 0)) == before["label", WISH]


def test_answers_know_the_text_they_were_given_under(project):
    old = annotations.answers(project.db)[0].codebook_version
    make(project, changes.revise(project, WISH, {"name": "desire", "definition": "New.", "examples": ["Oh, schön…"]}))
    make(project, changes.instruct(project, "Decide."))
    assert history.codebook_at(project, old).names == ("promise", "report", "wish")
    now = history.codebook_at(project, labels.version(project.db))
    assert (now.instruction, now.label(WISH).examples) == ("Decide.", ("Oh, schön…",))
    assert now.labels == codebook_of(project).labels


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "report"}, "have the same label words, “report”"),
        ({"name": " "}, "no name"),
        ({"key": "1"}, "used twice"),
        ({"key": "s"}, "not available"),
        ({"name": "wish"}, "No field of “wish” would change"),
    ],
)
def test_what_makes_a_codebook_that_cannot_be_used_is_refused(project, values, says):
    with pytest.raises(BadInput, match=says) as caught:
        make(project, changes.revise(project, WISH, values))
    assert caught.value.hint


def test_two_labels_are_the_least(project):
    make(project, changes.retire(project, WISH))
    with pytest.raises(BadCodebook, match="needs two"):
        make(project, changes.retire(project, REPORT))


# Proposing


def test_a_proposal_says_what_is_touched_before_anything_is(project):
    for question in work_through(project, 3, "ben"):
        say(project, question.utterance.id, "cleo", WISH)
    make_acceptance(project)
    preferences = [a for a in annotations.answers(project.db) if a.label_id == WISH]
    made = changes.propose(project, changes.retire(project, WISH))
    likeliest = promoted(project).probabilities.argmax(axis=1)
    assert made.answers == len(preferences)
    assert made.annotators == len({a.annotator for a in preferences})
    assert made.to_look_at == len({a.utterance_id for a in preferences})
    assert made.suggestions == int((likeliest == 2).sum())
    assert (made.accepted, made.rounds) == (1, 1)
    assert WISH in codebook_of(project).ids, "nothing has been changed yet"


def test_a_proposal_for_another_version_is_refused(project):
    late = changes.propose(project, changes.retire(project, WISH))
    make(project, changes.revise(project, WISH, {"name": "desire"}), "ben")
    with pytest.raises(BadInput, match="now at version 4") as caught:
        changes.make(project, late, "ada")
    assert caught.value.hint


# Taking back


def test_a_change_that_others_build_on_is_taken_back_after_them(project):
    first = make(project, changes.revise(project, WISH, {"name": "desire"}))
    second = make(project, changes.revise(project, WISH, {"name": "longing"}))
    with pytest.raises(BadInput, match=f"Version {second} builds on version {first}") as caught:
        history.undo(project, first, "ada")
    assert f"version {second} first" in caught.value.hint
    history.undo(project, second, "ada")
    history.undo(project, first, "ada")
    assert codebook_of(project).names[2] == "wish"
    with pytest.raises(BadInput, match="already undone"):
        history.undo(project, first, "ada")


def test_an_older_change_can_be_taken_back_by_itself(project):
    first = make(project, changes.merge(project, [WISH], REPORT))
    make(project, changes.revise(project, REPORT, {"name": "account"}))
    history.undo(project, first, "ada")
    assert codebook_of(project).names == ("promise", "account", "wish")


def test_taking_back_can_be_taken_back(project):
    merged = make(project, changes.merge(project, [WISH], REPORT))
    history.undo(project, history.undo(project, merged, "ada"), "ada")
    assert codebook_of(project).names == ("promise", "report")
    assert [event.undone for event in labels.events(project.db)][-3:] == [False, True, False]


def test_every_change_is_told_in_a_sentence(project):
    make(project, changes.add(project, {"name": "threat"}))
    make(project, changes.revise(project, WISH, {"name": "desire", "key": "9"}, look=True))
    make(project, changes.merge(project, [4], REPORT))
    make(project, changes.split(project, PROMISE, [{"name": "vow"}, {"name": "plan"}]))
    make(project, changes.retire(project, WISH))
    make(project, changes.restore(project, WISH))
    history.undo(project, make(project, changes.instruct(project, "Decide.")), "ada")
    names = labels.names(project.db)
    told = [history.describe(event, names) for event in labels.events(project.db)][3:]
    assert told == [
        "“threat” added",
        "“desire”: name “wish” → “desire”, key “3” → “9”, answers flagged for review",
        "“threat” merged into “report”",
        "“promise” split into “vow”, “plan”",
        "“desire” retired",
        "“desire” restored",
        "Instruction changed",
        "Version 10 undone",
    ]
