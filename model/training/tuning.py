"""Add LoRA layers or a soft prompt to a backbone, or unfreeze all its weights, and undo this completely."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from annotator.errors import BackboneRefused, Message, ProjectError
from model.backbones.backbone import Backbone
from model.backbones.soundness import misfit
from model.recipe import Recipe
from model.scoring.hidden_states import layer_stack
from model.training.adapted_modules import check_layers, excluded_modules

_NAME = "round"
_PEFT = ("adapter_model.safetensors", "adapter_config.json")
_FULL = ("model.safetensors",)
_RESTORE = "Restore the folder from a backup, or retrain."


class Tuning:
    """No tuning: the backbone is used untrained. A backbone holds one tuning at a time."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def save(self, folder: Path) -> None:
        """Write the trained weights."""

    def count(self) -> dict[str, int]:
        """Count the trained weights, and those of experts that were left as they were."""
        return {}

    def unchanged_layers(self) -> int:
        """Return the number of layers, from the first on, that compute the same as in the untrained backbone."""
        return len(layer_stack(self.backbone.model))

    @contextmanager
    def off(self) -> Iterator[None]:
        """Disable the tuning temporarily."""
        yield

    def remove(self) -> None:
        """Restore the untrained backbone."""


class PeftTuning(Tuning):
    """LoRA layers or a soft prompt, made by peft."""

    def __init__(self, backbone: Backbone, model: Any) -> None:
        super().__init__(backbone)
        self.peft = model
        self.is_prompt = bool(model.peft_config[_NAME].is_prompt_learning)
        if self.is_prompt:  # peft's own forward would replace our mask and positions
            self.prompt = model.prompt_encoder[_NAME]
            backbone.soft_prompt = lambda: model.get_prompt(1)[:, : model.peft_config[_NAME].num_virtual_tokens]
        else:
            backbone.model = model

    def save(self, folder: Path) -> None:
        """Write the weights and configuration in the format of peft."""
        state = _trained_weights(self.peft)
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}, folder / _PEFT[0])
        self.peft.peft_config[_NAME].save_pretrained(folder)

    def count(self) -> dict[str, int]:
        """Count the weights of the layers. Experts are stacked: their weights have three dimensions."""
        trained = sum(weight.numel() for weight in _trained_weights(self.peft).values())
        stacked = [(n, w) for n, w in self.backbone.model.named_parameters() if w.dim() == 3 and "conv" not in n]
        frozen = sum(weight.numel() for name, weight in stacked if "base_layer" not in name and "lora_" not in name)
        return {"trained": trained, "frozen_experts": frozen}

    def unchanged_layers(self) -> int:
        """Return the number of layers below the first one with LoRA; 0 if weights outside the layers have it."""
        if self.is_prompt:
            return 0
        within = [_count_lora(layer) for layer in layer_stack(self.backbone.model)]
        everywhere = _count_lora(self.backbone.model)
        return within.index(next(filter(None, within))) if 0 < everywhere == sum(within) else 0

    @contextmanager
    def off(self) -> Iterator[None]:
        """Bypass the layers temporarily."""
        prompt, self.backbone.soft_prompt = self.backbone.soft_prompt, None
        try:
            with nullcontext() if self.is_prompt else self.peft.disable_adapter():
                yield
        finally:
            self.backbone.soft_prompt = prompt

    def remove(self) -> None:
        """Remove the layers."""
        self.backbone.soft_prompt = None
        if not self.is_prompt:
            self.backbone.model = self.peft.unload()


class FullTuning(Tuning):
    """All weights. Keeps a copy of the original ones, so this takes twice the memory."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        if backbone.quantized:
            raise BackboneRefused("4-bit weights cannot be trained themselves.", "Choose LoRA, or quantization “none”.")
        self.before = {name: weight.detach().clone() for name, weight in backbone.model.named_parameters()}

    def save(self, folder: Path) -> None:
        """Write all weights."""
        state = {name: weight.detach().contiguous().cpu() for name, weight in self.backbone.model.named_parameters()}
        save_file(state, folder / _FULL[0])

    def count(self) -> dict[str, int]:
        """Count all weights."""
        return {"trained": sum(weight.numel() for weight in self.before.values())}

    def unchanged_layers(self) -> int:
        """Return 0: all layers are trained."""
        return 0

    @contextmanager
    def off(self) -> Iterator[None]:
        """Restore the original weights temporarily; takes the memory of a third copy."""
        trained = {name: weight.detach().clone() for name, weight in self.backbone.model.named_parameters()}
        _overwrite(self.backbone.model, self.before)
        try:
            yield
        finally:
            _overwrite(self.backbone.model, trained)

    def remove(self) -> None:
        """Restore the original weights."""
        _overwrite(self.backbone.model, self.before)


def _count_lora(module: torch.nn.Module) -> int:
    return sum("lora_" in name for name, _ in module.named_parameters())


def start_tuning(backbone: Backbone, recipe: Recipe) -> Tuning:
    """Start a new tuning of the recipe's method. Raises BackboneRefused if the backbone does not support it."""
    if recipe.method == "full":
        tuning = FullTuning(backbone)
        backbone.model.requires_grad_(True)
        return tuning
    if recipe.method == "lora":
        check_layers(backbone, recipe)
    with warnings.catch_warnings():
        # peft 0.21 uses a name that transformers 5.23 deprecates
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)  # peft corrects it
        try:
            with _without_conversion(backbone.model):
                model = peft.get_peft_model(backbone.model, _config(backbone, recipe), adapter_name=_NAME)
        except (ValueError, re.error) as error:  # target_modules may be a pattern
            raise BackboneRefused(
                Message(
                    "The backbone “{name}” cannot be adapted with these settings: {value}",
                    name=backbone.name,
                    value=str(error).splitlines()[0],
                ),
                "Leave target_modules at all-linear and dropout at 0, or choose another backbone.",
            ) from error
    return PeftTuning(backbone, model)


