"""Select the weights to train, and make the optimizer."""

from __future__ import annotations

from typing import Any

import torch

from annotator.errors import BackboneRefused
from model.backbones.backbone import Backbone
from model.recipe import Recipe, default_rate


def trainable(backbone: Backbone) -> list[torch.Tensor]:
    """Return the weights to train: those of the model that require gradients, or the soft prompt."""
    return [weight for module in _modules(backbone) for weight in module.parameters() if weight.requires_grad]


def _modules(backbone: Backbone) -> list[Any]:
    return [backbone.tuning.prompt] if backbone.soft_prompt else [backbone.model]


def make_optimizer(backbone: Backbone, recipe: Recipe) -> Any:
    """Make the optimizer of the recipe; `loraplus` multiplies the B matrices' learning rate (arXiv 2402.12354)."""
    import bitsandbytes
    from peft.optimizers import create_loraplus_optimizer

    kinds = {
        "adamw": torch.optim.AdamW,
        "adamw_8bit": bitsandbytes.optim.AdamW8bit,
        "paged_adamw": bitsandbytes.optim.PagedAdamW32bit,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
    }
    if recipe.optimizer.startswith("paged") and not torch.cuda.is_available():
        raise BackboneRefused(
            "Paged optimizers move their state off a GPU, and this machine has none.", "Choose adamw_8bit."
        )
    kind, rate = kinds[recipe.optimizer], recipe.learning_rate
    options = {
        "lr": default_rate(recipe, backbone.family == "causal") if rate is None else rate,
        "weight_decay": recipe.weight_decay,
    }
    if recipe.loraplus == 1 or recipe.method != "lora":
        return kind(trainable(backbone), **options)
    return create_loraplus_optimizer(backbone.model, kind, loraplus_lr_ratio=recipe.loraplus, **options)
