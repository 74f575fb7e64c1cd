"""Test the consensus of several annotators: the majority's label, and none for a tie."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.rounds.consensus import agreement, consensus, consensus_labels, divided, verdict
from store.annotations import Answer
from tests.store.rows import answer


def votes(*said: int | str | None, utterance: int = 1) -> list[Answer]:
    """Return answers: a number is a label, None is “none fits”, a string is another kind."""
    kinds = {None: "none_fits"}
    return [
        answer(
            id=number,
            utterance_id=utterance,
            annotator=f"person {number}",
            kind="label" if isinstance(one, int) else kinds.get(one, one),
            label_id=one if isinstance(one, int) else None,
        )
        for number, one in enumerate(said)
    ]


def test_one_answer_is_the_consensus():
    assert consensus_labels(votes(3)) == {1: 3}


def test_most_votes_win_also_without_half_of_them():
    assert consensus_labels(votes(1, 2, 2)) == {1: 2}
    assert consensus_labels(votes(1, 2, 2, 3)) == {1: 2}


def test_a_draw_is_no_label():
    assert consensus_labels(votes(1, 2)) == {}
    assert consensus_labels(votes(1, 2, 2, 1, 3)) == {}


def test_that_none_fits_is_a_vote():
    assert consensus_labels(votes(1, None)) == {}
    assert consensus_labels(votes(1, None, None)) == {}
    assert consensus_labels(votes(1, 1, None)) == {1: 1}


def test_that_none_fits_can_be_agreed_on_and_a_draw_cannot():
    assert consensus(votes(1, None, None)) == {1: None}
    assert consensus(votes(1, None)) == {}


def test_a_skip_is_no_vote():
    assert consensus_labels(votes("skip")) == {}
    assert consensus_labels(votes("skip", 1, "skip")) == {1: 1}


def test_every_utterance_has_its_own():
    assert consensus_labels(votes(1, utterance=1) + votes(2, 2, utterance=2)) == {1: 1, 2: 2}


def test_no_answers_have_no_consensus():
    assert consensus_labels([]) == {}


@given(st.lists(st.sampled_from([1, 2, 3, None, "skip"])), st.randoms())
def test_the_order_of_the_answers_does_not_matter(said, random):
    shuffled = list(said)
    random.shuffle(shuffled)
    assert consensus(votes(*said)) == consensus(votes(*shuffled))


def voice(annotator: str, said: int | str | None, number: int, strategy: str = "random") -> Answer:
    return replace(votes(said)[0], id=number, annotator=annotator, strategy=strategy)


def given_and(*people: Answer) -> list[Answer]:
    return [voice("given", 1, 0, "given"), *people]


@pytest.mark.parametrize(
    ("people", "kind", "label"),
    [
        ([], "label", 1),
        ([voice("anna", "skip", 1)], "label", 1),
        ([voice("anna", 2, 1)], "label", 2),
        ([voice("anna", None, 1)], "none_fits", None),
        ([voice("anna", 1, 1), voice("ben", 2, 2)], "disputed", None),
        ([voice("anna", 2, 1), voice("ben", None, 2)], "disputed", None),
        ([voice("anna", "out_of_use", 1)], "out_of_use", None),
    ],
)
def test_a_label_that_came_with_the_file_counts_only_while_no_person_has_answered(people, kind, label):
    found = verdict(given_and(*people))
    assert (found.kind, found.label_id) == (kind, label)
    assert divided(given_and(*people)) == ([1] if kind == "disputed" else [])


def test_names_that_differ_by_case_or_spaces_are_one_person_whose_newest_answer_counts():
    same = [voice("anna", 1, 1), voice("ben", 2, 2), voice("Anna ", 2, 3)]
    assert consensus(same) == {1: 2}
    assert divided(same) == []
    assert len(verdict(same).votes) == 2
    assert agreement([voice("anna", 1, 1), voice(" ANNA", 2, 2)]) is None
    assert consensus([voice("Jose\u0301", 1, 1), voice("jos\u00e9", 2, 2)]) == {1: 2}


def test_what_somebody_adjudicated_leaves_their_own_vote_and_wins():
    found = verdict([voice("anna", 1, 1), voice("ben", 2, 2), voice("anna", 2, 3, "adjudicated")])
    assert (found.kind, found.label_id, len(found.votes)) == ("label", 2, 3)


# How far people agree


def test_none_fits_is_a_value_of_its_own_in_the_agreement():
    agreeing = [votes(1, 1, utterance=i) for i in range(3)] + [votes(None, None, utterance=3)]
    apart = [votes(1, None, utterance=4), votes(2, 2, utterance=5)]
    found = agreement([one for group in [*agreeing, *apart] for one in group])
    assert found is not None
    assert (found.utterances, found.pairs, found.share) == (6, 6, 5 / 6)
    # 12 answers, seven 1, two 2, three none: observed 2/12, expected (144 - 49 - 4 - 9) / (12 * 11)
    assert found.alpha == pytest.approx(1 - (2 / 12) / (82 / 132))


def test_what_came_with_the_file_and_what_was_adjudicated_is_in_no_pair():
    assert agreement(given_and(voice("anna", 1, 1), voice("ben", 1, 2, "adjudicated"))) is None


def test_where_no_utterance_has_two_labels_there_is_no_agreement_to_speak_of():
    assert agreement([]) is None
    assert agreement(votes(1, utterance=1) + votes(2, utterance=2)) is None
    assert agreement(votes(1, "skip")) is None, "a skip is no answer"


def test_the_share_is_that_of_pairs_and_alpha_sets_chance_aside():
    # Two labels each: three utterances agree (1 1, 1 1, 2 2), one does not (1 2).
    found = agreement(
        votes(1, 1, utterance=1) + votes(1, 1, utterance=2) + votes(2, 2, utterance=3) + votes(1, 2, utterance=4)
    )
    assert found is not None
    assert (found.utterances, found.pairs, found.share) == (4, 4, 0.75)
    # 8 labels, five 1 and three 2: observed disagreement 2/8, expected 2·5·3/(8·7); alpha = 1 - 0.25/(30/56)
    assert found.alpha == pytest.approx(1 - 0.25 / (30 / 56))


def test_three_people_make_three_pairs():
    found = agreement(votes(1, 1, 2))
    assert found is not None
    assert (found.utterances, found.pairs) == (1, 3)
    assert found.share == pytest.approx(1 / 3)


def test_one_label_only_is_agreement_that_says_nothing_beyond_chance():
    found = agreement(votes(1, 1, utterance=1) + votes(1, 1, 1, utterance=2))
    assert found is not None
    assert (found.share, found.alpha) == (1.0, None)
