"""Display of a label with color, key and name (never color alone), and search for a label by name."""

from collections.abc import Callable
from html import escape
from typing import Any

import streamlit as st

from annotator.codebook.definition import COLORS, Codebook, CodebookLabel
from annotator.i18n import say
from annotator.pages.components import layout
from annotator.pages.components.state import Widget

STYLE = """<style>
.mark { display: inline-flex; align-items: center; gap: .5rem; font-weight: 600; overflow-wrap: anywhere; }
.mark .swatch { width: .85rem; height: .85rem; border-radius: .2rem; flex: none; }
.mark kbd { font: inherit; font-size: .8rem; font-weight: 500; border: 1px solid rgba(128, 128, 128, .6);
    border-radius: .25rem; padding: 0 .35rem; min-width: 1.4rem; text-align: center; }
.row-of-label { display: flex; flex-wrap: wrap; column-gap: 1rem; align-items: baseline; line-height: 1.45; }
.row-of-label .count { font-size: .9rem; opacity: .8; margin-inline-start: auto; font-variant-numeric: tabular-nums; }
.guideline { font-size: .95rem; line-height: 1.45; opacity: .9; white-space: pre-wrap; overflow-wrap: anywhere;
    max-width: 46rem; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(13rem, 100%), 1fr)); gap: .8rem 1rem;
    max-width: 60rem; }
.answers .card { border-inline-start: .2rem solid rgba(128, 128, 128, .5); padding: .1rem 0 .1rem .8rem;
    line-height: 1.45; }
.answers .who { font-size: .9rem; opacity: .8; overflow-wrap: anywhere; }
.answers .answer { font-size: 1.1rem; font-weight: 600; overflow-wrap: anywhere; }
.event { line-height: 1.45; overflow-wrap: anywhere; }
.event .when { font-size: .9rem; opacity: .8; }
.event.undone .what { text-decoration: line-through; opacity: .75; }
[data-testid="stButtonGroup"] button[aria-checked="true"] { color: inherit !important; font-weight: 600; }
</style>"""


def color_buttons(codebook: Codebook, button: str) -> None:
    """Color the labels' buttons, named `button`-id. Name and key also identify them."""
    rules = (
        f".st-key-{button}-{label.id} button {{ border-left: .4rem solid {COLORS[label.color]}; }}"
        for label in codebook.labels
    )
    layout.add_rules(f"<style>{' '.join(rules)}</style>")


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
    names = {label.id: layout.plain(label.name) for label in codebook.labels}
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
