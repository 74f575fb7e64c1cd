"""Llama-family models: many utterances in one row behind the instruction, the label trie at each one's end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from annotator.errors import UtteranceTooLong
from model.backbones.backbone import Backbone
from model.finite import refuse_model
from model.prompts.tokens import PromptTokens
from model.scoring.hidden_states import capture_layers, mean_by_owner
from model.scoring.likeness import check_row
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
    """Llama-family models: packed rows behind a shared prefix (see `packing`)."""

    def __init__(self, backbone: Backbone, tokens: PromptTokens) -> None:
        self.backbone = backbone
        self.tokens = tokens
        self.cached: Any = None
        self.shared: Sequence[int] = ()  # in the cache too: what all bodies of the session begin with
        self.windows = read_windows(backbone.model.config)

    def rows(self, bodies: Bodies, budget: int) -> list[list[int]]:
        """Cut in the order given: packing needs no equal lengths."""
        nodes = self.tokens.trie.nodes - 1
        if self.windows.columns:
            budget = min(budget, self.windows.columns - len(self._first(())))
        each = nodes if nodes < FEW_NODES or self.windows.columns else FEW_NODES  # of a large trie few are looked into
        return [list(row) for row in split_rows([len(body) + each for body in bodies], budget)]

    def loglik(self, bodies: Bodies) -> torch.Tensor:
        """Score utterances in one packed row, the whole trie at each one's end."""
        trie, n = self.tokens.trie, len(bodies)
        inner = trie.nodes - 1
        logits = self._whole(bodies, np.repeat(np.arange(n), inner), np.tile(np.arange(1, trie.nodes), n))
        return label_loglik(torch.cat([logits[:n, None], logits[n:].view(n, inner, logits.shape[-1])], dim=1), trie)

    def chosen_loglik(self, bodies: Bodies, labels: Ints) -> torch.Tensor:
        """Score one label each: only its own nodes are in the row."""
        paths = [self.tokens.trie.inner_path(label) for label in labels]
        owners = np.repeat(np.arange(len(bodies)), [len(path) for path in paths])
        logits = self._whole(bodies, owners, np.concatenate(paths))
        return path_loglik(logits[: len(bodies)], logits[len(bodies) :], labels, self.tokens.trie)

    def search(self, bodies: Bodies, tolerance: float) -> Logs:
        """Compute the utterances in one packed row, then those nodes that matter behind it. Needs a session."""
        trie, n = self.tokens.trie, len(bodies)
        row, texts, ends = self._lay_out(bodies)

        def expand(owners: Ints, nodes: Ints) -> Logs:
            if nodes.any():
                return edge_loglik(row.compute(node_columns(owners, nodes, ends, trie), owners, nodes), nodes, trie)
            # the roots: all of them are asked for at once, before any other
            return edge_loglik(row.compute(texts, owners, nodes), nodes, trie)

        return best_first(trie, n, expand, tolerance, at_once=max(len(texts), n))

    def states(self, bodies: Bodies, own: Sequence[slice]) -> torch.Tensor:
        """Return (n, 2 · width): the mean over each utterance's own tokens, and the last token.

        Needs a session in which bodies share nothing: what is in the cache is not heard.
        """
        row, texts, _ = self._lay_out(bodies)
        everyone, first = np.arange(len(bodies)), int(texts.positions.min())
        asking = row.lay(texts)
        with capture_layers(self.backbone.model) as heard:
            self.forward(asking, row.present, np.zeros(1, dtype=np.int64), row.cache)
        owners = [owners_within(lane, own, first) for lane in asking]
        meant = mean_by_owner(heard.halfway, np.concatenate(owners), len(bodies))
        last = torch.from_numpy(_locate(asking, everyone, 0 * everyone)).to(meant.device)
        return torch.cat([meant, heard.further.flatten(0, 1)[last].float()], dim=1)

    def check(self, bodies: Bodies, budget: int) -> None:
        """Refuse bodies that are computed otherwise in a row than alone."""
        check_row(self, bodies, budget)

    def at_ends(self, bodies: Bodies, owners: Ints, nodes: Ints) -> torch.Tensor:
        """Return the log-probabilities of all tokens at the ends of a row's bodies, then at nodes behind them."""
        return self._whole(bodies, owners, nodes).float().log_softmax(dim=-1)

    def _whole(self, bodies: Bodies, owners: Ints, nodes: Ints) -> torch.Tensor:
        """Compute a row in one pass; return the logits at each utterance's end, then those at each node."""
        row, texts, ends = self._lay_out(bodies, np.bincount(owners, minlength=len(bodies)))
        columns = texts.concatenate(node_columns(owners, nodes, ends, self.tokens.trie))
        everyone = np.arange(len(bodies))
        return row.compute(columns, np.concatenate([everyone, owners]), np.concatenate([0 * everyone, nodes]))

    def _lay_out(self, bodies: Bodies, behind: Ints | int = 0) -> tuple[_Row, Columns, Ints]:
        """Begin a row; return it, what each body has to itself, and the positions of their last tokens.

        What all of them begin with is computed once, as the instruction is. `behind`: nodes to come at each end.
        """
        shared = self.shared if self.cached else common_start(bodies)
        first, rest = self._first(shared), [body[len(shared) :] for body in bodies]
        texts = body_columns(rest, len(first))
        sizes = (np.array([len(body) for body in rest]) + behind).tolist()
        lanes = fill_lanes(sizes) if self.cached else [list(range(len(bodies)))]
        return _Row(self, first, lanes), texts, texts.positions[last_of_each(texts, len(bodies))]

    def _first(self, shared: Sequence[int]) -> Columns:
        """Lay out what comes first: the soft prompt if there is one, the instruction, and what bodies begin with."""
        return prefix_columns([0] * self.backbone.virtual_tokens + self.tokens.prefix + list(shared))

    @torch.inference_mode()
    def isolates_utterances(self) -> bool:
        """Try whether an utterance reads the same behind another as alone: better than to trust a list of models.

        Backbones with recurrent layers or with distances in place of positions do not.
        """
        shared, first, second = [5, 6, 7], list(range(8, 24)), [50, 51, 52, 53]
        row = prefix_columns(shared).concatenate(body_columns([first, second], len(shared)))
        try:
            packed = self.forward([row], [row], np.array([len(row) - 1]), None)[0].float()
        except torch.OutOfMemoryError:  # says nothing about it; the round will say that memory has run out
            return True
        except (TypeError, ValueError, RuntimeError):  # it takes no positions, or no mask of ours
            return False
        alone, behind = (self._reference_logits([*shared, *before, *second]) for before in ([], first))
        if not bool(torch.isfinite(alone).all() and torch.isfinite(behind).all()):
            refuse_model(self.backbone.name)
        # Measured by what it does to hear all that was said before. Rounding in bf16 is up to 0.15 of the spread of the
        # starter's logits, and on a processor a twentieth of that; a recurrent layer, or distances, make half of it.
        return bool((packed - alone).norm() < 0.25 * (behind - alone).norm())

    def _reference_logits(self, ids: list[int]) -> torch.Tensor:
        """Return (vocabulary,) logits behind a text, as the model itself computes them."""
        asked = torch.tensor([ids], device=self.backbone.device)
        logits: torch.Tensor = self.backbone.model(input_ids=asked, use_cache=False).logits
        return logits[0, -1].float()

    @contextmanager
    def session(self, shared: Sequence[int] = ()) -> Iterator[None]:
        """Compute once what comes first, and keep its keys and values."""
        from transformers import DynamicCache

        cache = DynamicCache()
        ids = torch.from_numpy(self._first(shared).ids)[None].to(self.backbone.device)
        with _eager_attention_on_cpu(self.backbone):
            self.backbone.model(
                **self.backbone.model_inputs(ids), past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            self.cached, self.shared = cache, shared
            try:
                yield
            finally:
                self.cached = None

    def forward(self, asking: list[Columns], present: list[Columns], asked: Ints, cache: Any) -> torch.Tensor:
        """Compute lanes of columns behind those in the cache; return (asked, vocabulary) logits at some places.

        Places count through the lanes, one after the other.
        """
        for lane, before in zip(asking, present, strict=True):
            self._check_reach(lane, before)
        device = self.backbone.device
        ids = torch.from_numpy(np.stack([lane.ids for lane in asking])).to(device)
        leads = asking[0].owners[0] == PREFIX
        with _logits_only_at(self.backbone.model, torch.from_numpy(asked).to(device)):
            output = self.backbone.model(
                **(self.backbone.model_inputs(ids) if leads else {"input_ids": ids}),
                position_ids=torch.from_numpy(np.stack([lane.positions for lane in asking])).to(device),
                attention_mask=self._masks(asking, present),
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return output.logits[0]  # type: ignore[no-any-return]

    def _masks(self, asking: list[Columns], present: list[Columns]) -> Any:
        """Return the mask that all layers take, or one for each kind of layer; those that see all share it."""
        lanes = list(zip(asking, present, strict=True))
        sees = np.stack([attention_mask(lane, before, self.tokens.trie) for lane, before in lanes])
        narrowed = self.windows.narrowed(1 + max(int(lane.positions.max()) for lane in asking))

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
                f"Instruction, utterance and labels take {len(present)} tokens, {self.backbone.name} attends to "
                f"{columns} at once.",
                "Lower max_tokens, shorten the definitions, or choose a backbone without local attention.",
            )


class _Row:
    """A row of lanes that is computed in one or more parts."""

    def __init__(self, scorer: CausalScorer, first: Columns, lanes: list[list[int]]) -> None:
        self.scorer, self.lanes = scorer, lanes
        self.cache = _expand_cache(scorer.cached, len(lanes)) if scorer.cached else None
        self.present = [first] * len(lanes)

    def compute(self, columns: Columns, owners: Ints, nodes: Ints) -> torch.Tensor:
        """Compute columns; return (pairs, vocabulary) logits at nodes of utterances, which must be among them."""
        asking = self.lay(columns)
        return self.scorer.forward(asking, self.present, _locate(asking, owners, nodes), self.cache)

    def lay(self, columns: Columns) -> list[Columns]:
        """Put columns behind what is present; return those to compute, lane by lane."""
        parts = [columns.of(members) for members in self.lanes]
        width = max(len(part) for part in parts)
        parts = [part.padded(width) for part in parts]
        self.present = [before.concatenate(part) for before, part in zip(self.present, parts, strict=True)]
        return parts if self.cache else self.present


def _locate(lanes: list[Columns], owners: Ints, nodes: Ints) -> Ints:
    """Find the columns of nodes, the last ones of bodies for roots; count through the lanes."""
    all_owners = np.concatenate([lane.owners for lane in lanes])
    all_nodes = np.concatenate([lane.nodes for lane in lanes])
    place = {pair: i for i, pair in enumerate(zip(all_owners.tolist(), all_nodes.tolist(), strict=True))}  # last stays
    return np.array([place[pair] for pair in zip(owners.tolist(), nodes.tolist(), strict=True)], dtype=np.int64)


def _expand_cache(cache: Any, lanes: int) -> Any:
    """Let so many lanes read one cached prefix; what they add is their own."""
    from transformers import DynamicCache

    return DynamicCache(
        [(one.keys.expand(lanes, -1, -1, -1), one.values.expand(lanes, -1, -1, -1)) for one in cache.layers]
    )


@contextmanager
def _eager_attention_on_cpu(backbone: Backbone) -> Iterator[None]:
    """Let a processor compute attention step by step: in lanes as short as ours the fused kernel takes longer."""
    usual = backbone.model.config._attn_implementation
    if backbone.device.type != "cpu" or usual != "sdpa":
        yield
        return
    backbone.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        backbone.model.set_attn_implementation(usual)


@contextmanager
def _logits_only_at(model: Any, places: torch.Tensor) -> Iterator[None]:
    """Let the output layer compute logits at some places only: over a whole vocabulary they cost as much as layers.

    The model's own way of choosing them takes the same places of every lane.
    """

    def choose(_: Any, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (given[0].flatten(0, 1)[places][None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        hook.remove()


def _additive(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn a boolean mask into the additive one that every attention implementation takes."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
