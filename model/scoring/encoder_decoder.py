"""Flan-T5 family: the encoder reads an utterance once, and all decoder paths of the trie share what it has read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from model.backbones.backbone import Backbone
from model.prompts.tokens import PromptTokens
from model.prompts.verbalizer import LabelTrie
from model.scoring.hidden_states import mean_by_owner
from model.scoring.loglik import edge_loglik, label_loglik, path_loglik
from model.scoring.packing import NOBODY, Bodies, Ints, split_rows
from model.scoring.trie_search import FEW_NODES, Logs, best_first
from model.scoring.windows import check_reach, read_windows


class EncoderDecoderScorer:
    """Flan-T5 family: the encoder reads once, and every decoder path shares what it has read."""

    def __init__(self, backbone: Backbone, tokens: PromptTokens) -> None:
        self.backbone = backbone
        self.tokens = tokens
        self.windows = read_windows(backbone.model.config)

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

    def chosen_loglik(self, bodies: Bodies, labels: Ints) -> torch.Tensor:
        """Score one label each: one decoder path an utterance."""
        trie, read = self.tokens.trie, self._read(bodies)
        paths = [trie.inner_path(label) for label in labels]
        roots = read.start()
        longer = np.array([i for i, path in enumerate(paths) if len(path)], dtype=np.int64)
        if not len(longer):
            return path_loglik(roots, roots[:0], labels, trie)
        steps = read.say(longer, np.array([paths[i][-1] for i in longer]))
        below = torch.cat([steps[place, : len(paths[i])] for place, i in enumerate(longer)])
        return path_loglik(roots, below, labels, trie)

    def search(self, bodies: Bodies, tolerance: float) -> Logs:
        """Let the decoder say only the paths that matter."""
        trie, read = self.tokens.trie, self._read(bodies)

        def expand(owners: Ints, nodes: Ints) -> Logs:
            if not nodes.any():
                return edge_loglik(read.start()[torch.from_numpy(owners)], nodes, trie)
            last = torch.from_numpy(trie.depths[nodes - 1] - 1)
            return edge_loglik(read.say(owners, nodes)[torch.arange(len(nodes)), last], nodes, trie)

        return best_first(trie, len(bodies), expand, tolerance, at_once=max(len(bodies), 256))

    def states(self, bodies: Bodies, own: Sequence[slice]) -> torch.Tensor:
        """Return (n, 2 · width) of what the encoder makes of each: the mean over its own tokens, and the last token."""
        encoded = self._read(bodies).encoded
        first = self.backbone.virtual_tokens + len(self.tokens.prefix)
        owners = np.full(encoded.shape[:2], NOBODY)
        for row, part in enumerate(own):
            owners[row, first + part.start : first + part.stop] = row
        ends = torch.tensor([first + len(body) - 1 for body in bodies], device=encoded.device)
        last = encoded[torch.arange(len(bodies), device=encoded.device), ends].float()
        return torch.cat([mean_by_owner(encoded, owners.ravel(), len(bodies)), last], dim=1)

    def check(self, bodies: Bodies, budget: int) -> None:
        """Nothing to refuse: the encoder reads each text in a row of its own."""

    def _read(self, bodies: Bodies) -> _Read:
        device, model = self.backbone.device, self.backbone.model
        place = [0] * self.backbone.virtual_tokens
        rows = [torch.tensor([*place, *self.tokens.prefix, *body]) for body in bodies]
        check_reach(self.backbone.name, self.windows.longest, max(map(len, rows), default=0))
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0).to(device)
        sizes = torch.tensor([len(row) for row in rows], device=device)
        mask = (torch.arange(ids.shape[1], device=device) < sizes[:, None]).long()
        encoded = model.get_encoder()(**self.backbone.model_inputs(ids), attention_mask=mask).last_hidden_state
        return _Read(model, self.tokens.trie, encoded, mask)

    @contextmanager
    def session(self, shared: Sequence[int] = ()) -> Iterator[None]:
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
