"""The verbalizer: label words, their token ids, and the trie of all labels.

Training and scoring use the same ids. Labels that the model cannot distinguish are rejected. A label whose tokens are a
prefix of another's gets a terminator, which makes the two disjoint events; without it the longer one could never win.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from annotator.errors import BadCodebook, Message
from model.types import Label

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def label_words(label: Label) -> str:
    """Return the words the model generates for a label: those given, or its name spelled out.

    `card_arrival` becomes "card arrival" and `PlayMusic` "play music": words the model was trained on, not codes. Names
    such as `pH`, `iPhone` and `PhD`, with a single letter before or after the capital, are words already.
    """
    if label.words.strip():
        return label.words.strip()
    name = label.name.replace("_", " ").strip()
    parts = _CAMEL.split(name)
    is_code = len(parts) > 1 and " " not in name and min(map(len, parts)) > 1
    return " ".join(parts).lower() if is_code else name


def former_words(label: Label) -> str:
    """Return the words that earlier versions generated for a label."""
    parts = _CAMEL.split(label.name.replace("_", " ").strip())
    return label.words.strip() or (parts[0] if len(parts) == 1 else " ".join(parts).lower())


def check_words(labels: Sequence[Label]) -> None:
    """Raise BadCodebook for labels that are missing, empty, or equal except for case and spaces."""
    if len(labels) < 2:
        raise BadCodebook(
            Message("A codebook needs at least two labels, this one has {n}.", n=len(labels)), "Add a label."
        )
    seen: dict[str, str] = {}
    for label in labels:
        words = " ".join(unicodedata.normalize("NFC", label_words(label)).casefold().split())
        if not words:
            raise BadCodebook(
                Message("The label “{name}” has no words.", name=label.name), "Give it a name or label words."
            )
        if words in seen:
            raise BadCodebook(
                Message(
                    "The labels “{words}” and “{name}” have the same label words, “{words2}”.",
                    words=seen[words],
                    name=label.name,
                    words2=words,
                ),
                "Change the label words of one of them in the codebook.",
            )
        seen[words] = label.name


@dataclass(frozen=True)
class LabelTrie:
    """The token sequences of all labels as a tree, flattened for array work.

    Node 0 is the root; nodes 1.. are tokens that others follow. An edge is one token generated at one node. The
    log-likelihood of a label is the sum over its edges.
    """

    tokens: NDArray[np.int64]  # (nodes - 1,) token of node i + 1
    parents: NDArray[np.int64]  # (nodes - 1,) parent of node i + 1
    depths: NDArray[np.int64]  # (nodes - 1,) tokens from the root, 1 for its children
    ancestors: NDArray[np.bool_]  # (nodes - 1, nodes - 1) [i, j]: node j + 1 is node i + 1 or above it
    edge_nodes: NDArray[np.int64]  # (edges,) node at which the token is generated
    edge_tokens: NDArray[np.int64]  # (edges,) the token
    edge_children: NDArray[np.int64]  # (edges,) node the edge leads to, 0 if it ends a label
    edge_labels: NDArray[np.int64]  # (edges,) label it ends, -1 if none
    paths: NDArray[np.float32]  # (labels, edges) one if the edge is on the label's path

    @property
    def nodes(self) -> int:
        """Count the nodes, root included."""
        return len(self.tokens) + 1

    def route(self, node: int) -> list[int]:
        """Return the nodes from the root, exclusive, to a node, inclusive."""
        return [*self.route(int(self.parents[node - 1])), node] if node else []

    def inner_path(self, label: int) -> NDArray[np.int64]:
        """Return the nodes on a label's path, without the root."""
        nodes = self.edge_nodes[self.paths[label] > 0]
        inner: NDArray[np.int64] = nodes[nodes > 0]  # from the top: nodes are numbered by depth
        return inner

    def tokens_at(self, nodes: NDArray[np.int64], label: int) -> NDArray[np.int64]:
        """Return the next token of a label at each of some nodes on its path."""
        mine = np.flatnonzero(self.paths[label])
        return self.edge_tokens[mine[np.searchsorted(self.edge_nodes[mine], nodes)]]

    def walk(self, generated: Sequence[int]) -> tuple[int, int]:
        """Follow tokens from the root to the end of a label; return the node reached and the label, -1 if none yet."""
        node, label = 0, -1
        for token in generated:
            (edge,) = np.flatnonzero((self.edge_nodes == node) & (self.edge_tokens == token))
            node, label = int(self.edge_children[edge]), int(self.edge_labels[edge])
            if label >= 0:
                break
        return node, label

    def labels_under(self, node: int) -> NDArray[np.int64]:
        """Return the labels whose path goes through a node."""
        return np.flatnonzero(self.paths[:, self.edge_nodes == node].any(axis=1))


