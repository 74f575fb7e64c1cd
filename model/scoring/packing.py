"""Pack many utterances into one row behind a shared instruction prefix, each followed by nodes of the label trie.

Each utterance attends to the prefix and itself, each trie node to its utterance and its ancestors, and positions
restart behind the prefix. So the row gives the same numbers as one utterance at a time, without padding and with the
prefix computed once. Words at the start of all utterances of the row are part of its prefix.

    columns  prefix | utterance 1 | utterance 2 | … | nodes of 1 | nodes of 2 | …
    position 0 … p-1| p …         | p …         |   | by depth   | by depth   |

A row may be computed in parts, with the parts before in the key-value cache: prefix, bodies, and then only the nodes
that best-first search opens. Behind a cached prefix it is divided into lanes, computed as a batch. Attention is
computed for all pairs in a lane and most are masked, so short lanes waste little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from model.prompts.verbalizer import LabelTrie
from model.recipe import LANE

Ints = NDArray[np.int64]
Bodies = Sequence[Sequence[int]]  # utterances as token ids
PREFIX = -1  # the owner of shared tokens
NOBODY = -2  # the owner of padding


@dataclass(frozen=True)
class Columns:
    """Tokens of a row, with parallel arrays of shape (tokens,)."""

    ids: Ints
    positions: Ints
    owners: Ints  # number of the utterance, or PREFIX
    nodes: Ints  # the trie node; 0, the root, in prefix and bodies

    def __len__(self) -> int:
        """Count the tokens."""
        return len(self.ids)

    def concatenate(self, *others: Columns) -> Columns:
        """Concatenate along the sequence."""
        parts = (self, *others)
        return Columns(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Columns)))

    def of(self, owners: Sequence[int]) -> Columns:
        """Select the columns of some utterances, in their order."""
        mine = np.isin(self.owners, owners)
        return Columns(self.ids[mine], self.positions[mine], self.owners[mine], self.nodes[mine])

    def padded(self, length: int) -> Columns:
        """Pad to a length with columns that no other attends to."""
        empty = np.zeros(length - len(self), dtype=np.int64)
        return self.concatenate(Columns(empty, empty, empty + NOBODY, empty))


def common_start(bodies: Bodies) -> list[int]:
    """Return the longest common prefix of all bodies that leaves each at least one token."""
    same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*bodies, strict=False))
    return [tokens[0] for tokens in same][: min(map(len, bodies), default=1) - 1]


def prefix_columns(prefix: Sequence[int]) -> Columns:
    """Lay out the shared instruction."""
    shared = np.full(len(prefix), PREFIX, dtype=np.int64)
    return Columns(np.array(prefix, dtype=np.int64), np.arange(len(prefix)), shared, np.zeros_like(shared))


def body_columns(bodies: Sequence[Sequence[int]], prefix: int) -> Columns:
    """Lay out utterances behind a prefix of `prefix` tokens."""
    sizes = np.array([len(body) for body in bodies])
    ids = np.array([token for body in bodies for token in body], dtype=np.int64)
    positions = prefix + np.arange(len(ids)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return Columns(ids, positions, np.repeat(np.arange(len(bodies)), sizes), np.zeros_like(ids))


def node_columns(owners: Ints, nodes: Ints, ends: Ints, trie: LabelTrie) -> Columns:
    """Lay out trie nodes, none of them the root; `ends` are the positions of the utterances' last tokens."""
    return Columns(trie.tokens[nodes - 1], ends[owners] + trie.depths[nodes - 1], owners, nodes)


def attention_mask(queries: Columns, present: Columns, trie: LabelTrie) -> NDArray[np.bool_]:
    """Return which columns each query may attend to: (queries, present); `queries` are the last of `present`."""
    below = np.zeros((trie.nodes, trie.nodes), dtype=np.bool_)  # [i, j]: node j is node i, or above it
    below[:, 0] = True
    below[1:, 1:] = trie.ancestors
    order = np.arange(len(present))
    own = queries.owners[:, None] == present.owners
    line = below[queries.nodes[:, None], present.nodes]
    shared: NDArray[np.bool_] = present.owners == PREFIX
    sees: NDArray[np.bool_] = (shared | (own & line)) & (order <= order[-len(queries) :, None])
    return sees


def owners_within(columns: Columns, slices: Sequence[slice], prefix: int) -> Ints:
    """Return the owners of tokens inside their body's slice, NOBODY for all others."""
    first, end = np.array([(part.start, part.stop) for part in slices], dtype=np.int64).T
    place = columns.positions - prefix
    inside = (columns.owners >= 0) & (place >= first[columns.owners]) & (place < end[columns.owners])
    return np.where(inside, columns.owners, NOBODY)


def last_of_each(columns: Columns, owners: int) -> Ints:
    """Return the index of each utterance's last body token."""
    places = np.zeros(owners, dtype=np.int64)
    bodies = np.flatnonzero((columns.owners >= 0) & (columns.nodes == 0))
    places[columns.owners[bodies]] = bodies  # the last write wins
    return places


def fill_lanes(sizes: Sequence[int], width: int = LANE) -> list[list[int]]:
    """Assign utterances to lanes of `width` tokens, or the longest utterance's: first fit, longest first."""
    width = max(width, *sizes)
    lanes: list[tuple[int, list[int]]] = []
    for one in sorted(range(len(sizes)), key=lambda one: -sizes[one]):
        for place, (used, members) in enumerate(lanes):
            if used + sizes[one] <= width:
                lanes[place] = (used + sizes[one], [*members, one])
                break
        else:
            lanes.append((sizes[one], [one]))
    return [members for _, members in lanes]


def split_rows(lengths: Sequence[int], budget: int, padded: bool = False) -> Iterator[range]:
    """Cut consecutive utterances into rows of at most `budget` tokens, with at least one utterance in each.

    With `padded`, every utterance costs as much as the longest of its row; `lengths` must ascend.
    """
    start = used = 0
    for number, length in enumerate(lengths):
        used = length * (number + 1 - start) if padded else used + length
        if number > start and used > budget:
            yield range(start, number)
            start, used = number, length
    if lengths:
        yield range(start, len(lengths))
