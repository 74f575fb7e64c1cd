"""Choose the modules of a backbone that LoRA adapts: those of some layers, without routers.

peft takes numbers of layers only with a list of module names, so the others are excluded by a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from annotator.errors import BackboneRefused, Message
from model.backbones.backbone import Backbone
from model.recipe import Recipe, adapted_layers
from model.scoring.hidden_states import layer_stack

_STACKS = "(layers|block|blocks|h)"  # names of the list of layers
_EXPERTS = r"(moe_)?(num|n)(_local|_routed)?_experts"  # names of their number


def check_layers(backbone: Backbone, recipe: Recipe) -> None:
    """Raise BackboneRefused for layers the backbone does not have, or the upper half of one with an encoder."""
    if recipe.depth == "upper" and backbone.family == "encoder-decoder":
        raise BackboneRefused(
            Message("“{name}” has an encoder and a decoder, and no upper half to adapt.", name=backbone.name),
            "Set recipe.depth to all.",
        )
    matches = re.findall(rf"\.{_STACKS}\.(\d+)\.", "\n".join(name for name, _ in backbone.model.named_modules()))
    existing = {int(number) for _, number in matches}
    missing = sorted(set(recipe.layers) - existing)
    if missing:
        raise BackboneRefused(
            Message(
                "The backbone “{name}” has {n} layers to choose from, and none with the number {n2}.",
                name=backbone.name,
                n=len(existing),
                n2=", ".join(map(str, missing)),
            ),
            "Layers count from 0. Leave the setting empty to adapt all of them.",
        )


def excluded_modules(backbone: Backbone, recipe: Recipe) -> str | None:
    """Return a pattern of the modules not to adapt: those of other layers, and routers, which choose experts."""
    model, layers = backbone.model, _layers_of(backbone, recipe)
    experts = _experts(model.config)
    routers = [re.escape(name) for name, module in model.named_modules() if _is_router(module, experts)]
    patterns = [*routers, *([_all_layers_but(layers)] if layers else [])]
    return "|".join(patterns) or None


def _layers_of(backbone: Backbone, recipe: Recipe) -> tuple[int, ...]:
    """Return the numbers of the layers to adapt; empty for all, as in encoder-decoders."""
    if backbone.family == "encoder-decoder":
        return recipe.layers
    return adapted_layers(recipe, len(layer_stack(backbone.model)))


@torch.no_grad()
def _is_router(module: Any, experts: set[int]) -> bool:
    """Return whether a linear layer has one output for each expert, or returns a choice besides its product."""
    kind = type(module)
    if not issubclass(kind, torch.nn.Linear):
        return False
    if module.out_features in experts:
        return True
    is_plain = kind.forward is torch.nn.Linear.forward or kind.__module__.startswith("bitsandbytes.")
    return not is_plain and not isinstance(module(module.weight.new_zeros(1, module.in_features)), torch.Tensor)


def _experts(config: Any) -> set[int]:
    """Return the numbers of experts that a configuration states."""
    stated = config.get_text_config(decoder=True).to_dict()
    return {n for name, n in stated.items() if re.fullmatch(_EXPERTS, name) and isinstance(n, int) and n > 1}


def _all_layers_but(layers: Sequence[int]) -> str:
    """Return a pattern of all other layers' modules: peft takes layer numbers only with a list of module names."""
    return rf".*\.{_STACKS}\.(?!({'|'.join(map(str, layers))})\.)\d+\..*"
