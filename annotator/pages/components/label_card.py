"""Display of a label with color, key and name (never color alone), and search for a label by name."""

from collections.abc import Callable
from html import escape

import streamlit as st

from annotator.codebook.definition import COLOURS, Codebook, CodebookLabel
from annotator.i18n import say
from annotator.pages.components import layout


def mark(label: CodebookLabel) -> str:
    """Return a label's color, key and name as HTML; the name is escaped."""
    key = f"<kbd>{escape(label.key)}</kbd>" if label.key else ""
    swatch = f'<span class="swatch" style="background:{COLOURS[label.colour]}"></span>'
    return f'<span class="mark">{swatch}{key}<span dir="auto">{escape(label.name)}</span></span>'


def row(label: CodebookLabel, count: str) -> None:
    """Show a label with its definition and the number of answers."""
    definition = escape(label.definition) or f"<em>{escape(say('no definition yet'))}</em>"
    st.html(
        f'<div class="row-of-label">{mark(label)}<span class="count">{count}</span>'
        f'<div class="guideline" dir="auto">{definition}</div></div>'
    )


def find_label(codebook: Codebook, utterance_id: int, on_found: Callable[[int], None]) -> None:
    """Show a field to find a label of a large codebook by part of its name; `on_found` receives its id."""
    names, key = {label.id: layout.plain(label.name) for label in codebook.labels}, f"search-{utterance_id}"
    st.selectbox(
        say("Find a label"),
        list(names),
        index=None,
        format_func=names.__getitem__,
        placeholder=say("Type a part of the name ({n} labels)", n=len(names)),
        key=key,
        on_change=lambda: on_found(st.session_state[key]),
    )
