"""Keyboard shortcuts for answering: the table of keys, and the keys of each button."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from annotator.codebook.definition import Codebook, CodebookLabel
from annotator.i18n import later, say
from annotator.pages.components import layout

NONE_FITS, SKIP, UNDO, TRANSCRIPT = "n", "s", "u", "t"
TREE = "0"  # below a short list, which has the other digits
EXAMPLES, WHY = "e", "w"  # unless a label of the codebook has them
TABLE = (
    (later("1 to 9, then as shown"), later("assign label and continue, or open a group of labels")),
    (later("Backspace, Esc"), later("leave the group")),
    ("0", later("open all groups, where the likeliest labels are listed first")),
    ("N", later("none of the labels fits")),
    ("S", later("skip: you are not asked again, others may be")),
    ("U", later("undo your last answer; repeat for earlier ones, also after a reload")),
    ("Q", later("mark the next answer as unsure")),
    ("M", later("write a comment; Enter returns to the labels")),
    ("/", later("find a label by name, if there are groups or more than nine labels")),
    ("T", later("show the whole conversation")),
    ("E", later("show examples of every label, if no label has this key")),
    ("W", later("ask why, if there is a suggestion and no label has this key")),
    ("↑ ↓", later("scroll the text")),
    ("?", later("list of keys")),
)


def asks(utterance_id: int, offered: Sequence[CodebookLabel], button: str, others: Mapping[str, str]) -> str:
    """Return the HTML attributes that declare the utterance in question and the button for each key.

    A label's button is named `button`-id; `others` maps further keys to button names.
    """
    buttons = {node.key: button_of(node, button) for node in offered if node.key} | dict(others)
    return f'data-asked="{utterance_id}" data-keys="{escape(json.dumps(buttons))}"'


def button_of(node: CodebookLabel, button: str) -> str:
    """Return the name of the button of a label, or of a group, which is opened and not an answer."""
    return f"group-{node.id}" if node.is_group else f"{button}-{node.id}"


def numbered(few: Sequence[CodebookLabel]) -> list[CodebookLabel]:
    """Return the labels with the number keys in place of their own keys."""
    return [replace(label, key=str(place)) for place, label in enumerate(few, start=1)]


def spare(key: str, codebook: Codebook) -> str | None:
    """Return the key, or None if a label has it."""
    return None if any(node.key == key for node in codebook.nodes) else key


def show_table() -> None:
    """Show the table of keys."""
    rows = "".join(f"<tr><th><kbd>{say(key)}</kbd></th><td>{say(does)}</td></tr>" for key, does in TABLE)
    st.html(f'<table class="keys">{rows}</table>')
    layout.html("quiet", say("In a text field these keys type letters; Escape leaves the field."))
