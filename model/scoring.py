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
from model.packing import (
    Columns,
    Ints,
    body_columns,
    last_of_each,
    node_columns,
    prefix_columns,
    sight,
    split_rows,
)
from model.search import Logs, best_first, edges_of
from model.tokens import PromptTokens
from model.verbalizer import LabelTrie

Bodies = Sequence[Sequence[int]]

FEW_NODES = 16  # a trie this small is computed whole: to search it would save less than it costs


class Scorer(Protocol):
    """How one family of models is asked."""

    def loglik(self, bodies: Bodies) -> torch.Tensor:
        """Return (n, k) log-likelihoods in fp32 for tokenised utterances computed together, with gradients."""
        ...

    def search(self, bodies: Bodies, tolerance: float) -> Logs:
        """Return (n, k) log-likelihoods to a total variation of `tolerance`, looking only where it matters."""
        ...

    def rows(self, bodies: Bodies, budget: int) -> list[list[int]]:
        """Say which utterances to compute together so that no more than `budget` tokens are."""
        ...

    @contextmanager
    def session(self) -> Iterator[None]:
        """Prepare for many calls without gradients between which no weight changes."""
        ...


def make_scorer(backbone: Backbone, tokens: PromptTokens) -> Scorer:
    """Choose the scorer for the backbone's family."""
    if backbone.family == "causal":
        return CausalScorer(backbone, tokens)
    return EncoderDecoderScorer(backbone, tokens)


def score(scorer: Scorer, bodies: Bodies, trie: LabelTrie, tolerance: float) -> Logs:
    """Return (n, k) log-likelihoods: exact while the codebook is small, else to the tolerance."""
    if trie.nodes <= FEW_NODES:
        return scorer.loglik(bodies).double().cpu().numpy()
    return scorer.search(bodies, tolerance)


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


def edge_loglik(logits: torch.Tensor, nodes: Ints, trie: LabelTrie) -> Logs:
    """Return the log-probabilities of all edges of some nodes, from (nodes, vocabulary) logits at them."""
    place, edges = edges_of(nodes, trie)
    at = torch.from_numpy(place).to(logits.device)
    said = torch.from_numpy(trie.edge_tokens[edges]).to(logits.device)
    logits = logits.float()
    return (logits[at, said] - logits.logsumexp(dim=-1)[at]).double().cpu().numpy()


class CausalScorer:
    """Llama-family models: packed rows behind a shared prefix (see `packing`)."""

    def __init__(self, backbone: Backbone, tokens: PromptTokens) -> None:
        self.backbone = backbone
        self.tokens = tokens
        self._cache: Any = None
        self._prefix = prefix_columns(tokens.prefix)

    def rows(self, bodies: Bodies, budget: int) -> list[list[int]]:
        """Cut in the order given: packing needs no equal lengths."""
        nodes = self.tokens.trie.nodes - 1
        each = nodes if nodes < FEW_NODES else FEW_NODES  # of a large trie few nodes are looked into
        return [list(row) for row in split_rows([len(body) + each for body in bodies], budget)]

    def loglik(self, bodies: Bodies) -> torch.Tensor:
        """Score utterances in one packed row, the whole trie at each one's end."""
        trie, n = self.tokens.trie, len(bodies)
        texts, ends = self._texts(bodies)
        owners = np.repeat(np.arange(n), trie.nodes - 1)
        row = texts.then(node_columns(owners, np.tile(np.arange(1, trie.nodes), n), ends, trie))
        lead = self._prefix if self._cache is None else None
        asked = np.concatenate(
            [last_of_each(row, n)[:, None], len(texts) + np.arange(len(owners)).reshape(n, -1)], axis=1
        )
        asked += len(lead) if lead else 0
        with self._tidy():
            logits = self._forward(lead.then(row) if lead else row, self._prefix.then(row), asked.reshape(-1))
        return label_loglik(logits.view(n, trie.nodes, -1), trie)

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
        output = self.backbone.model(
            input_ids=torch.from_numpy(asking.ids)[None].to(device),
            position_ids=torch.from_numpy(asking.positions)[None].to(device),
            attention_mask=_additive(sees, self.backbone.dtype),
            past_key_values=self._cache,
            use_cache=self._cache is not None,
            logits_to_keep=torch.from_numpy(asked).to(device),
        )
        return output.logits[0]  # type: ignore[no-any-return]

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
        ids = torch.tensor([self.tokens.prefix], device=self.backbone.device)
        self.backbone.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._cache = cache
        try:
            yield
        finally:
            self._cache = None

    def _check_reach(self, row: Columns) -> None:
        config = self.backbone.model.config
        limits = [config.max_position_embeddings, getattr(config, "sliding_window", None)]
        limit = min(limit for limit in limits if limit)
        longest = int(row.positions.max()) + 1
        if longest > limit:
            raise UtteranceTooLong(
                f"Instruction and utterance take {longest} tokens, {self.backbone.name} reads {limit}.",
                "Lower max_tokens, or shorten the definitions.",
            )


