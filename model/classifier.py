"""What a classifier is to the rest of the product: fit on answers, then the log-likelihood of every label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from annotator.errors import BackboneRefused

if TYPE_CHECKING:
    from model.constrained import Rationale
    from model.fingerprint import Origin
    from model.recipe import Recipe
    from model.task import Task, Utterance

Logits = NDArray[np.float64]
"""(n, k): natural-log likelihood of each label, in codebook order. Not normalised over the labels: what the
row lacks to one is the probability the model gives to saying something that is no label."""

States = NDArray[np.float32]
"""(n, width): what the untrained backbone makes of each utterance on the way to an answer, as one vector."""

Progress = Callable[[float], None]
"""Called with the share done, 0 to 1. May raise `RoundCancelled`, which then ends the work."""


def no_progress(share: float) -> None:
    """Ignore progress."""


class Adapter(Protocol):
    """What one round has learned."""

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Logits:
        """Score every label for every utterance: (n, k), exact, rows in the order given."""
        ...

    def heard(self, utterances: Sequence[Utterance]) -> Logits | None:
        """Return what the scout says alone, (n, k), which answers have made honest; None where there is no scout."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights (safetensors) and the description (JSON) into an existing folder."""
        ...


class Classifier(Protocol):
    """A backbone with a task: it can answer as it is (`zero_shot`) or after learning (`fit`)."""

    @property
    def task(self) -> Task:
        """What it is asked."""
        ...

    @property
    def reading(self) -> str:
        """Name all that states depend on, backbone and instruction: states of another reading do not compare."""
        ...

    @property
    def origin(self) -> Origin:
        """From which weights the backbone was loaded."""
        ...

    def states(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> States:
        """Read utterances without answering: (n, width), whatever has been trained meanwhile."""
        ...

    @property
    def described(self) -> States:
        """What the untrained backbone makes of the codebook's words for each label: (k, width)."""
        ...

    def remember(self, utterances: Sequence[Utterance], states: States) -> None:
        """Take over states that were computed before, so that they are not again."""
        ...

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
    """Load a backbone by catalog name, hub id or folder. This and the two below are the doors to torch."""
    from model.adapter import LanguageModelClassifier
    from model.backbone import load_backbone

    return LanguageModelClassifier(load_backbone(backbone, recipe.quantization, recipe), task, recipe, template)


def load_adapter(folder: Path) -> Adapter:
    """Read a round back from its folder alone: it names its backbone, its task and how it was trained.

    Raises ProjectError if the folder is not whole, BackboneMissing if the backbone is not on this machine,
    BackboneChanged if it has other weights by now.
    """
    from model.adapter import restore

    return restore(folder)


def explain_label(
    backbone: str, task: Task, recipe: Recipe, utterance: Utterance, round_folder: Path | None = None
) -> Rationale:
    """Load a backbone and let it say, untrained, why it would give which label.

    It is asked as the round in `round_folder` asks it, if there is one. Raises BackboneMissing, BackboneRefused,
    BackboneChanged, UtteranceTooLong, BadCodebook.
    """
    if find_spec("outlines") is None:
        raise BackboneRefused(
            "Reasons need the package outlines, which is not installed.",
            "It comes with the installation on Python 3.11 to 3.13, not on later ones.",
        )
    from model.adapter import explained
    from model.constrained import explain

    return explain(explained(round_folder, backbone, task, recipe), utterance)
