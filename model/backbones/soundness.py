"""Whether a checkpoint is whole: every weight there, of the right shape, a finite number, and none too many."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from annotator.errors import BackboneRefused

_AGAIN = "Download the checkpoint again, or choose another backbone."
_SHOWN = 3
_AT_ONCE = 1 << 24  # numbers that are looked at together
# Parts of a checkpoint that read pictures or sound: what is asked about text does without them.
_OTHER_SENSES = re.compile(r"(^|[._])(vision|visual|image|audio|speech|multi_modal|mm)([._]|_?projector|$)")
_SENSES = ("vision_config", "audio_config", "speech_config")


def check_loaded(name: str, config: Any, info: dict[str, Any]) -> None:
    """Refuse a model whose checkpoint did not give it every weight, or gave it others.

    `info` is what transformers tells of the loading. It leaves out weights that are tied to others or that the
    architecture is known to make or to drop itself.
    """
    missing, surplus = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if any(getattr(config, sense, None) is not None for sense in _SENSES):
        surplus = [key for key in surplus if not _OTHER_SENSES.search(key)]
    shapes = sorted(f"{key} {list(there)} for {list(wanted)}" for key, there, wanted in info["mismatched_keys"])
    if shapes:
        raise BackboneRefused(
            f"The checkpoint of “{name}” does not fit its config.json: {len(shapes)} weights have another shape, "
            f"as in {_some(shapes)}.",
            _AGAIN,
        )
    if missing:
        raise BackboneRefused(
            f"The checkpoint of “{name}” is incomplete: {len(missing)} weights are missing, as in {_some(missing)}.",
            _AGAIN,
        )
    if surplus:
        raise BackboneRefused(
            f"The checkpoint of “{name}” does not fit its config.json: {len(surplus)} weights have no place in the "
            f"model, as in {_some(surplus)}.",
            _AGAIN,
        )


def check_finite(path: Path) -> None:
    """Refuse a safetensors file that holds NaN or an infinite number, or that is cut off."""
    try:
        with safe_open(path, "pt") as file:
            unfit = [key for key in file.keys() if not is_finite(file.get_tensor(key))]  # noqa: SIM118  (no mapping)
    except SafetensorError as error:
        raise BackboneRefused(f"The file {path.name} is damaged: {error}.", _AGAIN) from error
    if unfit:
        raise BackboneRefused(
            f"The file {path.name} is damaged: {len(unfit)} weights are not finite numbers, as in {_some(unfit)}.",
            _AGAIN,
        )


def is_finite(weights: torch.Tensor) -> bool:
    """Say whether all numbers are finite. The least and the largest tell, and are found much faster."""
    if not weights.is_floating_point() or not weights.numel():
        return True
    for part in torch.split(weights.detach().flatten(), _AT_ONCE):
        ends = torch.stack(torch.aminmax(part.float() if part.element_size() == 1 else part))
        if not bool(torch.isfinite(ends).all()):
            return False
    return True


def misfit(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> str:
    """Say what keeps trained weights from a backbone, in words; nothing if they fit and are finite."""
    if missing := sorted(wanted.keys() - found.keys()):
        return f"{len(missing)} weights are missing, as in {_some(missing)}"
    if surplus := sorted(found.keys() - wanted.keys()):
        return f"{len(surplus)} weights have no place in the model, as in {_some(surplus)}"
    if other := sorted(key for key, weight in found.items() if weight.shape != wanted[key].shape):
        return f"{len(other)} weights have another shape, as in {_some(other)}"
    if unfit := sorted(key for key, weight in found.items() if not is_finite(weight)):
        return f"{len(unfit)} weights are not finite numbers, as in {_some(unfit)}"
    return ""


def _some(keys: Iterable[str]) -> str:
    return ", ".join(list(keys)[:_SHOWN])
