"""What may be said when a person asks why: one sentence in the backbone's own words, a label, and nothing else.

outlines runs the generation, and a processor of ours says what may come next. Labels come from the trie that scores
are computed on, not from a grammar of outlines: those forbid or split tokens that a label is made of, and can put a
label out of reach (docs/decisions/0005-outlines-behind-our-own-trie.md).
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

from annotator.errors import UtteranceTooLong
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone
from model.prompts.prompt import REASON
from model.prompts.tokens import PromptTokens
from model.scoring.windows import read_windows
from model.types import Utterance

LONGEST = 60  # tokens of text: a sentence of some forty words
_SENTENCE = re.compile(r"(?:(?<!\d)(?<!\b\w)\.|[!?。！？])[\"'”’»)\]]*$")  # has ended; not at "3." or "e.g."

outlines.disable_cache()  # it unpickles what it finds in a folder, and would make one


@dataclass(frozen=True)
class Rationale:
    """What a backbone says: a line of text, and the index of the label it goes on to answer with."""

    text: str
    label: int


def explain(classifier: LanguageModelClassifier, utterance: Utterance) -> Rationale:
    """Let the bare backbone give a reason and then a label: the likeliest token each time, so always the same.

    Takes off whatever adapter the classifier holds. Raises UtteranceTooLong.
    """
    classifier.zero_shot()
    backbone, frame = classifier.backbone, replace(classifier.tokens.frame, opening="")
    tokens = replace(classifier.tokens, template=REASON.name, fixed=frame)
    prompt, form = [*tokens.prefix, *tokens.body(utterance)], Form(tokens)
    _check_room(backbone, len(prompt) + form.longest)
    begun = 1 if backbone.family == "encoder-decoder" else 0  # the token its decoder starts from
    host = Transformers(backbone.model, _Prepared(backbone.tokenizer, prompt))
    with _own_settings(backbone.model, form), torch.inference_mode():
        said = outlines.Generator(host, processor=FormProcessor(form, begun or len(prompt)))("")
    return form.read(said[begun:])


class Form:
    """What a rationale is made of, as token ids: a line of text, the lead-in, a label, the end."""

    def __init__(self, tokens: PromptTokens) -> None:
        self.tokenizer = tokens.tokenizer
        self.trie = tokens.trie
        self.lead_in = _lead_in(tokens)
        self.end = int(self.tokenizer.eos_token_id)
        self.longest = LONGEST + len(self.lead_in) + int(self.trie.paths.sum(axis=1).max()) + 1

    def next(self, said: Sequence[int]) -> list[int]:
        """List the only tokens that may follow what has been said; none while the text may go on."""
        text, answer = self._parts(said)
        if not answer:
            over = len(text) >= LONGEST or _SENTENCE.search(self.spell(text).rstrip())
            return self.lead_in[:1] if over else []
        if len(answer) < len(self.lead_in):
            return [self.lead_in[len(answer)]]
        node, label = self.trie.walk(answer[len(self.lead_in) :])
        return [self.end] if label >= 0 else self.trie.edge_tokens[self.trie.edge_nodes == node].tolist()

    def text_tokens(self, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mark, (width,) each, the tokens that a line of text may hold, and those among them that can be seen."""
        barred = {*self.tokenizer.added_tokens_decoder, *self.tokenizer.all_special_ids, self.lead_in[0]}
        fit, seen = torch.zeros(width, dtype=torch.bool), torch.zeros(width, dtype=torch.bool)
        for number in range(min(width, len(self.tokenizer))):
            text = self.spell([number])
            fit[number] = number not in barred and len(f"{text}.".splitlines()) == 1
            seen[number] = fit[number] and bool(text.strip())
        return fit, seen

    def read(self, said: Sequence[int]) -> Rationale:
        """Read what has been said from beginning to end."""
        text, answer = self._parts(said)
        _, label = self.trie.walk(answer[len(self.lead_in) :])
        words = self.spell(text)
        cut = len(text) >= LONGEST and not _SENTENCE.search(words.rstrip())
        return Rationale(_one_line(words) + " …" * cut, label)

    def spell(self, ids: Sequence[int]) -> str:
        """Write out tokens."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def _parts(self, said: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Cut where the lead-in begins: its first token is never part of the text."""
        cut = next((place for place, token in enumerate(said) if token == self.lead_in[0]), len(said))
        return said[:cut], said[cut:]


class FormProcessor(OutlinesLogitsProcessor):  # type: ignore[misc]
    """Leaves only those tokens possible that the form allows. For one utterance at a time."""

    def __init__(self, form: Form, begun: int) -> None:
        super().__init__("torch")
        self.form = form
        self.begun = begun  # ids that stand there before anything is said
        self._text: tuple[torch.Tensor, torch.Tensor] | None = None

    def process_logits(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Bar everything else: (1, vocabulary) logits after (1, tokens) ids."""
        said = input_ids[0, self.begun :].tolist()
        # A token that is allowed stays possible, whatever another processor or an overflow has made of it.
        lowest = torch.finfo(logits.dtype).min
        logits = torch.nan_to_num(logits, nan=lowest, neginf=lowest)
        allowed = torch.zeros_like(logits[0], dtype=torch.bool)
        if only := self.form.next(said):
            allowed[only] = True
        else:
            fit, seen = self._text_tokens(logits)
            blank = not self.form.spell(said).strip()
            allowed |= seen if blank else fit
            if not blank:  # wanting anything that is no text, such as a new line or the end, is wanting to end
                logits[0, self.form.lead_in[0]] = logits[0, ~fit].max()
                allowed[self.form.lead_in[0]] = True
        return logits.masked_fill(~allowed, -torch.inf)

    def _text_tokens(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._text is None:
            fit, seen = self.form.text_tokens(logits.shape[-1])
            self._text = fit.to(logits.device), seen.to(logits.device)
        return self._text


class _Prepared:
    """A copy of a tokenizer, for outlines to change, that reads one prompt as ids and gives back ids.

    outlines itself takes text. It would make special tokens of what an utterance spells, and put a second chat
    template around a prompt that has one.
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
        """Give back the ids."""
        return [row.tolist() for row in rows]


@contextmanager
def _own_settings(model: Any, form: Form) -> Iterator[None]:
    """Generate with these settings alone: those that come with a checkpoint may sample, penalise or force tokens."""
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
    """Return what comes between text and label, so that a label's tokens follow as they do after a prompt."""
    words = "\nAnswer:\n" if tokens.tokenizer.decode(tokens.suffix)[-1:].isspace() else "\nAnswer:"
    if tokens.family == "encoder-decoder":
        words = "Answer:"  # its tokenizer knows no line breaks, and its labels bring their own space
    return list(tokens.tokenizer(words, add_special_tokens=False)["input_ids"])


def _one_line(text: str) -> str:
    """Join what may have come out in pieces, such as the bytes of a rare line break, and drop control characters."""
    joined = " ".join(text.rstrip("\ufffd").split())
    return "".join(character for character in joined if unicodedata.category(character) != "Cc")


def _check_room(backbone: Backbone, needed: int) -> None:
    limit = read_windows(backbone.model.config).longest
    if limit and needed > limit:
        raise UtteranceTooLong(
            f"Instruction, utterance and reason take {needed} tokens, {backbone.name} reads {limit}.",
            "Lower max_tokens, or shorten the definitions.",
        )
