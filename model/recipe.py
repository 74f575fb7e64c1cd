"""How an adapter is trained: every number with its reason. Imports nothing heavy, so settings can be shown
and stored without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval

from annotator.errors import BadInput

LEARNING_RATES = {
    "lora": 1e-3,  # about ten times what full fine-tuning takes (Schulman et al. 2025, LoRA Without Regret)
    "prompt": 3e-2,  # few weights, far from the loss (Lester et al. 2021 take 0.3, with another optimiser)
    "full": 5e-5,
}

LEAST_TOKENS = 64  # rows are halved down to this when memory runs out: a shorter one holds no utterance worth labelling
LANE = 128  # tokens side by side in which a row is scored, behind the instruction


Count = Annotated[int, Ge(1)]
Amount = Annotated[float, Interval(ge=0, lt=math.inf)]
Positive = Annotated[float, Interval(gt=0, lt=math.inf)]
Share = Annotated[float, Interval(ge=0, le=1)]
Part = Annotated[float, Interval(ge=0, lt=1)]  # of a whole of which something has to be left

Quantization = Literal["none", "nf4"]


FORMER = {"scout": "probe_weight"}  # settings by their names in earlier versions


@dataclass(frozen=True)
class Recipe:
    """Settings of one fine-tuning run. Stored with the round, so a round can be repeated: on a processor bit by bit."""

    quantization: Quantization = "none"  # 4-bit pays from about a billion parameters on
    method: Literal["lora", "prompt", "full"] = "lora"  # LoRA layers; a soft prompt; all weights, twice the memory
    virtual_tokens: Count = 20  # of a soft prompt: 20 to 100 are usual (Lester et al. 2021, arXiv 2104.08691)
    rank: Count = 16  # quality hardly depends on it if all layers are adapted (Dettmers et al. 2023, arXiv 2305.14314)
    alpha: Count = 32  # twice the rank: the update enters at scale 2
    dropout: Part = 0.05  # none is a quarter faster on a processor; whether it is as good is not settled
    target_modules: str = "all-linear"  # attention alone learns less (Biderman et al. 2024, arXiv 2405.09673)
    learning_rate: Positive | None = None  # none: what suits the method, see LEARNING_RATES
    probe_weight: Share = (
        0.6  # of the quick classifier in a round; 0: adapter alone; 1: it alone, nothing is fine-tuned
    )
    epochs: Count = 8
    average: Share = 0.5  # of the last steps, whose weights are averaged (Izmailov et al. 2018, arXiv 1803.05407)
    batch_size: Count = 8
    warmup: Share = 0.06  # share of steps
    weight_decay: Amount = 0.0
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"  # 8 bit: a quarter the state
    loss: Literal["labels", "tokens"] = "labels"  # among the labels, or the label's tokens among all tokens
    label_smoothing: Part = 0.0  # over the labels, not over the vocabulary
    class_weights: bool = False  # weigh labels by inverse square root of frequency
    clip: Positive = 1.0
    layers: tuple[Annotated[int, Ge(0)], ...] = ()  # to adapt; none: all of them
    rslora: bool = False  # scale by the root of the rank (Kalajdzievski 2023, arXiv 2312.03732)
    dora: bool = False  # magnitude apart from direction (Liu et al. 2024, arXiv 2402.09353); slower
    loraplus: Positive = 1.0  # how much faster the B matrices learn
    neftune: Amount = 0.0  # noise on embeddings; shown to help in chat, not in classification
    checkpointing: bool = False  # recompute activations: less memory, a third more time
    holdout: Part = 0.0  # share of the labels kept back to stop early; few labels are better trained on
    patience: Count = 2  # epochs without a lower held-out loss, then it stops
    max_tokens: Count = 512  # of an utterance with its context; what is over is cut, options never are
    row_tokens: Count = 1024  # tokens learned at once: bounds memory, not results
    tolerance: Part = 1e-3  # of a distribution over a large codebook, total variation; small ones are exact
    seed: int = 0

    @property
    def scored_tokens(self) -> int:
        """Return how many tokens are scored at once: more than are learned, since nothing is kept for a way back."""
        return 2 * self.row_tokens


def check_recipe(recipe: Recipe) -> None:
    """Refuse numbers that nothing can be learned with, and settings without effect. Raises BadInput."""
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"“{field.name}” cannot be set to “{value}”: it is no number.", "Set it to a finite one.")
    if recipe.loss == "tokens" and recipe.label_smoothing:
        raise BadInput(
            f"“label_smoothing” {recipe.label_smoothing:g} has no effect with the loss “tokens”.",
            "Set label_smoothing to 0, or the loss to “labels”.",
        )


def renamed(stored: dict[str, Any]) -> dict[str, Any]:
    """Return stored settings under the names they have now."""
    return {FORMER.get(name, name): value for name, value in stored.items()}


def read_recipe(stored: dict[str, Any]) -> Recipe:
    """Read a stored recipe; what a later version has added takes its default, what it has dropped is passed over."""
    known = {field.name for field in fields(Recipe)}
    stored = renamed(stored)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
    return Recipe(**{name: value for name, value in values.items() if name in known})
