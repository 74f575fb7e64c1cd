"""How far the layers of a model attend, read from its configuration wherever that nests.

Layers with a window see the last tokens of a text, chunked ones the tokens of their own chunk. Both are counted in
positions, which restart at each utterance of a packed row, so that the masks made here equal those that the model makes
for one text alone. Models that count in columns of the row instead, as GPT-Neo does, are given rows within the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.errors import UtteranceTooLong

Sees = NDArray[np.bool_]
FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
_POSITIONS = ("max_position_embeddings", "max_encoder_position_embeddings")


@dataclass(frozen=True)
class Windows:
    """What limits attention: the kinds of layers, how far each sees, and how long a text and a row may be."""

    kinds: tuple[str, ...] = (FULL,)
    window: int | None = None
    chunk: int | None = None
    longest: int | None = None  # tokens of a text
    columns: int | None = None  # tokens of a row, where the window is counted in them

    def narrowed(self, longest: int) -> set[str]:
        """Return the kinds of layers that see less than a text of so many tokens."""
        reach = {SLIDING: self.window, CHUNKED: self.chunk}
        return {kind for kind in self.kinds if (reach.get(kind) or longest) < longest}

    def within(self, kind: str, asking: NDArray[np.int64], present: NDArray[np.int64]) -> Sees:
        """Say what a kind of layer that is narrowed sees, (asking, present), from the positions of both."""
        if kind == CHUNKED and self.chunk:
            return np.asarray(asking[:, None] // self.chunk == present // self.chunk)
        return np.asarray(asking[:, None] - present < (self.window or np.inf))


def read_windows(config: Any) -> Windows:
    """Read what limits attention in a model of this configuration, the part for text if it has several."""
    text = config.get_text_config(decoder=not config.is_encoder_decoder)
    window, chunk = _number(text, "sliding_window"), _number(text, "attention_chunk_size")
    usual = SLIDING if window else CHUNKED if chunk else FULL
    kinds = tuple(sorted(set(getattr(text, "layer_types", None) or [usual])))
    return Windows(kinds, window, chunk, _longest(text), _columns(text))


def check_reach(name: str, reach: int | None, longest: int) -> None:
    """Refuse a text that is longer than the backbone reads. Raises UtteranceTooLong."""
    if reach and longest > reach:
        raise UtteranceTooLong(
            f"Instruction and utterance take {longest} tokens, {name} reads {reach}.",
            "Lower max_tokens, or shorten the definitions.",
        )


def _longest(text: Any) -> int | None:
    """Return the tokens up to which positions mean the same whatever the company.

    Past the original length, LongRoPE turns all positions of a row by other angles.
    """
    limits = [_number(text, name) for name in _POSITIONS]
    ropes = getattr(text, "rope_parameters", None) or {}
    for rope in (ropes, *(part for part in ropes.values() if isinstance(part, dict))):
        if rope.get("rope_type") == "longrope":
            limits.append(rope.get("original_max_position_embeddings"))
    return min((limit for limit in limits if limit), default=None)


def _columns(text: Any) -> int | None:
    """Return the tokens of a row up to which a model that counts columns does not do so to any effect.

    GPT-Neo's local layers see the last columns; Llama 4 sharpens attention from a certain column on.
    """
    if "local" in (getattr(text, "attention_layers", None) or ()):
        return _number(text, "window_size")
    scale = _number(text, "floor_scale") if getattr(text, "attn_temperature_tuning", False) else None
    return scale - 1 if scale else None


def _number(config: Any, name: str) -> int | None:
    found = getattr(config, name, None)
    return found if isinstance(found, int) and found > 0 else None
