"""Divide the layers of a causal model: the lower ones are read once for each text, the upper ones are adapted.

The quick classifier reads hidden states of the untrained model halfway and three fifths up. LoRA adapts the layers
above the higher of these two, so that the layers below compute the same states in every epoch and every round.
"""

from __future__ import annotations

from typing import Literal

from model import constants

Depth = Literal["upper", "all"]  # the layers that LoRA adapts: those above what the quick classifier reads, or all


def layers_read(layers: int) -> tuple[int, int]:
    """Return the numbers of the layers whose output is read, for the meaning and for the answer; may be the same."""
    return int(constants.MEANING_LAYER * layers), int(constants.ANSWER_LAYER * layers)


def layers_below(layers: int) -> int:
    """Return the number of layers up to the highest one that is read."""
    return max(layers_read(layers)) + 1


def upper_layers(layers: int) -> tuple[int, ...]:
    """Return the numbers of the layers above those that are read; empty if there is none."""
    return tuple(range(layers_below(layers), layers))
