"""From words to token ids: the shared prefix, one utterance, and what may be answered.

The pieces are tokenised apart and joined as ids. That keeps the prefix the same for all utterances, and it
means that nothing inside an utterance or a codebook can ever become a special token: those exist only in
the pieces that come from the chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from string import ascii_uppercase
from typing import Any

from annotator.errors import BadCodebook
from model.backbones.catalog import Family
from model.prompts.chat import end_of_text, frame_of
from model.prompts.prompt import find_template, utterance_text
from model.prompts.verbalizer import LabelTrie, build_trie, check_words, label_words
from model.types import Frame, Task, Utterance

_ROOM = 16  # characters a token that are looked at first: written text has some four, few tokens are longer


@dataclass(frozen=True)
class PromptTokens:
    """All token ids of a task for one tokenizer: `prefix` + body(utterance) + `suffix` + a label's ids."""

    tokenizer: Any
    family: Family
    task: Task
    template: str
    max_tokens: int
    fixed: Frame | None = None  # what a round was trained with; none: rendered from the chat template

    @cached_property
    def frame(self) -> Frame:
        """What stands around every utterance: as it was fixed when the round was trained, else as it is written now."""
        if self.fixed and self.fixed.opening:
            return self.fixed
        return replace(self._around, opening=f"{find_template(self.template).instruction(self.task, self.answers)}\n\n")

    @cached_property
    def _around(self) -> Frame:
        """The frame without the instruction, which cannot be written before it is known how labels are answered."""
        return self.fixed or frame_of(self.tokenizer, self.family)

    def _ids(self, text: str) -> list[int]:
        """Tokenise what the chat template writes, special tokens included."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _literal(self, text: str) -> list[int]:
        """Tokenise what a person writes: every character literally, also those that spell a special token."""
        return [number for number in self._spelled(text) if number not in self._control]

    def _spelled(self, text: str) -> list[int]:
        sound = whole_characters(text)
        return list(self.tokenizer(sound, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    @cached_property
    def _control(self) -> set[int]:
        """List the tokens that only the chat template may write.

        Some get through a tokenizer that is told to split them: a unigram tokenizer such as T5's makes "</s>" of its
        spelling all the same, and tokens such as Qwen3's "</think>" are part of the template without counting as
        special. The token for what cannot be spelled may stay, unless it is what begins or ends a text as well.
        """
        added = self.tokenizer.added_tokens_decoder
        written = {number for part in (self._around.before, self._around.after) for number in self._ids(part)}
        framing = {number for number in written if number in added and added[number].content.strip()}  # no newline
        framing |= {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        special = {number for number, token in added.items() if token.special}
        return (special - {self.tokenizer.unk_token_id}) | framing

    def _ends(self, text: str) -> list[int]:
        """Tokenise a text whole, or if it is far over `max_tokens` only its two ends, each with more than that.

        Tokenising takes longer than the model does where a text is long, and each turn of a long conversation is
        tried. What is kept of a cut text lies near its ends, half of `max_tokens` at each; tokenizers work word by
        word, so that far from the cut the same tokens come out as of the whole. Where they do not, within one word
        of thousands of letters, the kept end may be divided differently. Ends with few tokens, such as blanks that
        a tokenizer joins, are widened until they have enough.
        """
        room = _ROOM * self.max_tokens + 1000
        while 2 * room < len(text):
            head, tail = self._literal(text[:room]), self._literal(text[-room:])
            if min(len(head), len(tail)) > self.max_tokens:
                return head + tail
            room *= 4
        return self._literal(text)

    @cached_property
    def prefix(self) -> list[int]:
        """What comes before every utterance: instruction and options."""
        return self._ids(self.frame.before) + self._literal(self.frame.opening)

    @cached_property
    def lead(self) -> list[int]:
        """What an utterance without turns before it begins with, if its tokenizer divides it there."""
        return self._literal(utterance_text(Utterance("")).rstrip())

    @cached_property
    def suffix(self) -> list[int]:
        """What comes after every utterance and leads to the answer."""
        ending = [end_of_text(self.tokenizer)] if self.family == "encoder-decoder" else []
        return self._ids(self._around.after) + ending

    @cached_property
    def answers(self) -> list[str]:
        """List what the model says for each label: its words, or a code of one token."""
        if not find_template(self.template).coded:
            return [label_words(label) for label in self.task.labels]
        pairs = map("".join, product(ascii_uppercase, repeat=2))
        codes = [code for code in (*ascii_uppercase, *pairs) if len(self._literal(self._lead + code)) == 1]
        if len(codes) < len(self.task.labels):
            raise BadCodebook(
                f"The backbone has {len(codes)} codes of one token, the codebook {len(self.task.labels)} labels.",
                "Choose a template that answers with words.",
            )
        return codes[: len(self.task.labels)]

    @property
    def _lead(self) -> str:
        """Return the space an answer starts with after “Answer:”, none where a line has just begun."""
        after = self._around.after
        return " " if after and not after[-1].isspace() else ""

    @cached_property
    def trie(self) -> LabelTrie:
        """The token sequences of all labels."""
        check_words(self.task.labels)
        sequences = [self._literal(self._lead + answer) for answer in self.answers]
        for answer in self.answers:
            if self.tokenizer.unk_token_id in self._spelled(self._lead + answer):
                raise BadCodebook(
                    f"The backbone cannot spell “{answer}”.",
                    "Give the label words of plain letters in the codebook.",
                )
        return build_trie(sequences, self._around.end, [label.name for label in self.task.labels])

    def body(self, utterance: Utterance) -> list[int]:
        """Tokenise one utterance with its context and the suffix.

        What is over `max_tokens` is cut: first the oldest turns, then the middle of the utterance itself. Halves of
        surrogate pairs become U+FFFD.
        """
        for first in range(len(utterance.context) + 1):
            kept = Utterance(utterance.text, utterance.context[first:])
            ids = self._ends(utterance_text(kept))
            if len(ids) <= self.max_tokens:
                return ids + self.suffix
        half = self.max_tokens // 2
        return ids[: self.max_tokens - half] + ids[len(ids) - half :] + self.suffix

    def own_slice(self, utterance: Utterance, body: Sequence[int]) -> slice:
        """Say which tokens of its body are the utterance's own: no context, no suffix."""
        end = len(body) - len(self.suffix)
        size = len(self._ends(utterance_text(Utterance(utterance.text)))) if utterance.context else end
        return slice(max(0, end - size), end)


def whole_characters(text: str) -> str:
    """Join the halves of surrogate pairs; one that is alone becomes U+FFFD, since nothing that reads text takes it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
