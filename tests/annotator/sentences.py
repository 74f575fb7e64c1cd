"""The sentences that a catalog must have, collected from the source.

Babel's extractor loses what follows a nested call, such as the hint in `BadFile(Message(…), "…")`, so this reads the
syntax tree.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from annotator import errors
from model.backbones.catalog import CATALOG
from model.prompts.prompt import TEMPLATES
from store.files.exporters import FORMATS

ROOT = Path(__file__).resolve().parents[2]
ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
SPOKEN = {"say", "later", "say_many", "Message"}
IN_ENGLISH = {"cli", "simulation"}  # rooms that only the command line shows
IN_ENGLISH_TOO = {ROOT / "annotator" / "gate.py", ROOT / "annotator" / "rounds" / "prediction.py"}


class Sentence(NamedTuple):
    """One entry a catalog must have."""

    english: str
    many: str = ""
    sense: str = ""


def wanted() -> set[Sentence]:
    """Return all sentences that the app may show."""
    shown = {template.shown for template in TEMPLATES.values()} | {kind.shown for kind in FORMATS.values()}
    shown |= {entry.note for entry in CATALOG.values()}
    found = {sentence for path in _sources() for sentence in _sentences_in(path)} | {Sentence(text) for text in shown}
    return {one for one in found if one.english.strip()}


def _sources() -> Iterator[Path]:
    yield ROOT / "streamlit_app.py"
    for package in ("annotator", "model", "store"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.parent.name not in IN_ENGLISH and path not in IN_ENGLISH_TOO:
                yield path


def _sentences_in(path: Path) -> Iterator[Sentence]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        texts = [arg.value if isinstance(arg, ast.Constant) else "" for arg in node.args]
        if name in ERRORS:
            yield from (Sentence(text) for arg in node.args[:2] for text in _constants(arg))
        elif name == "say_many":
            assert all(texts[:2]), f"{path.name}:{node.lineno} says what no catalog can know"
            yield Sentence(str(texts[0]), str(texts[1]))
        elif name in SPOKEN and texts and texts[0]:
            yield Sentence(str(texts[0]), sense=str(texts[1]) if len(texts) == 2 else "")


def _constants(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (text for branch in (node.body, node.orelse) for text in _constants(branch))
