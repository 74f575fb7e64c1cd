"""Generate a reason for a label: constrained text of one free sentence followed by a label.

outlines runs the generation, and our logits processor determines the tokens allowed next. Labels come from the trie
that scores are computed on, not from a grammar of outlines: such grammars forbid or split tokens of a label, and can
make it unreachable (docs/decisions/0005-outlines-behind-our-own-trie.md).
"""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import outlines
import torch
from outlines.models import Transformers
from outlines.processors import OutlinesLogitsProcessor
from transformers import GenerationConfig

from annotator.errors import Message, UtteranceTooLong
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone
from model.prompts.prompt import REASON
from model.prompts.tokens import PromptTokens
from model.scoring.windows import read_windows
from model.types import Utterance

LONGEST = 60  # tokens of text: a sentence of some forty words
_SENTENCE = re.compile(r"(?:(?<!\d)(?<!\b\w)\.|[!?。！？])[\"'”’»)\]]*$")  # end of a sentence; not "3." or "e.g."

outlines.disable_cache()  # it creates a folder and unpickles what it finds there


@dataclass(frozen=True)
class Rationale:
    """A generated reason: a line of text, and the index of the label that follows it."""

    text: str
    label: int


def explain(classifier: LanguageModelClassifier, utterance: Utterance) -> Rationale:
    """Generate a reason and then a label with the untrained backbone, by greedy and therefore repeatable decoding.

    Removes the adapter that the classifier holds. Raises UtteranceTooLong.
    """
    classifier.zero_shot()
    backbone, frame = classifier.backbone, replace(classifier.tokens.frame, opening="")
    tokens = replace(classifier.tokens, template=REASON.name, fixed=frame)
    prompt, form = [*tokens.prefix, *tokens.body(utterance)], Form(tokens)
    _check_room(backbone, len(prompt) + form.longest)
    start = 1 if backbone.family == "encoder-decoder" else 0  # the decoder's start token
    host = Transformers(backbone.model, _Prepared(backbone.tokenizer, prompt))
    with _own_settings(backbone.model, form), torch.inference_mode():
        generated = outlines.Generator(host, processor=FormProcessor(form, start or len(prompt)))("")
    return form.read(generated[start:])


