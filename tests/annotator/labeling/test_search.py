"""A search finds what meets all its conditions, and reveals nothing that must stay hidden."""

from __future__ import annotations

import time

import pytest

from annotator.codebook import changes
from annotator.errors import BadInput
from annotator.exchange.imports import add_utterances
from annotator.labeling import search
from annotator.labeling.search import Search, alike, find
from annotator.loop import run_round
from store import annotations, rounds, utterances
from store.annotations import NewAnnotation
from store.search import NONE_FITS, Conditions
from store.utterances import NewUtterance
from tests.annotator.scenes import classifier_of


def say(project, utterance, label, annotator="ada", kind="label", round_id=None):
    new = NewAnnotation(utterance, annotator, kind, label, "random", 1, round_id=round_id)
    return annotations.record(project.db, new)


def where(project, **conditions):
    return find(project, Search(where=Conditions(**conditions)))


def texts_of(project, ids):
    return [row.text for row in utterances.read(project.db, ids)]


def test_without_conditions_everything_to_be_labeled_is_found(project):
    add_utterances(project, [NewUtterance("c", "only context", context_only=True)])
    assert len(find(project, Search())) == 60


def test_all_words_must_occur_whatever_their_order_and_case(project):
    add_utterances(project, [NewUtterance("x", "Über Straßen und Ämter"), NewUtterance("y", "straßen")])
    assert texts_of(project, find(project, Search("STRASSEN über"))) == ["Über Straßen und Ämter"]
    assert find(project, Search("nowhere")) == []


def test_signs_with_a_meaning_elsewhere_are_only_signs_in_words(project):
    add_utterances(project, [NewUtterance("x", "100% sure_thing"), NewUtterance("y", "100 sure thing")])
    assert texts_of(project, find(project, Search("100% _thing"))) == ["100% sure_thing"]


def test_a_pattern_finds_what_it_matches(project):
    assert texts_of(project, find(project, Search(pattern=r"^PROMISE.* n(0|3)$"))) == texts_of(project, [1, 4])


def test_a_wrong_pattern_is_told_with_its_fault(project):
    with pytest.raises(BadInput, match="missing \\)"):
        find(project, Search(pattern="(maybe"))


def test_a_pattern_that_would_run_for_ever_is_stopped(project, monkeypatch):
    monkeypatch.setattr(search, "PATIENCE", 0.2)
    add_utterances(project, [NewUtterance("x", "a" * 80 + "b")])
    began = time.process_time()
    with pytest.raises(BadInput, match="takes longer"):
        find(project, Search(pattern="(a|aa)+$"))
    assert time.process_time() - began < 5


def test_by_answers_label_person_and_round_of_the_same_answer(project):
    row = run_round(project, classifier_of(project), project.config).row
    one, two, three, four = utterances.ids_in(project.db, "pool")[:4]
    say(project, one, 1, "ada", round_id=row.id)
    say(project, one, 2, "ben")
    say(project, two, 2, "ada")
    say(project, three, None, "ada", "none_fits")
    say(project, four, None, "ada", "skip")
    assert where(project, state="answered") == [one, two, three]
    assert len(where(project, state="open")) == 57
    assert where(project, label_id=2) == [one, two]
    assert where(project, label_id=2, annotator="ada") == [two]
    assert where(project, label_id=NONE_FITS) == [three]
    assert where(project, round_id=row.id) == [one]
    assert where(project, disagreement="people") == [one]
    annotations.undo(project.db, "ben")
    assert where(project, disagreement="people") == []


def test_by_what_the_model_says(trained):
    known = rounds.predictions_of(trained.db, rounds.promoted(trained.db))
    answered = annotations.answered_ids(trained.db)
    held_out = {i for i in utterances.ids_in(trained.db, "audit") if i not in answered}
    said = {
        int(i): (known.label_ids[row.argmax()], float(row.max()))
        for i, row in zip(known.utterance_ids, known.probabilities, strict=True)
        if i not in held_out
    }
    assert where(trained, likeliest_id=2) == [i for i, (label, _) in said.items() if label == 2]
    between = [i for i, (_, share) in said.items() if 0.5 <= share <= 0.9]
    assert where(trained, low=0.5, high=0.9) == between
    assert 0 < len(between) < len(said)


def alter(project, change):
    changes.make(project, changes.propose(project, change), "ben")


def test_a_merged_label_is_found_as_the_other_in_answers_and_in_what_the_model_says(trained):
    given = {*where(trained, label_id=2), *where(trained, label_id=3)}
    likeliest = {*where(trained, likeliest_id=2), *where(trained, likeliest_id=3)}
    assert where(trained, label_id=3)
    alter(trained, changes.merge(trained, [3], 2))
    assert set(where(trained, label_id=2)) == given
    assert set(where(trained, likeliest_id=2)) >= likeliest
    assert where(trained, likeliest_id=3) == where(trained, label_id=3) == []
    everything = set(where(trained, low=0.01))
    assert {*where(trained, likeliest_id=1), *where(trained, likeliest_id=2)} == everything


def test_an_answer_in_a_label_that_is_out_of_use_leaves_its_utterance_open(trained):
    given = where(trained, label_id=3)
    alter(trained, changes.add(trained, {"name": "vow"}))
    alter(trained, changes.retire(trained, 3))
    assert set(given) <= set(where(trained, state="open"))
    assert where(trained, label_id=3) == where(trained, disagreement="people") == []
    assert not set(given).intersection(where(trained, disagreement="model"))


def test_what_is_to_be_answered_blindly_is_not_found_by_what_the_model_says(trained):
    answered = annotations.answered_ids(trained.db)
    held_out = {i for i in utterances.ids_in(trained.db, "audit") if i not in answered}
    assert held_out
    for conditions in ({"low": 0.01}, {"likeliest_id": 1}, {"likeliest_id": 2}, {"disagreement": "model"}):
        assert not held_out.intersection(where(trained, **conditions))
    assert held_out <= set(where(trained)), "by other conditions it is"


def test_where_the_model_disagrees_with_a_person(trained):
    known = rounds.predictions_of(trained.db, rounds.promoted(trained.db))
    pool = set(utterances.ids_in(trained.db, "pool"))
    utterance, row = next((int(i), row) for i, row in zip(known.utterance_ids, known.probabilities, strict=True)
                          if int(i) in pool)  # fmt: skip
    best = known.label_ids[row.argmax()]
    say(trained, utterance, best)
    assert utterance not in where(trained, disagreement="model")
    say(trained, utterance, best % 3 + 1)
    assert utterance in where(trained, disagreement="model")


def test_before_any_round_the_model_says_nothing(project):
    assert where(project, low=0.5) == []


def test_what_is_like_an_utterance_comes_first(project):
    (one, close, copy, far) = add_utterances(project, [
        NewUtterance("1", "I could cut down at the weekends", conversation="c", turn=1),
        NewUtterance("2", "I could be cutting down on weekends", conversation="c", turn=2),
        NewUtterance("3", "I could cut down at the weekends", conversation="c", turn=3),
        NewUtterance("4", "zzz", conversation="c", turn=4),
    ])  # fmt: skip
    found = alike(project, one)
    assert found[0][0] == close
    assert not {copy, far, one}.intersection(i for i, _ in found)
    assert all(0 < share <= 1 for _, share in found)
    assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)


@pytest.mark.parametrize("text", ["!", "🙂", "  x ", "aa"])
def test_likeness_is_found_for_the_shortest_texts_too(project, text):
    (utterance,) = add_utterances(project, [NewUtterance("short", text)])
    alike(project, utterance)
