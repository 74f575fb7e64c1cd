"""Load the frozen pretrained model from a Python package, a folder or the hub; choose device, precision, 4-bit.

Unsupported requests are refused with a reason; nothing falls back silently to something slower or smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from annotator.errors import BackboneMissing, BackboneRefused, Message
from model.backbones.catalog import CATALOG, STARTER, Family
from model.backbones.conversion import converted, quiet_transformers
from model.backbones.fingerprint import (
    fingerprint_of,
    snapshot_folder,
    source_of,
    split_pin,
    stamp,
    weight_files,
)
from model.backbones.foreign import BareErrors
from model.backbones.machine import attend_exactly, best_device, can_load_4bit, preferred_dtype, this_machine
from model.backbones.memory import Job, in_gb, least
from model.backbones.plan import way_out
from model.backbones.shape import read_shape
from model.backbones.soundness import check_finite, check_loaded, check_vocabulary
from model.recipe import Precision, Quantization, Recipe
from model.types import Origin

_UNUSABLE = (
    ValueError, LookupError, TypeError, AttributeError, ImportError, AssertionError, RuntimeError, ArithmeticError,
    StrictDataclassError,
)  # fmt: skip


@dataclass
class Backbone:
    """A loaded language model, with the tuning attached to it (see `model/training/tuning.py`)."""

    name: str
    model: Any  # transformers model, or peft model around it
    tokenizer: Any
    family: Family
    device: torch.device
    dtype: torch.dtype
    quantized: bool
    packs: bool | None = None  # whether utterances can share a row; None: not tested yet
    checked: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # by layout: longest text and row tested, in tokens
    tuning: Any = None
    soft_prompt: Callable[[], torch.Tensor] | None = None  # returns (1, virtual tokens, width)
    origin: Origin = field(default_factory=Origin)

    @property
    def virtual_tokens(self) -> int:
        """The number of tokens of the soft prompt, which precedes everything else."""
        return self.soft_prompt().shape[1] if self.soft_prompt else 0

    def model_inputs(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the model's inputs for (n, tokens) ids, the first of which are placeholders of the soft prompt."""
        if self.soft_prompt is None:
            return {"input_ids": ids}
        prompt = self.soft_prompt()
        embedded = self.model.get_input_embeddings()(ids[:, prompt.shape[1] :])
        shared = prompt.to(embedded).expand(len(ids), -1, -1)
        return {"inputs_embeds": torch.cat([shared, embedded], dim=1)}


def load_backbone(
    name: str, quantization: Quantization = "none", recipe: Recipe | None = None, precision: Precision = "auto"
) -> Backbone:
    """Load a backbone by catalog name, local folder or hub id; pass the recipe if it is to be trained.

    A hub id may name a revision, as in “org/name@v1.0”, and be `pinned` to a commit. Raises BackboneMissing if the
    weights cannot be found and BackboneRefused if this machine cannot run them, both before any weight is loaded; also
    BackboneRefused if the weights are incomplete.
    """
    name, commit = split_pin(name)
    chosen = recipe or Recipe(quantization=quantization, precision=precision)
    device = best_device()
    dtype = _dtype(chosen.precision, device)
    if device.type == "cuda":
        attend_exactly()
    with quiet_transformers():
        place, config, tokenizer = _open(name, commit)
        _check_memory(name, config, chosen, recipe is not None)
        options: dict[str, Any] = {"config": config, "dtype": dtype, "use_safetensors": True}
        if quantization == "nf4":
            options |= {"quantization_config": _nf4(dtype), "device_map": str(device)}
        model, origin = _load_weights(name, place, config, options)
    check_vocabulary(name, tokenizer, model.get_input_embeddings().weight.shape[0])
    if commit and recipe is not None:
        _look_for_newer(name)
    if quantization == "none":
        model = model.to(device)
    else:
        _keep_trainable(model)
    model.requires_grad_(False)
    family: Family = "encoder-decoder" if config.is_encoder_decoder else "causal"
    return Backbone(name, model.eval(), tokenizer, family, device, dtype, quantization != "none", origin=origin)


def open_backbone(name: str) -> tuple[Any, Any]:
    """Return the configuration and the tokenizer of a backbone. Raises BackboneMissing and BackboneRefused."""
    name, commit = split_pin(name)
    with quiet_transformers():
        _, config, tokenizer = _open(name, commit)
    return config, tokenizer


def _open(name: str, commit: str) -> tuple[_Place, Any, Any]:
    place = _place_of(name, commit)
    config = _fetch(transformers.AutoConfig.from_pretrained, name, place)
    _check_kind(name, config, place)
    return place, config, _fetch(transformers.AutoTokenizer.from_pretrained, name, place, config=config)


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    named = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return named[precision] if precision in named else preferred_dtype(device)


@dataclass(frozen=True)
class _Place:
    """The source of a backbone's files: a folder, or one commit on the hub for all of them."""

    source: str
    revision: str = ""

    @property
    def folder(self) -> Path:
        return snapshot_folder(self.source, self.revision) if self.revision else Path(self.source)


