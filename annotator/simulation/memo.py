"""Cache the results of an untrained backbone across simulated sessions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.types import Adapter, Classifier, Extent, Logits, Origin, Progress, States, Task, Utterance, no_progress


@dataclass(frozen=True)
class Memo:
    """Hidden states and zero-shot log-likelihoods of an untrained backbone, by utterance."""

    states: dict[Utterance, NDArray[np.float32]] = field(default_factory=dict)
    logits: dict[Utterance, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Remembering:
    """A classifier that shares a memo with others of the same backbone and task."""

    inner: Classifier
    memo: Memo

    @property
    def task(self) -> Task:
        """The classification task."""
        return self.inner.task

    @property
    def reading(self) -> str:
        """Identifier of everything the hidden states depend on."""
        return self.inner.reading

    @property
    def origin(self) -> Origin:
        """The weights the backbone was loaded from."""
        return self.inner.origin

    def states(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> States:
        """Return (n, width) hidden states, computing those not in the memo."""
        new = [one for one in dict.fromkeys(utterances) if one not in self.memo.states]
        self.memo.states.update(zip(new, self.inner.states(new, progress), strict=True))
        return np.array([self.memo.states[one] for one in utterances])

    @property
    def label_states(self) -> States:
        """Hidden states of each label's description in the codebook."""
        return self.inner.label_states

    def remember(self, utterances: Sequence[Utterance], states: States) -> None:
        """Add hidden states computed before."""
        self.inner.remember(utterances, states)

    def zero_shot(self) -> Adapter:
        """Return the untrained adapter, which reads log-likelihoods from the memo where it has them."""
        return _Recalling(self.inner.zero_shot(), self.memo)

    def fit(
        self,
        utterances: Sequence[Utterance],
        labels: Sequence[int],
        progress: Progress = no_progress,
        unfinished: Path | None = None,
    ) -> Adapter:
        """Train an adapter."""
        return self.inner.fit(utterances, labels, progress, unfinished)

    def load(self, folder: Path) -> Adapter:
        """Load an adapter that `Adapter.save` wrote."""
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

    def extent(self, utterances: Sequence[Utterance]) -> Extent:
        return self.inner.extent(utterances)

    def save(self, folder: Path) -> None:
        self.inner.save(folder)
