"""Check that a checkpoint is complete: every weight present, finite and of the right shape, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from annotator.errors import BackboneRefused, Message

_AGAIN = "Download the checkpoint again, or choose another backbone."
_SHOWN = 3
_AT_ONCE = 1 << 24  # numbers checked at a time
# Parts of a checkpoint for images or sound, which are not needed for text.
_OTHER_SENSES = re.compile(r"(^|[._])(vision|visual|image|audio|speech|multi_modal|mm)([._]|_?projector|$)")
_SENSES = ("vision_config", "audio_config", "speech_config")


def check_loaded(name: str, config: Any, info: dict[str, Any]) -> None:
    """Raise BackboneRefused if a checkpoint lacks weights of the model or has others.

    `info` is the loading report of transformers. It omits weights that are tied to others, or that the architecture
    initializes or drops itself.
    """
    missing, surplus = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if any(getattr(config, sense, None) is not None for sense in _SENSES):
        surplus = [key for key in surplus if not _OTHER_SENSES.search(key)]
    shapes = sorted(f"{key} {list(there)} for {list(expected)}" for key, there, expected in info["mismatched_keys"])
    if shapes:
        raise BackboneRefused(
            Message(
                "The checkpoint of “{name}” does not fit its config.json: {n} weights have another "
                "shape, as in {shapes}.",
                name=name,
                n=len(shapes),
                shapes=_some(shapes),
            ),
            _AGAIN,
        )
    if missing:
        raise BackboneRefused(
            Message(
                "The checkpoint of “{name}” is incomplete: {n} weights are missing, as in {missing}.",
                name=name,
                n=len(missing),
                missing=_some(missing),
            ),
            _AGAIN,
        )
    if surplus:
        raise BackboneRefused(
            Message(
                "The checkpoint of “{name}” does not fit its config.json: {n} weights have no place in "
                "the model, as in {surplus}.",
                name=name,
                n=len(surplus),
                surplus=_some(surplus),
            ),
            _AGAIN,
        )


def check_vocabulary(name: str, tokenizer: Any, rows: int) -> None:
    """Raise BackboneRefused if the tokenizer has more tokens for text than the model has `rows` of embeddings.

    Special tokens may be more, as of a model for images whose text part is used alone.
    """
    beyond = [
        number for number, token in tokenizer.added_tokens_decoder.items() if number >= rows and not token.special
    ]
    tokens = max([tokenizer.vocab_size, *(number + 1 for number in beyond)])
    if tokens > rows:
        raise BackboneRefused(
            Message(
                "The tokenizer of “{name}” has {tokens} tokens, and the model knows {rows}.",
                name=name,
                tokens=tokens,
                rows=rows,
            ),
            "Restore the tokenizer that belongs to the weights, or choose another backbone.",
        )


def check_finite(path: Path) -> None:
    """Raise BackboneRefused for a safetensors file that is truncated, or whose weights are not finite or are packed."""
    unfit, packed = list[str](), list[str]()
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118  (no mapping)
                weight = file.get_tensor(key)
                if not is_finite(weight):
                    unfit.append(key)
                elif key.endswith("weight") and not weight.is_floating_point():
                    packed.append(key)
    except SafetensorError as error:
        raise BackboneRefused(
            Message("The file {name} is damaged: {error}.", name=path.name, error=error), _AGAIN
        ) from error
    if unfit:
        raise BackboneRefused(
            Message(
                "The file {name} is damaged: {n} weights are not finite numbers, as in {unfit}.",
                name=path.name,
                n=len(unfit),
                unfit=_some(unfit),
            ),
            _AGAIN,
        )
    if packed:
        raise BackboneRefused(
            Message(
                "The weights in {name} are quantized already, as in {packed}.", name=path.name, packed=_some(packed)
            ),
            "Choose the weights it was made from; quantization “nf4” loads those in 4-bit.",
        )


def is_finite(weights: torch.Tensor) -> bool:
    """Return whether all numbers are finite, from the minimum and the maximum, which is much faster."""
    if not weights.is_floating_point() or not weights.numel():
        return True
    for part in torch.split(weights.detach().flatten(), _AT_ONCE):
        ends = torch.stack(torch.aminmax(part.float() if part.element_size() == 1 else part))
        if not bool(torch.isfinite(ends).all()):
            return False
    return True


def misfit(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> str:
    """Return, in words, why trained weights do not fit a backbone; empty if they fit and are finite."""
    if missing := sorted(expected.keys() - weights.keys()):
        return f"{len(missing)} weights are missing, as in {_some(missing)}"
    if surplus := sorted(weights.keys() - expected.keys()):
        return f"{len(surplus)} weights have no place in the model, as in {_some(surplus)}"
    if other := sorted(key for key, weight in weights.items() if weight.shape != expected[key].shape):
        return f"{len(other)} weights have another shape, as in {_some(other)}"
    if unfit := sorted(key for key, weight in weights.items() if not is_finite(weight)):
        return f"{len(unfit)} weights are not finite numbers, as in {_some(unfit)}"
    return ""


def _some(keys: Iterable[str]) -> str:
    return ", ".join(list(keys)[:_SHOWN])
