"""Several annotations become one label where one has most votes, and none where it is a draw."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.consensus import agreement, consensus, consensus_labels


def votes(*said: int | str | None, utterance: int = 1) -> list[dict]:
    """Write answers short: a number is a label, None says that none fits, a string is another kind."""
    kinds = {None: "none_fits"}
    return [
        {
            "id": number,
            "utterance_id": utterance,
            "annotator": f"person {number}",
            "strategy": "random",
            "kind": "label" if isinstance(one, int) else kinds.get(one, one),
            "label_id": one if isinstance(one, int) else None,
        }
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


# How far people agree


def test_where_no_utterance_has_two_labels_there_is_no_agreement_to_speak_of():
    assert agreement([]) is None
    assert agreement(votes(1, utterance=1) + votes(2, utterance=2)) is None
    assert agreement(votes(1, None, "skip")) is None, "only labels are compared"


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
