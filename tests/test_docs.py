"""The documentation is under test: what it names exists, and what exists is named."""

import re
from pathlib import Path

import pytest

from annotator.cli import main
from annotator.export import FIELDS, MEANINGS
from annotator.query import STRATEGIES
from model.catalog import CATALOG

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "data" / "README.md", *(ROOT / "docs").rglob("*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`((?:annotator|model|store|tests|docs|data|benchmarks)/[\w/.-]+)`", page.read_text("utf-8"))
    for name in named:
        assert (ROOT / name).exists() or (page.parent / name).exists(), name


def test_every_command_is_in_the_readme() -> None:
    for command in main.commands:
        assert re.search(rf"\b{command}\b", README), command


def test_every_make_target_that_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_backbone_family_and_strategy_is_described() -> None:
    for name in STRATEGIES:
        assert f"`{name}`" in GUIDE, name
    for name in CATALOG:
        assert f"`{name}`" in README or f"`-{name.rpartition('-')[2]}`" in README, name


def test_every_table_and_module_is_in_the_architecture(db) -> None:
    for table in db.table_names():
        assert table.startswith(("_", "sqlite_")) or f"`{table}`" in ARCHITECTURE, table
    for package in ("annotator", "model", "store"):
        for path in (ROOT / package).glob("*.py"):
            assert path.name.startswith("__") or path.name in ARCHITECTURE or "classifier" in path.name, path


def test_every_exported_column_has_a_meaning() -> None:
    assert list(MEANINGS) == [field.name for field in FIELDS]


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda page: page.name)
def test_every_decision_says_what_was_decided_and_why_not_otherwise(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "*Decided.*" in text
    assert "*Considered.*" in text or "*Cost.*" in text
