"""Compute the layers below the first trained one once for each utterance, rather than in every epoch and every round.

If only upper layers are trained, the layers below them compute the same hidden states in every step. These are held in
memory for training and kept on disk for scoring (see `kept_states`), and a pass begins with them. The numbers equal
those of whole passes; where they do not, as in a model whose upper layers read more than the states below, whole passes
are computed. Only a backbone's own dropout, which Llama and its like lack, is absent from frozen layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size

from model.backbones.backbone import Backbone
from model.prompts.tokens import PromptTokens
from model.scoring.hidden_states import capture, hidden_of, layer_stack
from model.scoring.kept_states import KeptStates
from model.scoring.likeness import tolerance
from model.scoring.packing import PREFIX, Bodies, Columns, Ints, body_columns, last_of_each, node_columns

_CHECKED = 4  # bodies, the longest, on which kept states are compared with whole passes


class Scorer(Protocol):
    """The part of a packed-row scorer that is used here."""

    backbone: Backbone
    tokens: PromptTokens
    frozen: FrozenStates | None
    kept: KeptStates | None

    def first_columns(self, shared: Sequence[int]) -> Columns:
        """Return the columns of the instruction and of the common start of bodies."""
        ...

    def forward(self, queries: list[Columns], present: list[Columns], places: Ints, cache: Any) -> torch.Tensor:
        """Compute lanes of columns; return (places, vocabulary) logits."""
        ...

    def at_ends(self, bodies: Bodies, owners: Ints, nodes: Ints) -> torch.Tensor:
        """Return log-probabilities over the vocabulary at the end of each body, then at the given nodes."""
        ...

    def rows(self, bodies: Bodies, budget: int) -> list[list[int]]:
        """Group bodies into rows."""
        ...


class OfBodies(Protocol):
    """Hidden states by body: (tokens + inner nodes of the trie, width) each, in main memory."""

    def get(self, body: tuple[int, ...], /) -> torch.Tensor | None:
        """Return a body's states, if known."""
        ...


