"""Every template contains the instruction and every option."""

from __future__ import annotations

import pytest

from annotator.errors import UnknownName
from model.prompts.prompt import TEMPLATES, find_template, utterance_text
from model.prompts.verbalizer import label_words
from model.types import Group, Label, Task, Utterance

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


MONEY, CARDS = Group("Money", "What is paid."), Group("Cards")
TREE = Task(
    "Decide.",
    (
        Label("refund", "Money back.", groups=(MONEY,)),
        Label("lost card", groups=(MONEY, CARDS)),
        Label("new card", groups=(MONEY, CARDS)),
        Label("other"),
    ),
)
FLAT = Task("Decide.", tuple(Label(label.name, label.definition) for label in TREE.labels))


def test_the_options_of_a_tree_stand_below_the_headings_of_their_groups() -> None:
    text = TEMPLATES["definitions"].instruction(TREE, [label_words(label) for label in TREE.labels])
    lines = [
        "Money: What is paid.",
        "  - refund: Money back.",
        "  Cards:",
        "    - lost card",
        "    - new card",
        "- other",
    ]
    assert text == "\n".join(["Decide.\n\nOptions:", *lines, "", "Answer with one of the options only."])


def test_codes_stand_below_the_headings_of_their_groups_too() -> None:
    text = TEMPLATES["codes"].instruction(TREE, ["A", "B", "C", "D"])
    assert "Money: What is paid.\n  A) refund: Money back.\n  Cards:\n    B) lost card" in text
    assert "\nD) other\n" in text


def test_the_names_of_a_tree_stand_in_parentheses_behind_their_groups() -> None:
    text = TEMPLATES["options"].instruction(TREE, [label_words(label) for label in TREE.labels])
    assert "Options: Money (refund, Cards (lost card, new card)), other.\n" in text


@pytest.mark.parametrize(
    ("template", "options"),
    [
        (
            "definitions",
            "\n\nOptions:\n- refund: Money back.\n- lost card\n- new card\n- other\n\nAnswer with one of the options",
        ),
        ("options", "\nOptions: refund, lost card, new card, other.\nAnswer with one of the options"),
        (
            "codes",
            "\n\nOptions:\nA) refund: Money back.\nB) lost card\nC) new card\nD) other\n\n"
            "Answer with the code of one option",
        ),
    ],
)
def test_the_prompt_of_a_flat_codebook_has_not_changed(template: str, options: str) -> None:
    answers = list("ABCD") if template == "codes" else [label_words(label) for label in FLAT.labels]
    assert TEMPLATES[template].instruction(FLAT, answers) == f"Decide.{options} only."
