"""What the source says to people, collected from it: the sentences a catalogue must have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from annotator import errors
from model.prompts.prompt import TEMPLATES
from store.files.exporters import FORMATS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "streamlit_app.py", *sorted((ROOT / "annotator").rglob("*.py"))]
ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
ON_THE_COMMAND_LINE = (
    "cli.py",
    "gate.py",
    "main.py",
    "oracle.py",
    "prediction.py",
    "curves.py",
    "simulate.py",
    "runner.py",
)
RETOLD_FROM = [
    path
    for package in ("annotator", "model", "store")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name not in ON_THE_COMMAND_LINE
]
RETOLD = {  # functions whose sentences are stored in rows, or come from where nobody can be asked for his language
    "annotator/labeling/auto_accept.py": {"take_back", "withdraw_broken"},
    "annotator/rounds/schedule.py": {"retrain_reason"},
    "annotator/exchange/imports.py": {"given"},
    "annotator/rounds/worker.py": {"work"},
    "annotator/pages/rounds.py": {"_retrain"},
    "model/backbones/memory.py": {"way_out"},
    "store/files/importers.py": {"_why_not_taken", "_why_no_turn"},
    "store/files/provenance.py": {"why_no_answer"},
    "store/files/reconciling.py": {"_twice", "_copied", "_known", "_not_applied"},
    "store/faults.py": {
        *("damaged", "empty", "not_sqlite", "foreign", "not_a_file", "dangling", "unreadable", "moved", "read_only"),
        *("journal_unread", "full", "busy"),
    },
    "store/jobs.py": {"recover"},
    "store/settings.py": {"unusable"},
    "store/files/readers.py": {"rows", "_csv_cells", "_jsonl_objects"},
}
SQL = re.compile("SELECT|INSERT|UPDATE|DELETE")


class Sentence(NamedTuple):
    """One entry a catalogue must have."""

    english: str
    many: str = ""
    sense: str = ""


def marked() -> set[Sentence]:
    """Return what is said through the catalogue, and what is marked to be said later."""
    return {sentence for path in SOURCES for sentence in _marked_in(path)}


def _marked_in(path: Path) -> Iterator[Sentence]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            texts = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args]
            if name == "say_many":
                assert all(texts[:2]), f"{path.name}:{node.lineno} says what no catalogue can know"
                yield Sentence(str(texts[0]), str(texts[1]))
            elif name in ("say", "later") and texts[0]:
                assert len(texts) == 1 or texts[1], f"{path.name}:{node.lineno}"
                yield Sentence(str(texts[0]), sense=str(texts[1]) if len(texts) == 2 else "")


def told_elsewhere() -> set[Sentence]:
    """Return what is told where no language is known, errors before all: what varies becomes a numbered place."""
    named = {template.shown for template in TEMPLATES.values()} | {kind.shown for kind in FORMATS.values()}
    found = {text for path in RETOLD_FROM for text in _told_in(path)}
    return {Sentence(text) for text in found | named}


def _told_in(path: Path) -> Iterator[str]:
    functions = RETOLD.get(str(path.relative_to(ROOT)), set())
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if _raised(node.exc.func) in ERRORS and getattr(node.exc.func, "attr", "") != "among":
                yield from (text for arg in node.exc.args for text in _texts(arg))
        elif isinstance(node, ast.FunctionDef) and node.name in functions:
            yield from (text for line in node.body[bool(ast.get_docstring(node)) :] for text in _texts(line))
        elif isinstance(node, ast.FunctionDef) and node.name == "among":
            yield from (text for line in node.body[1:] for text in _texts(line))


def _raised(function: ast.expr) -> str:
    return str(getattr(function, "id", getattr(function, "attr", "")))


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the sentences in a piece of code, not what is written into them."""
    if isinstance(node, ast.JoinedStr):
        places = iter(range(len(node.values)))
        text = "".join(p.value if isinstance(p, ast.Constant) else f"{{{next(places)}}}" for p in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.Raise):
        return  # found by itself
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)
        return
    if " " in text.strip() and not text.isupper() and not SQL.match(text):
        yield text
