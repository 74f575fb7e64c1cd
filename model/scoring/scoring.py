"""The exact log-likelihood of every label: nothing is sampled, nothing can be answered that is no label.

The same functions serve training (with gradients) and scoring (without).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from annotator.errors import BackboneRefused
from model.backbones.backbone import Backbone
from model.prompts.tokens import PromptTokens
from model.prompts.verbalizer import LabelTrie
from model.scoring.causal import CausalScorer
from model.scoring.encoder_decoder import EncoderDecoderScorer
from model.scoring.packing import Bodies, Ints
from model.scoring.trie_search import FEW_NODES, Logs


class Scorer(Protocol):
    """How one family of models is asked."""

    def loglik(self, bodies: Bodies) -> torch.Tensor:
        """Return (n, k) log-likelihoods in fp32 for tokenised utterances computed together, with gradients."""
        ...

    def chosen_loglik(self, bodies: Bodies, labels: Ints) -> torch.Tensor:
        """Return (n,) the log-likelihood of one label for each utterance, with gradients; no other is computed."""
        ...

    def search(self, bodies: Bodies, tolerance: float) -> Logs:
        """Return (n, k) log-likelihoods to a total variation of `tolerance`, looking only where it matters."""
        ...

    def states(self, bodies: Bodies, own: Sequence[slice]) -> torch.Tensor:
        """Return (n, 2 · width) hidden states in fp32: the mean over a slice of each body, and its last token's.

        Needs a session.
        """
        ...

    def rows(self, bodies: Bodies, budget: int) -> list[list[int]]:
        """Say which utterances to compute together so that no more than `budget` tokens are."""
        ...

    def check(self, bodies: Bodies, budget: int) -> None:
        """Refuse bodies for which rows of so many tokens would give other numbers than the model itself does.

        Tried on the longest of them, once for each length. Raises BackboneRefused, NotFinite, UtteranceTooLong.
        """
        ...

    @contextmanager
    def session(self, shared: Sequence[int] = ()) -> Iterator[None]:
        """Prepare for many calls without gradients between which no weight changes.

        All bodies must begin with the `shared` tokens, and have more.
        """
        ...


def make_scorer(backbone: Backbone, tokens: PromptTokens) -> Scorer:
    """Choose the scorer for the backbone's family."""
    if backbone.family == "encoder-decoder":
        return EncoderDecoderScorer(backbone, tokens)
    scorer = CausalScorer(backbone, tokens)
    if backbone.packs is None:
        backbone.packs = scorer.isolates_utterances()
    if not backbone.packs:
        raise BackboneRefused(
            f"“{backbone.name}” does not keep utterances apart that share a row: it has its own way with positions or "
            "attention.",
            "Choose a backbone with plain attention, such as Llama, Qwen, Gemma, Mistral or Flan-T5.",
        )
    return scorer


def score(scorer: Scorer, bodies: Bodies, trie: LabelTrie, tolerance: float) -> Logs:
    """Return (n, k) log-likelihoods: exact while the codebook is small, else to the tolerance."""
    if trie.nodes <= FEW_NODES:
        return scorer.loglik(bodies).double().cpu().numpy()
    return scorer.search(bodies, tolerance)
