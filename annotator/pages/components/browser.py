"""What the pages add to the framework's own page in the browser: one script, one style sheet and the labels' colors.

`keys.js` and `style.css` rely on names of elements that Streamlit draws. `SELECTORS` lists every one of them, and the
tests look for each in a browser, so that a version of Streamlit that renames one is noticed.
"""

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

SELECTORS = {  # each with a place where it finds something: a page, the list of keys, or a large codebook's label page
    # keys.js. Streamlit documents the class `st-key-…` of an element with a key.
    ".st-key-${answers()[key]} button": "label",
    ".st-key-keys button": "label",
    ".st-key-unsure input": "label",
    ".st-key-comment input": "label",
    "[class*='st-key-search-'] input": "large codebook",
    "[class*='st-key-label-'] button": "label",
    ".st-key-none-fits button": "label",
    ".st-key-skip button": "label",
    "[class*='st-key-adjudicate-'] button": "review",
    ".st-key-later button": "review",
    "input[type=text]": "label",
    "[role=combobox]": "label",
    "[role=dialog]": "keys",
    # style.css
    '[data-testid="stElementContainer"]:has(.rules)': "label",
    '[data-testid="stCaptionContainer"]': "codebook",
    '[data-testid="stSliderThumbValue"]': "search",
    '[data-testid="stButtonGroup"] button[aria-checked="true"]': "review",
    '[role="tab"][aria-selected="true"]': "data",
    '.st-key-tour [data-testid="stMarkdownContainer"]': "label",
    ".stMainBlockContainer": "label",
    'div[class*="st-key-label-"]': "label",
    'div[class*="st-key-group-"]': "groups",
    'div[class*="st-key-choice-"]': "label",
}
_SCRIPT, _STYLE = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("keys.js", "style.css"))


def listen() -> None:
    """Install the key handler. The script guards against running twice in a visit."""
    st.html(f'<span class="rules"></span><script>{_SCRIPT}</script>', unsafe_allow_javascript=True)


def style() -> None:
    """Add the style rules that the theme cannot express."""
    color = st.get_option("theme.primaryColor") or "currentColor"
    _add(f":root {{ --theme-color: {color}; }} {_STYLE}")


def color_buttons(colors: Mapping[str, str]) -> None:
    """Color the edge of buttons, by their keys."""
    _add(" ".join(f".st-key-{key} button {{ border-left: .4rem solid {color}; }}" for key, color in colors.items()))


def indent(levels: Mapping[str, int]) -> None:
    """Indent elements by the level of a tree that they are on, 0 for its top, by their keys."""
    shifts = {key: f"margin-inline-start: {1.5 * level}rem; width: auto;" for key, level in levels.items() if level}
    _add(" ".join(f".st-key-{key} {{ {shift} }}" for key, shift in shifts.items()))


def _add(rules: str) -> None:
    """Add style rules with a hidden element, so that a rerun of a fragment does not remove them."""
    st.html(f'<span class="rules"></span><style>{rules}</style>')
