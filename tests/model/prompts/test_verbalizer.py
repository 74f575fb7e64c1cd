"""Every label is one path, no path is a prefix of another, and indistinguishable labels are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.errors import BadCodebook
from model.prompts.verbalizer import LabelTrie, build_trie, check_words, former_words, label_words
from model.types import Label

END = 9
SEQUENCES = st.lists(
    st.lists(st.integers(0, 4), min_size=1, max_size=5).map(tuple), min_size=2, max_size=12, unique=True
)


def trie_of(sequences: list[tuple[int, ...]], end: int = END) -> LabelTrie:
    return build_trie(sequences, end, [f"label {number}" for number in range(len(sequences))])


def route_of(trie: LabelTrie, label: int) -> list[int]:
    """Walk down from the root along the label's edges; every edge must be used."""
    left = {int(trie.edge_nodes[edge]): int(trie.edge_tokens[edge]) for edge in np.flatnonzero(trie.paths[label])}
    node, said = 0, []
    while node in left:
        said.append(left.pop(node))
        below = [i + 1 for i in range(trie.nodes - 1) if trie.parents[i] == node and trie.tokens[i] == said[-1]]
        node = below[0] if below else -1
    assert not left
    return said


@given(SEQUENCES)
def test_a_path_says_the_labels_tokens_and_a_terminator_only_where_it_begins_another(
    sequences: list[tuple[int, ...]],
) -> None:
    trie = trie_of(sequences)
    for label, ids in enumerate(sequences):
        begins = any(other != ids and other[: len(ids)] == ids for other in sequences)
        assert route_of(trie, label) == [*ids, *([END] if begins else [])]


@given(SEQUENCES, st.integers(0, 2**32 - 1))
def test_probabilities_of_labels_never_sum_to_more_than_one(sequences: list[tuple[int, ...]], seed: int) -> None:
    trie = trie_of(sequences)
    conditional = np.random.default_rng(seed).dirichlet(np.full(END + 1, 0.3), size=trie.nodes)
    edges = np.log(np.maximum(conditional[trie.edge_nodes, trie.edge_tokens], 1e-300))
    assert np.exp(edges @ trie.paths.T.astype(float)).sum() <= 1 + 1e-9


@given(SEQUENCES)
def test_parents_depths_and_ancestors_agree(sequences: list[tuple[int, ...]]) -> None:
    trie = trie_of(sequences)
    for node in range(1, trie.nodes):
        parent = int(trie.parents[node - 1])
        assert parent < node
        assert trie.depths[node - 1] == (trie.depths[parent - 1] + 1 if parent else 1)
        above = {node} | ({i + 1 for i in np.flatnonzero(trie.ancestors[parent - 1])} if parent else set())
        assert {i + 1 for i in np.flatnonzero(trie.ancestors[node - 1])} == above


@given(SEQUENCES, st.data())
def test_a_clash_is_refused_with_both_names(sequences: list[tuple[int, ...]], data: st.DataObject) -> None:
    twin = data.draw(st.integers(0, len(sequences) - 1))
    with pytest.raises(BadCodebook) as caught:
        trie_of([*sequences, sequences[twin]])
    assert f"“label {twin}”" in caught.value.message
    assert f"“label {len(sequences)}”" in caught.value.message


@given(st.lists(st.lists(st.integers(0, 2), max_size=4).map(tuple), min_size=2, max_size=8), st.integers(0, 2))
def test_a_trie_is_refused_or_sound_even_if_labels_hold_the_terminator(
    sequences: list[tuple[int, ...]], end: int
) -> None:
    try:
        trie = trie_of(sequences, end)
    except BadCodebook:
        return
    routes = [route_of(trie, label) for label in range(len(sequences))]
    assert not any(a is not b and b[: len(a)] == a for a in routes for b in routes)


def test_a_label_whose_terminated_form_is_another_label_is_refused() -> None:
    with pytest.raises(BadCodebook, match=r"cannot distinguish “label 0” from “label 1”"):
        trie_of([(5,), (5, END)])


def test_a_label_without_tokens_is_refused_by_name() -> None:
    with pytest.raises(BadCodebook, match="no tokens for the label “label 1”"):
        trie_of([(5,), ()])


def test_labels_of_one_token_each_need_no_node_but_the_root() -> None:
    trie = trie_of([(1,), (2,)])
    assert trie.nodes == 1
    assert trie.ancestors.shape == (0, 0)


def test_label_words_are_those_given_or_the_name_spelled_out() -> None:
    assert label_words(Label("refund_request")) == "refund request"
    assert label_words(Label("r1", words="  money back ")) == "money back"


@pytest.mark.parametrize(
    "name", ["pH", "iPhone", "PhD", "mRNA", "LaTeX", "eBay", "USA", "iPhone case", "Ask McDonalds"]
)
def test_names_that_are_words_keep_their_case(name: str) -> None:
    assert label_words(Label(name)) == name
    assert label_words(Label(name.replace(" ", "_"))) == name


@pytest.mark.parametrize(
    ("name", "words"),
    [("PlayMusic", "play music"), ("getWeather", "get weather"), ("AddToPlaylist", "add to playlist")],
)
def test_codes_are_spelled_out(name: str, words: str) -> None:
    assert label_words(Label(name)) == former_words(Label(name)) == words


def test_labels_that_differ_in_composed_characters_alone_are_refused() -> None:
    with pytest.raises(BadCodebook, match="have the same label words"):
        check_words([Label("caf\u00e9"), Label("cafe\u0301")])


@pytest.mark.parametrize("twin", ["Refund  Request", "refund_request", " refund request "])
def test_labels_that_read_the_same_are_refused_with_both_names(twin: str) -> None:
    with pytest.raises(BadCodebook) as caught:
        check_words([Label("refund request"), Label("joy"), Label(twin)])
    assert "“refund request”" in caught.value.message
    assert f"“{twin}”" in caught.value.message


@pytest.mark.parametrize("labels", [[], [Label("joy")], [Label("joy"), Label("_")]])
def test_too_few_labels_and_labels_without_words_are_refused(labels: list[Label]) -> None:
    with pytest.raises(BadCodebook):
        check_words(labels)
