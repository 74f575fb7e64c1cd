"""Protocols and data types of the language model: tasks and utterances in, log-likelihoods of labels out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Group:
    """A group of labels, an inner node of a tree of labels. It is not an answer."""

    name: str
    definition: str = ""


@dataclass(frozen=True)
class Label:
    """A class of the codebook. `words` is the answer the model generates for it; by default its name, spelled out."""

    name: str
    definition: str = ""
    words: str = ""
    examples: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()  # that it is in, from the top of the tree


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
    """The fixed text around a message: before and after it, with special tokens spelled out, and the end token.

    `opening` is the instruction as rendered when a round was trained; empty if it is to be rendered from the task.
    `lead` begins every answer: spaces, or the tokens that a decoder is made to begin with. None in rounds of earlier
    versions, which guessed a space and began decoders with their start token alone.
    """

    before: str
    after: str
    end: int
    opening: str = ""
    lead: str | None = None


@dataclass(frozen=True)
class Origin:
    """The weights a backbone was loaded from; `revision` is the commit on the hub, empty for local files."""

    fingerprint: str = ""
    revision: str = ""


Logits = NDArray[np.float64]
"""(n, k): natural-log likelihood of each label, in codebook order. Not normalized over the labels: the remaining
probability mass is the model's probability of generating something that is not a label."""

States = NDArray[np.float32]
"""(n, width): hidden states of the untrained backbone, one vector for each utterance."""

Progress = Callable[[float], None]
"""Called with the completed share, 0 to 1. May raise `RoundCancelled`, which ends the work."""


def no_progress(share: float) -> None:
    """Discard progress."""


@dataclass(frozen=True)
class Extent:
    """How far a round reaches: weights trained, experts' weights left as they were, and texts not spelled in full."""

    trained: int = 0
    frozen_experts: int = 0
    unspelled: int = 0


class Adapter(Protocol):
    """The trained model of one round."""

    def extent(self, utterances: Sequence[Utterance]) -> Extent:
        """Count the weights that were trained, and the utterances with characters unknown to the tokenizer."""
        ...

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Logits:
        """Score every label for every utterance: (n, k), exact, rows in the order given."""
        ...

    def probe_logits(self, utterances: Sequence[Utterance]) -> Logits | None:
        """Return the (n, k) logits of the probe alone, scaled on held-out answers; None if there is no probe."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights (safetensors) and the description (JSON) into an existing folder."""
        ...


class Classifier(Protocol):
    """A backbone with a task: used untrained (`zero_shot`) or after training (`fit`)."""

    @property
    def task(self) -> Task:
        """The instruction and the labels."""
        ...

    @property
    def reading(self) -> str:
        """Return a key of everything states depend on, backbone and instruction; states compare only within a key."""
        ...

    @property
    def origin(self) -> Origin:
        """The weights the backbone was loaded from."""
        ...

    def states(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> States:
        """Return the (n, width) hidden states of the untrained backbone, whatever is being trained."""
        ...

    @property
    def label_states(self) -> States:
        """Return the (k, width) hidden states of each label's words, definition and examples in the codebook."""
        ...

    def remember(self, utterances: Sequence[Utterance], states: States) -> None:
        """Cache states that were computed earlier."""
        ...

    def zero_shot(self) -> Adapter:
        """Return an untrained adapter, which answers from the instruction alone."""
        ...

    def fit(
        self,
        utterances: Sequence[Utterance],
        labels: Sequence[int],
        progress: Progress = no_progress,
        unfinished: Path | None = None,
    ) -> Adapter:
        """Train a fresh adapter on labeled utterances; `labels` index the task's labels.

        If training is stopped, the same call resumes from the state left in `unfinished`.
        """
        ...

    def load(self, folder: Path) -> Adapter:
        """Read what `Adapter.save` wrote."""
        ...
