"""The exact log-likelihood of every label: nothing is sampled, nothing can be answered that is no label.

log p(label | utterance) is the sum of the log-probabilities of the label's tokens under the model's full
vocabulary. The same functions serve training (with gradients) and scoring (without).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch

from annotator.errors import UtteranceTooLong
from model.backbone import Backbone
from model.packing import Row, pack_row, split_rows
from model.tokens import PromptTokens
from model.verbalizer import LabelTrie


class Scorer(Protocol):
    """How one family of models is asked."""

    def loglik(self, bodies: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return (n, k) log-likelihoods in fp32 for tokenised utterances computed together."""
        ...

    def rows(self, bodies: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
        """Say which utterances to compute together so that no more than `budget` tokens are."""
        ...

    @contextmanager
    def session(self) -> Iterator[None]:
        """Prepare for many calls of `loglik` without gradients between which no weight changes."""
        ...


def make_scorer(backbone: Backbone, tokens: PromptTokens) -> Scorer:
    """Choose the scorer for the backbone's family."""
    if backbone.family == "causal":
        return CausalScorer(backbone, tokens)
    return EncoderDecoderScorer(backbone, tokens)


def label_loglik(logits: torch.Tensor, trie: LabelTrie) -> torch.Tensor:
    """Sum the log-probabilities along each label's path.

    `logits`: (n, nodes, vocabulary) at every trie node. Returns (n, labels) in fp32, whatever the model's
    precision: a sum of few terms loses nothing there, bf16 would lose three digits.
    """
    logits = logits.float()
    nodes, chosen, paths = (torch.from_numpy(a) for a in (trie.edge_nodes, trie.edge_tokens, trie.paths))
    nodes, chosen, paths = nodes.to(logits.device), chosen.to(logits.device), paths.to(logits.device)
    edges = logits[:, nodes, chosen] - logits.logsumexp(dim=-1)[:, nodes]  # (n, edges)
    return edges @ paths.T


class CausalScorer:
    """Llama-family models: packed rows behind a shared prefix (see `packing`)."""

    def __init__(self, backbone: Backbone, tokens: PromptTokens) -> None:
        self.backbone = backbone
        self.tokens = tokens
        self._cache: Any = None

    def rows(self, bodies: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
        """Cut in the order given: packing needs no equal lengths."""
        nodes = self.tokens.trie.nodes - 1
        return [list(row) for row in split_rows([len(body) + nodes for body in bodies], budget)]

    def loglik(self, bodies: Sequence[Sequence[int]]) -> torch.Tensor:
        """Score utterances in one packed row."""
        trie, prefix = self.tokens.trie, self.tokens.prefix
        row = pack_row(bodies, trie, prefix, cached=self._cache is not None)
        self._check_reach(row)
        device = self.backbone.device
        try:
            output = self.backbone.model(
                input_ids=row.input_ids.to(device),
                position_ids=row.position_ids.to(device),
                attention_mask=_additive(row.sees.to(device), self.backbone.dtype),
                past_key_values=self._cache,
                use_cache=self._cache is not None,
                logits_to_keep=row.asked.to(device),
            )
        finally:  # also when memory ran out between two layers
            for layer in self._cache.layers if self._cache else ():
                layer.crop(len(prefix) - layer.get_seq_length())
        return label_loglik(output.logits.view(len(bodies), trie.nodes, -1), trie)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Compute the prefix once and keep its keys and values."""
        from transformers import DynamicCache

        cache = DynamicCache()
        ids = torch.tensor([self.tokens.prefix], device=self.backbone.device)
        self.backbone.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._cache = cache
        try:
            yield
        finally:
            self._cache = None

    def _check_reach(self, row: Row) -> None:
        config = self.backbone.model.config
        limits = [config.max_position_embeddings, getattr(config, "sliding_window", None)]
        limit = min(limit for limit in limits if limit)
        longest = int(row.position_ids.max()) + 1
        if longest > limit:
            raise UtteranceTooLong(
                f"Instruction and utterance take {longest} tokens, {self.backbone.name} reads {limit}.",
                "Lower max_tokens, or shorten the definitions.",
            )


def _additive(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn a boolean mask into the additive one that every attention implementation takes."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)


class EncoderDecoderScorer:
    """Flan-T5 family: one encoder pass, one decoder pass over the trie's longest inner paths."""

    def __init__(self, backbone: Backbone, tokens: PromptTokens) -> None:
        self.backbone = backbone
        self.tokens = tokens
        start = backbone.model.config.decoder_start_token_id
        self.decoder_ids, self.places = decoder_paths(tokens.trie, start)

    def rows(self, bodies: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
        """Put utterances of like length together, so that little padding is computed."""
        order = np.argsort([len(body) for body in bodies], kind="stable").tolist()
        cost = len(self.tokens.prefix) + self.decoder_ids.numel()
        cuts = split_rows([len(bodies[i]) + cost for i in order], budget, padded=True)
        return [[order[i] for i in cut] for cut in cuts]

    def loglik(self, bodies: Sequence[Sequence[int]]) -> torch.Tensor:
        """Score utterances in one padded batch."""
        device, model, paths = self.backbone.device, self.backbone.model, self.decoder_ids.to(self.backbone.device)
        ids, mask = self._pad(bodies)
        encoded = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = model(
            encoder_outputs=(encoded.repeat_interleave(len(paths), dim=0),),
            attention_mask=mask.repeat_interleave(len(paths), dim=0),
            decoder_input_ids=paths.repeat(len(bodies), 1),
            use_cache=False,
        ).logits
        row, step = self.places.to(device).unbind(dim=1)
        by_path = logits.view(len(bodies), *paths.shape, -1)  # (n, paths, steps, vocabulary)
        return label_loglik(by_path[:, row, step], self.tokens.trie)

    def _pad(self, bodies: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [torch.tensor([*self.tokens.prefix, *body]) for body in bodies]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
        sizes = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(ids.shape[1]) < sizes[:, None]).long()
        return ids.to(self.backbone.device), mask.to(self.backbone.device)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Nothing to prepare: the encoder reads instruction and utterance as one."""
        yield


def decoder_paths(trie: LabelTrie, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the decoder inputs (paths, steps) that visit every trie node, and each node's (path, step)."""
    inner = set(trie.parents.tolist())
    ends = [node for node in range(trie.nodes) if node not in inner]  # no node below them
    routes = [_route(trie, node) for node in ends]
    steps = max(len(route) for route in routes)
    ids = torch.zeros((len(routes), steps), dtype=torch.long)
    places = torch.zeros((trie.nodes, 2), dtype=torch.long)
    for path, route in enumerate(routes):
        ids[path, : len(route)] = torch.tensor([start, *(trie.tokens[node - 1] for node in route[1:])])
        places[route] = torch.tensor([[path, step] for step in range(len(route))])
    return ids, places


def _route(trie: LabelTrie, node: int) -> list[int]:
    route = [node]
    while route[0]:
        route.insert(0, int(trie.parents[route[0] - 1]))
    return route
