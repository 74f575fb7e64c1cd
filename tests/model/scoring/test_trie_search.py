"""The search of the trie keeps its tolerance for any distribution, and opens only likely nodes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from model.prompts.verbalizer import LabelTrie, build_trie
from model.scoring.packing import Ints
from model.scoring.trie_search import Logs, best_first, edges_of

END = 9
SEQUENCES = st.lists(
    st.lists(st.integers(0, 4), min_size=1, max_size=5).map(tuple), min_size=2, max_size=30, unique=True
)
SEEDS = st.integers(0, 2**32 - 1)


class Speaker:
    """A model with a fixed distribution at every node of every utterance; records the nodes it is asked for."""

    def __init__(self, trie: LabelTrie, n: int, seed: int, sharpness: float = 0.3) -> None:
        rng = np.random.default_rng(seed)
        said = rng.dirichlet(np.full(END + 1, sharpness), size=(n, trie.nodes))
        self.logs, self.trie = np.log(np.maximum(said, 1e-300)), trie
        self.asked: list[tuple[int, int]] = []
        self.largest = 0

    def __call__(self, owners: Ints, nodes: Ints) -> Logs:
        for pair in zip(owners.tolist(), nodes.tolist(), strict=True):
            assert pair not in self.asked
            assert pair[1] == 0 or (pair[0], int(self.trie.parents[pair[1] - 1])) in self.asked  # parents come first
            self.asked.append(pair)
        self.largest = max(self.largest, len(owners))
        place, edges = edges_of(nodes, self.trie)
        return self.logs[owners[place], nodes[place], self.trie.edge_tokens[edges]]

    def exact(self) -> Logs:
        return self.logs[:, self.trie.edge_nodes, self.trie.edge_tokens] @ self.trie.paths.T.astype(float)


def trie_of(sequences: list[tuple[int, ...]]) -> LabelTrie:
    return build_trie(sequences, END, [f"label {number}" for number in range(len(sequences))])


@given(SEQUENCES, SEEDS, st.sampled_from([0.3, 0.1, 1e-3]), st.sampled_from([0.05, 1.0]))
def test_the_total_variation_to_the_exact_distribution_is_within_the_tolerance(
    sequences: list[tuple[int, ...]], seed: int, tolerance: float, sharpness: float
) -> None:
    trie = trie_of(sequences)
    speaker = Speaker(trie, 4, seed, sharpness)
    found = best_first(trie, 4, speaker, tolerance, at_once=100)
    difference = softmax(found, axis=1) - softmax(speaker.exact(), axis=1)
    assert np.isfinite(found).all()
    assert (np.abs(difference).sum(axis=1) / 2 <= tolerance + 1e-9).all()


@given(SEQUENCES, SEEDS)
def test_without_tolerance_the_search_is_exact(sequences: list[tuple[int, ...]], seed: int) -> None:
    trie = trie_of(sequences)
    speaker = Speaker(trie, 3, seed, sharpness=1.0)
    np.testing.assert_allclose(best_first(trie, 3, speaker, 0.0, at_once=100), speaker.exact(), atol=1e-9)


@given(SEQUENCES, SEEDS, st.integers(1, 5))
def test_no_more_nodes_are_opened_at_once_than_allowed_and_the_result_is_as_good(
    sequences: list[tuple[int, ...]], seed: int, at_once: int
) -> None:
    trie = trie_of(sequences)
    speaker = Speaker(trie, 3, seed)
    found = best_first(trie, 3, speaker, 1e-3, at_once)
    assert speaker.largest <= at_once
    difference = np.abs(softmax(found, axis=1) - softmax(speaker.exact(), axis=1)).sum(axis=1) / 2
    assert (difference <= 1e-3 + 1e-9).all()


@pytest.mark.parametrize("labels", [100, 1000])
def test_the_cost_grows_with_the_labels_that_matter_not_with_all_of_them(labels: int) -> None:
    rng = np.random.default_rng(1)
    sequences = sorted({tuple(rng.integers(0, 9, size=4).tolist()) for _ in range(labels)})
    trie = trie_of(sequences)
    speaker = Speaker(trie, 50, seed=2)
    favoured = [rng.choice(np.flatnonzero(trie.edge_nodes == node), size=50) for node in range(trie.nodes)]
    said = np.full_like(speaker.logs, np.log(1e-5))
    for node, edges in enumerate(favoured):  # nearly sure at every node
        said[np.arange(50), node, trie.edge_tokens[edges]] = np.log(0.9999)
    speaker.logs = said
    best_first(trie, 50, speaker, 1e-3, at_once=10_000)
    assert len(speaker.asked) / 50 < 5 < trie.nodes / 10  # the root, and the inner nodes of one label
