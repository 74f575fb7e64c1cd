"""Search the label trie best first, so that only the likely part of a large codebook is computed.

The probability of a prefix bounds that of all labels under it. Nodes are opened in order of probability, until the
unopened ones together hold at most `tolerance` of the total. The resulting distribution differs from the exact one by
a total variation of at most `tolerance`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model.finite import check_finite
from model.prompts.verbalizer import LabelTrie
from model.scoring.packing import Ints

FEW_NODES = 16  # up to this size a trie is computed whole, as a search would cost more than it saves

Logs = NDArray[np.float64]
Expand = Callable[[Ints, Ints], Logs]
"""Called with pairs of utterance and node, (pairs,) each; returns the log-probabilities of all edges of these nodes,
in the order of `edges_of`. A node is expanded after its parent, the root first."""


def edges_of(nodes: Ints, trie: LabelTrie) -> tuple[Ints, Ints]:
    """Return the edges of some nodes, node by node: (index into `nodes`, edge) arrays."""
    first = np.searchsorted(trie.edge_nodes, nodes)
    counts = np.searchsorted(trie.edge_nodes, nodes, side="right") - first
    place = np.repeat(np.arange(len(nodes)), counts)
    return place, np.arange(len(place)) + (first - np.cumsum(counts) + counts)[place]


def best_first(trie: LabelTrie, n: int, expand: Expand, tolerance: float, at_once: int) -> Logs:
    """Return (n, labels) log-likelihoods for n utterances, opening no more than `at_once` nodes in one call.

    A label that was not reached gets an equal share of the bound on its subtree, which is an upper limit
    for the subtree as a whole. Raises NotFinite.
    """
    reach = np.full((n, trie.nodes), -np.inf)  # log-probability of the tokens up to the node, where known
    reach[:, 0] = 0
    is_open = np.zeros((n, trie.nodes), dtype=np.bool_)  # reached, but not opened
    is_open[:, 0] = True
    loglik = np.full((n, len(trie.paths)), -np.inf)
    while (chosen := _worth_opening(reach, is_open, loglik, tolerance)).any():
        owners, nodes = _likeliest(chosen, reach, at_once)
        is_open[owners, nodes] = False
        place, edges = edges_of(nodes, trie)
        of_edges = expand(owners, nodes)
        check_finite("logits", of_edges)
        logs = reach[owners, nodes][place] + of_edges
        owners = owners[place]
        leads_on = trie.edge_children[edges] > 0
        reach[owners[leads_on], trie.edge_children[edges[leads_on]]] = logs[leads_on]
        is_open[owners[leads_on], trie.edge_children[edges[leads_on]]] = True
        loglik[owners[~leads_on], trie.edge_labels[edges[~leads_on]]] = logs[~leads_on]
    for owner, node in np.argwhere(is_open):
        under = trie.labels_under(int(node))
        loglik[owner, under] = reach[owner, node] - np.log(len(under))
    return loglik


def _worth_opening(reach: Logs, is_open: NDArray[np.bool_], loglik: Logs, tolerance: float) -> NDArray[np.bool_]:
    """Select for each utterance the fewest open nodes such that the rest is within the tolerance."""
    bounds = np.where(is_open, reach, -np.inf)
    scale = np.maximum(bounds.max(axis=1), loglik.max(axis=1))[:, None]
    mass = np.exp(bounds - scale)
    whole = mass.sum(axis=1, keepdims=True) + np.exp(loglik - scale).sum(axis=1, keepdims=True)
    order = np.argsort(mass, axis=1)  # ascending: the least likely nodes are skipped up to the tolerance
    skipped = np.cumsum(np.take_along_axis(mass, order, axis=1), axis=1) <= tolerance * whole
    chosen = np.zeros_like(is_open)
    np.put_along_axis(chosen, order, ~skipped, axis=1)
    return chosen & is_open


def _likeliest(chosen: NDArray[np.bool_], reach: Logs, at_once: int) -> tuple[Ints, Ints]:
    owners, nodes = np.nonzero(chosen)
    if len(owners) > at_once:
        best = np.sort(np.argsort(-reach[owners, nodes], kind="stable")[:at_once])
        owners, nodes = owners[best], nodes[best]
    return owners, nodes
