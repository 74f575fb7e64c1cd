"""A classifier that counts words: deterministic, numpy alone, fast enough that the loop runs in milliseconds."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from model.probe.heads import ASPECTS
from model.types import Extent, Logits, Origin, Progress, States, Task, Utterance, no_progress

WIDTH = 512  # buckets that words are hashed into


def _bag(utterance: Utterance) -> np.ndarray:
    words = (word.strip(".,;:?!").casefold() for word in utterance.text.split())
    return np.bincount([zlib.crc32(word.encode()) % WIDTH for word in words], minlength=WIDTH).astype(float)


@dataclass
class FakeAdapter:
    """Log-likelihood of each label: the words it was seen with. `pause` seconds are slept in every step."""

    weights: np.ndarray  # (WIDTH, k)
    bias: np.ndarray  # (k,)
    pause: float = 0.0

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Logits:
        for step in range(4):
            time.sleep(self.pause)
            progress((step + 1) / 4)
        # a tenth of the probability is left to saying no label at all
        return np.asarray(log_softmax(self._scores(utterances), axis=1) + np.log(0.9))

    def probe_logits(self, utterances: Sequence[Utterance]) -> Logits:
        """Return the same logits, half as large."""
        return np.asarray(log_softmax(self._scores(utterances) / 2, axis=1))

    def _scores(self, utterances: Sequence[Utterance]) -> np.ndarray:
        bags = np.array([_bag(one) for one in utterances]).reshape(-1, WIDTH)
        return np.asarray(bags @ self.weights + self.bias)

    def extent(self, utterances: Sequence[Utterance]) -> Extent:
        return Extent(self.weights.size)

    def save(self, folder: Path) -> None:
        (folder / "adapter.json").write_text(json.dumps({"bias": self.bias.tolist()}))
        time.sleep(self.pause)
        np.save(folder / "weights.npy", self.weights)


@dataclass
class FakeClassifier:
    """Naive Bayes on smoothed word counts; before training, a distribution that depends on the text alone."""

    task: Task
    pause: float = 0.0
    read: int = 0  # utterances, in all

    @property
    def size(self) -> int:
        return len(self.task.labels)

    reading = "words"
    origin = Origin()

    def states(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> States:
        self.read += len(utterances)
        progress(1.0)
        bags = np.array([_bag(one) for one in utterances], dtype=np.float32).reshape(-1, WIDTH)
        return np.tile(bags, ASPECTS)

    @property
    def label_states(self) -> States:
        return self.states([Utterance(label.name) for label in self.task.labels])

    def remember(self, utterances: Sequence[Utterance], states: States) -> None:
        self.remembered = len(utterances)

    def zero_shot(self) -> FakeAdapter:
        weights = np.random.default_rng(7).normal(size=(WIDTH, self.size)) / 2
        return FakeAdapter(weights, np.linspace(0.5, -0.5, self.size), self.pause)

    def fit(
        self,
        utterances: Sequence[Utterance],
        labels: Sequence[int],
        progress: Progress = no_progress,
        unfinished: Path | None = None,
    ) -> FakeAdapter:
        counts = np.full((WIDTH, self.size), 0.1)
        for done, (utterance, label) in enumerate(zip(utterances, labels, strict=True), start=1):
            counts[:, label] += _bag(utterance)
            progress(done / len(labels))
        time.sleep(self.pause)
        frequency = np.bincount(labels, minlength=self.size) + 1.0
        return FakeAdapter(np.log(counts / counts.sum(axis=0)), np.log(frequency / frequency.sum()), self.pause)

    def load(self, folder: Path) -> FakeAdapter:
        bias = np.array(json.loads((folder / "adapter.json").read_text())["bias"])
        return FakeAdapter(np.load(folder / "weights.npy"), bias, self.pause)
