"""Score with causal models: many utterances packed into one row, each followed by the label trie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from annotator.errors import Message, UtteranceTooLong
from model.backbones.backbone import Backbone
from model.depth import first_adapted, layers_read
from model.finite import refuse_model
from model.prompts.tokens import PromptTokens
from model.scoring.frozen_layers import FrozenStates, begin_at, frozen_below
from model.scoring.hidden_states import by_body, capture, hidden_of, layer_stack, mean_by_owner
from model.scoring.kept_states import KeptStates
from model.scoring.likeness import UNFIT, check_row
from model.scoring.loglik import edge_loglik, label_loglik, path_loglik
from model.scoring.packing import (
    PREFIX,
    Bodies,
    Columns,
    Ints,
    attention_mask,
    body_columns,
    common_start,
    fill_lanes,
    last_of_each,
    node_columns,
    owners_within,
    prefix_columns,
    split_rows,
)
from model.scoring.trie_search import FEW_NODES, Logs, best_first
from model.scoring.windows import check_reach, read_windows


class CausalScorer:
    """Score with causal models in packed rows behind a shared prefix (see `packing`)."""

    def __init__(self, backbone: Backbone, tokens: PromptTokens) -> None:
        self.backbone = backbone
        self.tokens = tokens
        self.begin: Sequence[int] = ()  # an answer follows the prompt directly
        self.cached: Any = None
        self.shared: Sequence[int] = ()  # the common start of all bodies of the session, also in the cache
        self.windows = read_windows(backbone.model.config)
        self.frozen: FrozenStates | None = None  # while only upper layers are trained, or scored
        self.kept: KeptStates | None = None  # where states of the lower layers are kept

    def rows(self, bodies: Bodies, budget: int) -> list[list[int]]:
        """Cut in the order given: packing does not need equal lengths."""
        nodes = self.tokens.trie.nodes - 1
        if self.windows.columns:
            budget = min(budget, self.windows.columns - len(self.first_columns(())))
        each = nodes if nodes < FEW_NODES or self.windows.columns else FEW_NODES  # of a large trie few nodes are opened
        return [list(row) for row in split_rows([len(body) + each for body in bodies], budget)]

    def loglik(self, bodies: Bodies) -> torch.Tensor:
        """Score utterances in one packed row, each followed by the whole trie."""
        trie, n = self.tokens.trie, len(bodies)
        inner = trie.nodes - 1
        logits = self._whole(bodies, np.repeat(np.arange(n), inner), np.tile(np.arange(1, trie.nodes), n))
        return label_loglik(torch.cat([logits[:n, None], logits[n:].view(n, inner, logits.shape[-1])], dim=1), trie)

    def chosen_loglik(self, bodies: Bodies, labels: Ints) -> torch.Tensor:
        """Score one label for each utterance: only the nodes of that label are in the row."""
        paths = [self.tokens.trie.inner_path(label) for label in labels]
        owners = np.repeat(np.arange(len(bodies)), [len(path) for path in paths])
        logits = self._whole(bodies, owners, np.concatenate(paths))
        return path_loglik(logits[: len(bodies)], logits[len(bodies) :], labels, self.tokens.trie)

    def search(self, bodies: Bodies, tolerance: float) -> Logs:
        """Compute the utterances in one packed row, then the nodes that best-first search opens. Needs a session."""
        trie, n = self.tokens.trie, len(bodies)
        row, texts, ends = self._lay_out(bodies)

        def expand(owners: Ints, nodes: Ints) -> Logs:
            if nodes.any():
                return edge_loglik(row.compute(node_columns(owners, nodes, ends, trie), owners, nodes), nodes, trie)
            return edge_loglik(row.compute(texts, owners, nodes), nodes, trie)  # the roots are expanded together, first

        return best_first(trie, n, expand, tolerance, at_once=max(len(texts), n))

    def states(self, bodies: Bodies, own: Sequence[slice]) -> torch.Tensor:
        """Return (n, 2 · width): the mean over each utterance's own tokens, and the last token.

        Needs a session without a shared start: no states are captured for tokens in the cache.
        """
        trie, inner = self.tokens.trie, self.tokens.trie.nodes - 1 if self.kept else 0
        row, texts, ends = self._lay_out(bodies, inner)
        everyone, first = np.arange(len(bodies)), int(texts.positions.min())
        owners, nodes = np.repeat(everyone, inner), np.tile(np.arange(1, inner + 1), len(bodies))
        queries = row.append(texts.concatenate(node_columns(owners, nodes, ends, trie)) if inner else texts)
        layers = layer_stack(self.backbone.model)
        numbers = [*layers_read(len(layers)), *([self.kept.depth - 1] if self.kept else [])]
        with capture(layers, numbers) as outputs:
            self.forward(queries, row.present, np.zeros(1, dtype=np.int64), row.cache)
        halfway, further, *below = (hidden_of(outputs[number]) for number in numbers)
        if self.kept:
            self.kept.add(bodies, by_body(below[0], queries, [len(body) + inner for body in bodies]))
        means = mean_by_owner(halfway, np.concatenate([owners_within(one, own, first) for one in queries]), len(bodies))
        last = torch.from_numpy(_locate(queries, everyone, 0 * everyone)).to(means.device)
        return torch.cat([means, further.flatten(0, 1)[last].float()], dim=1)

    def check(self, bodies: Bodies, budget: int) -> None:
        """Raise BackboneRefused if bodies get other numbers in a row than alone."""
        check_row(self, bodies, budget)

    def frozen_below(self, bodies: Bodies, budget: int) -> AbstractContextManager[None]:
        """Compute the layers below the first trained one once for each body. See `frozen_layers`."""
        return frozen_below(self, bodies, budget)

    def keep_states(self, folder: Path, key: str) -> None:
        """Keep states of the lower layers in a folder from now on. Large codebooks are searched: none are kept."""
        depth = first_adapted(len(layer_stack(self.backbone.model)))
        if depth and self.tokens.trie.nodes <= FEW_NODES:
            self.kept = KeptStates(folder, f"{key}, {depth} layers, {self.backbone.dtype}", depth)

    def begin_with_kept(self, bodies: Bodies, budget: int) -> AbstractContextManager[None]:
        """Begin passes behind the lower layers, for rows whose states are kept. See `frozen_layers`."""
        return begin_at(self, bodies, self.kept, budget) if self.kept else nullcontext()

    def at_ends(self, bodies: Bodies, owners: Ints, nodes: Ints) -> torch.Tensor:
        """Return log-probabilities over the vocabulary at the end of each body, then at the given nodes."""
        return self._whole(bodies, owners, nodes).float().log_softmax(dim=-1)

    def _whole(self, bodies: Bodies, owners: Ints, nodes: Ints) -> torch.Tensor:
        """Compute a row in one pass; return the logits at each utterance's end, then those at each node."""
        row, texts, ends = self._lay_out(bodies, np.bincount(owners, minlength=len(bodies)))
        columns = texts.concatenate(node_columns(owners, nodes, ends, self.tokens.trie))
        everyone = np.arange(len(bodies))
        return row.compute(columns, np.concatenate([everyone, owners]), np.concatenate([0 * everyone, nodes]))

    def _lay_out(self, bodies: Bodies, behind: Ints | int = 0) -> tuple[_Row, Columns, Ints]:
        """Start a row; return it, the columns of the bodies, and the positions of their last tokens.

        The common start of all bodies is computed once, like the instruction. `behind`: nodes that follow each body.
        """
        shared = self.shared if self.cached else common_start(bodies)
        first, rest = self.first_columns(shared), [body[len(shared) :] for body in bodies]
        texts = body_columns(rest, len(first))
        sizes = (np.array([len(body) for body in rest]) + behind).tolist()
        lanes = fill_lanes(sizes) if self.cached else [list(range(len(bodies)))]
        return _Row(self, first, lanes, bodies), texts, texts.positions[last_of_each(texts, len(bodies))]

    def first_columns(self, shared: Sequence[int]) -> Columns:
        """Return the columns of the soft prompt, if any, the instruction, and the common start of the bodies."""
        return prefix_columns([0] * self.backbone.virtual_tokens + self.tokens.prefix + list(shared))

    @torch.inference_mode()
    def isolates_utterances(self) -> bool:
        """Test whether an utterance gets the same logits behind another as alone, rather than rely on a list of models.

        It does not in backbones with recurrent layers, or with distances in place of positions.
        """
        shared, first, second = [5, 6, 7], list(range(8, 24)), [50, 51, 52, 53]
        try:
            packed = self._packed(prefix_columns(shared), body_columns([first, second], len(shared)))
        except torch.OutOfMemoryError:  # inconclusive; the round will report that memory ran out
            return True
        except UNFIT:  # the model does not accept positions, our mask, or a cache that grows token by token
            return False
        alone, behind = (self._reference_logits([*shared, *before, *second]) for before in ([], first))
        if not bool(torch.isfinite(alone).all() and torch.isfinite(behind).all()):
            refuse_model(self.backbone.name)
        # Relative to the effect of seeing the text before. Rounding in bf16 is up to 0.15 of the spread of the
        # starter's logits, on a CPU a twentieth of that; recurrent layers or distances cause half of the spread.
        off = torch.stack([(logits - alone).norm() for logits in packed]).max()
        return bool(off < 0.25 * (behind - alone).norm())

    def _packed(self, shared: Columns, texts: Columns) -> list[torch.Tensor]:
        """Return (vocabulary,) logits after the last text, computed in one row and behind a cached beginning."""
        row, last = shared.concatenate(texts), np.array([len(texts) - 1])
        cache = self._compute_cache(torch.from_numpy(shared.ids)[None].to(self.backbone.device))
        passes = (
            self.forward([row], [row], last + len(shared), None),
            self.forward([texts], [row], last, _expand_cache(cache, 1)),
        )
        return [logits[0].float() for logits in passes]

    def _reference_logits(self, ids: list[int]) -> torch.Tensor:
        """Return (vocabulary,) logits after a text, computed by the model's own forward pass."""
        inputs = torch.tensor([ids], device=self.backbone.device)
        logits: torch.Tensor = self.backbone.model(input_ids=inputs, use_cache=False).logits
        return logits[0, -1].float()

    @contextmanager
    def session(self, shared: Sequence[int] = ()) -> Iterator[None]:
        """Compute the shared prefix once and cache its keys and values."""
        ids = torch.from_numpy(self.first_columns(shared).ids)[None].to(self.backbone.device)
        with _eager_attention_on_cpu(self.backbone):
            self.cached, self.shared = self._compute_cache(ids), shared
            try:
                yield
            finally:
                self.cached = None

    def _compute_cache(self, ids: torch.Tensor) -> Any:
        """Return the keys and values of (1, tokens) ids."""
        from transformers import DynamicCache

        cache, inputs = DynamicCache(), self.backbone.model_inputs(ids)
        self.backbone.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    @contextmanager
    def without_shared(self) -> Iterator[None]:
        """Within a session, score bodies that lack the shared beginning: behind the instruction alone."""
        from transformers import DynamicCache

        whole, shared, kept = self.cached, self.shared, len(self.first_columns(()))
        self.cached = DynamicCache([(one.keys[:, :, :kept], one.values[:, :, :kept]) for one in whole.layers])
        self.shared = ()
        try:
            yield
        finally:
            self.cached, self.shared = whole, shared

    def forward(self, queries: list[Columns], present: list[Columns], places: Ints, cache: Any) -> torch.Tensor:
        """Compute lanes of columns behind the cache; return (places, vocabulary) logits at some places.

        `places` index the concatenated lanes.
        """
        for lane, before in zip(queries, present, strict=True):
            self._check_reach(lane, before)
        device = self.backbone.device
        ids = torch.from_numpy(np.stack([lane.ids for lane in queries])).to(device)
        has_prefix = queries[0].owners[0] == PREFIX
        with _logits_only_at(self.backbone.model, torch.from_numpy(places).to(device)):
            output = self.backbone.model(
                **(self.backbone.model_inputs(ids) if has_prefix else {"input_ids": ids}),
                position_ids=torch.from_numpy(np.stack([lane.positions for lane in queries])).to(device),
                attention_mask=self._masks(queries, present),
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return output.logits[0]  # type: ignore[no-any-return]

    def _masks(self, queries: list[Columns], present: list[Columns]) -> Any:
        """Return one mask for all layers, or one for each kind of layer; kinds that are not narrowed share it."""
        lanes = list(zip(queries, present, strict=True))
        sees = np.stack([attention_mask(lane, before, self.tokens.trie) for lane, before in lanes])
        narrowed = self.windows.narrowed(1 + max(int(lane.positions.max()) for lane in queries))

        def mask(kind: str | None) -> torch.Tensor:
            seen = sees
            if kind:
                seen = sees & np.stack([self.windows.within(kind, a.positions, b.positions) for a, b in lanes])
            return _additive(torch.from_numpy(seen[:, None]).to(self.backbone.device), self.backbone.dtype)

        whole = mask(None) if set(self.windows.kinds) - narrowed else None
        masks = {kind: mask(kind) if kind in narrowed else whole for kind in self.windows.kinds}
        return masks if len(masks) > 1 else masks[self.windows.kinds[0]]

    def _check_reach(self, lane: Columns, present: Columns) -> None:
        check_reach(self.backbone.name, self.windows.longest, int(lane.positions.max()) + 1)
        columns = self.windows.columns
        if columns and len(present) > columns:
            raise UtteranceTooLong(
                Message(
                    "Instruction, utterance and labels take {n} tokens; {name} attends to {columns} at once.",
                    n=len(present),
                    name=self.backbone.name,
                    columns=columns,
                ),
                "Lower max_tokens, shorten the definitions, or choose a backbone without local attention.",
            )


class _Row:
    """A row, divided into lanes, that is computed in one or more parts."""

    def __init__(self, scorer: CausalScorer, first: Columns, lanes: list[list[int]], bodies: Bodies) -> None:
        self.scorer, self.lanes, self.bodies = scorer, lanes, bodies
        self.cache = _expand_cache(scorer.cached, len(lanes)) if scorer.cached else None
        self.present = [first] * len(lanes)

    def compute(self, columns: Columns, owners: Ints, nodes: Ints) -> torch.Tensor:
        """Compute columns; return (pairs, vocabulary) logits at nodes of utterances, which must be among these."""
        queries, frozen = self.append(columns), self.scorer.frozen
        with frozen.in_place(self.scorer.backbone.model, queries, self.bodies) if frozen else nullcontext():
            return self.scorer.forward(queries, self.present, _locate(queries, owners, nodes), self.cache)

    def append(self, columns: Columns) -> list[Columns]:
        """Append columns to their lanes; return the columns to compute, lane by lane."""
        parts = [columns.of(members) for members in self.lanes]
        width = max(len(part) for part in parts)
        parts = [part.padded(width) for part in parts]
        self.present = [before.concatenate(part) for before, part in zip(self.present, parts, strict=True)]
        return parts if self.cache else self.present


def _locate(lanes: list[Columns], owners: Ints, nodes: Ints) -> Ints:
    """Return the places of nodes in the concatenated lanes; for a root, that of the body's last token."""
    all_owners = np.concatenate([lane.owners for lane in lanes])
    all_nodes = np.concatenate([lane.nodes for lane in lanes])
    place = {
        pair: i for i, pair in enumerate(zip(all_owners.tolist(), all_nodes.tolist(), strict=True))
    }  # the last one wins
    return np.array([place[pair] for pair in zip(owners.tolist(), nodes.tolist(), strict=True)], dtype=np.int64)


def _expand_cache(cache: Any, lanes: int) -> Any:
    """Share one cached prefix between lanes; each lane appends its own keys and values."""
    from transformers import DynamicCache

    return DynamicCache(
        [(one.keys.expand(lanes, -1, -1, -1), one.values.expand(lanes, -1, -1, -1)) for one in cache.layers]
    )


@contextmanager
def _eager_attention_on_cpu(backbone: Backbone) -> Iterator[None]:
    """Use eager attention on a CPU: in short lanes the fused kernel is slower."""
    before = backbone.model.config._attn_implementation
    if backbone.device.type != "cpu" or before != "sdpa":
        yield
        return
    backbone.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        backbone.model.set_attn_implementation(before)


@contextmanager
def _logits_only_at(model: Any, places: torch.Tensor) -> Iterator[None]:
    """Restrict the output layer to some places: logits over a whole vocabulary cost as much as layers.

    The model's own option selects the same places in every lane.
    """

    def choose(_: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (inputs[0].flatten(0, 1)[places][None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        hook.remove()


def _additive(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn a boolean mask into the additive one that every attention implementation takes."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
