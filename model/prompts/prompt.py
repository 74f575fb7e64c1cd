"""Compose the prompt: instruction and options first, the utterance last.

The part shared by all utterances comes first, so that it can be computed once. Templates differ in how they present
the options; naming the options matters most, definitions help on tasks the model has not seen (Chung et al. 2022,
arXiv 2210.11416; Yin et al. 2023, arXiv 2306.01150).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from annotator.errors import UnknownName
from model.prompts.verbalizer import label_words
from model.types import Group, Label, Task, Utterance

LARGE = 20  # number of labels from which codes are worthwhile
INDENT = "  "  # of the options below the heading of their group


@dataclass(frozen=True)
class Template:
    """A prompt template. `name` is stored with each round, `shown` is displayed.

    With `coded`, the model answers with a one-token code for each label instead of its words.
    """

    name: str
    shown: str
    instruction: Callable[[Task, Sequence[str]], str]
    coded: bool = False


def _walk(task: Task, options: Sequence[str]) -> Iterator[tuple[Label, str, int, int]]:
    """Yield each label with its option, the number of groups that end before it, and that of groups it is in still."""
    above: tuple[Group, ...] = ()
    for label, option in zip(task.labels, options, strict=True):
        kept = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(above, label.groups, strict=False))))
        yield label, option, len(above) - kept, kept
        above = label.groups


def _lines(task: Task, options: Sequence[str]) -> str:
    """Return one line for each option, indented below the headings of its groups. A flat list has neither."""
    lines = []
    for label, option, _, kept in _walk(task, options):
        for depth, group in enumerate(label.groups[kept:], start=kept):
            lines.append(f"{INDENT * depth}{group.name}: {group.definition}".rstrip())
        lines.append(INDENT * len(label.groups) + (f"{option}: {label.definition}" if label.definition else option))
    return "\n".join(lines)


def _named(task: Task, answers: Sequence[str]) -> str:
    """Return the options in one line, those of a group in parentheses behind its name."""
    text = ""
    for label, answer, ended, kept in _walk(task, answers):
        text += ")" * ended + (", " if text else "")
        text += "".join(f"{group.name} (" for group in label.groups[kept:]) + answer
    return text + ")" * len(task.labels[-1].groups)


def _listed(task: Task, answers: Sequence[str]) -> str:
    return f"{task.instruction}\n\nOptions:\n{_lines(task, [f'- {answer}' for answer in answers])}"


def _with_definitions(task: Task, answers: Sequence[str]) -> str:
    return f"{_listed(task, answers)}\n\nAnswer with one of the options only."


def _with_reason(task: Task, answers: Sequence[str]) -> str:
    # Asked for reasons, small models repeat the definitions; asked what the speaker does, they describe it.
    request = "Say in one short sentence what the speaker does, then answer with the option that fits."
    return f"{_listed(task, answers)}\n\n{request}"


def _with_options(task: Task, answers: Sequence[str]) -> str:
    return f"{task.instruction}\nOptions: {_named(task, answers)}.\nAnswer with one of the options only."


def _with_codes(task: Task, answers: Sequence[str]) -> str:
    options = [f"{answer}) {label_words(label)}" for label, answer in zip(task.labels, answers, strict=True)]
    return f"{task.instruction}\n\nOptions:\n{_lines(task, options)}\n\nAnswer with the code of one option only."


TEMPLATES = {
    template.name: template
    for template in (
        Template("definitions", "Options with their definitions", _with_definitions),
        Template("options", "Options by name only", _with_options),
        Template("codes", "Options with codes to answer with: quicker for large codebooks", _with_codes, coded=True),
    )
}

# Not offered as a choice: in a round, nothing precedes the label.
REASON = Template("reason", "A sentence of reason, then the option", _with_reason)


def find_template(name: str) -> Template:
    """Look up a template. Raises UnknownName."""
    known = TEMPLATES | {REASON.name: REASON}
    if name not in known:
        raise UnknownName.among("template", name, sorted(TEMPLATES))
    return known[name]


def utterance_text(utterance: Utterance) -> str:
    """Format an utterance with the turns before it, oldest first."""
    if not utterance.context:
        return f"Utterance: {utterance.text}"
    turns = "\n".join(utterance.context)
    return f"Conversation so far:\n{turns}\n\nUtterance: {utterance.text}"
