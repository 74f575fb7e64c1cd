"""Compose the prompt: instruction and options first, the utterance last.

The part shared by all utterances comes first, so that it can be computed once. Templates differ in how they present
the options; naming the options matters most, definitions help on tasks the model has not seen (Chung et al. 2022,
arXiv 2210.11416; Yin et al. 2023, arXiv 2306.01150).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from annotator.errors import UnknownName
from model.prompts.verbalizer import label_words
from model.types import Task, Utterance

LARGE = 20  # number of labels from which codes are worthwhile


@dataclass(frozen=True)
class Template:
    """A prompt template. `name` is stored with each round, `shown` is displayed.

    With `coded`, the model answers with a one-token code for each label instead of its words.
    """

    name: str
    shown: str
    instruction: Callable[[Task, Sequence[str]], str]
    coded: bool = False


def _listed(task: Task, answers: Sequence[str]) -> str:
    options = "\n".join(
        f"- {answer}: {label.definition}" if label.definition else f"- {answer}"
        for label, answer in zip(task.labels, answers, strict=True)
    )
    return f"{task.instruction}\n\nOptions:\n{options}"


def _with_definitions(task: Task, answers: Sequence[str]) -> str:
    return f"{_listed(task, answers)}\n\nAnswer with one of the options only."


def _with_reason(task: Task, answers: Sequence[str]) -> str:
    # Asked for reasons, small models repeat the definitions; asked what the speaker does, they describe it.
    request = "Say in one short sentence what the speaker does, then answer with the option that fits."
    return f"{_listed(task, answers)}\n\n{request}"


def _with_options(task: Task, answers: Sequence[str]) -> str:
    return f"{task.instruction}\nOptions: {', '.join(answers)}.\nAnswer with one of the options only."


def _with_codes(task: Task, answers: Sequence[str]) -> str:
    options = "\n".join(
        f"{answer}) {label_words(label)}" + (f": {label.definition}" if label.definition else "")
        for label, answer in zip(task.labels, answers, strict=True)
    )
    return f"{task.instruction}\n\nOptions:\n{options}\n\nAnswer with the code of one option only."


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
