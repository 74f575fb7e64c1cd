"""Score with encoder-decoder models: all decoder paths of the trie share one encoding of the utterance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from annotator.errors import BackboneRefused, Message, UtteranceTooLong
from model.backbones.backbone import Backbone
from model.prompts.tokens import PromptTokens
from model.scoring.hidden_states import mean_by_owner
from model.scoring.kept_states import KeptStates
from model.scoring.likeness import UNFIT, refuse_if_off, tolerance
from model.scoring.loglik import edge_loglik, label_loglik, path_loglik
from model.scoring.packing import NOBODY, Bodies, Ints, split_rows
from model.scoring.trie_search import FEW_NODES, Logs, best_first
from model.scoring.windows import check_reach, read_windows

PADDED = "padded"  # the layout of checks


class EncoderDecoderScorer:
    """Score with encoder-decoder models such as Flan-T5: one encoder pass, shared by all decoder paths."""

    def __init__(self, backbone: Backbone, tokens: PromptTokens) -> None:
        self.backbone = backbone
        self.tokens = tokens
        self.windows = read_windows(backbone.model.config)
        self.begin = _begin(backbone, tokens)
        self.kept: KeptStates | None = None  # all layers are adapted

    def keep_states(self, folder: Path, key: str) -> None:
        """Do nothing: all layers are adapted."""

    def begin_with_kept(self, bodies: Bodies, budget: int) -> AbstractContextManager[None]:
        """Do nothing: all layers are adapted."""
        return nullcontext()

    def rows(self, bodies: Bodies, budget: int) -> list[list[int]]:
        """Group utterances of similar length, to compute little padding."""
        order = np.argsort([len(body) for body in bodies], kind="stable").tolist()
        cost = len(self.tokens.prefix) + min(self.tokens.trie.nodes, FEW_NODES)
        cuts = split_rows([len(bodies[i]) + cost for i in order], budget, padded=True)
        return [[order[i] for i in cut] for cut in cuts]

    def loglik(self, bodies: Bodies) -> torch.Tensor:
        """Score utterances in one padded batch: a decoder pass for the start, one for the longest inner paths."""
        trie, n = self.tokens.trie, len(bodies)
        encoded = self._encode(bodies)
        inner = set(trie.parents.tolist())
        ends = np.array([node for node in range(1, trie.nodes) if node not in inner], dtype=np.int64)  # leaves
        logits = encoded.start()[:, None]  # (n, 1, vocabulary)
        if len(ends):
            routes = [trie.route(int(end)) for end in ends]
            decoded = encoded.decode_paths(np.repeat(np.arange(n), len(ends)), np.tile(ends, n))
            decoded = decoded.view(n, len(ends), *decoded.shape[1:])  # (n, paths, steps, vocabulary)
            place = {node: (path, step) for path, route in enumerate(routes) for step, node in enumerate(route)}
            path, step = (torch.tensor([place[node][i] for node in range(1, trie.nodes)]) for i in (0, 1))
            logits = torch.cat([logits, decoded[:, path, step]], dim=1)
        return label_loglik(logits, trie)

    def chosen_loglik(self, bodies: Bodies, labels: Ints) -> torch.Tensor:
        """Score one label for each utterance, along one decoder path."""
        trie, encoded = self.tokens.trie, self._encode(bodies)
        paths = [trie.inner_path(label) for label in labels]
        roots = encoded.start()
        longer = np.array([i for i, path in enumerate(paths) if len(path)], dtype=np.int64)
        if not len(longer):
            return path_loglik(roots, roots[:0], labels, trie)
        steps = encoded.decode_paths(longer, np.array([paths[i][-1] for i in longer]))
        below = torch.cat([steps[place, : len(paths[i])] for place, i in enumerate(longer)])
        return path_loglik(roots, below, labels, trie)

    def search(self, bodies: Bodies, tolerance: float) -> Logs:
        """Decode only the paths that best-first search opens."""
        trie, encoded = self.tokens.trie, self._encode(bodies)

        def expand(owners: Ints, nodes: Ints) -> Logs:
            if not nodes.any():
                return edge_loglik(encoded.start()[torch.from_numpy(owners)], nodes, trie)
            last = torch.from_numpy(trie.depths[nodes - 1] - 1)
            return edge_loglik(encoded.decode_paths(owners, nodes)[torch.arange(len(nodes)), last], nodes, trie)

        return best_first(trie, len(bodies), expand, tolerance, at_once=max(len(bodies), 256))

    def frozen_below(self, bodies: Bodies, budget: int) -> AbstractContextManager[None]:
        """Do nothing: a decoder attends to the encoder in all of its layers."""
        return nullcontext()

    def states(self, bodies: Bodies, own: Sequence[slice]) -> torch.Tensor:
        """Return (n, 2 · width) encoder states: the mean over each utterance's own tokens, and the last token."""
        encoded = self._encode(bodies).states
        first = self.backbone.virtual_tokens + len(self.tokens.prefix)
        owners = np.full(encoded.shape[:2], NOBODY)
        for row, part in enumerate(own):
            owners[row, first + part.start : first + part.stop] = row
        ends = torch.tensor([first + len(body) - 1 for body in bodies], device=encoded.device)
        last = encoded[torch.arange(len(bodies), device=encoded.device), ends].float()
        return torch.cat([mean_by_owner(encoded, owners.ravel(), len(bodies)), last], dim=1)

    def check(self, bodies: Bodies, budget: int) -> None:
        """Raise BackboneRefused if texts get other numbers beside each other than alone, tried once for each length."""
        checked, longest = self.backbone.checked, max(map(len, bodies), default=0)
        if longest > checked.get(PADDED, (0, 0))[0]:
            pair = [max(bodies, key=len), min(bodies, key=len)]
            refuse_if_off(self.backbone, *self._compare(pair), longest)
            checked[PADDED] = (longest, 0)

    def isolates_utterances(self) -> bool:
        """Test whether two short texts get the same numbers beside each other as alone."""
        try:
            off, allowed = self._compare([list(range(8, 24)), [50, 51]])
        except (torch.OutOfMemoryError, UtteranceTooLong):  # inconclusive; the round will report it
            return True
        except UNFIT:  # the encoder or the decoder is not used as in other models
            return False
        return off <= allowed

    @torch.no_grad()
    def _compare(self, bodies: Bodies) -> tuple[float, float]:
        """Return the largest difference of log-probabilities between a batch and plain passes, and the tolerance."""
        trie, places = self.tokens.trie, np.arange(len(bodies))
        path = list(trie.inner_path(int(trie.paths.sum(axis=1).argmax())))
        encoded = self._encode(bodies)
        found = encoded.start()[:, None]
        if path:
            found = torch.cat([found, encoded.decode_paths(places, np.full(len(bodies), path[-1]))], dim=1)
        written = self.begin + trie.tokens[np.array(path, np.int64) - 1].tolist()
        plain = torch.stack([self._plainly(body, written)[-found.shape[1] :] for body in bodies])
        found, plain = (logits.float().log_softmax(dim=-1) for logits in (found, plain))
        return float((found - plain).norm(dim=-1).max()), tolerance(self.backbone, plain.flatten(0, 1))

    def _plainly(self, body: Sequence[int], written: Sequence[int]) -> torch.Tensor:
        """Return (tokens, vocabulary) logits of the model's own pass over one text."""
        read, begun = (torch.tensor([ids], device=self.backbone.device) for ids in (self._text(body), written))
        output = self.backbone.model(**self.backbone.model_inputs(read), decoder_input_ids=begun, use_cache=False)
        return output.logits[0]  # type: ignore[no-any-return]

    def _text(self, body: Sequence[int]) -> list[int]:
        return [0] * self.backbone.virtual_tokens + self.tokens.prefix + list(body)

    def _encode(self, bodies: Bodies) -> _Encoded:
        device, model = self.backbone.device, self.backbone.model
        rows = [torch.tensor(self._text(body)) for body in bodies]
        written = len(self.begin) + int(self.tokens.trie.depths.max(initial=0))
        check_reach(self.backbone.name, self.windows.longest, max([written, *map(len, rows)]))
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0).to(device)
        sizes = torch.tensor([len(row) for row in rows], device=device)
        mask = (torch.arange(ids.shape[1], device=device) < sizes[:, None]).long()
        states = model.get_encoder()(**self.backbone.model_inputs(ids), attention_mask=mask, return_dict=True)[0]
        return _Encoded(self, states, mask)

    @contextmanager
    def session(self, shared: Sequence[int] = ()) -> Iterator[None]:
        """Do nothing: the encoder reads instruction and utterance as one text."""
        yield

    @contextmanager
    def without_shared(self) -> Iterator[None]:
        """Nothing is shared."""
        yield


