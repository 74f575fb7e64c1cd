"""Llama-family models: many utterances in one row behind the instruction, the label trie at each one's end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from annotator.errors import UtteranceTooLong
from model.backbone import Backbone
from model.loglik import edge_loglik, label_loglik, path_loglik
from model.packing import (
    PREFIX,
    Columns,
    Ints,
    body_columns,
    last_of_each,
    node_columns,
    prefix_columns,
    sight,
    split_rows,
)
from model.search import FEW_NODES, Logs, best_first
from model.tokens import PromptTokens

Bodies = Sequence[Sequence[int]]


class CausalScorer:
    """Llama-family models: packed rows behind a shared prefix (see `packing`)."""

    def __init__(self, backbone: Backbone, tokens: PromptTokens) -> None:
        self.backbone = backbone
        self.tokens = tokens
        self._cache: Any = None

    @property
    def _prefix(self) -> Columns:
        return prefix_columns([0] * self.backbone.virtual_tokens + self.tokens.prefix)

    def rows(self, bodies: Bodies, budget: int) -> list[list[int]]:
        """Cut in the order given: packing needs no equal lengths."""
        nodes = self.tokens.trie.nodes - 1
        each = nodes if nodes < FEW_NODES else FEW_NODES  # of a large trie few nodes are looked into
        return [list(row) for row in split_rows([len(body) + each for body in bodies], budget)]

    def loglik(self, bodies: Bodies) -> torch.Tensor:
        """Score utterances in one packed row, the whole trie at each one's end."""
        trie, n = self.tokens.trie, len(bodies)
        inner = trie.nodes - 1
        roots, below = self._whole(bodies, np.repeat(np.arange(n), inner), np.tile(np.arange(1, trie.nodes), n))
        return label_loglik(torch.cat([roots[:, None], below.view(n, inner, -1)], dim=1), trie)

    def said(self, bodies: Bodies, labels: Ints) -> torch.Tensor:
        """Score one label each: only its own nodes are in the row."""
        trie = self.tokens.trie
        paths = [trie.inner_path(label) for label in labels]
        owners = np.repeat(np.arange(len(bodies)), [len(path) for path in paths])
        roots, below = self._whole(bodies, owners, np.concatenate(paths))
        return path_loglik(roots, below, labels, trie)

    def _whole(self, bodies: Bodies, owners: Ints, nodes: Ints) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute a row in one pass; return the logits at each utterance's end, and at each node."""
        texts, ends = self._texts(bodies)
        row = texts.then(node_columns(owners, nodes, ends, self.tokens.trie))
        present = self._prefix.then(row)
        asking = present if self._cache is None else row
        first = len(asking) - len(row)
        asked = np.concatenate([last_of_each(texts, len(bodies)), len(texts) + np.arange(len(owners))])
        with self._tidy():
            logits = self._forward(asking, present, first + asked)
        return logits[: len(bodies)], logits[len(bodies) :]

    def search(self, bodies: Bodies, tolerance: float) -> Logs:
        """Compute the utterances in one packed row, then those nodes that matter behind it. Needs a session."""
        trie, n = self.tokens.trie, len(bodies)
        texts, ends = self._texts(bodies)
        present = self._prefix

        def expand(owners: Ints, nodes: Ints) -> Logs:
            nonlocal present
            first = not nodes.any()  # the roots: all of them are asked for at once, before any other
            asking = texts if first else node_columns(owners, nodes, ends, trie)
            present = present.then(asking)
            asked = last_of_each(asking, n) if first else np.arange(len(asking))
            return edge_loglik(self._forward(asking, present, asked), nodes, trie)

        with self._tidy():
            return best_first(trie, n, expand, tolerance, at_once=max(len(texts), n))

    def _texts(self, bodies: Bodies) -> tuple[Columns, Ints]:
        texts = body_columns(bodies, len(self._prefix))
        return texts, texts.positions[last_of_each(texts, len(bodies))]

    def _forward(self, asking: Columns, present: Columns, asked: Ints) -> torch.Tensor:
        """Compute columns behind those in the cache; return (asked, vocabulary) logits at some of them."""
        self._check_reach(asking)
        device = self.backbone.device
        sees = torch.from_numpy(sight(asking, present, self.tokens.trie))[None, None].to(device)
        ids = torch.from_numpy(asking.ids)[None].to(device)
        leads = asking.owners[0] == PREFIX
        output = self.backbone.model(
            **(self.backbone.reading(ids) if leads else {"input_ids": ids}),
            position_ids=torch.from_numpy(asking.positions)[None].to(device),
            attention_mask=_additive(sees, self.backbone.dtype),
            past_key_values=self._cache,
            use_cache=self._cache is not None,
            logits_to_keep=torch.from_numpy(asked).to(device),
        )
        return output.logits[0]  # type: ignore[no-any-return]

    @torch.inference_mode()
    def keeps_apart(self) -> bool:
        """Try whether an utterance reads the same behind another as alone: better than to trust a list of models.

        Backbones with recurrent layers or with distances in place of positions do not.
        """
        shared, first, second = [5, 6, 7], [8, 9], [10, 11, 12, 13]
        row = prefix_columns(shared).then(body_columns([first, second], len(shared)))
        try:
            packed = self._forward(row, row, np.array([len(row) - 1]))[0].float()
        except (TypeError, ValueError, RuntimeError):  # it takes no positions, or no mask of ours
            return False
        ids = torch.tensor([[*shared, *second]], device=self.backbone.device)
        alone = self.backbone.model(input_ids=ids, use_cache=False).logits[0, -1].float()
        return float((packed - alone).norm() / (alone - alone.mean()).norm()) < 0.1  # rounding in bf16 makes 0.01

    @contextmanager
    def _tidy(self) -> Iterator[None]:
        """Leave nothing but the prefix in the cache, also when memory ran out between two layers."""
        try:
            yield
        finally:
            for layer in self._cache.layers if self._cache else ():
                if layer.get_seq_length() > len(self._prefix):
                    layer.crop(len(self._prefix) - layer.get_seq_length())

    @contextmanager
    def session(self) -> Iterator[None]:
        """Compute the prefix once and keep its keys and values."""
        from transformers import DynamicCache

        cache = DynamicCache()
        ids = torch.from_numpy(self._prefix.ids)[None].to(self.backbone.device)
        self.backbone.model(**self.backbone.reading(ids), past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._cache = cache
        try:
            yield
        finally:
            self._cache = None

    def _check_reach(self, row: Columns) -> None:
        config = self.backbone.model.config
        limits = [getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window")]
        limit = min((limit for limit in limits if limit), default=None)
        longest = int(row.positions.max()) + 1
        if limit and longest > limit:
            raise UtteranceTooLong(
                f"Instruction and utterance take {longest} tokens, {self.backbone.name} reads {limit}.",
                "Lower max_tokens, or shorten the definitions.",
            )


def _additive(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn a boolean mask into the additive one that every attention implementation takes."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