def build_trie(sequences: Sequence[Sequence[int]], terminator: int, names: Sequence[str]) -> LabelTrie:
    """Build the trie over label token ids, adding the terminator to labels that are a prefix of another.

    Raises BadCodebook with the labels' names if one has no ids or two are not disjoint events.
    """
    words = [tuple(ids) for ids in sequences]
    ended = [(*ids, terminator) if _is_prefix_of_another(ids, words) else ids for ids in words]
    _check_disjoint(ended, terminator, names)
    inner = sorted({ids[:depth] for ids in ended for depth in range(1, len(ids))}, key=lambda p: (len(p), p))
    node_of = {(): 0} | {path: node for node, path in enumerate(inner, start=1)}
    edges = sorted({(node_of[ids[:depth]], ids[depth]) for ids in ended for depth in range(len(ids))})
    edge_of = {edge: number for number, edge in enumerate(edges)}
    paths = np.zeros((len(ended), len(edges)), dtype=np.float32)
    children, ends = np.zeros(len(edges), dtype=np.int64), np.full(len(edges), -1)
    for label, ids in enumerate(ended):
        for depth in range(len(ids)):
            edge = edge_of[node_of[ids[:depth]], ids[depth]]
            paths[label, edge] = 1
            children[edge] = node_of.get(ids[: depth + 1], 0)
        ends[edge] = label  # the last one
    return LabelTrie(
        tokens=np.array([path[-1] for path in inner], dtype=np.int64),
        parents=np.array([node_of[path[:-1]] for path in inner], dtype=np.int64),
        depths=np.array([len(path) for path in inner], dtype=np.int64),
        ancestors=np.array([[p[: len(q)] == q for q in inner] for p in inner], dtype=np.bool_).reshape(
            len(inner), len(inner)
        ),
        edge_nodes=np.array([node for node, _ in edges], dtype=np.int64),
        edge_tokens=np.array([token for _, token in edges], dtype=np.int64),
        edge_children=children,
        edge_labels=ends,
        paths=paths,
    )


def _is_prefix_of_another(ids: tuple[int, ...], words: list[tuple[int, ...]]) -> bool:
    return any(len(other) > len(ids) and other[: len(ids)] == ids for other in words)


def _check_disjoint(ended: list[tuple[int, ...]], terminator: int, names: Sequence[str]) -> None:
    for ids, name in zip(ended, names, strict=True):
        if ids in ((), (terminator,)):
            raise BadCodebook(
                Message("The tokenizer produces no tokens for the label “{name}”.", name=name),
                "Change its label words.",
            )
    for (ids, name), (others, other) in pairwise(sorted(zip(ended, names, strict=True))):
        if others[: len(ids)] == ids:  # sorted: a prefix directly precedes a sequence that continues it
            raise BadCodebook(
                Message(
                    "The backbone cannot distinguish “{name}” from “{other}”: their tokens are {value} and {value2}.",
                    name=name,
                    other=other,
                    value=[*ids],
                    value2=[*others],
                ),
                "Change the label words of one of them.",
            )
