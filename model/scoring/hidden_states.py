"""Compute the state of an utterance: one vector of three aspects, equally wide.

- meaning: hidden states halfway up the layers, averaged over the utterance's own tokens. A logistic head on this layer
  was better on three data sets than one near the input or the output;
- answer: the hidden state of the last token before the answer, three fifths up, which has attended to the question;
- spelling: hashed character n-grams, for names and set phrases that the other two hardly distinguish.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model import constants
from model.prompts.tokens import whole_characters
from model.scoring.packing import Ints

STATE_FORMAT = "own tokens, last token, letters"  # part of the key of states: other formats do not compare
PIECES = (3, 5)  # letters of an n-gram, within words


class _Enough(BaseException):
    """Ends a forward pass early."""


class LayerOutputs:
    """Outputs of two layers: (rows, tokens, width) each."""

    halfway: torch.Tensor
    further: torch.Tensor


@contextmanager
def capture_layers(model: Any) -> Iterator[LayerOutputs]:
    """Capture the outputs of a forward pass, which ends three fifths up, without logits."""
    outputs = LayerOutputs()

    def note(_: Any, __: Any, output: Any) -> None:
        outputs.halfway = _hidden(output)

    def stop(_: Any, __: Any, output: Any) -> None:
        outputs.further = _hidden(output)
        raise _Enough

    stacks = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    layers = max(stacks, key=len)
    hooks = [
        layers[int(constants.MEANING_LAYER * len(layers))].register_forward_hook(note),
        layers[int(constants.ANSWER_LAYER * len(layers))].register_forward_hook(stop),  # the same one of two layers
    ]
    try:
        yield outputs
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()


def _hidden(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]


def mean_by_owner(hidden: torch.Tensor, owners: Ints, size: int) -> torch.Tensor:
    """Return (size, width) means over the tokens of each owner; `owners` is (tokens,), negative for tokens to skip."""
    place = torch.from_numpy(owners).to(hidden.device)
    mine = place >= 0
    flat = hidden.flatten(0, -2)[mine].float()
    sums = torch.zeros(size, flat.shape[1], device=hidden.device).index_add_(0, place[mine], flat)
    return sums / torch.bincount(place[mine], minlength=size).clamp(min=1)[:, None]


def spelling_states(texts: Sequence[str], width: int) -> NDArray[np.float32]:
    """Return (n, width) unit vectors of hashed character n-grams, near each other for texts that share pieces of words.

    Signed hashing makes collisions cancel out on average (Weinberger et al. 2009, arXiv 0902.2206). Nothing has to be
    fitted.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    pieces = HashingVectorizer(analyzer="char_wb", ngram_range=PIECES, n_features=width, alternate_sign=True)
    return pieces.transform([whole_characters(text) for text in texts]).toarray().astype(np.float32)  # type: ignore[no-any-return]
