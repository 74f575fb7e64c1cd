"""What the language model is asked: a task with its labels, utterances with the turns before them, what is around."""

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


@dataclass(frozen=True)
class Frame:
    """What stands around a message: text before and after it, special tokens spelled, and the token that ends answers.

    `opening` is the instruction as it was written when a round was trained; empty where the task is to write it.
    """

    before: str
    after: str
    end: int
    opening: str = ""
