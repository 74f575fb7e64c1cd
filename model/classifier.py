"""What a classifier is to the rest of the product: fit on answers, then the log-likelihood of every label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from model.recipe import Recipe
    from model.task import Task, Utterance

Logits = NDArray[np.float64]
"""(n, k): natural-log likelihood of each label, in codebook order. Not normalised over the labels: what the
row lacks to one is the probability the model gives to saying something that is no label."""

Progress = Callable[[float], None]
"""Called with the share done, 0 to 1. May raise `RoundCancelled`, which then ends the work."""


def no_progress(share: float) -> None:
    """Ignore progress."""


class Adapter(Protocol):
    """What one round has learned."""

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Logits:
        """Score every label for every utterance: (n, k), exact, rows in the order given."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights (safetensors) and the description (JSON) into an existing folder."""
        ...


class Classifier(Protocol):
    """A backbone with a task: it can answer as it is (`zero_shot`) or after learning (`fit`)."""

    def zero_shot(self) -> Adapter:
        """Answer from the instruction alone."""
        ...

    def fit(
        self,
        utterances: Sequence[Utterance],
        labels: Sequence[int],
        progress: Progress = no_progress,
        unfinished: Path | None = None,
    ) -> Adapter:
        """Learn from labelled utterances; `labels` index the task's labels. Starts afresh every time.

        Except after being stopped: then the same call goes on from what it left in `unfinished`.
        """
        ...

    def load(self, folder: Path) -> Adapter:
        """Read back what `Adapter.save` wrote."""
        ...


def load_classifier(backbone: str, task: Task, recipe: Recipe, template: str = "definitions") -> Classifier:
    """Load a backbone by catalog name, hub id or folder. This and `load_adapter` are the only doors to torch."""
    from model.adapter import LanguageModelClassifier
    from model.backbone import load_backbone

    return LanguageModelClassifier(load_backbone(backbone, recipe.quantization), task, recipe, template)


def load_adapter(folder: Path) -> Adapter:
    """Read a round back from its folder alone: it names its backbone, its task and how it was trained.

    Raises ProjectError if the folder is not whole, BackboneMissing if the backbone is not on this machine.
    """
    from model.adapter import restore

    return restore(folder)
