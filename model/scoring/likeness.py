"""Compare packed rows with the model's own passes over one text at a time, at the lengths in use.

Known limits of attention are read from configurations (see `windows`). This check finds the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size

from annotator.errors import BackboneRefused, Message
from model.backbones.backbone import Backbone
from model.finite import refuse_model
from model.prompts.tokens import PromptTokens
from model.recipe import LANE
from model.scoring.packing import Bodies, Ints
from model.scoring.windows import Windows

EXACT = 1e-3  # tolerance in fp32, relative to the spread of the logits; actual differences are far below
ROUNDED = 0.25  # the same in bf16, whose rounding causes up to 0.15 on a GPU
NOISE = 5.0  # multiple of the change from appending text, which is pure rounding
UNFIT = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)  # of a model it cannot run
STEP = 64  # tokens: lengths are rounded up to a multiple, so that few are tested


class PackedScorer(Protocol):
    """The part of a packed-row scorer that is used here."""

    backbone: Backbone
    tokens: PromptTokens
    cached: Any
    windows: Windows

    def at_ends(self, bodies: Bodies, owners: Ints, nodes: Ints) -> torch.Tensor:
        """Return the logits at each body's end, then those at each node: (bodies + nodes, vocabulary)."""
        ...


class Reach(NamedTuple):
    """The longest text and row, in tokens, verified so far."""

    text: int = 0
    row: int = 0


@torch.no_grad()
def check_row(scorer: PackedScorer, bodies: Bodies, budget: int) -> None:
    """Check that bodies get the same numbers in a row as alone, for the longest text and the longest row.

    Tested once for each length and layout. Raises BackboneRefused, NotFinite.
    """
    if not bodies:
        return
    for row in _rows_of(scorer, bodies, budget):
        try:
            return _check(scorer, row)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
    # Memory does not suffice even for the smaller row: inconclusive, and the round will report it.


def _check(scorer: PackedScorer, row: list[list[int]]) -> None:
    checked, layout = scorer.backbone.checked, "lanes" if scorer.cached else "row"
    before = len(scorer.tokens.prefix)
    reach = Reach(before + len(row[0]), 0 if scorer.cached else before + sum(map(len, row)))  # lanes are short
    verified = Reach(*checked.get(layout, ()))
    if reach.text <= verified.text and reach.row <= verified.row:
        return
    refuse_if_off(scorer.backbone, *_compare(scorer, row), reach.text)
    checked[layout] = Reach(max(reach.text, verified.text), max(reach.row, verified.row))


def refuse_if_off(backbone: Backbone, off: float, allowed: float, tokens: int) -> None:
    """Raise BackboneRefused if a text's numbers differ by more than allowed, NotFinite if they are undefined."""
    if not np.isfinite(off):
        refuse_model(backbone.name)
    if not off <= allowed:
        raise BackboneRefused(
            Message(
                "“{name}” computes different numbers for a text of {text} tokens in a row with others than alone.",
                name=backbone.name,
                text=tokens,
            ),
            "Choose a backbone with plain attention, such as Llama, Qwen, Gemma, Mistral or Flan-T5, or lower "
            "max_tokens.",
        )


def tolerance(backbone: Backbone, logits: torch.Tensor) -> float:
    """Return the difference that rounding may cause, from the spread of (places, vocabulary) logits."""
    strict = backbone.dtype == torch.float32 and not backbone.quantized
    spread = float((logits - logits.mean(dim=-1, keepdim=True)).norm(dim=-1).mean())
    return (EXACT if strict else ROUNDED) * spread


def _rows_of(scorer: PackedScorer, bodies: Bodies, budget: int) -> Iterator[list[list[int]]]:
    """Yield the longest body, repeated up to a round number of tokens, with as many others as a row holds.

    Then, for a machine without enough memory for that, the longest and the shortest body.
    """
    first, path = len(scorer.tokens.prefix) + scorer.backbone.virtual_tokens, _path(scorer)
    shortest, *_, last = sorted([*bodies, bodies[0]], key=len)
    longest = list(last)
    windows = scorer.windows
    room = min(limit for limit in (windows.longest, windows.columns, 2**31) if limit) - first - len(path)
    length = max(len(longest), min(-(-(first + len(longest)) // STEP) * STEP - first, room))
    longest = [token for token, _ in zip(cycle(longest), range(length), strict=False)]
    left = min(budget, len(longest) + 2 * LANE) if scorer.cached else budget
    left = min(left, windows.columns - first if windows.columns else left) - len(longest) - len(path)
    row = [longest]
    for body in bodies:
        left -= len(body)
        if left < 0 and (windows.columns or len(row) > 1):  # at least one other, unless the row is limited
            break
        row.append(list(body))
    yield row
    yield [list(last), list(shortest)]


def _path(scorer: PackedScorer) -> list[int]:
    trie = scorer.tokens.trie
    return list(trie.inner_path(int(trie.paths.sum(axis=1).argmax())))


def _compare(scorer: PackedScorer, row: list[list[int]]) -> tuple[float, float]:
    """Return the largest difference of the row's log-probabilities, and the tolerance."""
    path = _path(scorer)
    packed = scorer.at_ends(row, np.zeros(len(path), np.int64), np.array(path, np.int64))
    tokens = scorer.tokens.trie.tokens[np.array(path, np.int64) - 1].tolist()
    plain = _reference_logits(scorer, [*row[0], *(tokens or row[0][-1:])], 1 + max(1, len(tokens)))
    alone = _reference_logits(scorer, row[0], 1)
    pairs = [(packed[0], plain[0]), *zip(packed[len(row) :], plain[1:], strict=False)]
    if len(row) > 1:
        pairs.append((packed[len(row) - 1], _reference_logits(scorer, row[-1], 1)[0]))
    allowed = max(NOISE * float((plain[0] - alone[0]).norm()), tolerance(scorer.backbone, plain))
    return float(torch.stack([(one - other).norm() for one, other in pairs]).max()), allowed


def _reference_logits(scorer: PackedScorer, body: list[int], last: int) -> torch.Tensor:
    """Return (last, vocabulary) log-probabilities at the end of instruction and body, as the model computes them."""
    backbone = scorer.backbone
    ids = torch.tensor([[0] * backbone.virtual_tokens + scorer.tokens.prefix + body], device=backbone.device)
    logits: torch.Tensor = backbone.model(**backbone.model_inputs(ids), use_cache=False).logits
    return logits[0, -last:].float().log_softmax(dim=-1)
