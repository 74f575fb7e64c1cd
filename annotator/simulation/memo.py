"""A classifier that remembers what does not change from one simulated session to the next: it is asked only once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.types import Adapter, Classifier, Logits, Origin, Progress, States, Task, Utterance, no_progress


@dataclass(frozen=True)
class Memo:
    """What an untrained backbone makes of utterances, and what it says of them."""

    states: dict[Utterance, NDArray[np.float32]] = field(default_factory=dict)
    logits: dict[Utterance, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Remembering:
    """A classifier with a memo that it shares with others of the same backbone and task."""

    inner: Classifier
    memo: Memo

    @property
    def task(self) -> Task:
        """What it is asked."""
        return self.inner.task

    @property
    def reading(self) -> str:
        """Name all that states depend on."""
        return self.inner.reading

    @property
    def origin(self) -> Origin:
        """From which weights the backbone was loaded."""
        return self.inner.origin

    def states(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> States:
        """Read utterances that no one has read yet; return (n, width) for all."""
        new = [one for one in dict.fromkeys(utterances) if one not in self.memo.states]
        self.memo.states.update(zip(new, self.inner.states(new, progress), strict=True))
        return np.array([self.memo.states[one] for one in utterances])

    @property
    def label_states(self) -> States:
        """What the backbone makes of the codebook's words for each label."""
        return self.inner.label_states

    def remember(self, utterances: Sequence[Utterance], states: States) -> None:
        """Take over states that were computed before."""
        self.inner.remember(utterances, states)

    def zero_shot(self) -> Adapter:
        """Answer from the instruction alone, from memory where that is possible."""
        return _Recalling(self.inner.zero_shot(), self.memo)

    def fit(
        self,
        utterances: Sequence[Utterance],
        labels: Sequence[int],
        progress: Progress = no_progress,
        unfinished: Path | None = None,
    ) -> Adapter:
        """Learn afresh."""
        return self.inner.fit(utterances, labels, progress, unfinished)

    def load(self, folder: Path) -> Adapter:
        """Read back what `Adapter.save` wrote."""
        return self.inner.load(folder)


@dataclass(frozen=True)
class _Recalling:
    inner: Adapter
    memo: Memo

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Logits:
        new = [one for one in dict.fromkeys(utterances) if one not in self.memo.logits]
        self.memo.logits.update(zip(new, self.inner.logits(new, progress), strict=True))
        return np.array([self.memo.logits[one] for one in utterances])

    def probe_logits(self, utterances: Sequence[Utterance]) -> Logits | None:
        return self.inner.probe_logits(utterances)

    def save(self, folder: Path) -> None:
        self.inner.save(folder)
