"""What the rest of the product knows of a language model: tasks and utterances in, log-likelihoods of labels out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Label:
    """A class the model may answer with. `words` is what it says for it; by default its name, spelled out."""

    name: str
    definition: str = ""
    words: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """An instruction and the labels to choose from, in codebook order."""

    instruction: str
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Utterance:
    """One text to label. `context` holds earlier turns, oldest first, each as "speaker: text"."""

    text: str
    context: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """What stands around a message: text before and after it, special tokens spelled, and the token that ends answers.

    `opening` is the instruction as it was written when a round was trained; empty where the task is to write it.
    """

    before: str
    after: str
    end: int
    opening: str = ""


@dataclass(frozen=True)
class Origin:
    """From which weights a backbone was loaded; `revision` is the commit on the hub, empty for what is on the disk."""

    fingerprint: str = ""
    revision: str = ""


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
