"""Read the attention limits of a model's layers from its configuration.

Layers with a sliding window attend to the last tokens of a text, chunked ones to tokens of the same chunk. Both count
positions, which restart at each utterance of a packed row, so these masks equal those of the model for a single text.
Models that count columns of the row instead, such as GPT-Neo, get rows within the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.errors import Message, UtteranceTooLong

Sees = NDArray[np.bool_]
FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
_POSITIONS = ("max_position_embeddings", "max_encoder_position_embeddings")


@dataclass(frozen=True)
class Windows:
    """Attention limits: kinds of layers, reach of each kind, maximum length of a text and of a row."""

    kinds: tuple[str, ...] = (FULL,)
    window: int | None = None
    chunk: int | None = None
    longest: int | None = None  # tokens of a text
    columns: int | None = None  # tokens of a row, if the window counts columns

    def narrowed(self, longest: int) -> set[str]:
        """Return the kinds of layers that attend to less than a text of `longest` tokens."""
        reach = {SLIDING: self.window, CHUNKED: self.chunk}
        return {kind for kind in self.kinds if (reach.get(kind) or longest) < longest}

    def within(self, kind: str, queries: NDArray[np.int64], present: NDArray[np.int64]) -> Sees:
        """Return the (queries, present) mask of a narrowed kind of layer, from the positions of both."""
        if kind == CHUNKED and self.chunk:
            return np.asarray(queries[:, None] // self.chunk == present // self.chunk)
        return np.asarray(queries[:, None] - present < (self.window or np.inf))


def read_windows(config: Any) -> Windows:
    """Read the attention limits from a configuration; of a multimodal model, from its text part."""
    text = config.get_text_config(decoder=not config.is_encoder_decoder)
    window, chunk = _number(text, "sliding_window"), _number(text, "attention_chunk_size")
    default = SLIDING if window else CHUNKED if chunk else FULL
    kinds = tuple(sorted(set(getattr(text, "layer_types", None) or [default])))
    return Windows(kinds, window, chunk, _longest(text), _columns(text))


def check_reach(name: str, reach: int | None, longest: int) -> None:
    """Raise UtteranceTooLong for a text longer than the backbone supports."""
    if reach and longest > reach:
        raise UtteranceTooLong(
            Message(
                "Instruction and utterance take {longest} tokens; {name} reads {reach}.",
                longest=longest,
                name=name,
                reach=reach,
            ),
            "Lower max_tokens, or shorten the definitions.",
        )


def _longest(text: Any) -> int | None:
    """Return the length in tokens up to which a text's numbers do not depend on the row.

    Beyond the original length, LongRoPE rotates all positions of a row by other angles.
    """
    limits = [_number(text, name) for name in _POSITIONS]
    ropes = getattr(text, "rope_parameters", None) or {}
    for rope in (ropes, *(part for part in ropes.values() if isinstance(part, dict))):
        if rope.get("rope_type") == "longrope":
            limits.append(rope.get("original_max_position_embeddings"))
    return min((limit for limit in limits if limit), default=None)


def _columns(text: Any) -> int | None:
    """Return the length of a row, in tokens, up to which counting columns has no effect.

    GPT-Neo's local layers attend to the last columns; Llama 4 scales attention from a certain column on.
    """
    if "local" in (getattr(text, "attention_layers", None) or ()):
        return _number(text, "window_size")
    scale = _number(text, "floor_scale") if getattr(text, "attn_temperature_tuning", False) else None
    return scale - 1 if scale else None


def _number(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else None