@dataclass(frozen=True)
class FrozenStates:
    """Hidden states behind the frozen layers: of the instruction, and of bodies."""

    layers: int
    prefix: torch.Tensor  # (tokens of the instruction, width)
    of_bodies: OfBodies
    in_tuple: bool  # whether a layer returns its states within a tuple

    def of(self, bodies: Bodies) -> list[torch.Tensor] | None:
        """Return the states of bodies; None if some are not known."""
        found = [self.of_bodies.get(tuple(body)) for body in bodies]
        known = [states for states in found if states is not None]
        return known if len(known) == len(bodies) else None

    def at(self, lanes: Sequence[Columns], bodies: Bodies, known: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return (lanes, columns, width) states of the columns of a row, in main memory; zeros for padding."""
        table = torch.cat([self.prefix, *known, torch.zeros_like(self.prefix[:1])])
        starts = len(self.prefix) + np.cumsum([0, *(len(states) for states in known)])[:-1]
        sizes = np.array([len(body) for body in bodies])
        places = np.stack([_places(lane, starts, sizes, len(self.prefix)) for lane in lanes])
        return table[torch.from_numpy(places)]

    @contextmanager
    def in_place(self, model: Any, lanes: Sequence[Columns], bodies: Bodies) -> Iterator[None]:
        """Replace the frozen layers by these states in a pass over the lanes, if those of all bodies are known."""
        known = self.of(bodies)
        if known is None:
            yield
            return
        states, frozen = self.at(lanes, bodies, known).to(model.device), layer_stack(model)[: self.layers]
        output = (states,) if self.in_tuple else states
        before = [layer.__dict__.get("forward") for layer in frozen]
        for layer in frozen:
            layer.forward = lambda *_, **__: output
        try:
            yield
        finally:
            for layer, own in zip(frozen, before, strict=True):
                del layer.forward
                if own is not None:
                    layer.forward = own


def _places(lane: Columns, starts: Ints, sizes: Ints, first: int) -> Ints:
    """Return the rows of the columns in a table of the instruction, the bodies with their nodes, and padding.

    The common start of all bodies counts as instruction in a row; in the table it is the start of the first body.
    """
    owners = np.maximum(lane.owners, 0)
    body = starts[owners] + lane.positions - first
    node = starts[owners] + sizes[owners] + lane.nodes - 1
    own = np.where(lane.nodes > 0, node, body)
    return np.where(lane.owners >= 0, own, np.where(lane.owners == PREFIX, lane.positions, -1))


@dataclass(frozen=True)
class Computed:
    """Hidden states that were computed: of the instruction, and of the bodies of a row."""

    prefix: torch.Tensor
    of_bodies: dict[tuple[int, ...], torch.Tensor]
    in_tuple: bool


@contextmanager
def frozen_below(scorer: Scorer, bodies: Bodies, budget: int) -> Iterator[None]:
    """Give a scorer the states of these bodies, which take no gradient, until the end of the context.

    Has no effect if all layers are trained, or if the model computes other numbers this way.
    """
    layers = _count_frozen(scorer.backbone.model)
    rows = [[bodies[i] for i in row] for row in scorer.rows(bodies, budget)] if layers else []
    try:
        if rows:
            row = max(rows, key=lambda row: max(map(len, row)))
            scorer.frozen = _verified(scorer, lambda: _of_rows(scorer, rows, layers), row)
        yield
    finally:
        scorer.frozen = None


@contextmanager
def begin_at(scorer: Scorer, bodies: Bodies, kept: KeptStates, budget: int) -> Iterator[None]:
    """Begin the passes of a scorer with kept states, for rows of which all are kept, until the end of the context.

    Has no effect, and deletes the states, if the model computes other numbers this way.
    """
    longest = sorted((body for body in bodies if tuple(body) in kept), key=len, reverse=True)[:_CHECKED]

    def find() -> FrozenStates:
        first = _compute(scorer, longest[:1], kept.depth)
        return FrozenStates(kept.depth, first.prefix, kept, first.in_tuple)

    try:
        if longest:
            row = [longest[i] for i in scorer.rows(longest, budget)[0]]
            scorer.frozen = _verified(scorer, find, row, kept.clear)
        yield
    finally:
        scorer.frozen = None


@torch.no_grad()
def _verified(
    scorer: Scorer, find: Callable[[], FrozenStates], row: Bodies, otherwise: Callable[[], None] = lambda: None
) -> FrozenStates | None:
    """Return the states found if a row gets the numbers of a whole pass with them; None too if memory runs out.

    Calls `otherwise` if the numbers differ.
    """
    try:
        scorer.frozen = found = find()
        if _are_equal(scorer, row):
            return found
        otherwise()
        return None
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        return None


def _count_frozen(model: Any) -> int:
    """Return the number of layers below the first one that is trained; 0 if weights outside the layers are."""
    stack = layer_stack(model)
    trained = [any(weight.requires_grad for weight in layer.parameters()) for layer in stack]
    inside = {id(weight) for layer in stack for weight in layer.parameters()}
    outside = any(weight.requires_grad and id(weight) not in inside for weight in model.parameters())
    return trained.index(True) if any(trained) and not outside else 0


def _compute(scorer: Scorer, bodies: Bodies, layers: int) -> Computed:
    """Compute one row of bodies and all inner nodes up to the last frozen layer."""
    first, trie, n = scorer.first_columns(()), scorer.tokens.trie, len(bodies)
    inner, size = trie.nodes - 1, len(first)
    texts = body_columns(bodies, size)
    ends = texts.positions[last_of_each(texts, n)]
    nodes = node_columns(np.repeat(np.arange(n), inner), np.tile(np.arange(1, trie.nodes), n), ends, trie)
    row = first.concatenate(texts, nodes)
    with capture(layer_stack(scorer.backbone.model), [layers - 1]) as outputs:
        scorer.forward([row], [row], np.zeros(1, dtype=np.int64), None)
    states = hidden_of(outputs[layers - 1])[0].cpu()
    of_texts = torch.split(states[size : size + len(texts)], [len(body) for body in bodies])
    of_nodes = states[size + len(texts) :].view(n, inner, -1)
    joined = [torch.cat(pair) for pair in zip(of_texts, of_nodes, strict=True)]
    known = {tuple(body): one for body, one in zip(bodies, joined, strict=True)}
    return Computed(states[:size].clone(), known, isinstance(outputs[layers - 1], tuple))


def _of_rows(scorer: Scorer, rows: Sequence[Bodies], layers: int) -> FrozenStates:
    """Return the states of all rows, read from those kept or computed."""
    kept = scorer.kept if scorer.kept and scorer.kept.depth == layers else None
    read = {tuple(body): kept.get(tuple(body)) for row in rows for body in row} if kept else {}
    known = {body: states for body, states in read.items() if states is not None}
    missing = [[body for body in row if tuple(body) not in known] for row in rows]
    parts = [_compute(scorer, row, layers) for row in filter(None, missing)] or [_compute(scorer, rows[0][:1], layers)]
    for part in parts:
        known |= part.of_bodies
    return FrozenStates(layers, parts[0].prefix, known, parts[0].in_tuple)


def _are_equal(scorer: Scorer, row: Bodies) -> bool:
    """Return whether a whole pass gives the same numbers at the ends of a row's texts and at the last one's nodes."""
    nodes = np.arange(1, scorer.tokens.trie.nodes)
    owners = np.full_like(nodes, len(row) - 1)
    begun = scorer.at_ends(row, owners, nodes)
    scorer.frozen = None
    whole = scorer.at_ends(row, owners, nodes)
    return bool((begun - whole).norm(dim=-1).max() <= tolerance(scorer.backbone, whole))
