"""The app's script and style sheet: one module loads them, and one list has every name of Streamlit's they rely on."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from annotator.pages.components import browser

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "annotator" / "pages"
FILES = sorted([*PAGES.rglob("*.js"), *PAGES.rglob("*.css")])
STREAMLITS = re.compile(r"data-testid|\bst[A-Z]\w*|st-key-|\[role=")
IN_PYTHON = re.compile(r"<style|<script|data-testid|st-key-|\.st[A-Z]")


def test_the_list_has_every_selector_in_use_and_no_other() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    assert [selector for selector in browser.SELECTORS if selector not in text] == []
    for selector in sorted(browser.SELECTORS, key=len, reverse=True):
        text = text.replace(selector, "")
    assert STREAMLITS.findall(text) == [], "not in the list"


@pytest.mark.parametrize("path", sorted(PAGES.rglob("*.py")), ids=lambda path: path.name)
def test_one_module_knows_scripts_styles_and_selectors(path: Path) -> None:
    found = IN_PYTHON.findall(path.read_text(encoding="utf-8"))
    assert bool(found) == (path == Path(browser.__file__)), found


def test_they_are_packaged() -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["annotator"]
    assert {path.name for path in FILES} == {"keys.js", "style.css"}
    for path in FILES:
        assert any(fnmatch(str(path.relative_to(ROOT / "annotator")), pattern) for pattern in packaged)
