"""Render the chat template around a message, independent of date and process.

Templates may use today's date or random numbers. Both are fixed here, so a prompt depends only on the template. Prompts
of rounds older than this rule also depend on the day they were made.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import Any

from jinja2 import TemplateError
from transformers.utils import chat_template_utils

from annotator.errors import BackboneRefused, Message
from model.backbones.catalog import Family
from model.types import Frame

DAY = date(2024, 7, 26)  # the default date of the Llama 3 template
_IN_ENGLISH = {  # strftime codes that depend on locale or time zone, as of that day
    "%A": "Friday", "%a": "Fri", "%B": "July", "%b": "Jul", "%h": "Jul", "%p": "AM", "%P": "am", "%s": "1721952000",
    "%c": "Fri Jul 26 00:00:00 2024", "%x": "07/26/24", "%X": "00:00:00", "%r": "12:00:00 AM", "%Z": "", "%z": "",
}  # fmt: skip
# Stands for a message, in private-use characters; long and varied, so that a template that rewrites messages alters it.
_GAP = "\ue000" + "Über <b>“this”</b> & 'THAT':  {x}\n\t" * 300 + "\ue000"
_FAILURES = (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
_ANSWER = "\ue000answer\ue000"
_SHOWN = 200  # characters of an error of the template
# In brackets, as in <think>, [THINK], ◁think▷, <seed:think>, <|START_THINKING|>, <|begin_of_thought|>
_THINKING = re.compile(
    r"([<\[◁]\|?)((?:\w+:|start_|begin_of_)?(?:think|thinking|thought|reason|reasoning))(\|?[>\]▷])", re.IGNORECASE
)
_OPENED_LAST = re.compile(r"([<\[])([a-z][\w:-]*)([>\]])\s*$", re.IGNORECASE)


def frame_of(tokenizer: Any, family: Family) -> Frame:
    """Render the chat template of a backbone around a message and its answer.

    The answer stands where the template puts one, behind any channel or closed thinking. A tokenizer for an
    encoder-decoder frames texts itself. Raises BackboneRefused if the template or the tokenizer cannot be used.
    """
    if family == "encoder-decoder":
        before, after = _special_around(tokenizer, "text")
        return Frame(before, after, end_of_text(tokenizer), lead=_special_around(tokenizer, "text_target")[0])
    former = former_frame(tokenizer, family)
    if not tokenizer.chat_template:
        return replace(former, lead=" ")
    turns = [{"role": "user", "content": _GAP}, {"role": "assistant", "content": _ANSWER}]
    answered = _around(tokenizer, turns, False, DAY)[1].partition(_ANSWER)[0]
    after = answered if answered.startswith(former.after) else former.after
    opened = _OPENED_LAST.search(after)  # whatever its name, if answers do not stand behind it
    after = _without_thinking(after, _OPENED_LAST if opened and opened[0].strip() not in answered else _THINKING)
    return replace(former, after=after.rstrip(" "), lead=after[len(after.rstrip(" ")) :])


def former_frame(tokenizer: Any, family: Family, day: date = DAY) -> Frame:
    """Render the frame of earlier versions: the template up to where the backbone begins to generate."""
    if family == "encoder-decoder":
        return Frame("", "", end_of_text(tokenizer))
    if not tokenizer.chat_template:
        return Frame(tokenizer.bos_token or "", "\nAnswer:", end_of_text(tokenizer))
    before, after = _around(tokenizer, [{"role": "user", "content": _GAP}], True, day)
    turns = [{"role": "user", "content": "."}, {"role": "assistant", "content": _GAP}]
    ending = tokenizer(_around(tokenizer, turns, False, day)[1], add_special_tokens=False)["input_ids"]
    return Frame(before, after, int(ending[0]) if ending else end_of_text(tokenizer))


def _without_thinking(text: str, tag: re.Pattern[str] = _THINKING) -> str:
    """Close thinking that a text opens last, so that the answer does not stand inside it."""
    opened = list(tag.finditer(text))
    if not opened:
        return text
    begin, name, end = opened[-1].groups()
    named = re.sub("^(start|begin)", lambda word: "END" if word[0].isupper() else "end", name, flags=re.IGNORECASE)
    closing = f"{begin}{'/' if named == name else ''}{named}{end}"
    return text if closing in text[opened[-1].end() :] else f"{text.rstrip()}\n\n{closing}\n\n"


def _special_around(tokenizer: Any, side: str) -> tuple[str, str]:
    """Return the special tokens that a tokenizer writes before and after a text; `side` is its argument's name."""
    try:
        framed, bare = (list(tokenizer(**{side: "a", "add_special_tokens": own})["input_ids"]) for own in (True, False))
    except _FAILURES as error:
        raise BackboneRefused(
            Message(
                "The tokenizer of this backbone cannot frame a text ({reason}).",
                reason=f"{type(error).__name__}: {error}",
            ),
            "Set its languages in tokenizer_config.json (src_lang and tgt_lang), or choose another backbone.",
        ) from error
    place = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
    parts = framed[:place], framed[place + len(bare) :]
    before, after = ("".join(tokenizer.convert_ids_to_tokens(part)) for part in parts)
    return before, after


def end_of_text(tokenizer: Any) -> int:
    """Return the token that ends a text. Raises BackboneRefused if the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise BackboneRefused(
            "The tokenizer of this backbone has no end-of-text token.",
            "Set eos_token in its tokenizer_config.json, or choose another backbone.",
        )
    return int(tokenizer.eos_token_id)


def _around(tokenizer: Any, turns: list[dict[str, str]], ask: bool, day: date) -> tuple[str, str]:
    """Return the text before and after the gap. Some templates take text, others a list of parts."""
    in_parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    reason = "it does not write the message exactly once and as it is"
    for chat in (turns, in_parts):
        try:
            pieces = _render(tokenizer, chat, ask, day).split(_GAP)
        except _FAILURES as error:
            reason = f"{type(error).__name__}: {str(error)[:_SHOWN]}"
            continue
        if len(pieces) == 2:
            return pieces[0], pieces[1]
    raise BackboneRefused(
        Message("The chat template of this backbone cannot be used ({reason}).", reason=reason),
        "Fix the template next to its weights, or choose another backbone.",
    )


def _render(tokenizer: Any, chat: list[Any], ask: bool, day: date) -> str:
    compiled = chat_template_utils._compile_jinja_template(tokenizer.get_chat_template())
    compiled.globals["strftime_now"] = lambda form: _format_date(day, form)
    with _seeded():
        rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=ask, enable_thinking=False)
    if re.search(r" at 0x[0-9a-f]+>", rendered):
        raise ValueError("it writes the address of an object, which differs each time")
    return str(rendered)


def _format_date(day: date, form: str) -> str:
    if day != DAY:
        return day.strftime(form)
    return DAY.strftime(re.sub(r"%.", lambda code: _IN_ENGLISH.get(code[0], code[0]), form))


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed the random numbers of a template, and restore the generator."""
    before = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)