def _place_of(name: str, commit: str) -> _Place:
    entry = CATALOG.get(name)
    if entry and entry.package:
        return _Place(str(converted(entry)))
    source, revision = source_of(name)
    if Path(source).is_dir():
        return _Place(source)
    return _Place(source, commit or _fetch(_commit_of, name, _Place(source, revision)))


def _commit_of(source: str, revision: str, trust_remote_code: bool) -> str:
    """Return the current commit of a branch on the hub; offline, the last one known."""
    del trust_remote_code  # no code is run here
    return Path(transformers.utils.cached_file(source, "config.json", revision=revision)).parent.name


def _load_weights(name: str, place: _Place, config: Any, options: dict[str, Any]) -> tuple[Any, Origin]:
    """Load a model, check every weight, and compute the fingerprint of the weights."""
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    before = _stamps(place.folder)
    model, info = _fetch(
        kind.from_pretrained, name, place, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    check_loaded(name, config, info)
    fingerprint = fingerprint_of(place.folder, check_finite)
    if before and before != _stamps(place.folder):
        raise BackboneRefused(
            Message("The weights of “{name}” changed while they were being loaded.", name=name), "Try again."
        )
    return model, Origin(fingerprint, place.revision)


def _stamps(folder: Path) -> list[list[int]]:
    with suppress(ValueError):  # an index that cannot be read is reported when it is loaded
        return [stamp(path) for path in weight_files(folder) if path.is_file()]
    return []


def _check_kind(name: str, config: Any, place: _Place) -> None:
    """Raise BackboneRefused for adapters without a model, and for weights that are quantized already."""
    if transformers.utils.find_adapter_config_file(place.source, revision=place.revision or None):
        raise BackboneRefused(
            Message("“{name}” is an adapter for a language model, not a language model.", name=name),
            "Choose the model it was made for.",
        )
    parts = [config, *(getattr(config, part, None) for part in config.sub_configs)]
    settings = next(filter(None, (getattr(part, "quantization_config", None) for part in parts)), None)
    if settings:
        method = settings.get("quant_method") if isinstance(settings, dict) else settings.quant_method
        raise BackboneRefused(
            Message(
                "The weights of “{name}” are quantized already ({method}).",
                name=name,
                method=getattr(method, "value", method),
            ),
            "Choose the weights it was made from; quantization “nf4” loads those in 4-bit.",
        )


def _look_for_newer(name: str) -> None:
    """Fetch the newest commit of the hub's branch into the client's cache. The commit in use stays."""
    source, revision = source_of(name)
    with suppress(OSError, ValueError):
        transformers.utils.cached_file(source, "config.json", revision=revision or "main")


def _check_memory(name: str, config: Any, recipe: Recipe, training: bool) -> None:
    """Raise BackboneRefused if memory does not suffice even for the shortest rows. Unknown architectures pass."""
    shape = read_shape(config.to_dict())
    if shape is None:
        return
    job = Job(shape, recipe, this_machine())
    needed, free = least(job, training), job.machine.free
    if needed > free:
        raise BackboneRefused(
            Message(
                "The backbone “{name}” needs at least {memory} of memory; {memory2} are free.",
                name=name,
                memory=in_gb(needed),
                memory2=in_gb(free),
            ),
            way_out(job),
        )


def _fetch(load: Any, name: str, place: _Place, **options: Any) -> Any:
    try:
        with BareErrors():
            return load(place.source, trust_remote_code=False, revision=place.revision or "main", **options)
    except OSError as error:
        raise BackboneMissing(
            Message("The backbone “{name}” is not on this machine and could not be fetched.", name=name),
            Message(
                "Check the name, the network, and for a gated model your hub login; or use the starter "
                "backbone. ({value})",
                value=str(error).splitlines()[0],
            ),
        ) from error
    except SafetensorError as error:
        raise BackboneRefused(
            Message("The weights of “{name}” are damaged: {error}.", name=name, error=error),
            "Download the checkpoint again, or choose another backbone.",
        ) from error
    except torch.OutOfMemoryError:
        raise
    except _UNUSABLE as error:
        raise BackboneRefused(
            Message(
                "The backbone “{name}” cannot be loaded: {name2}: {error}",
                name=name,
                name2=type(error).__name__,
                error="\n".join(line for line in str(error).splitlines() if "trust_remote_code" not in line),
            ),
            "Choose another backbone.",
        ) from error


def _nf4(dtype: torch.dtype) -> Any:
    if not can_load_4bit():
        raise BackboneRefused(
            "4-bit loading needs a CUDA GPU or an x86-64 processor with AVX2.", "Choose quantization “none”."
        )
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,  # a CPU without bf16 instructions is several times slower in bf16
    )


def _keep_trainable(model: Any) -> None:
    """Keep 4-bit layers from packing themselves for inference, after which no gradient passes through them.

    On CPUs with bf16 instructions, bitsandbytes 0.50 does so irreversibly at the first forward pass without gradients.
    Packing also rounds the weights.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


if __name__ == "__main__":  # `make install` converts the starter, which saves the first round the time
    load_backbone(STARTER)
