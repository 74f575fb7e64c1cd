"""Every template contains the instruction and every option."""

from __future__ import annotations

import pytest

from annotator.errors import UnknownName
from model.prompts.prompt import TEMPLATES, find_template, utterance_text
from model.prompts.verbalizer import label_words
from model.types import Label, Task, Utterance

TASK = Task(
    "Decide what the customer wants.",
    (Label("refund_request", "Asks for money back."), Label("joy"), Label("x1", words="late parcel")),
)
ANSWERS = [label_words(label) for label in TASK.labels]


@pytest.mark.parametrize("template", list(TEMPLATES))
def test_every_template_holds_the_instruction_and_every_option_in_order(template: str) -> None:
    text = TEMPLATES[template].instruction(TASK, ANSWERS)
    places = [text.index(part) for part in (TASK.instruction, "refund request", "joy", "late parcel")]
    assert places == sorted(places)


@pytest.mark.parametrize("template", list(TEMPLATES))
def test_every_template_is_registered_under_its_name_and_shown_to_people(template: str) -> None:
    assert TEMPLATES[template].name == template
    assert TEMPLATES[template].shown


def test_only_options_by_name_leave_the_definitions_out() -> None:
    defined = {name: "Asks for money back." in TEMPLATES[name].instruction(TASK, ANSWERS) for name in TEMPLATES}
    assert defined == {"definitions": True, "options": False, "codes": True}


def test_codes_stand_beside_the_words_they_stand_for() -> None:
    assert "B) joy\nC) late parcel" in TEMPLATES["codes"].instruction(TASK, ["A", "B", "C"])


def test_an_unknown_template_is_refused_with_a_list_of_those_known() -> None:
    with pytest.raises(UnknownName, match="“poem”") as caught:
        find_template("poem")
    assert all(name in caught.value.hint for name in TEMPLATES)


def test_turns_come_before_the_utterance_oldest_first() -> None:
    text = utterance_text(Utterance("third", ("a: first", "b: second")))
    assert text.index("a: first") < text.index("b: second") < text.index("third")


def test_an_utterance_without_turns_stands_alone() -> None:
    assert utterance_text(Utterance("hello")) == "Utterance: hello"
