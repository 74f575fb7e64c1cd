"""Packed utterances are blind to one another, and rows hold every utterance once within the budget."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.packing import Row, pack_row, split_rows
from model.verbalizer import LabelTrie, build_trie

TRIE = build_trie([(1,), (1, 2), (1, 2, 3), (4, 5)], 9, ["a", "b", "c", "d"])
SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=5)
LENGTHS = st.lists(st.integers(0, 50), max_size=40)


def owners(sizes: list[int], prefix: int, trie: LabelTrie) -> list[tuple[int, int]]:
    """Say of every token whose it is (-1: the prefix) and which node (0: no node, but the utterance itself)."""
    nodes = range(1, trie.nodes)
    blocks = [(one, node) for one, size in enumerate(sizes) for node in [*[0] * size, *nodes]]
    return [(-1, 0)] * prefix + blocks


def row_of(sizes: list[int], prefix: int, cached: bool = False) -> tuple[Row, np.ndarray]:
    row = pack_row([list(range(10, 10 + size)) for size in sizes], TRIE, list(range(100, 100 + prefix)), cached)
    return row, row.sees[0, 0].numpy()


@given(SIZES, st.integers(1, 4))
def test_a_token_sees_the_prefix_its_own_utterance_and_its_own_ancestors_only(sizes: list[int], prefix: int) -> None:
    _, sees = row_of(sizes, prefix)
    who = owners(sizes, prefix, TRIE)
    assert sees.shape == (len(who), len(who))
    for i, (one, node) in enumerate(who):
        for j, (other, above) in enumerate(who):
            mine = other == -1 or other == one
            allowed = bool(TRIE.ancestors[node - 1, above - 1]) if node and above else j <= i
            assert sees[i, j] == (mine and allowed)


@given(SIZES, st.integers(1, 4))
def test_a_cached_prefix_changes_neither_positions_nor_what_is_seen(sizes: list[int], prefix: int) -> None:
    whole, sees = row_of(sizes, prefix)
    cached, sees_cached = row_of(sizes, prefix, cached=True)
    assert (sees[prefix:] == sees_cached).all()
    assert (whole.position_ids[:, prefix:] == cached.position_ids).all()
    assert (whole.input_ids[:, prefix:] == cached.input_ids).all()
    assert (whole.asked - prefix == cached.asked).all()


@given(SIZES, st.integers(1, 4))
def test_positions_restart_and_every_node_is_asked_once(sizes: list[int], prefix: int) -> None:
    row, sees = row_of(sizes, prefix)
    assert (row.position_ids[0].numpy() == sees.sum(axis=1) - 1).all()  # a token stands behind all it sees
    who = owners(sizes, prefix, TRIE)
    asked = [who[int(place)] for place in row.asked]
    assert asked == [(one, node) for one in range(len(sizes)) for node in range(TRIE.nodes)]


@given(LENGTHS, st.integers(1, 100))
def test_rows_cover_every_utterance_once_and_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    rows = list(split_rows(lengths, budget))
    assert [i for row in rows for i in row] == list(range(len(lengths)))
    assert all(len(row) == 1 or sum(lengths[i] for i in row) <= budget for row in rows)


@given(LENGTHS.map(sorted), st.integers(1, 100))
def test_padded_rows_keep_to_the_budget_with_their_padding(lengths: list[int], budget: int) -> None:
    rows = list(split_rows(lengths, budget, padded=True))
    assert [i for row in rows for i in row] == list(range(len(lengths)))
    assert all(len(row) == 1 or len(row) * max(lengths[i] for i in row) <= budget for row in rows)


@given(LENGTHS, st.integers(1, 100))
def test_no_row_could_have_taken_in_the_next_utterance(lengths: list[int], budget: int) -> None:
    rows = list(split_rows(lengths, budget))
    for row, following in pairwise(rows):
        assert sum(lengths[i] for i in row) + lengths[following[0]] > budget
