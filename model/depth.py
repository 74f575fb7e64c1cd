"""Divide the layers of a causal model: which the quick classifier reads, and from which on LoRA adapts them.

Layers below the first one that is adapted compute the same hidden states in every epoch and every round.
"""

from __future__ import annotations

from typing import Literal

from model import constants

Depth = Literal["upper", "all"]


def layers_read(layers: int) -> tuple[int, int]:
    """Return the numbers of the layers whose output is read, for the meaning and for the answer; may be the same."""
    return int(constants.MEANING_LAYER * layers), int(constants.ANSWER_LAYER * layers)


def first_adapted(layers: int) -> int:
    """Return the number of the first layer that is adapted at depth “upper”, which is that of layers below it."""
    return int(constants.ADAPTED_FROM * layers)
