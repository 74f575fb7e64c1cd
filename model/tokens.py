"""From words to token ids: the shared prefix, one utterance, and what may be answered.

The pieces are tokenised apart and joined as ids. That keeps the prefix the same for all utterances, and it
means that nothing inside an utterance or a codebook can ever become a special token: those exist only in
the pieces that come from the chat template.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from annotator.errors import BadCodebook
from model.catalog import Family
from model.prompt import instruction_text, utterance_text
from model.task import Task, Utterance
from model.verbalizer import LabelTrie, build_trie, check_words, label_words

_GAP = "\ue000utterance\ue000"  # private-use characters: no instruction contains them


@dataclass(frozen=True)
class PromptTokens:
    """All token ids of a task for one tokenizer: `prefix` + body(utterance) + `suffix` + a label's ids."""

    tokenizer: Any
    family: Family
    task: Task
    template: str
    max_tokens: int

    @cached_property
    def _frame(self) -> tuple[str, str, int]:
        """Return what the template puts before a message, what after it, and the token that ends an answer."""
        if self.family == "encoder-decoder":
            return "", "", int(self.tokenizer.eos_token_id)
        if not self.tokenizer.chat_template:
            return self.tokenizer.bos_token or "", "\nAnswer:", int(self.tokenizer.eos_token_id)
        before, after = self._render([{"role": "user", "content": _GAP}], ask=True).split(_GAP)
        turns = [{"role": "user", "content": "."}, {"role": "assistant", "content": _GAP}]
        ending = self._ids(self._render(turns, ask=False).split(_GAP)[1])
        return before, after, ending[0] if ending else int(self.tokenizer.eos_token_id)

    def _render(self, turns: list[dict[str, str]], ask: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask, enable_thinking=False)
        )

    def _ids(self, text: str, plain: bool = False) -> list[int]:
        """Tokenise; `plain` takes every character literally, also those that spell a special token."""
        ids = list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"])
        return [number for number in ids if number not in self._special] if plain else ids

    @cached_property
    def _special(self) -> set[int]:
        """List what a unigram tokenizer such as T5's makes of "</s>" even when told to split it."""
        special = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return special - {self.tokenizer.unk_token_id}

    @cached_property
    def prefix(self) -> list[int]:
        """What comes before every utterance: instruction and options."""
        opening = f"{instruction_text(self.task, self.template)}\n\n"
        return self._ids(self._frame[0]) + self._ids(opening, plain=True)

    @cached_property
    def suffix(self) -> list[int]:
        """What comes after every utterance and leads to the answer."""
        ending = [int(self.tokenizer.eos_token_id)] if self.family == "encoder-decoder" else []
        return self._ids(self._frame[1]) + ending

    @cached_property
    def trie(self) -> LabelTrie:
        """The token sequences of all labels."""
        check_words(self.task.labels)
        # After "…assistant\n" an answer starts bare; after "Answer:" it starts with a space.
        lead = " " if self._frame[1] and not self._frame[1][-1].isspace() else ""
        sequences = [self._ids(lead + label_words(label), plain=True) for label in self.task.labels]
        for label, ids in zip(self.task.labels, sequences, strict=True):
            if self.tokenizer.unk_token_id in ids:
                raise BadCodebook(
                    f"The backbone cannot spell “{label_words(label)}”.",
                    "Give the label words of plain letters in the codebook.",
                )
        return build_trie(sequences, self._frame[2], [label.name for label in self.task.labels])

    def body(self, utterance: Utterance) -> list[int]:
        """Tokenise one utterance with its context and the suffix.

        What is over `max_tokens` is cut: first the oldest turns, then the middle of the utterance itself.
        """
        for first in range(len(utterance.context) + 1):
            kept = Utterance(utterance.text, utterance.context[first:])
            ids = self._ids(utterance_text(kept), plain=True)
            if len(ids) <= self.max_tokens:
                return ids + self.suffix
        half = self.max_tokens // 2
        return ids[: self.max_tokens - half] + ids[len(ids) - half :] + self.suffix
