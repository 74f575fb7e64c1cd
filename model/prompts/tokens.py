"""Tokenize a task: the shared prefix, the utterances, and the possible answers.

The pieces are tokenized separately and joined as ids. That keeps the prefix the same for all utterances, and ensures
that no text of an utterance or a codebook becomes a special token: those occur only in pieces from the chat template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from string import ascii_uppercase
from typing import Any

from annotator.errors import BadCodebook, Message
from model.backbones.catalog import Family
from model.prompts.chat import end_of_text, frame_of
from model.prompts.prompt import find_template, utterance_text
from model.prompts.spelling import Spelling
from model.prompts.verbalizer import LabelTrie, build_trie, check_words, label_words
from model.types import Frame, Task, Utterance

_MARK = re.compile(r"<[|｜].*[|｜]>")  # the spelling of a token for turns or tools, in the template or not
_ROOM = 16  # characters per token that are tokenized first: ordinary text has about four


@dataclass(frozen=True)
class PromptTokens:
    """All token ids of a task for one tokenizer: `prefix` + body(utterance) + `suffix` + a label's ids."""

    tokenizer: Any
    family: Family
    task: Task
    template: str
    max_tokens: int
    fixed: Frame | None = None  # the frame a round was trained with; None: rendered from the chat template

    @cached_property
    def frame(self) -> Frame:
        """The text around every utterance: as fixed when the round was trained, otherwise as rendered now."""
        if self.fixed and self.fixed.opening:
            return self.fixed
        return replace(self._around, opening=f"{find_template(self.template).instruction(self.task, self.answers)}\n\n")

    @cached_property
    def _around(self) -> Frame:
        """The frame without the instruction, whose rendering needs the answers, which in turn need this frame."""
        return self.fixed or frame_of(self.tokenizer, self.family)

    def _ids(self, text: str) -> list[int]:
        """Tokenize text of the chat template, special tokens included."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def of_text(self, text: str) -> list[int]:
        """Tokenize user text literally, including text that spells a special token."""
        return [number for number in self._spelled(text) if number not in self._control]

    def _spelled(self, text: str, side: str = "text") -> list[int]:
        """Tokenize user text; as `text_target`, with the vocabulary a decoder writes with."""
        given = {side: whole_characters(text)}
        return list(self.tokenizer(**given, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    @cached_property
    def _control(self) -> set[int]:
        """Return the tokens reserved to the chat template.

        A tokenizer may produce them although `split_special_tokens` is set: a unigram tokenizer such as T5's still maps
        the spelling "</s>" to the token, and tokens such as Qwen3's "</think>" belong to the template without being
        marked as special. The unknown token is allowed, unless it also begins or ends texts.
        """
        added = self.tokenizer.added_tokens_decoder
        written = {number for part in (self._around.before, self._around.after) for number in self._ids(part)}
        framing = {number for number in written if number in added and added[number].content.strip()}  # no newline
        framing |= {number for number, token in added.items() if _MARK.fullmatch(token.content)}
        framing |= {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        special = {number for number, token in added.items() if token.special}
        return (special - {self.tokenizer.unk_token_id}) | framing

    def _ends(self, text: str) -> list[int]:
        """Tokenize a text; if it is far longer than `max_tokens`, only its two ends, each with more than that.

        For a long text, tokenizing takes longer than the model, and each turn of a long conversation is tried. A
        truncated text keeps half of `max_tokens` at each end. Tokenizers work word by word, so far from the cut the
        tokens equal those of the whole text; only within a word of thousands of letters they may differ. Ends with too
        few tokens, such as runs of blanks that a tokenizer merges, are extended until they have enough.
        """
        room = _ROOM * self.max_tokens + 1000
        while 2 * room < len(text):
            head, tail = self.of_text(text[:room]), self.of_text(text[-room:])
            if min(len(head), len(tail)) > self.max_tokens:
                return head + tail
            room *= 4
        return self.of_text(text)

    @cached_property
    def prefix(self) -> list[int]:
        """Token ids before every utterance: instruction and options."""
        return self._ids(self.frame.before) + self.of_text(self.frame.opening)

    @cached_property
    def lead(self) -> list[int]:
        """Token ids at the start of utterances without context, provided that the tokenizer splits there."""
        return self.of_text(utterance_text(Utterance("")).rstrip())

    @cached_property
    def suffix(self) -> list[int]:
        """Token ids between every utterance and the answer."""
        is_open = self.family == "encoder-decoder" and not self._around.after
        return self._ids(self._around.after) + ([end_of_text(self.tokenizer)] if is_open else [])

    @cached_property
    def begin(self) -> list[int]:
        """Token ids between the start token of an encoder-decoder's decoder and the answer."""
        return self._ids(self._around.lead or "") if self.family == "encoder-decoder" else []

    @cached_property
    def answers(self) -> list[str]:
        """Return the answer for each label: its words, or a one-token code."""
        if not find_template(self.template).coded:
            return [label_words(label) for label in self.task.labels]
        pairs = map("".join, product(ascii_uppercase, repeat=2))
        codes = [code for code in (*ascii_uppercase, *pairs) if len(self._answer(code)) == 1]
        if len(codes) < len(self.task.labels):
            raise BadCodebook(
                Message(
                    "The backbone has {n} one-token codes, the codebook has {n2} labels.",
                    n=len(codes),
                    n2=len(self.task.labels),
                ),
                "Choose a template that answers with words.",
            )
        return codes[: len(self.task.labels)]

    @property
    def space(self) -> str:
        """The spaces before an answer that belong to its first token."""
        if self.family == "encoder-decoder":
            return ""
        if self._around.lead is not None:
            return self._around.lead
        after = self._around.after
        return " " if after and not after[-1].isspace() else ""

    def _answer(self, answer: str) -> list[int]:
        """Tokenize an answer as the template's rendering of it would be: behind the prompt.

        An answer that spells a special token stays text.
        """
        text = whole_characters(self.space + answer)
        if self.family == "encoder-decoder":
            return [number for number in self._spelled(text, "text_target") if number not in self._control]
        before, whole = self._ids(self._around.after), self._ids(self._around.after + text)
        behind = whole[len(before) :]
        if self._around.lead is None or whole[: len(before)] != before or self._control & set(behind):
            return self.of_text(text)
        return behind

    @cached_property
    def trie(self) -> LabelTrie:
        """The trie of all labels' token sequences. Raises BadCodebook."""
        check_words(self.task.labels)
        sequences = [self._answer(answer) for answer in self.answers]
        side = "text_target" if self.family == "encoder-decoder" else "text"
        for answer in self.answers:
            self._check_spelled(self.space + answer, side)
        if find_template(self.template).coded:  # the words are in the instruction alone
            for label in self.task.labels:
                self._check_spelled(label_words(label))
        return build_trie(sequences, self._around.end, [label.name for label in self.task.labels])

    def body(self, utterance: Utterance) -> list[int]:
        """Tokenize one utterance with its context and the suffix.

        Beyond `max_tokens`, the oldest turns are dropped first, then the middle of the utterance. Unpaired surrogates
        become U+FFFD.
        """
        for first in range(len(utterance.context) + 1):
            kept = Utterance(utterance.text, utterance.context[first:])
            ids = self._ends(utterance_text(kept))
            if len(ids) <= self.max_tokens:
                return ids + self.suffix
        half = self.max_tokens // 2
        return ids[: self.max_tokens - half] + ids[len(ids) - half :] + self.suffix

    def _check_spelled(self, words: str, side: str = "text") -> None:
        spelling = Spelling(lambda text: self._spelled(text, side), self.tokenizer.unk_token_id)
        if not spelling.covers(words) or self._control & set(self._spelled(words, side)):
            raise BadCodebook(
                Message("The backbone cannot spell “{answer}”.", answer=words.strip()),
                "In the codebook, give the label words made of plain letters.",
            )

    def spells(self, utterance: Utterance) -> bool:
        """Return whether the tokenizer writes all of an utterance; otherwise it equals other texts.

        It may not know a character, or leave out text that spells a special token.
        """
        text = utterance_text(utterance)
        has_marks = any(mark in text for mark in self._marks) and self._control & set(self._spelled(text))
        return not has_marks and self._spelling.covers(text)

    @cached_property
    def _spelling(self) -> Spelling:
        return Spelling(self._spelled, self.tokenizer.unk_token_id)

    @cached_property
    def _marks(self) -> list[str]:
        """Return the spellings of the tokens reserved to the chat template."""
        return [
            mark for mark in self.tokenizer.convert_ids_to_tokens([i for i in self._control if i is not None]) if mark
        ]

    def own_slice(self, utterance: Utterance, body: Sequence[int]) -> slice:
        """Return the slice of a body with the utterance's own tokens, without context and suffix."""
        end = len(body) - len(self.suffix)
        size = len(self._ends(utterance_text(Utterance(utterance.text)))) if utterance.context else end
        return slice(max(0, end - size), end)


def whole_characters(text: str) -> str:
    """Join surrogate pairs; unpaired ones become U+FFFD, as tokenizers do not accept them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
