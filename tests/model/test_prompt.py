"""Every template says what is to be done and names every option."""

from __future__ import annotations

import pytest

from annotator.errors import UnknownName
from model.prompt import TEMPLATES, instruction_text, utterance_text
from model.task import Label, Task, Utterance

TASK = Task(
    "Decide what the customer wants.",
    (Label("refund_request", "Asks for money back."), Label("joy"), Label("x1", words="late parcel")),
)


@pytest.mark.parametrize("template", list(TEMPLATES))
def test_every_template_holds_the_instruction_and_every_option_in_order(template: str) -> None:
    text = instruction_text(TASK, template)
    places = [text.index(part) for part in (TASK.instruction, "refund request", "joy", "late parcel")]
    assert places == sorted(places)


@pytest.mark.parametrize("template", list(TEMPLATES))
def test_every_template_is_registered_under_its_name_and_shown_to_people(template: str) -> None:
    assert TEMPLATES[template].name == template
    assert TEMPLATES[template].shown


def test_only_the_template_with_definitions_gives_them() -> None:
    assert "Asks for money back." in instruction_text(TASK, "definitions")
    assert "Asks for money back." not in instruction_text(TASK, "options")


def test_an_unknown_template_is_refused_with_a_list_of_those_known() -> None:
    with pytest.raises(UnknownName, match="“poem”") as caught:
        instruction_text(TASK, "poem")
    assert all(name in caught.value.hint for name in TEMPLATES)


def test_turns_come_before_the_utterance_oldest_first() -> None:
    text = utterance_text(Utterance("third", ("a: first", "b: second")))
    assert text.index("a: first") < text.index("b: second") < text.index("third")


def test_an_utterance_without_turns_stands_alone() -> None:
    assert utterance_text(Utterance("hello")) == "Utterance: hello"
