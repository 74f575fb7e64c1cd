"""Every Python example of the documentation, and every command of the README, runs as written.

They run with a backbone so small that a round takes seconds. One soak test runs the Python page with the starter.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import annotator
from annotator.cli.main import main
from annotator.exchange.samples import SAMPLES, create_sample
from annotator.project import Project
from model.backbones.catalog import STARTER, cache_folder
from tests.annotator.scenes import first_rows
from tests.model.tiny import save_llama

ROOT = Path(__file__).resolve().parents[1]
CONVERTED = cache_folder() / "backbones" / STARTER
HERE = os.environ | {"PYTHONPATH": str(ROOT)}
SLOW, SOAK = ("retrain", "simulate"), (pytest.mark.soak, pytest.mark.timeout(3600))


def examples(page: str) -> str:
    """Return the Python examples of a page, one after the other."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL))


def commands() -> Iterator[str]:
    """Yield the commands of the README one by one: `a | b` and `a|b` are alternatives, `…` stands for more."""
    (block,) = re.findall(r"## Command line\n\n```\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    for line in block.splitlines():
        first, *others = re.sub(r"[\[\]…]", "", line.partition("#")[0]).split(" | ")
        for option in others:
            yield first.partition(" --")[0] + " " + option if option.startswith("--") else f"annotator {option}"
        (choices,) = re.findall(r"\w+(?:\|\w+)+", first) or [""]
        yield from (first.replace(choices, choice) for choice in choices.split("|")) if choices else (first,)


COMMANDS = [command.strip() for command in commands()]


def run(arguments: list[str], alone: bool) -> tuple[int, str]:
    """Run the program and return its exit code and output; `alone` in a process of its own, as people do."""
    if not alone:
        done = CliRunner().invoke(main, arguments)
        return done.exit_code, done.output
    command = [sys.executable, "-m", "annotator.cli.main", *arguments]
    ended = subprocess.run(command, env=HERE, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_llama(tmp_path_factory.mktemp("backbone"))


def quick(backbone: str, name: str, folder: Path) -> Project:
    """Create a sample project as `create_sample` does, set to a small backbone and one epoch."""
    project = create_sample(name, folder)
    project.config = replace(project.config, backbone=backbone, recipe=replace(project.config.recipe, epochs=1))
    return project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, backbone: str) -> Path:
    """Run the example of the Python page; return the folder in which it ran."""
    folder = tmp_path_factory.mktemp("example")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(annotator, "create_sample", lambda *given: quick(backbone, *given), raising=False)
        exec(compile(examples("python.md"), "docs/python.md", "exec"), {})
    return folder


def test_the_example_of_the_python_page_runs(finished: Path) -> None:
    exported = (finished / "promises.csv").read_text("utf-8").splitlines()
    assert len(exported) > 40
    with Project.open(finished / "projects" / "promises") as project:
        assert project.db["round"].count == 1


def test_the_examples_of_the_guide_run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished / "projects" / "promises", tmp_path / "projects" / "client-talk")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(examples("guide.md"), "docs/guide.md", "exec"), names)
    labeler = names["labeler"]
    assert isinstance(labeler, annotator.Labeler)
    assert sum(one["score"] for one in labeler("We will.")) == pytest.approx(1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    not (CONVERTED / "config.json").is_file(), reason="the starter backbone has not been converted here"
)
def test_the_example_of_the_python_page_runs_with_the_starter_and_the_default_settings(tmp_path: Path) -> None:
    few = first_rows("political_promises", 120, tmp_path).parent
    code = f"from pathlib import Path; from annotator.exchange import samples; samples.DATA = Path({str(few)!r})"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{examples('python.md')}"],
        cwd=tmp_path,
        env=HERE | {"OMP_WAIT_POLICY": "PASSIVE"},  # as a round in the app; other programs may run on this machine
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'label': 'promise'" in done.stdout


def test_every_command_of_the_program_is_in_the_block_that_runs() -> None:
    assert {command.split()[1] for command in COMMANDS} == set(main.commands)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=SOAK if command.split()[1] in SLOW else ())
        for command in COMMANDS
        if command.split()[1] != "serve"  # runs until it is stopped; the browser tests start it
    ],
)
def test_a_command_of_the_readme_runs(
    command: str, finished: Path, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    action, project = command.split()[1], tmp_path / "projects" / "talk"
    if action != "new":
        shutil.copytree(finished / "projects" / "promises", project)
    texts = first_rows("client_talk", 40, tmp_path) if action == "score" else SAMPLES["client_talk"].data
    written = command.replace("--codebook FILE", f"--codebook {texts.with_suffix('.yaml')}")
    written = re.sub(r"\b(?:FILE|OUT)\.", f"{tmp_path}/out.", written)
    values = {"PROJECT": project, "FILE": texts, "DATA": texts, "NAME": backbone}
    written = re.sub(r"\b(PROJECT|FILE|DATA|NAME)\b", lambda match: str(values[match[1]]), written)
    if action == "simulate":
        written += f" --backbone {backbone} --recipe probe_weight=1 --pool 250 --test-limit 50"
    monkeypatch.chdir(tmp_path)
    code, output = run(shlex.split(written)[1:], alone=action in SLOW)
    assert code == 0, output[-3000:]
    for target in re.findall(rf"{tmp_path}/out\.\w+", written):
        assert Path(target).stat().st_size > 0