def _additive(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn a boolean mask into the additive one that every attention implementation takes."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)


class EncoderDecoderScorer:
    """Flan-T5 family: the encoder reads once, and every decoder path shares what it has read."""

    def __init__(self, backbone: Backbone, tokens: PromptTokens) -> None:
        self.backbone = backbone
        self.tokens = tokens

    def rows(self, bodies: Bodies, budget: int) -> list[list[int]]:
        """Put utterances of like length together, so that little padding is computed."""
        order = np.argsort([len(body) for body in bodies], kind="stable").tolist()
        cost = len(self.tokens.prefix) + min(self.tokens.trie.nodes, FEW_NODES)
        cuts = split_rows([len(bodies[i]) + cost for i in order], budget, padded=True)
        return [[order[i] for i in cut] for cut in cuts]

    def loglik(self, bodies: Bodies) -> torch.Tensor:
        """Score utterances in one padded batch: a decoder pass for the start, one for the longest inner paths."""
        trie, n = self.tokens.trie, len(bodies)
        read = self._read(bodies)
        inner = set(trie.parents.tolist())
        ends = np.array([node for node in range(1, trie.nodes) if node not in inner], dtype=np.int64)  # none below
        logits = read.start()[:, None]  # (n, 1, vocabulary)
        if len(ends):
            routes = [trie.route(int(end)) for end in ends]
            said = read.say(np.repeat(np.arange(n), len(ends)), np.tile(ends, n))
            said = said.view(n, len(ends), *said.shape[1:])  # (n, paths, steps, vocabulary)
            place = {node: (path, step) for path, route in enumerate(routes) for step, node in enumerate(route)}
            path, step = (torch.tensor([place[node][i] for node in range(1, trie.nodes)]) for i in (0, 1))
            logits = torch.cat([logits, said[:, path, step]], dim=1)
        return label_loglik(logits, trie)

    def search(self, bodies: Bodies, tolerance: float) -> Logs:
        """Let the decoder say only the paths that matter."""
        trie, read = self.tokens.trie, self._read(bodies)

        def expand(owners: Ints, nodes: Ints) -> Logs:
            if not nodes.any():
                return edge_loglik(read.start()[torch.from_numpy(owners)], nodes, trie)
            last = torch.from_numpy(trie.depths[nodes - 1] - 1)
            return edge_loglik(read.say(owners, nodes)[torch.arange(len(nodes)), last], nodes, trie)

        return best_first(trie, len(bodies), expand, tolerance, at_once=max(len(bodies), 256))

    def _read(self, bodies: Bodies) -> _Read:
        device, model = self.backbone.device, self.backbone.model
        rows = [torch.tensor([*self.tokens.prefix, *body]) for body in bodies]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0).to(device)
        sizes = torch.tensor([len(row) for row in rows], device=device)
        mask = (torch.arange(ids.shape[1], device=device) < sizes[:, None]).long()
        encoded = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        return _Read(model, self.tokens.trie, encoded, mask)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Nothing to prepare: the encoder reads instruction and utterance as one."""
        yield


class _Read:
    """Utterances that the encoder has read, and what the decoder needs to say something about them.

    The start token's keys and values, and the encoder's as the decoder sees them, are computed once for all paths;
    but not with activation checkpointing, which computes twice and would put all in twice.
    """

    def __init__(self, model: Any, trie: LabelTrie, encoded: torch.Tensor, mask: torch.Tensor) -> None:
        self.model, self.trie, self.encoded, self.mask = model, trie, encoded, mask
        self.begin = model.config.decoder_start_token_id
        self.cache = None if model.training and model.is_activation_checkpointing else _empty_cache()

    def start(self) -> torch.Tensor:
        """Return (n, vocabulary) logits before anything is said. Comes before `say`."""
        everyone = torch.arange(len(self.encoded))
        return self._decode(torch.full((len(everyone), 1), self.begin), everyone, self.cache)[:, 0]

    def say(self, owners: Ints, nodes: Ints) -> torch.Tensor:
        """Say the paths to some nodes; return (pairs, steps, vocabulary) logits after each token."""
        routes = [torch.from_numpy(self.trie.tokens[np.array(self.trie.route(int(node))) - 1]) for node in nodes]
        ids = torch.nn.utils.rnn.pad_sequence(routes, batch_first=True, padding_value=0)
        chosen = torch.from_numpy(owners)
        if self.cache is None:
            begun = torch.cat([torch.full((len(ids), 1), self.begin), ids], dim=1)
            return self._decode(begun, chosen, None)[:, 1:]
        return self._decode(ids, chosen, _select(self.cache, chosen.to(self.encoded.device)))

    def _decode(self, ids: torch.Tensor, owners: torch.Tensor, cache: Any) -> torch.Tensor:
        device = self.encoded.device
        output = self.model(
            encoder_outputs=(self.encoded[owners.to(device)],),
            attention_mask=self.mask[owners.to(device)],
            decoder_input_ids=ids.to(device),
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.logits  # type: ignore[no-any-return]


def _empty_cache() -> Any:
    from transformers import DynamicCache, EncoderDecoderCache

    return EncoderDecoderCache(DynamicCache(), DynamicCache())


def _select(cache: Any, rows: torch.Tensor) -> Any:
    """Copy some rows of a cache, as often as they are named."""
    from transformers import EncoderDecoderCache

    return EncoderDecoderCache([tuple(None if part is None else part[rows] for part in layer) for layer in cache])
