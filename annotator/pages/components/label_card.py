"""Display of a label with color, key and name (never color alone), and search for a label by name."""

from collections.abc import Callable
from html import escape
from typing import Any

import streamlit as st

from annotator.codebook.definition import Codebook, CodebookLabel
from annotator.codebook.draft import COLORS
from annotator.i18n import say
from annotator.pages.components import browser, keys, layout
from annotator.pages.components.state import Widget


def color_buttons(codebook: Codebook, button: str) -> None:
    """Color the labels' buttons, named `button`-id. Name and key also identify them."""
    browser.color_buttons({keys.button_of(node, button): COLORS[node.color] for node in codebook.nodes})


def mark(label: CodebookLabel) -> str:
    """Return a label's color, key and name as HTML; the name is escaped."""
    key = f"<kbd>{escape(label.key)}</kbd>" if label.key else ""
    swatch = f'<span class="swatch" style="background:{COLORS[label.color]}"></span>'
    return f'<span class="mark">{swatch}{key}<span dir="auto">{escape(label.name)}</span></span>'


def heading(label: CodebookLabel, count: str = "") -> str:
    """Return a label's mark and its number of answers as HTML."""
    return f'<div class="row-of-label">{mark(label)}<span class="count">{count}</span></div>'


def definition(label: CodebookLabel) -> str:
    """Return a label's definition, or that it has none, as HTML."""
    text = escape(label.definition) or f"<em>{escape(say('no definition yet'))}</em>"
    return f'<div class="guideline" dir="auto">{text}</div>'


def row(label: CodebookLabel) -> None:
    """Show a label with its definition."""
    st.html(heading(label) + definition(label))


def find_label(codebook: Codebook, utterance_id: int, on_found: Callable[[int], None]) -> None:
    """Show a field to find a label of a large codebook by part of its name; `on_found` receives its id."""
    names = {label.id: layout.plain(codebook.path(label.id)) for label in codebook.labels}
    field: Widget[Any] = Widget(f"search-{utterance_id}", None)
    st.selectbox(
        say("Find a label"),
        list(names),
        index=None,
        format_func=names.__getitem__,
        placeholder=say("Type a part of the name ({n} labels)", n=len(names)),
        key=field.key,
        on_change=lambda: on_found(field.get()),
    )
