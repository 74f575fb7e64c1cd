"""The rules of docs/architecture.md that a reader would otherwise have to trust."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("annotator", "model", "store")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
SOURCES.append(ROOT / "streamlit_app.py")
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "outlines", "safetensors"}
LONGEST_FUNCTION, LONGEST_FILE, MOST_PARAMETERS = 50, 370, 6


def imports(path: Path, nested: bool = True) -> Iterator[str]:
    """Yield the modules a file imports; without `nested` only those that importing it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if nested else _executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _executed(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not typing_only:
            yield node


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_store_and_model_know_neither_each_other_nor_the_domain(path: Path) -> None:
    strangers = {"store": ("model", "annotator"), "model": ("store", "annotator")}.get(package_of(path), ())
    for module in imports(path):
        allowed = module.startswith("annotator.errors") or module == "annotator"
        assert allowed or module.split(".")[0] not in strangers, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_library_is_imported_by_its_one_home(path: Path) -> None:
    homes = {
        "streamlit": path.name == "streamlit_app.py" or path.parent.name == "pages",
        "sqlite_utils": package_of(path) == "store" or path.name == "project.py",  # the type of an open database
        "sqlite3": package_of(path) == "store",
        "altair": path.name == "charts.py",
        "krippendorff": path.name == "consensus.py",
        **{library: package_of(path) == "model" for library in HEAVY},
    }
    for module in imports(path):
        assert homes.get(module.split(".")[0], True), f"{path.name} imports {module}"


def test_pages_are_imported_by_the_app_alone() -> None:
    for path in SOURCES:
        if path.parent.name != "pages" and path.name != "streamlit_app.py":
            assert not [name for name in imports(path) if name.startswith("annotator.pages")], path


def test_there_is_no_circle_of_imports() -> None:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in SOURCES}
    graph = {name: {m for m in imports(path, nested=False) if m in modules} for name, path in modules.items()}

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        for following in graph[name]:
            if following not in done:
                walk(following, (*trail, name))
        done.add(name)

    done: set[str] = set()
    for name in graph:
        walk(name, ())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short_and_say_what_they_decide(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{path} opens without a sentence on what it decides"
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, node.name
            is_command = any("option" in ast.dump(d) or "argument" in ast.dump(d) for d in node.decorator_list)
            given = [a for a in node.args.args if a.arg not in ("self", "cls")]
            assert is_command or len(given) <= MOST_PARAMETERS, f"{node.name} takes {len(given)} parameters"


def test_everything_is_caught_in_two_places_only_each_of_which_tells_a_person() -> None:
    """The worker writes it into the job's row; a widget's callback keeps it for the page, which raises it again."""
    found = [
        path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or "'Exception'" in ast.dump(node.type))
    ]
    assert found == ["frame.py", "worker.py"]


def test_nothing_is_called_utils() -> None:
    bags = {"utils", "helpers", "common", "manager", "misc"}
    assert not [path for path in SOURCES if path.stem in bags]


WORKS_WITHOUT_TORCH = """
import sys
from pathlib import Path
from streamlit.testing.v1 import AppTest
from annotator.export import ExportPlan, export_project
from annotator.project import Project
from annotator.samples import create_sample
from annotator.session import Answer, answer, next_question
from dataclasses import replace

folder = Path(sys.argv[1]) / "political-promises"
with create_sample("political_promises", folder) as project:
    project.config = replace(project.config, retrain_every=0)
app = AppTest.from_file("streamlit_app.py", default_timeout=60).run()
assert not app.exception, app.exception
app.button(key="label-1").click().run()
assert not app.exception, app.exception
with Project.open(folder) as project:
    question = next_question(project, "anna")
    answer(project, question, "anna", Answer("label", 1))
    for name in ("csv", "jsonl", "parquet", "dataset"):
        assert export_project(project, folder / f"out-{name}", ExportPlan(name)) == 2
assert "torch" not in sys.modules and "transformers" not in sys.modules
assert "altair" not in sys.modules, "charts are drawn on one page alone"
"""


def test_opening_the_app_labelling_and_exporting_import_no_torch(tmp_path: Path) -> None:
    import os

    done = subprocess.run(
        [sys.executable, "-c", WORKS_WITHOUT_TORCH, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"ANNOTATOR_PROJECTS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
