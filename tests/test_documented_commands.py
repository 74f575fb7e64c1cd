"""Every command that the documentation gives is one that the program takes."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from annotator.cli.main import main
from annotator.config import RoundConfig, settings_of
from annotator.exchange.samples import SAMPLES
from tests.model.tiny import save_llama

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [path for folder in ("annotator", "model", "store") for path in sorted((ROOT / folder).rglob("*.py"))]
EXTRAS = re.search(r"\[project.optional-dependencies\](.*?)\n\[", (ROOT / "pyproject.toml").read_text("utf-8"), re.S)


def whole(path: Path) -> str:
    """Read a file with its paragraphs on one line each; a command may go on in the next line."""
    return re.sub(r"\s*\n\s*(# )?", " ", path.read_text(encoding="utf-8"))


def quoted(pattern: str, paths: list[Path]) -> list[str]:
    return sorted({command for path in paths for command in re.findall(rf"`({pattern}[^`]*)`", whole(path))})


def blocks(path: Path) -> list[str]:
    """Return the lines of a page's indented or fenced blocks that give commands."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
    return [line for block in fenced for line in block.replace("\n   ", " ").splitlines()]


MODULES = quoted("python -m ", [*PAGES, *SOURCES])
LINES = [line for page in PAGES for line in blocks(page) if line.startswith("annotator ")]
INLINE = quoted("annotator ", PAGES)


def test_there_are_commands_to_check() -> None:
    assert "python -m benchmarks.scoring --quick --only annomi" in MODULES
    assert any(line.startswith("annotator simulate") for line in LINES)
    assert any(command.startswith("annotator settings") for command in INLINE)


@pytest.mark.parametrize("command", MODULES)
def test_a_benchmark_takes_the_options_that_the_docs_give(command: str) -> None:
    _, _, module, *options = [part for part in shlex.split(command) if part != "…"]
    assert (ROOT / Path(*module.split("."))).with_suffix(".py").exists() or module == "pytest"
    if module.startswith("benchmarks."):
        importlib.import_module(module).COMMAND.parser().parse_args(options)


@pytest.mark.parametrize("line", [*LINES, *INLINE])
def test_the_program_takes_the_options_that_the_docs_give(line: str) -> None:
    """A line may give several commands, separated by |, and a comment after #."""
    command: click.Command | None = None
    expected: click.Parameter | None = None
    for part in re.split(r"[\s:;,]+", line.partition(" ")[2]):
        if expected and isinstance(expected.type, click.Choice):
            assert set(part.split("|")) <= set(expected.type.choices), line
        expected = None
        if part in main.commands and (command is None or f"| {part} " in line):
            command = main.commands[part]
        elif re.fullmatch(r"\[?--[\w-]+\]?", part):
            assert command is not None, line
            options = {name: one for one in command.params for name in one.opts}
            assert part.strip("[]") in options, f"{part} in {line}"
            expected = options[part.strip("[]")]
    assert command is not None, line


def test_every_setting_that_the_docs_name_exists() -> None:
    known = settings_of(RoundConfig())
    text = " ".join(map(whole, PAGES))
    named = set(re.findall(r"\b(recipe\.\w+)=", text))
    assert {"recipe.quantization", "recipe.epochs"} <= named
    assert named <= set(known)


@pytest.mark.soak
def test_the_command_line_runs_from_a_new_project_to_scored_texts(tmp_path: Path) -> None:
    """In processes of their own, as a person runs it, with a backbone so small that a round takes seconds."""
    backbone, project, scored = save_llama(tmp_path / "backbone"), tmp_path / "talk", tmp_path / "scored.csv"
    texts = SAMPLES["political_promises"].data

    def annotator(*arguments: object) -> str:
        command = [sys.executable, "-m", "annotator.cli.main", *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    annotator("new", project, "--labels-from", texts)
    annotator("import", project, texts)
    annotator("settings", project, f"backbone={backbone}", "recipe.epochs=1", "retrain_every=0")
    annotator("retrain", project)
    assert "No round is running." in annotator("status", project)
    annotator("export", project, "--format", "csv", "--out", tmp_path / "labels.csv")
    annotator("report", project, "--out", tmp_path / "report.html")
    annotator("score", texts, "--project", project, "--out", scored)
    assert len(scored.read_text("utf-8").splitlines()) == len(texts.read_text("utf-8").splitlines())
    annotator("doctor")


def test_every_extra_that_the_readme_installs_exists() -> None:
    assert EXTRAS is not None
    for extra in re.findall(r"'\.\[(\w+)\]'", (ROOT / "README.md").read_text("utf-8")):
        assert re.search(rf"^{extra} = ", EXTRAS[1], re.M), extra


def test_every_benchmark_is_in_the_readme() -> None:
    named = set(re.findall(r"`(?:python -m benchmarks\.)?(\w+)", (ROOT / "README.md").read_text("utf-8")))
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert "__main__" not in path.read_text("utf-8") or path.stem in named, path.stem
