"""Load the frozen pretrained model: from a Python package, a folder or the hub; device, precision, 4-bit.

What cannot be done is refused with a reason; nothing falls back silently to something slower or smaller.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock

from annotator.errors import BackboneMissing, BackboneRefused
from model.catalog import CATALOG, STARTER, Entry, Family, cache_folder, package_file
from model.machine import attend_exactly, best_device, can_load_4bit, free_memory, preferred_dtype
from model.memory import in_gb, least, way_out
from model.recipe import Quantization, Recipe
from model.shape import read_shape


@dataclass
class Backbone:
    """A loaded language model, and what has been put on it to be trained (see `tuning`)."""

    name: str
    model: Any  # transformers model, or peft model around it
    tokenizer: Any
    family: Family
    device: torch.device
    dtype: torch.dtype
    quantized: bool
    packs: bool | None = None  # whether utterances can share a row; none: not tried yet
    checked: dict[str, tuple[int, int]] = field(default_factory=dict)  # by layout: tokens of texts and rows tried
    tuning: Any = None
    soft_prompt: Callable[[], torch.Tensor] | None = None  # returns (1, virtual tokens, width)

    @property
    def virtual_tokens(self) -> int:
        """Count the tokens of the soft prompt that comes before everything else."""
        return self.soft_prompt().shape[1] if self.soft_prompt else 0

    def reading(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the model reads for (n, tokens) ids, the first of which hold the soft prompt's place."""
        if self.soft_prompt is None:
            return {"input_ids": ids}
        prompt = self.soft_prompt()
        embedded = self.model.get_input_embeddings()(ids[:, prompt.shape[1] :])
        shared = prompt.to(embedded).expand(len(ids), -1, -1)
        return {"inputs_embeds": torch.cat([shared, embedded], dim=1)}


def load_backbone(name: str, quantization: Quantization = "none", recipe: Recipe | None = None) -> Backbone:
    """Load a backbone by catalog name, local folder or hub id; with the recipe, if it is to be trained.

    Raises BackboneMissing if the weights cannot be found, BackboneRefused if this machine cannot run it so, both
    before any weight is loaded.
    """
    entry = CATALOG.get(name)
    source = _source_of(name, entry)
    device = best_device()
    dtype = preferred_dtype(device)
    if device.type == "cuda":
        attend_exactly()
    with _quiet_transformers():
        config = _fetch(transformers.AutoConfig.from_pretrained, name, source)
        tokenizer = _fetch(transformers.AutoTokenizer.from_pretrained, name, source, config=config)
        _check_memory(name, config, recipe or Recipe(quantization=quantization), dtype, recipe is not None)
        family: Family = "encoder-decoder" if config.is_encoder_decoder else "causal"
        kind = transformers.AutoModelForSeq2SeqLM if family == "encoder-decoder" else transformers.AutoModelForCausalLM
        options: dict[str, Any] = {"config": config, "dtype": dtype, "use_safetensors": True}
        if quantization == "nf4":
            options |= {"quantization_config": _nf4(dtype), "device_map": str(device)}
        model = _fetch(kind.from_pretrained, name, source, **options)
    if quantization == "none":
        model = model.to(device)
    else:
        _keep_trainable(model)
    model.requires_grad_(False)
    return Backbone(name, model.eval(), tokenizer, family, device, dtype, quantization != "none")


def _check_memory(name: str, config: Any, recipe: Recipe, dtype: torch.dtype, training: bool) -> None:
    """Refuse what cannot fit, even in the shortest rows. An architecture we cannot judge is tried."""
    shape = read_shape(config.to_dict())
    if shape is None:
        return
    needed, free = least(shape, recipe, dtype.itemsize, training), free_memory()
    if needed > free:
        raise BackboneRefused(
            f"The backbone “{name}” needs at least {in_gb(needed)} of memory, {in_gb(free)} are free.",
            way_out(shape, recipe, free, dtype.itemsize),
        )


def _source_of(name: str, entry: Entry | None) -> str:
    if entry is None:
        return name
    return str(_converted(entry)) if entry.package else entry.source


def _converted(entry: Entry) -> Path:
    """Return the folder with the package's weights as safetensors, converting them once.

    Reading a GGUF file takes some twenty seconds each time, a safetensors file less than one. The lock and the
    rename keep two processes that start together from seeing half a folder.
    """
    folder = cache_folder() / "backbones" / entry.name
    if (folder / "config.json").is_file():
        _list_added_tokens(folder)
        return folder
    weights = package_file(entry)
    if weights is None:
        raise BackboneMissing(
            f"The package {entry.package}, which carries {entry.name}, is not installed.",
            "Run `make install`, or choose another backbone.",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "config.json").is_file():
            _convert_gguf(weights, folder)
    return folder


def _convert_gguf(weights: Path, folder: Path) -> None:
    # bf16 is what the weights were released in; the 4-bit blocks carry fewer bits than that.
    half = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(half, ignore_errors=True)
    dense = transformers.GgufConfig(dequantize=True)
    with _quiet_transformers():
        tokenizer = transformers.AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            weights.parent, gguf_file=weights.name, dtype=torch.float32, quantization_config=dense
        )
        model.to(torch.bfloat16).save_pretrained(half)
        tokenizer.save_pretrained(half)
    _list_added_tokens(half)
    os.replace(half, folder)


def _list_added_tokens(folder: Path) -> None:
    """Write the added tokens into tokenizer_config.json if they are not there, as in most models on the hub.

    Without them transformers parses all of tokenizer.json a second time, in Python, to find them: half of what
    loading the starter takes. Folders that were converted by an earlier version lack them.
    """
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if "added_tokens_decoder" in config:
        return
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    added = {str(token.pop("id")): token for token in tokens}
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with suppress(PermissionError):  # a cache that belongs to others works as it is
        unfinished.write_text(json.dumps(config | {"added_tokens_decoder": added}, indent=2), encoding="utf-8")
        os.replace(unfinished, path)


def _fetch(load: Any, name: str, source: str, **options: Any) -> Any:
    try:
        return load(source, trust_remote_code=False, **options)
    except OSError as error:
        raise BackboneMissing(
            f"The backbone “{name}” is not on this machine and could not be fetched.",
            "Check the name, the network, and for a gated model your hub login; "
            f"or use the starter backbone. ({str(error).splitlines()[0]})",
        ) from error
    except ValueError as error:
        raise BackboneRefused(f"The backbone “{name}” cannot be loaded: {error}") from error


def _nf4(dtype: torch.dtype) -> Any:
    if not can_load_4bit():
        raise BackboneRefused(
            "4-bit loading needs a CUDA GPU or an x86-64 processor with AVX2.", "Choose quantization “none”."
        )
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,  # without its instructions, a processor is several times slower in bf16
    )


def _keep_trainable(model: Any) -> None:
    """Keep 4-bit layers from packing themselves for inference, after which no gradient passes through them.

    On processors with bf16 instructions bitsandbytes 0.50 does that, for good, at the first text that is only read;
    and what was packed is rounded, so that the weights are others than before.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep loading bars out of logs and pages; warnings still pass."""
    transformers.utils.logging.disable_progress_bar()
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(before)
        transformers.utils.logging.enable_progress_bar()


if __name__ == "__main__":  # `make install` converts the starter once, so that the first round need not
    load_backbone(STARTER)
