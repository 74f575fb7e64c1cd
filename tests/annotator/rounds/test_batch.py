"""Test the size and composition of batches, and the inclusion probability of every entry."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.config import RoundConfig
from annotator.methods.query_strategies import STRATEGIES, View
from annotator.rounds.batch import AUDIT, Candidates, compose_audit, compose_batch
from store.acceptances import SPOT_CHECK
from store.utterances import Utterance

POOL, AUDITS = range(100), range(1000, 1030)
CONFIG = RoundConfig(batch_size=25, audit_share=0.2)


def rows(count: int, seed: int = 0, labels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(labels), count)


def compose(pool=POOL, audit=AUDITS, accepted=(), *, probabilities=True, config=CONFIG, seed=0):
    table = View(rows(len(pool))) if probabilities else None
    return compose_batch(
        Candidates(list(pool), table, list(audit), list(accepted)), config, np.random.default_rng(seed)
    )


def audit_of(batch):
    return [entry for entry in batch if entry.strategy == AUDIT]


@given(
    pool=st.integers(0, 60),
    audit=st.integers(0, 30),
    size=st.integers(1, 40),
    share=st.floats(0, 1),
    scored=st.booleans(),
)
def test_a_batch_is_full_while_there_is_enough_and_asks_nothing_twice(pool, audit, size, share, scored):
    config = RoundConfig(batch_size=size, audit_share=share)
    batch = compose(range(pool), range(1000, 1000 + audit), probabilities=scored, config=config)
    ids = [entry.utterance_id for entry in batch]
    assert len(ids) == len(set(ids)) == min(size, pool + audit)
    assert all((entry.utterance_id >= 1000) == (entry.strategy == AUDIT) for entry in batch)


def test_a_share_of_the_batch_measures():
    assert len(audit_of(compose())) == 5
    assert len(compose()) == 25


def test_where_the_pool_is_used_up_the_audit_fills_the_batch():
    assert len(audit_of(compose(pool=range(4)))) == 21
    assert len(audit_of(compose(pool=[]))) == 25


def test_where_the_audit_is_used_up_the_pool_fills_the_batch():
    assert audit_of(compose(audit=[])) == []
    assert len(compose(audit=[])) == 25
    assert len(audit_of(compose(audit=range(1000, 1002)))) == 2


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("scored", [True, False])
def test_nothing_to_ask_is_an_empty_batch(strategy, scored):
    config = RoundConfig(strategy=strategy)
    assert compose(pool=[], audit=[], probabilities=scored, config=config) == []


@pytest.mark.parametrize("strategy", ["margin", "least_confidence", "entropy"])
def test_the_highest_scores_of_the_pool_are_asked_in_order(strategy):
    scores = STRATEGIES[strategy].score(View(rows(len(POOL))))
    batch = compose(config=RoundConfig(batch_size=25, strategy=strategy))
    chosen = [entry for entry in batch if entry.strategy == strategy]
    assert [entry.utterance_id for entry in chosen] == np.argsort(-scores)[:20].tolist()
    assert [entry.score for entry in chosen] == pytest.approx(np.sort(scores)[::-1][:20])


def test_what_is_chosen_has_no_propensity_and_what_is_drawn_has_its_chance():
    for entry in compose():
        assert entry.propensity == (5 / 30 if entry.strategy == AUDIT else None)
        assert entry.pool_size == (30 if entry.strategy == AUDIT else 100)
        assert (entry.score is None) == (entry.strategy == AUDIT)


def test_before_a_round_the_pool_is_drawn_at_random_whatever_the_strategy():
    drawn = [entry for entry in compose(probabilities=False) if entry.strategy != AUDIT]
    assert {(entry.strategy, entry.propensity, entry.pool_size) for entry in drawn} == {("random", 0.2, 100)}


def test_a_chance_is_never_above_one():
    small = compose(pool=range(3), audit=range(1000, 1002), probabilities=False)
    assert {entry.propensity for entry in small} == {1.0}


def test_propensities_are_the_frequencies_of_many_draws():
    counts, draws = np.zeros(1030), 2_000
    for seed in range(draws):
        for entry in compose(probabilities=False, seed=seed):
            counts[entry.utterance_id] += 1
    np.testing.assert_allclose(counts[:100] / draws, 20 / 100, atol=0.045)  # five standard errors
    np.testing.assert_allclose(counts[1000:] / draws, 5 / 30, atol=0.042)


def test_an_audit_entry_cannot_be_told_by_its_place():
    places, draws = np.zeros(25), 2_000
    for seed in range(draws):
        places += [entry.strategy == AUDIT for entry in compose(seed=seed)]
    np.testing.assert_allclose(places / draws, 0.2, atol=0.045)


def test_the_same_generator_gives_the_same_batch_and_another_another():
    assert compose(seed=3) == compose(seed=3)
    assert compose(seed=3) != compose(seed=4)


# Spot checks of auto-accepted suggestions


def checks_of(batch):
    return [entry for entry in batch if entry.strategy == SPOT_CHECK]


def test_two_of_a_batch_check_what_was_accepted_and_say_with_which_chance_they_were_drawn():
    batch = compose(accepted=range(2000, 2050))
    assert len(batch) == 25
    assert [entry.propensity for entry in checks_of(batch)] == [2 / 50] * 2
    assert {entry.utterance_id >= 2000 for entry in checks_of(batch)} == {True}
    assert len(audit_of(batch)) == 5


def test_where_nothing_else_is_left_spot_checks_go_on():
    assert len(checks_of(compose(pool=[], audit=[], accepted=range(2000, 2050)))) == 25
    assert len(checks_of(compose(pool=[], audit=[1000], accepted=range(2000, 2050)))) == 2


def test_without_acceptances_there_are_no_spot_checks():
    assert checks_of(compose()) == []


# Audit utterances on request


def test_an_audit_on_request_is_drawn_at_random_and_never_larger_than_what_is_left():
    rng = np.random.default_rng(0)
    some = compose_audit(AUDITS, 12, rng)
    assert len({entry.utterance_id for entry in some}) == 12
    assert {(entry.strategy, entry.propensity, entry.pool_size) for entry in some} == {(AUDIT, 12 / 30, 30)}
    assert {entry.utterance_id for entry in compose_audit(AUDITS, 99, rng)} == set(AUDITS)
    assert compose_audit([], 5, rng) == []


# The project's query strategy


def strategies_of(view: View, **settings) -> set[tuple[str, float | None]]:
    cold = settings.pop("is_cold", False)
    batch = compose_batch(
        Candidates(range(len(view)), view, is_cold=cold),
        RoundConfig(batch_size=5, **settings),
        np.random.default_rng(0),
    )
    assert len(batch) == 5
    return {(entry.strategy, entry.propensity) for entry in batch}


def test_before_the_first_answer_the_cold_strategy_chooses_unless_the_project_draws_at_random():
    view = View(rows(20))
    assert strategies_of(view, is_cold=True, cold_strategy="entropy", strategy="margin") == {("entropy", None)}
    assert strategies_of(view, cold_strategy="entropy", strategy="margin") == {("margin", None)}
    assert strategies_of(view, is_cold=True, cold_strategy="entropy", strategy="random") == {("random", 0.25)}
    assert strategies_of(view, is_cold=True, cold_strategy="random", strategy="margin") == {("random", 0.25)}


def test_a_strategy_whose_input_is_missing_gives_way_to_the_default():
    assert strategies_of(View(rows(20)), strategy="label_balanced") == {("margin_diverse", None)}
    counted = View(rows(20), label_counts=[1, 2, 3])
    assert strategies_of(counted, strategy="label_balanced") == {("label_balanced", None)}


def test_entries_drawn_at_random_have_the_score_zero():
    drawn = compose(config=RoundConfig(batch_size=10, strategy="random"))
    unscored = compose(probabilities=False)
    assert {entry.score for entry in [*drawn, *unscored] if entry.strategy == "random"} == {0.0}


# Variety


def chosen_from(texts: list[str], count: int, conversations: list[str | None] | None = None) -> list[int]:
    """Choose from utterances whose scores fall in this order; return their places."""
    spoken_in = zip_longest(texts, conversations or [])
    table = [Utterance(i, str(i), text, one, None, None, "pool", "{}") for i, (text, one) in enumerate(spoken_in)]
    shares = np.linspace(0.5, 0.9, len(texts))
    candidates = Candidates(
        range(100, 100 + len(texts)),
        View(np.stack([shares, 1 - shares], axis=1)),
        read=lambda ids: [table[i - 100] for i in ids],
    )
    config = RoundConfig(batch_size=count, strategy="margin_diverse", per_conversation=2)
    batch = compose_batch(candidates, config, np.random.default_rng(0))
    return sorted(entry.utterance_id - 100 for entry in batch)


OTHERS = ["schools will be built", "taxes fall", "we hope for rain", "roads: later", "a park opened"]


def test_near_duplicates_of_what_is_in_a_batch_come_last():
    texts = ["The bridge was opened last year.", "the bridge was opened last year", *OTHERS]
    assert len({0, 1} & set(chosen_from(texts, 6))) == 1
    assert chosen_from(texts, 7) == list(range(7)), "but before a batch is too small"


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("The bridge was opened last year.", "The bridge was opened  last year!", True),
        ("We will build schools in every town by 2030.", "We will build schools in every town by 2031.", True),
        ("The bridge was opened last year.", "The tunnel was closed this week.", False),
        ("We will build new schools.", "We will close new schools.", False),
        ("yes", "yes", True),
        ("?", "!", False),
        ("a", "a", True),
    ],
)
def test_texts_that_differ_in_a_word_are_no_near_duplicates(first, second, alike):
    assert (len({0, 1} & set(chosen_from([first, second, *OTHERS], 6))) == 1) == alike


def test_a_batch_holds_few_turns_of_one_conversation():
    texts = ["schools open", "bridges fell", "parks bloom", "trains stop", *OTHERS]
    conversations = ["c", "c", "c", "c", "d", "d", None, None, None]
    assert len({0, 1, 2, 3} & set(chosen_from(texts, 7, conversations))) == 2
    assert len(set(chosen_from(texts, 8, conversations)) & {0, 1, 2, 3}) == 3
    assert len(chosen_from(texts, 9, [None] * 9)) == 9


def test_without_texts_a_diverse_batch_is_no_larger_than_wanted():
    batch = compose(config=RoundConfig(batch_size=25, strategy="margin_diverse", audit_share=0.0))
    assert len(batch) == 25
