"""The documentation is under test: what it names exists, and what exists is named."""

import json
import re
from pathlib import Path

import pytest

import annotator
from annotator.cli.main import main
from annotator.exchange.export import FIELDS, MEANINGS
from annotator.methods.query_strategies import STRATEGIES
from docs.charts import CHARTS, FIGURES, picture
from model.backbones.catalog import CATALOG

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
def test_every_link_to_a_section_leads_to_its_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        there = (page.parent / target if target else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", there, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, anchor


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


def test_every_make_target_has_a_rule_and_those_that_check_are_described() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    for target in listed.split():
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for target in ("check", "test", "soak"):
        assert f"`make {target}`" in README, target
    (unit,) = re.findall(r"^UNIT := ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    for path in unit.replace("\\\n", " ").split():
        assert (ROOT / path).exists(), path


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


def test_every_name_for_python_is_on_its_page() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in set(annotator.__all__) - {"__version__"}:
        assert re.search(rf"^\|.*`{name}`.*\|.*\|$", page, re.MULTILINE), name


def test_every_exported_column_has_a_meaning() -> None:
    assert list(MEANINGS) == [field.name for field in FIELDS]


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda page: page.name)
def test_every_decision_has_alternatives_or_a_cost(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "*Decision.*" in text
    assert "*Alternatives.*" in text or "*Cost.*" in text


def test_the_first_screen_of_the_readme_has_at_most_150_words() -> None:
    assert len(README.partition("\n## ")[0].split()) <= 150


def table_under(heading: str, page: str) -> dict[str, list[str]]:
    """Return the rows of the first table under a heading, by their first cell."""
    lines = page.partition(f"{heading}\n")[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {first: others for first, *others in rows}


def test_every_statement_about_another_tool_has_a_source() -> None:
    sources = table_under("# Sources of the comparison", (ROOT / "docs" / "comparison.md").read_text("utf-8"))
    compared = table_under("## Compared with other tools", README.partition("\n## Limits")[0])
    assert len(compared) > 10
    for feature, (_, *statements) in compared.items():
        for tool, statement in enumerate(statements):
            if feature and statement not in ("no", "?"):
                assert "](http" in sources[feature][tool], f"{feature}: {statement}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "architecture.md"], ids=lambda page: page.name)
def test_no_page_uses_a_private_word_for_a_term_of_the_field(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.findall(
        r"\b(?:scouts?|lessons?|askable|audit slice|unseen|labell\w+|colours?|licences?)\b", prose, re.I
    )


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_shows_the_published_figures_on_its_page(name: str) -> None:
    drawn = picture(name)
    page = (ROOT / "docs" / f"{drawn.stem}.md").read_text(encoding="utf-8")
    assert f"(pictures/{drawn.name})" in page
    published = json.loads(FIGURES.read_text(encoding="utf-8"))[name]
    figures = [f"{value:.3f}" for row in published for value in row.get("accuracy", {}).values()]
    figures += [f"{row['mean']:.2f}" for row in published if "mean" in row]
    figures += [f"{row['times']} times as fast" for row in published if row.get("times", 1) != 1]
    figures += [f"{row['of']} | **{row['passed']}**" for row in published if row.get("limit")]
    assert [figure for figure in figures if figure not in page] == []