def load_tuning(backbone: Backbone, folder: Path) -> Tuning:
    """Load a round's weights. Raises ProjectError if the folder is incomplete or its weights do not fit."""
    kind = weights_in(folder)
    if kind == "none":
        return Tuning(backbone)
    if kind == "full":
        weights = _read(folder / _FULL[0])
        _check_fit(folder, weights, dict(backbone.model.named_parameters()))
        full = FullTuning(backbone)
        _overwrite(backbone.model, weights)
        return full
    weights = _read(folder / _PEFT[0])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)  # refused below
            with _without_conversion(backbone.model):
                model = peft.PeftModel.from_pretrained(backbone.model, str(folder), adapter_name=_NAME)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ProjectError(
            Message("The weights of a round cannot be read from {folder}: {error}", folder=folder, error=error),
            _RESTORE,
        ) from error
    tuning = PeftTuning(backbone, model.eval())
    try:
        _check_fit(folder, weights, _trained_weights(model))
        _fill_in(folder, weights, model)
    except ProjectError:
        tuning.remove()
        raise
    return tuning


@contextmanager
def _without_conversion(model: Any) -> Iterator[None]:
    """Keep peft from converting adapters, as it does for models that have changed since transformers 4.

    Of some it renames modules, so that weights are not loaded; of others it adapts stacked experts and their router,
    for which it takes neither dropout nor a selection of layers.
    """
    kind, model.config.model_type = model.config.model_type, ""
    try:
        yield
    finally:
        model.config.model_type = kind


@torch.no_grad()
def _fill_in(folder: Path, weights: dict[str, torch.Tensor], model: Any) -> None:
    """Load what peft left at random, and check it. Raises ProjectError."""
    for name, weight in _trained_weights(model).items():
        weight.copy_(weights[name])
    loaded = _trained_weights(model)
    if not all(torch.equal(weight, weights[name].to(weight)) for name, weight in loaded.items()):
        raise ProjectError(Message("The weights of a round in {folder} could not be loaded.", folder=folder), _RESTORE)


def _trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights peft has trained, without embeddings, for which it would query the hub."""
    state: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(
        model, adapter_name=_NAME, save_embedding_layers=False
    )
    return state


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ProjectError(Message("{path} is damaged: {error}.", path=path, error=error), _RESTORE) from error


def _check_fit(folder: Path, weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    if why := misfit(weights, expected):
        raise ProjectError(
            Message("The weights of a round in {folder} are damaged: {why}.", folder=folder, why=why), _RESTORE
        )


def weights_in(folder: Path) -> str:
    """Return the kind of weights in a folder: “none”, “peft” or “full”. Other formats than safetensors can run code."""
    names = {path.name for path in folder.glob("*")}
    if set(_FULL) <= names:
        return "full"
    trained = any(name.startswith("adapter_") for name in names)
    missing = set(_PEFT) - names if trained else set()
    if missing:
        raise ProjectError(
            Message("{missing} is missing from {folder}.", missing=" and ".join(sorted(missing)), folder=folder),
            _RESTORE,
        )
    return "peft" if trained else "none"


@torch.no_grad()
def _overwrite(model: Any, weights: dict[str, torch.Tensor]) -> None:
    for name, weight in model.named_parameters():
        weight.copy_(weights[name])
        weight.requires_grad_(False)


def _config(backbone: Backbone, recipe: Recipe) -> peft.PeftConfig:
    kind = "CAUSAL_LM" if backbone.family == "causal" else "SEQ_2_SEQ_LM"
    if recipe.method == "prompt":
        return peft.PromptTuningConfig(
            num_virtual_tokens=recipe.virtual_tokens, prompt_tuning_init="SAMPLE_VOCAB", task_type=kind
        )
    return peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=recipe.target_modules,
        exclude_modules=excluded_modules(backbone, recipe),
        use_rslora=recipe.rslora,
        use_dora=recipe.dora,
        task_type=kind,
    )
