"""The sentence the model reads: instruction and options first, the utterance last.

Everything that is the same for all utterances comes first, so that it can be computed once. Templates differ
in how they present the options; naming the options matters most, definitions help on tasks the model has
not seen (Chung et al. 2022, arXiv 2210.11416; Yin et al. 2023, arXiv 2306.01150).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from annotator.errors import UnknownName
from model.task import Task, Utterance
from model.verbalizer import label_words


@dataclass(frozen=True)
class Template:
    """A way to put a task into words. `name` is stored with each round, `shown` is for people."""

    name: str
    shown: str
    instruction: Callable[[Task], str]


def _with_definitions(task: Task) -> str:
    options = "\n".join(
        f"- {label_words(label)}: {label.definition}" if label.definition else f"- {label_words(label)}"
        for label in task.labels
    )
    return f"{task.instruction}\n\nOptions:\n{options}\n\nAnswer with one of the options only."


def _with_options(task: Task) -> str:
    options = ", ".join(label_words(label) for label in task.labels)
    return f"{task.instruction}\nOptions: {options}.\nAnswer with one of the options only."


TEMPLATES = {
    template.name: template
    for template in (
        Template("definitions", "Options with their definitions", _with_definitions),
        Template("options", "Options by name only", _with_options),
    )
}


def instruction_text(task: Task, template: str) -> str:
    """Say what is to be done and name the options: the part that all utterances share."""
    if template not in TEMPLATES:
        raise UnknownName.among("template", template, sorted(TEMPLATES))
    return TEMPLATES[template].instruction(task)


def utterance_text(utterance: Utterance) -> str:
    """Present one utterance with the turns before it, oldest first."""
    if not utterance.context:
        return f"Utterance: {utterance.text}"
    turns = "\n".join(utterance.context)
    return f"Conversation so far:\n{turns}\n\nUtterance: {utterance.text}"