class Form:
    """The grammar of a rationale, in token ids: a line of text, the lead-in, a label, the end."""

    def __init__(self, tokens: PromptTokens) -> None:
        self.tokenizer = tokens.tokenizer
        self.trie = tokens.trie
        self.lead_in = _lead_in(tokens)
        self.end = int(self.tokenizer.eos_token_id)
        self.longest = LONGEST + len(self.lead_in) + int(self.trie.paths.sum(axis=1).max()) + 1

    def next(self, generated: Sequence[int]) -> list[int]:
        """Return the only tokens allowed next; empty while the text may continue."""
        text, answer = self._parts(generated)
        if not answer:
            over = len(text) >= LONGEST or _SENTENCE.search(self.spell(text).rstrip())
            return self.lead_in[:1] if over else []
        if len(answer) < len(self.lead_in):
            return [self.lead_in[len(answer)]]
        node, label = self.trie.walk(answer[len(self.lead_in) :])
        return [self.end] if label >= 0 else self.trie.edge_tokens[self.trie.edge_nodes == node].tolist()

    def text_tokens(self, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return two (width,) masks: tokens that a line of text may contain, and those of them that are visible."""
        barred = {*self.tokenizer.added_tokens_decoder, *self.tokenizer.all_special_ids, self.lead_in[0]}
        fit, seen = torch.zeros(width, dtype=torch.bool), torch.zeros(width, dtype=torch.bool)
        for number in range(min(width, len(self.tokenizer))):
            text = self.spell([number])
            fit[number] = number not in barred and len(f"{text}.".splitlines()) == 1
            seen[number] = fit[number] and bool(text.strip())
        return fit, seen

    def read(self, generated: Sequence[int]) -> Rationale:
        """Parse a complete generated sequence."""
        text, answer = self._parts(generated)
        _, label = self.trie.walk(answer[len(self.lead_in) :])
        words = self.spell(text)
        cut = len(text) >= LONGEST and not _SENTENCE.search(words.rstrip())
        return Rationale(_one_line(words) + " …" * cut, label)

    def spell(self, ids: Sequence[int]) -> str:
        """Decode tokens."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def _parts(self, generated: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Split where the lead-in begins: its first token is never part of the text."""
        cut = next((place for place, token in enumerate(generated) if token == self.lead_in[0]), len(generated))
        return generated[:cut], generated[cut:]


class FormProcessor(OutlinesLogitsProcessor):  # type: ignore[misc]
    """Masks all tokens that the form does not allow. For one utterance at a time."""

    def __init__(self, form: Form, start: int) -> None:
        super().__init__("torch")
        self.form = form
        self.start = start  # number of ids before the generated ones
        self._text: tuple[torch.Tensor, torch.Tensor] | None = None

    def process_logits(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Mask (1, vocabulary) logits after (1, tokens) ids."""
        generated = input_ids[0, self.start :].tolist()
        # An allowed token stays possible, even if another processor or an overflow has made its logit -inf or NaN.
        lowest = torch.finfo(logits.dtype).min
        logits = torch.nan_to_num(logits, nan=lowest, neginf=lowest)
        allowed = torch.zeros_like(logits[0], dtype=torch.bool)
        if only := self.form.next(generated):
            allowed[only] = True
        else:
            fit, seen = self._text_tokens(logits)
            blank = not self.form.spell(generated).strip()
            allowed |= seen if blank else fit
            if not blank:  # the logit of a line break or end token counts as that of ending
                logits[0, self.form.lead_in[0]] = logits[0, ~fit].max()
                allowed[self.form.lead_in[0]] = True
        return logits.masked_fill(~allowed, -torch.inf)

    def _text_tokens(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._text is None:
            fit, seen = self.form.text_tokens(logits.shape[-1])
            self._text = fit.to(logits.device), seen.to(logits.device)
        return self._text


class _Prepared:
    """A copy of a tokenizer that outlines may change, with one prompt as ids; it returns ids in place of text.

    outlines itself takes text. It would turn special tokens spelled in an utterance into real ones, and apply the chat
    template a second time.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._copy = copy.deepcopy(tokenizer)
        self._copy.chat_template = None
        self._prompt = torch.tensor([list(prompt)])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._copy, name)

    def __call__(self, text: str, **_: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": self._prompt, "attention_mask": torch.ones_like(self._prompt)}

    def batch_decode(self, rows: Sequence[torch.Tensor], **_: Any) -> list[list[int]]:
        """Return the ids."""
        return [row.tolist() for row in rows]


@contextmanager
def _own_settings(model: Any, form: Form) -> Iterator[None]:
    """Replace the generation settings of the checkpoint, which may sample, penalize or force tokens."""
    before = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=form.longest,
        eos_token_id=form.end,
        pad_token_id=form.end,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    try:
        yield
    finally:
        model.generation_config = before


def _lead_in(tokens: PromptTokens) -> list[int]:
    """Return the tokens between text and label, chosen so that label tokens are as after a prompt."""
    words = "\nAnswer:" if tokens.space else "\nAnswer:\n"
    if tokens.family == "encoder-decoder":
        words = "Answer:"  # its tokenizer has no line breaks, and its labels begin with a space
    return list(tokens.tokenizer(words, add_special_tokens=False)["input_ids"])


def _one_line(text: str) -> str:
    """Collapse white space, including rare line breaks generated byte by byte, and drop control characters."""
    joined = " ".join(text.rstrip("\ufffd").split())
    return "".join(character for character in joined if unicodedata.category(character) != "Cc")


def _check_room(backbone: Backbone, needed: int) -> None:
    limit = read_windows(backbone.model.config).longest
    if limit and needed > limit:
        raise UtteranceTooLong(
            Message(
                "Instruction, utterance and reason take {needed} tokens; {name} reads {limit}.",
                needed=needed,
                name=backbone.name,
                limit=limit,
            ),
            "Lower max_tokens, or shorten the definitions.",
        )
