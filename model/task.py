"""What the language model is asked: a task with its labels, and utterances with the turns before them."""

from __future__ import annotations

from dataclasses import dataclass


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
