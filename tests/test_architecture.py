"""The rules of docs/architecture.md that a reader would otherwise have to trust."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("annotator", "model", "store")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
SOURCES.append(ROOT / "streamlit_app.py")
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "outlines", "safetensors"}
UNTYPED = {"annotator": 16, "model": 24, "store": 16}  # mappings of anything; lower a number when one of them goes
LONGEST_FUNCTION, LONGEST_FILE, MOST_PARAMETERS = 50, 350, 6

FLOORS = (  # a room may import rooms on lower floors, itself, and nothing else of `annotator`
    ("errors",),
    ("i18n",),
    ("methods",),
    ("config", "gate", "backbones"),
    ("project",),
    ("doctor",),
    ("codebook",),
    ("rounds",),
    ("exchange",),
    ("labeling",),
    ("reporting",),
    ("simulation",),
    ("cli", "pages"),
)
PART_OF = {"loop": "rounds"}  # `loop.py` stands alone because it is read first


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Return all imports, those inside functions and those for type checkers included."""
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)


def room_of(module: str) -> str:
    """Return the room of a module: `model`, `store`, or the part of `annotator` it lies in; '' for `annotator`."""
    package, _, rest = module.partition(".")
    inner = rest.partition(".")[0]
    return PART_OF.get(inner, inner) if package == "annotator" else package


