"""How an adapter is trained: every number with its reason. Imports nothing heavy, so settings can be shown
and stored without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Settings of one fine-tuning run. Stored with the round, so a round can be repeated exactly."""

    quantization: Literal["none", "nf4"] = "none"  # 4-bit pays from about a billion parameters on
    rank: int = 16  # quality hardly depends on it once all layers are adapted (Dettmers et al. 2023, arXiv 2305.14314)
    alpha: int = 32  # twice the rank: the update enters at scale 2
    dropout: float = 0.05  # none is a quarter faster on a processor; whether it is as good is not settled
    target_modules: str = "all-linear"  # attention alone learns less (Biderman et al. 2024, arXiv 2405.09673)
    learning_rate: float = (
        1e-3  # about ten times what full fine-tuning takes (Schulman et al. 2025, LoRA Without Regret)
    )
    epochs: int = 8
    batch_size: int = 8
    warmup: float = 0.06  # share of steps
    weight_decay: float = 0.0
    label_smoothing: float = 0.0  # over the labels, not over the vocabulary
    class_weights: bool = False  # weigh labels by inverse square root of frequency
    clip: float = 1.0
    max_tokens: int = 512  # of an utterance with its context; what is over is cut, options never are
    row_tokens: int = 1024  # tokens computed at once: bounds memory, not results
    seed: int = 0
