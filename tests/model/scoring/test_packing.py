"""Packed utterances do not attend to each other, and rows contain every utterance once, within the budget."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.prompts.verbalizer import build_trie
from model.scoring.packing import (
    PREFIX,
    Columns,
    attention_mask,
    body_columns,
    common_start,
    last_of_each,
    node_columns,
    prefix_columns,
    split_rows,
)

TRIE = build_trie([(1,), (1, 2), (1, 2, 3), (4, 5)], 9, ["a", "b", "c", "d"])
SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=5)
BODIES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=4)
LENGTHS = st.lists(st.integers(0, 50), max_size=40)


def texts_of(sizes: list[int], prefix: int) -> Columns:
    return body_columns([list(range(10, 10 + size)) for size in sizes], prefix)


def whole_row(sizes: list[int], prefix: int) -> Columns:
    texts = texts_of(sizes, prefix)
    ends = texts.positions[last_of_each(texts, len(sizes))]
    inner = TRIE.nodes - 1
    owners, nodes = np.repeat(np.arange(len(sizes)), inner), np.tile(np.arange(1, TRIE.nodes), len(sizes))
    shared = prefix_columns(list(range(100, 100 + prefix)))
    return shared.concatenate(texts, node_columns(owners, nodes, ends, TRIE))


@given(SIZES, st.integers(1, 4))
def test_a_token_sees_the_prefix_its_own_utterance_and_its_own_ancestors_only(sizes: list[int], prefix: int) -> None:
    row = whole_row(sizes, prefix)
    sees = attention_mask(row, row, TRIE)
    for i, (one, node) in enumerate(zip(row.owners, row.nodes, strict=True)):
        for j, (other, above) in enumerate(zip(row.owners, row.nodes, strict=True)):
            mine = other in (PREFIX, one)
            allowed = bool(TRIE.ancestors[node - 1, above - 1]) if node and above else j <= i
            assert sees[i, j] == (mine and allowed)


@given(SIZES, st.integers(1, 4), st.data())
def test_a_row_computed_in_parts_sees_the_same_as_the_whole(sizes: list[int], prefix: int, data: st.DataObject) -> None:
    row = whole_row(sizes, prefix)
    cut = data.draw(st.integers(0, len(row) - 1))
    rest = Columns(row.ids[cut:], row.positions[cut:], row.owners[cut:], row.nodes[cut:])
    assert (attention_mask(rest, row, TRIE) == attention_mask(row, row, TRIE)[cut:]).all()


@given(SIZES, st.integers(1, 4))
def test_positions_restart_so_that_a_token_stands_behind_all_it_sees(sizes: list[int], prefix: int) -> None:
    row = whole_row(sizes, prefix)
    assert (row.positions == attention_mask(row, row, TRIE).sum(axis=1) - 1).all()


@given(SIZES, st.integers(0, 4))
def test_the_last_token_of_each_utterance_is_found(sizes: list[int], prefix: int) -> None:
    texts = texts_of(sizes, prefix)
    places = last_of_each(texts, len(sizes))
    assert (places == np.cumsum(sizes) - 1).all()
    assert (texts.ids[places] == np.array(sizes) + 9).all()


@given(BODIES)
def test_all_utterances_begin_with_their_common_start_and_have_more(bodies: list[list[int]]) -> None:
    start = common_start(bodies)
    assert all(body[: len(start)] == start and len(body) > len(start) for body in bodies)


@given(BODIES)
def test_a_common_start_ends_where_utterances_part_or_one_has_a_last_token_left(bodies: list[list[int]]) -> None:
    end = len(common_start(bodies))
    assert len({body[end] for body in bodies}) > 1 or end == min(map(len, bodies)) - 1


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
