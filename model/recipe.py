"""The recipe of training an adapter: every setting with its reason.

Imports nothing heavy, so settings can be shown and stored without torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval

from annotator.errors import BadInput, Message
from model import constants
from model.depth import Depth, first_adapted

LEARNING_RATES = {
    "lora": 1e-3,  # about ten times that of full fine-tuning (Schulman et al. 2025, LoRA Without Regret)
    "prompt": 3e-2,  # few weights, far from the loss (Lester et al. 2021 use 0.3, with another optimizer)
    "full": 5e-5,
}

LEAST_TOKENS = 64  # rows are halved down to this when memory runs out: a shorter row is too short for one utterance
LANE = 128  # tokens of a lane, into which a row is divided for scoring


Count = Annotated[int, Ge(1)]
Limited = Annotated[int, Interval(ge=1, le=1000)]  # more would only fill the memory
Amount = Annotated[float, Interval(ge=0, lt=math.inf)]
Positive = Annotated[float, Interval(gt=0, lt=math.inf)]
Share = Annotated[float, Interval(ge=0, le=1)]
Part = Annotated[float, Interval(ge=0, lt=1)]  # less than the whole

Quantization = Literal["none", "nf4"]
Precision = Literal["auto", "fp32", "bf16"]


_OF_LORA = ("rank", "alpha", "dropout", "target_modules", "layers", "depth", "rslora", "dora", "loraplus")
FORMER = {"scout": "probe_weight"}  # names of settings in earlier versions


@dataclass(frozen=True)
class Recipe:
    """Settings of one fine-tuning run. Stored with the round to reproduce it: bit by bit on a CPU."""

    # Where they have their default, a round may choose these five by memory, see model/backbones/plan.py
    quantization: Quantization = "none"  # 4-bit is worthwhile from about a billion parameters
    precision: Precision = "auto"  # of weights not in 4 bits; auto: that which the machine computes fastest
    method: Literal["lora", "prompt", "full"] = "lora"  # LoRA layers; a soft prompt; all weights, twice the memory
    virtual_tokens: Limited = 20  # of a soft prompt: 20 to 100 are usual (Lester et al. 2021, arXiv 2104.08691)
    rank: Limited = 16  # quality hardly depends on it if all layers are adapted (Dettmers et al. 2023, 2305.14314)
    alpha: Count = 32  # twice the rank: the update enters at scale 2
    dropout: Part = 0.05  # 0 saves a sixth of the training time on a CPU; whether it is as good is unknown
    target_modules: str = "all-linear"  # attention alone learns less (Biderman et al. 2024, arXiv 2405.09673)
    learning_rate: Positive | None = None  # None: see `default_rate`
    # of the probe in the blend; 0: adapter alone; 1: probe alone, nothing is fine-tuned
    probe_weight: Share = constants.PROBE_WEIGHT
    epochs: Limited = 8
    average: Share = 0.5  # of the last steps, whose weights are averaged (Izmailov et al. 2018, arXiv 1803.05407)
    batch_size: Count = 8
    warmup: Share = 0.06  # share of steps
    weight_decay: Amount = 0.0
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"  # 8-bit: smaller state
    loss: Literal["labels", "tokens"] = "labels"  # among the labels, or the label's tokens among all tokens
    label_smoothing: Part = 0.0  # over the labels, not over the vocabulary
    class_weights: bool = False  # weigh labels by inverse square root of frequency
    clip: Positive = 1.0
    layers: tuple[Annotated[int, Ge(0)], ...] = ()  # to adapt; empty: by depth
    # of LoRA in causal models; “upper”: the upper half, in about half the time (docs/performance.md)
    depth: Depth = "all"
    rslora: bool = False  # scale by the root of the rank (Kalajdzievski 2023, arXiv 2312.03732)
    dora: bool = False  # separates magnitude and direction (Liu et al. 2024, arXiv 2402.09353); slower
    loraplus: Positive = 1.0  # ratio of the B matrices' learning rate
    neftune: Amount = 0.0  # noise on embeddings; shown to help chat, not classification
    checkpointing: bool = False  # recompute activations: less memory, a third more time
    holdout: Part = 0.0  # share of labels held out for early stopping; if labels are few, training on all is better
    patience: Count = 2  # epochs without a lower held-out loss before stopping
    max_tokens: Count = 512  # of an utterance with its context; longer ones are truncated, options never
    row_tokens: Count = 1024  # tokens trained on at once: limits memory, does not change results
    tolerance: Part = 1e-3  # total variation of distributions over a large codebook; small codebooks are exact
    seed: int = 0

    @property
    def scored_tokens(self) -> int:
        """Return the number of tokens scored at once: twice as many as in training, as no activations are kept."""
        return 2 * self.row_tokens


def adapted_layers(recipe: Recipe, layers: int) -> tuple[int, ...]:
    """Return the numbers of the layers that LoRA adapts in a causal model with so many; empty for all."""
    return recipe.layers or (tuple(range(first_adapted(layers), layers)) if recipe.depth == "upper" else ())


def default_rate(recipe: Recipe, is_causal: bool) -> float:
    """Return the learning rate if none is set: that of the method, higher if only the upper layers are adapted."""
    is_upper = is_causal and recipe.method == "lora" and recipe.depth == "upper" and not recipe.layers
    return LEARNING_RATES[recipe.method] * (constants.UPPER_RATE if is_upper else 1.0)


def check_recipe(recipe: Recipe) -> None:
    """Raise BadInput for settings that are not finite or have no effect."""
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(
                Message(
                    "“{name}” cannot be set to “{value}”: it is not a finite number.", name=field.name, value=value
                ),
                "Enter a finite number.",
            )
    if idle := list(_without_effect(recipe)):
        name, other = idle[0]
        raise BadInput(
            Message(
                "“{name}” {value} has no effect while “{other}” is “{present}”.",
                name=name,
                value=getattr(recipe, name),
                other=other,
                present=getattr(recipe, other),
            ),
            Message(
                "Change recipe.{other}, or set the defaults: {defaults}.",
                other=other,
                defaults=" ".join(f"recipe.{name}={_written(getattr(Recipe, name))}" for name, _ in idle),
            ),
        )


def _written(value: object) -> str:
    return "" if value == () else str(value)


def _without_effect(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the settings that were set and change nothing, each with the setting that is the reason.

    With `probe_weight` 1 the settings of fine-tuning are kept for the next time, as that is one click on a page.
    """
    for name, other in _ignored(recipe):
        value = getattr(recipe, name)
        if value and value != getattr(Recipe, name):  # zero turns a setting off, which is no error
            yield name, other


def _ignored(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.method != "lora":
        yield from ((name, "method") for name in _OF_LORA)
    if recipe.method != "prompt":
        yield "virtual_tokens", "method"
    if recipe.layers:
        yield "depth", "layers"
    if recipe.loss == "tokens":
        yield "label_smoothing", "loss"
    yield ("average" if recipe.holdout else "patience"), "holdout"  # held-out data select the best epoch instead


def renamed(stored: dict[str, Any]) -> dict[str, Any]:
    """Return stored settings under their current names."""
    return {FORMER.get(name, name): value for name, value in stored.items()}