class _Encoded:
    """Encoded utterances, with the decoder's cache.

    The keys and values of the start token and of the encoder states are computed once for all paths; but not with
    activation checkpointing, which computes twice and would append them twice.
    """

    def __init__(self, scorer: EncoderDecoderScorer, states: torch.Tensor, mask: torch.Tensor) -> None:
        self.model, self.trie, self.states, self.mask = scorer.backbone.model, scorer.tokens.trie, states, mask
        self.begin = torch.tensor([scorer.begin])  # (1, tokens)
        self.cache = None if self.model.training and self.model.is_activation_checkpointing else _empty_cache()

    def start(self) -> torch.Tensor:
        """Return (n, vocabulary) logits after the tokens it begins with. Call before `decode_paths`."""
        everyone = torch.arange(len(self.states))
        return self._decode(self.begin.expand(len(everyone), -1), everyone, self.cache)[:, -1]

    def decode_paths(self, owners: Ints, nodes: Ints) -> torch.Tensor:
        """Decode the paths to some nodes; return (pairs, steps, vocabulary) logits after each token."""
        routes = [torch.from_numpy(self.trie.tokens[np.array(self.trie.route(int(node))) - 1]) for node in nodes]
        ids = torch.nn.utils.rnn.pad_sequence(routes, batch_first=True, padding_value=0)
        chosen = torch.from_numpy(owners)
        if self.cache is None:
            started = torch.cat([self.begin.expand(len(ids), -1), ids], dim=1)
            return self._decode(started, chosen, None)[:, self.begin.shape[1] :]
        return self._decode(ids, chosen, _select(self.cache, chosen.to(self.states.device)))

    def _decode(self, ids: torch.Tensor, owners: torch.Tensor, cache: Any) -> torch.Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        device = self.states.device
        output = self.model(
            encoder_outputs=BaseModelOutput(self.states[owners.to(device)]),
            attention_mask=self.mask[owners.to(device)],
            decoder_input_ids=ids.to(device),
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.logits  # type: ignore[no-any-return]


def _begin(backbone: Backbone, tokens: PromptTokens) -> list[int]:
    """Return the tokens a decoder begins with: its start token, and one that generation forces, such as a language.

    Raises BackboneRefused if the checkpoint names no start token.
    """
    model = backbone.model
    starts = [getattr(part, "decoder_start_token_id", None) for part in (model.config, model.generation_config)]
    starts.append(getattr(getattr(model.config, "decoder", None), "bos_token_id", None))  # of T5Gemma
    start = next((number for number in starts if number is not None), None)
    if start is None:
        raise BackboneRefused(
            Message("“{name}” does not state the token its decoder starts with.", name=backbone.name),
            "Set decoder_start_token_id in its config.json, or choose another backbone.",
        )
    forced = model.generation_config.forced_bos_token_id
    if tokens.frame.lead is None:
        return [start]
    return [start, *(tokens.begin if forced is None else [forced])]


def _empty_cache() -> Any:
    from transformers import DynamicCache, EncoderDecoderCache

    return EncoderDecoderCache(DynamicCache(), DynamicCache())


def _select(cache: Any, rows: torch.Tensor) -> Any:
    """Copy rows of a cache; a row may be selected more than once."""
    from transformers import EncoderDecoderCache

    return EncoderDecoderCache([tuple(None if part is None else part[rows] for part in layer) for layer in cache])
