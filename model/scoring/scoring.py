"""Compute the exact log-likelihood of every label, without sampling.

Training (with gradients) and scoring (without) use the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import torch

from annotator.errors import BackboneRefused, Message
from model.backbones.backbone import Backbone
from model.prompts.tokens import PromptTokens
from model.prompts.verbalizer import LabelTrie
from model.scoring.causal import CausalScorer
from model.scoring.encoder_decoder import EncoderDecoderScorer
from model.scoring.kept_states import KeptStates
from model.scoring.packing import Bodies, Ints
from model.scoring.trie_search import FEW_NODES, Logs


class Scorer(Protocol):
    """Scores labels with one family of models."""

    @property
    def begin(self) -> Sequence[int]:
        """The token ids that a decoder begins with."""
        ...

    def loglik(self, bodies: Bodies) -> torch.Tensor:
        """Return (n, k) log-likelihoods in fp32 for tokenized utterances computed together, with gradients."""
        ...

    def chosen_loglik(self, bodies: Bodies, labels: Ints) -> torch.Tensor:
        """Return (n,) log-likelihoods of one label for each utterance, with gradients; no other label is computed."""
        ...

    def search(self, bodies: Bodies, tolerance: float) -> Logs:
        """Return (n, k) log-likelihoods within a total variation of `tolerance`, by best-first search."""
        ...

    def states(self, bodies: Bodies, own: Sequence[slice]) -> torch.Tensor:
        """Return (n, 2 · width) hidden states in fp32: the mean over a slice of each body, and the last token.

        Needs a session.
        """
        ...

    def rows(self, bodies: Bodies, budget: int) -> list[list[int]]:
        """Group utterances into rows of at most `budget` tokens; return their indices."""
        ...

    def frozen_below(self, bodies: Bodies, budget: int) -> AbstractContextManager[None]:
        """Compute the layers below the first trained one once for each body, if that gives equal numbers."""
        ...

    def keep_states(self, folder: Path, key: str) -> None:
        """Keep states of the layers that are not adapted in a folder from now on; `key` names what they depend on."""
        ...

    @property
    def kept(self) -> KeptStates | None:
        """The states that are kept, if any."""
        ...

    def begin_with_kept(self, bodies: Bodies, budget: int) -> AbstractContextManager[None]:
        """Begin passes with kept states, if that gives equal numbers, until the end of the context."""
        ...

    def check(self, bodies: Bodies, budget: int) -> None:
        """Check that rows of `budget` tokens give the same numbers as the model's own passes.

        Tested on the longest bodies, once for each length. Raises BackboneRefused, NotFinite, UtteranceTooLong.
        """
        ...

    @contextmanager
    def session(self, shared: Sequence[int] = ()) -> Iterator[None]:
        """Prepare for many calls without gradients and without changes of weights.

        All bodies must begin with the `shared` tokens and be longer.
        """
        ...

    @contextmanager
    def without_shared(self) -> Iterator[None]:
        """Within a session, prepare for bodies that do not begin with its shared tokens."""
        ...


def make_scorer(backbone: Backbone, tokens: PromptTokens) -> Scorer:
    """Choose the scorer for the backbone's family."""
    kind = EncoderDecoderScorer if backbone.family == "encoder-decoder" else CausalScorer
    scorer: EncoderDecoderScorer | CausalScorer = kind(backbone, tokens)
    _check_ids(backbone, [*tokens.prefix, *tokens.suffix, *scorer.begin, tokens.frame.end])
    if backbone.packs is None:
        backbone.packs = scorer.isolates_utterances()
    if not backbone.packs:
        raise BackboneRefused(
            Message(
                "“{name}” cannot score several utterances in one row: it treats positions or attention "
                "in a way of its own.",
                name=backbone.name,
            ),
            "Choose a backbone with plain attention, such as Llama, Qwen, Gemma, Mistral or Flan-T5.",
        )
    return scorer


def _check_ids(backbone: Backbone, ids: Sequence[int]) -> None:
    rows = backbone.model.get_input_embeddings().weight.shape[0]
    if max(ids) >= rows:
        raise BackboneRefused(
            Message(
                "The prompt of “{name}” contains token {token}, and the model knows {rows}.",
                name=backbone.name,
                token=max(ids),
                rows=rows,
            ),
            "Restore the tokenizer that belongs to the weights, or choose another backbone.",
        )


def score(scorer: Scorer, bodies: Bodies, trie: LabelTrie, tolerance: float) -> Logs:
    """Return (n, k) log-likelihoods: exact for a small codebook, otherwise within the tolerance."""
    if trie.nodes <= FEW_NODES:
        return scorer.loglik(bodies).double().cpu().numpy()
    return scorer.search(bodies, tolerance)