def edges(graph: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    for module in sorted(graph.modules):
        yield from ((module, other) for other in sorted(graph.find_modules_directly_imported_by(module)))


def test_there_is_no_circle_of_imports(graph: grimp.ImportGraph) -> None:
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    tuple(TopologicalSorter(imported).static_order())  # raises CycleError


def test_a_room_imports_only_rooms_below_it(graph: grimp.ImportGraph) -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for module, other in edges(graph):
        here, there = room_of(module), room_of(other)
        if here in floor and there in floor and here != there:
            assert floor[there] < floor[here], f"{module} imports {other}"


def test_every_module_has_a_room_and_every_room_a_floor(graph: grimp.ImportGraph) -> None:
    rooms = {room_of(module) for module in graph.modules} - {"", "model", "store"}
    assert rooms == {room for rooms in FLOORS for room in rooms}


def test_methods_know_neither_rows_nor_weights(graph: grimp.ImportGraph) -> None:
    allowed = {"model", "model.constants", "model.types", "model.finite", "model.probe.scaling"}  # arrays alone
    for module, other in edges(graph):
        if room_of(module) == "methods":
            assert room_of(other) in ("methods", "errors", "i18n") or other in allowed, f"{module} imports {other}"


def test_store_and_model_know_neither_each_other_nor_the_domain(graph: grimp.ImportGraph) -> None:
    for module, other in edges(graph):
        here, there = room_of(module), room_of(other)
        if here in ("store", "model"):
            assert there in (here, "errors"), f"{module} imports {other}"


def test_the_rooms_and_what_they_import_are_printed(graph: grimp.ImportGraph, capsys: pytest.CaptureFixture) -> None:
    drawn = Counter((room_of(module), room_of(other)) for module, other in edges(graph))
    modules = Counter(room_of(module) for module in graph.modules)
    lines = [f"{'room':<12}modules  imports (number of import edges)"]
    for room, count in modules.items():
        if room:
            below = (f"{there} {n}" for (here, there), n in sorted(drawn.items()) if here == room and there != room)
            lines.append(f"{room:<12}{count:>7}  {', '.join(below)}")
    lines += [f"largest {kind}: {lines_of} lines, {name}" for kind, (lines_of, name) in largest().items()]
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert drawn


def largest() -> dict[str, tuple[int, str]]:
    """Return the number of lines and the name of the largest module, class and function."""
    kinds = {"module": ast.Module, "class": ast.ClassDef, "function": ast.FunctionDef}
    sizes: dict[str, list[tuple[int, str]]] = {kind: [] for kind in kinds}
    for path in SOURCES:
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        sizes["module"].append((len(text.splitlines()), name))
        for node in ast.walk(ast.parse(text)):
            for kind in ("class", "function"):
                if isinstance(node, kinds[kind]):
                    sizes[kind].append(((node.end_lineno or 0) - node.lineno + 1, f"{name}: {node.name}"))
    return {kind: max(found) for kind, found in sizes.items()}


def imports(path: Path) -> Iterator[str]:
    """Yield every module and name that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def is_page(path: Path) -> bool:
    return path.name == "streamlit_app.py" or "pages" in path.relative_to(ROOT).parts


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_library_is_imported_by_its_one_home(path: Path) -> None:
    homes = {
        "streamlit": is_page(path),
        "sqlite_utils": package_of(path) == "store" or path.name == "project.py",  # the type of an open database
        "sqlite3": package_of(path) == "store",
        "altair": path.name == "charts.py",
        "krippendorff": path.name == "consensus.py",
        **{library: package_of(path) == "model" for library in HEAVY},
    }
    for module in imports(path):
        assert homes.get(module.split(".")[0], True), f"{path.name} imports {module}"


def test_session_state_is_touched_in_its_one_module_alone() -> None:
    """Pages reach it through the dataclasses and widgets of `state.py`, which mypy checks."""
    touching = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if "session_state" in (getattr(node, "attr", ""), getattr(node, "id", ""), getattr(node, "name", ""))
    }
    assert touching == {"annotator/pages/components/state.py"}


def test_pages_are_imported_by_the_app_alone() -> None:
    for path in SOURCES:
        if not is_page(path):
            assert not [name for name in imports(path) if name.startswith("annotator.pages")], path


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


def untyped(source: str) -> int:
    """Count the mappings from names to anything among the types of a file."""
    types = (ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Subscript))
    return sum(one in ("Mapping[str, Any]", "MutableMapping[str, Any]", "dict[str, Any]") for one in types)


@pytest.mark.parametrize("package", PACKAGES)
def test_rows_cross_borders_as_dataclasses_and_no_more_mappings_of_anything(package: str) -> None:
    """What remains is JSON, SQL or the keyword arguments of a library."""
    found = sum(untyped(path.read_text(encoding="utf-8")) for path in SOURCES if package_of(path) == package)
    assert found <= UNTYPED[package]


def test_a_mapping_of_anything_is_counted_wherever_it_stands() -> None:
    signature = "def f(a: Mapping[str, Any] | None, b: Mapping[str, int]) -> list[dict[str, Any]]: ..."
    assert untyped(f"Row = dict[str, Any]\n{signature}") == 3


def test_everything_is_caught_in_two_places_only_each_of_which_tells_a_person() -> None:
    """The worker writes it into the job's row; a widget's callback keeps it for the page, which raises it again."""
    found = [
        path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or "'Exception'" in ast.dump(node.type))
    ]
    assert found == ["layout.py", "worker.py"]


# Words of our own, or of British spelling, where the field has a term: see the glossary of the guide.
PRIVATE_WORDS = set(
    re.findall(
        r"\w+",
        "askable behaviour catalogue centre colour colours desk doubt favour fond grey hear heard hears honest honour "
        "labelled labelling lesson lessons licence promise promised promises quarrel scout scouts settle settled "
        "settles settling spelt unseen voice voices wear wish wished wishes",
    )
)
TALK = set(re.findall(r"\w+", "said say says sharp speak taught teach tell telling tells thought told"))  # not in tests
EXCEPTIONS = {
    "say": "translates a text",
    "say_many": "translates a text with a plural",
    "said_label_id": "a stored column",
    "promise": "an exported column",
    "PROMISE": "a label of the tests' codebook",
    "WISH": "a label of the tests' codebook",
}


def private_names(source: str, refused: set[str]) -> set[str]:
    """Return the names in a source text that contain a refused word."""
    fields = ("id", "attr", "arg", "name", "asname")
    found = {getattr(node, field, None) for node in ast.walk(ast.parse(source)) for field in fields}
    names = {name for name in found if isinstance(name, str) and name not in EXCEPTIONS}
    return {name for name in names if refused & set(re.findall(r"[a-z]+", re.sub("([A-Z]+)", r"_\1", name).lower()))}


@pytest.mark.parametrize("folder", ["annotator", "model", "store", "benchmarks", "docs", "tests"])
def test_names_are_words_of_the_field(folder: str) -> None:
    refused = PRIVATE_WORDS if folder == "tests" else PRIVATE_WORDS | TALK
    for path in sorted((ROOT / folder).rglob("*.py")):
        assert private_names(path.read_text(encoding="utf-8"), refused) == set(), path


def test_a_private_word_is_found_in_any_part_of_a_name() -> None:
    source = (
        "class HiddenVoice:\n    def settle_it(self, told_so): self.COLOURS = tell(wish=1)\nimport x as scout\nsay(1)"
    )
    found = {"HiddenVoice", "settle_it", "told_so", "COLOURS", "tell", "wish", "scout"}
    assert private_names(source, PRIVATE_WORDS | TALK) == found


def test_nothing_is_called_utils() -> None:
    bags = {"utils", "helpers", "common", "manager", "misc"}
    assert not [path for path in SOURCES if path.stem in bags]


WORKS_WITHOUT_TORCH = """
import sys
from pathlib import Path
from streamlit.testing.v1 import AppTest
from annotator.exchange.export import ExportPlan, export_project
from annotator.project import Project
from annotator.exchange.samples import create_sample
from annotator.labeling.session import Answer, answer, next_question
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


def test_opening_the_app_labeling_and_exporting_import_no_torch(tmp_path: Path) -> None:
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
