"""Measure how long the texts of a project are, in tokens: memory and time depend on it. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.prompts.prompt import find_template, utterance_text
from model.prompts.verbalizer import label_words
from model.types import Task, Utterance

if TYPE_CHECKING:
    from model.prompts.tokens import PromptTokens

_BYTES = 3  # of UTF-8 in a token: English has four, other languages less; fewer bytes give more tokens
_FRAME = 12  # tokens of a chat template around instruction and utterance, at each of the two places


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts in tokens. The default stands for a project of short turns with a dozen labels."""

    instruction: int = 256  # before every utterance
    longest: int = 128  # of the longest utterance, with context and suffix
    typical: int = 48  # of the utterance in the middle
    count: int = 1000  # of utterances
    nodes: int = 12  # behind an utterance: tokens of labels that others follow
    paths: int = 12  # of them, those no other node follows
    counted: bool = False  # with the tokenizer; otherwise estimated


def count_tokens(tokens: PromptTokens, utterances: Sequence[Utterance]) -> Lengths:
    """Return the lengths of a project's prompt, utterances and labels, counted with the backbone's tokenizer."""
    trie = tokens.trie
    inner = set(trie.parents.tolist())
    paths = sum(node not in inner for node in range(1, trie.nodes))
    sizes = [len(tokens.body(utterance)) for utterance in utterances]
    return _lengths(len(tokens.prefix), sizes, (trie.nodes - 1, paths), counted=True)


def estimate_tokens(task: Task, template: str, max_tokens: int, utterances: Sequence[Utterance]) -> Lengths:
    """Return the same, estimated from the number of bytes where no tokenizer is at hand."""
    form = find_template(template)
    answers = [label_words(label) for label in task.labels]
    sizes = [_FRAME + min(_estimate(utterance_text(utterance)), max_tokens) for utterance in utterances]
    nodes = 0 if form.coded else sum(_estimate(answer) - 1 for answer in answers)
    behind = (nodes, min(nodes, len(answers)))
    return _lengths(_FRAME + _estimate(form.instruction(task, answers)), sizes, behind, counted=False)


def _estimate(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // _BYTES)


def _lengths(instruction: int, sizes: Sequence[int], behind: tuple[int, int], counted: bool) -> Lengths:
    """Return lengths; `behind` are the nodes and the paths of the labels. Without utterances, the default ones."""
    if not sizes:
        return Lengths(instruction, Lengths.longest, Lengths.typical, 0, *behind, counted)
    ordered = sorted(sizes)
    return Lengths(instruction, ordered[-1], ordered[len(sizes) // 2], len(sizes), *behind, counted)
