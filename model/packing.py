"""Many utterances behind one shared instruction prefix, in one row, with the label trie at each one's end.

Every utterance sees the prefix and itself, every trie node sees its utterance and its ancestors, and positions
restart behind the prefix. So the row gives the same numbers as one utterance at a time, without padding and
with the prefix computed once.

    row      prefix | utterance 1 | its trie nodes | utterance 2 | its trie nodes | …
    position 0 … p-1| p …         | by depth       | p …         | by depth       | …
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.verbalizer import LabelTrie


@dataclass(frozen=True)
class Row:
    """One packed row of `tokens` tokens; `cached` more lie before it in the key-value cache."""

    input_ids: torch.Tensor  # (1, tokens)
    position_ids: torch.Tensor  # (1, tokens)
    sees: torch.Tensor  # (1, 1, tokens, cached + tokens), true where attention is allowed
    asked: torch.Tensor  # (utterances * trie nodes,) places in the row whose next token is wanted


def split_rows(lengths: Sequence[int], budget: int, padded: bool = False) -> Iterator[range]:
    """Cut consecutive utterances into rows of at most `budget` tokens, at least one utterance in each.

    With `padded`, every utterance costs as much as the longest of its row; `lengths` must ascend.
    """
    start = used = 0
    for number, length in enumerate(lengths):
        used = length * (number + 1 - start) if padded else used + length
        if number > start and used > budget:
            yield range(start, number)
            start, used = number, length
    if lengths:
        yield range(start, len(lengths))


def pack_row(bodies: Sequence[Sequence[int]], trie: LabelTrie, prefix: Sequence[int], cached: bool) -> Row:
    """Lay out utterances in one row; with `cached`, the prefix lies in the key-value cache instead."""
    leading = [] if cached else list(prefix)
    ids, positions = list(leading), list(range(len(leading)))
    asked: list[int] = []
    blocks = []  # where each utterance begins, where its body ends, where its nodes end
    for body in bodies:
        start = len(ids)
        ids += [*body, *trie.tokens.tolist()]
        positions += range(len(prefix), len(prefix) + len(body))
        positions += (len(prefix) + len(body) - 1 + trie.depths).tolist()
        asked += range(start + len(body) - 1, len(ids))
        blocks.append((start, start + len(body), len(ids)))
    return Row(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        sees=torch.from_numpy(_visibility(len(ids), len(prefix), blocks, trie, cached))[None, None],
        asked=torch.tensor(asked),
    )


def _visibility(
    tokens: int, prefix: int, blocks: list[tuple[int, int, int]], trie: LabelTrie, cached: bool
) -> np.ndarray:
    shift = prefix if cached else 0  # columns before the row's own
    sees = np.zeros((tokens, shift + tokens), dtype=np.bool_)
    sees[:, :prefix] = True
    if not cached:
        sees[:prefix, :prefix] = np.tri(prefix, dtype=np.bool_)
    for start, body_end, end in blocks:
        sees[start:body_end, shift + start : shift + body_end] = np.tri(body_end - start, dtype=np.bool_)
        sees[body_end:end, shift + start : shift + body_end] = True
        sees[body_end:end, shift + body_end : shift + end] = trie.ancestors
    return sees
