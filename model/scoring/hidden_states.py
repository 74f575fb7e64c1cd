"""Compute the state of an utterance: one vector of three aspects, equally wide.

- meaning: hidden states halfway up the layers, averaged over the utterance's own tokens. A logistic head on this layer
  was better on three data sets than one near the input or the output;
- answer: the hidden state of the last token before the answer, three fifths up, which has attended to the question;
- spelling: hashed character n-grams, for names and set phrases that the other two hardly distinguish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.prompts.tokens import whole_characters
from model.scoring.packing import Columns, Ints

STATE_FORMAT = "own tokens, last token, letters"  # part of the key of states: other formats do not compare
PIECES = (3, 5)  # letters of an n-gram, within words


class _Enough(BaseException):
    """Ends a forward pass early."""


def layer_stack(model: Any) -> list[torch.nn.Module]:
    """Return the layers of a causal model: the longest list of modules that is not inside another."""
    inside = {id(part) for one in _lists(model) for part in _lists(one) if part is not one}
    outermost = [list(one) for one in _lists(model) if id(one) not in inside]
    return max(outermost, key=len)


def _lists(module: torch.nn.Module) -> list[torch.nn.ModuleList]:
    return [part for part in module.modules() if isinstance(part, torch.nn.ModuleList)]


@contextmanager
def capture(layers: Sequence[torch.nn.Module], numbers: Iterable[int]) -> Iterator[dict[int, Any]]:
    """Capture the outputs of some layers by their numbers; the pass ends behind the highest. See `hidden_of`."""
    outputs: dict[int, Any] = {}
    wanted = set(numbers)

    def noting(number: int) -> Callable[[Any, Any, Any], None]:
        def note(_: Any, __: Any, output: Any) -> None:
            outputs[number] = output
            if len(outputs) == len(wanted):
                raise _Enough

        return note

    hooks = [layers[number].register_forward_hook(noting(number)) for number in wanted]
    try:
        yield outputs
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()


def hidden_of(output: Any) -> torch.Tensor:
    """Return the (rows, tokens, width) hidden states in a layer's output, which may have more parts."""
    return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]


def mean_by_owner(hidden: torch.Tensor, owners: Ints, size: int) -> torch.Tensor:
    """Return (size, width) means over the tokens of each owner; `owners` is (tokens,), negative for tokens to skip."""
    place = torch.from_numpy(owners).to(hidden.device)
    mine = place >= 0
    flat = hidden.flatten(0, -2)[mine].float()
    sums = torch.zeros(size, flat.shape[1], device=hidden.device).index_add_(0, place[mine], flat)
    return sums / torch.bincount(place[mine], minlength=size).clamp(min=1)[:, None]


def by_body(hidden: torch.Tensor, lanes: Sequence[Columns], sizes: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """Return the (tokens and nodes, width) states of each body: of its tokens in order, then of its nodes in order.

    `hidden` is (lanes, columns, width); `sizes` counts the tokens and nodes of each body.
    """
    owners = np.concatenate([lane.owners for lane in lanes])
    nodes = np.concatenate([lane.nodes for lane in lanes])
    order = np.lexsort((nodes, owners))  # stable: tokens of a body keep their order
    places = torch.from_numpy(order[owners[order] >= 0]).to(hidden.device)
    return torch.split(hidden.flatten(0, 1)[places], list(sizes))


def spelling_states(texts: Sequence[str], width: int) -> NDArray[np.float32]:
    """Return (n, width) unit vectors of hashed character n-grams, near each other for texts that share pieces of words.

    Signed hashing makes collisions cancel out on average (Weinberger et al. 2009, arXiv 0902.2206). Nothing has to be
    fitted.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    pieces = HashingVectorizer(analyzer="char_wb", ngram_range=PIECES, n_features=width, alternate_sign=True)
    return pieces.transform([whole_characters(text) for text in texts]).toarray().astype(np.float32)  # type: ignore[no-any-return]
