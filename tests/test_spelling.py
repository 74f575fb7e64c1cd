"""American spelling in everything that is read: pages, sample data, visible strings, docstrings and comments.

The license, translations and old databases are left out, and so are identifiers and single words in strings, which may
be stored names.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("annotator", "model", "store")
FOLDERS = (*PRODUCT, "benchmarks", "tests", "docs", "data")
KINDS = {".py", ".md", ".yaml", ".csv", ".po", ".js", ".css", ".jinja", ".toml", ".json"}
BRITISH = re.compile(
    r"""\b(?:
      (?:un|dis|mis)?(?:behavi|col|fav|flav|harb|hon|hum|lab|neighb|rum|sav|vap|vig|rig)our\w*
    | (?:centre|fibre|litre|\w*metre|theatre|calibre)[ds]?
    | (?:licence|defence|offence|pretence)\w*
    | (?:label|cancel|travel|model|signal|fuel|level|total|counsel|channel|tunnel|jewel)l(?:ed|ing|ers?|ors?)
    | (?:anal|paral|catal)ys(?:ed?|ing|ers?)
    | (?:apolog|categor|central|character|custom|emphas|familiar|final|general|initial|item|local|material|maxim
       |memor|minim|normal|optim|organ|parallel|penal|prior|random|real|recogn|regular|serial|special|stabil
       |standard|summar|symbol|token|util|visual)is(?:e[drs]?|ing|ations?|able)
    | whilst|amongst|learnt|spelt|greys?|programmes?|cheques?|catalogues?|towards|judgement|ageing|sceptic\w*
    | fulfil|enrol|skilful|tyres?|kerbs?|cosy|pyjamas|moustache|aluminium|manoeuvre|practis\w+|per\ cent
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)


def files() -> list[Path]:
    """Return what is read by people, apart from this list of words."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in KINDS]
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "Makefile", ROOT / "pyproject.toml", *found]


def read(path: Path) -> str:
    text = path.read_text(encoding="utf-8").replace('msgid "grey"', "")  # the stored name of a color
    if path.suffix == ".py":
        return "\n".join([*comments(text), *strings(text, all_long=path.is_relative_to(ROOT / "annotator"))])
    if path.suffix == ".po":
        return "\n".join(re.findall(r'^(?:msgid(?:_plural)? ".*"(?:\n".*")*|#.*)', text, re.M))
    return re.sub(r"`[^`\n]*`", "", text) if path.suffix == ".md" else text


def comments(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


def strings(source: str, all_long: bool) -> list[str]:
    """Return the docstrings; with `all_long` also every other string of several words."""
    nodes = list(ast.walk(ast.parse(source)))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node, clean=False) or "" for node in nodes if isinstance(node, documented)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return found + [text for text in texts if all_long and " " in text]


@pytest.mark.parametrize("word", ["behaviour", "Neighbouring", "kilometres", "labelled", "recognised", "grey"])
def test_british_words_are_found(word: str) -> None:
    assert BRITISH.search(f"of {word}, as")


@pytest.mark.parametrize("word", ["four", "hours", "promised", "otherwise", "raised", "parameter", "controlling"])
def test_american_words_are_not(word: str) -> None:
    assert not BRITISH.search(f"of {word}, as")


def test_every_text_is_in_american_spelling() -> None:
    read_files = files()
    assert len(read_files) > 200
    found = [f"{path.relative_to(ROOT)}: {word}" for path in read_files for word in BRITISH.findall(read(path))]
    assert found == []
