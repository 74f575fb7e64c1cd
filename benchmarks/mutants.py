"""Change the code in one place at a time and count the changes that a test notices.

    python -m benchmarks.mutants [--count 300] [--seed 1] [--file store/queue.py]

The tests run once to record which lines each of them runs. Then each mutant (benchmarks/mutation.py) is written into a
copy of this folder, and a process that has the libraries loaded, but no module of ours, runs the tests of the changed
line there, the fastest first and up to `seconds` in all, until one fails. A mutant that no test runs has survived.
"""

import ast
import gc
import importlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import psutil

from benchmarks.command import Command, scratch
from benchmarks.measure import print_last
from benchmarks.mutation import changes, difference, mutate

ROOT = Path(__file__).resolve().parents[1]
OURS = ("annotator", "benchmarks", "model", "store", "streamlit_app", "tests")
FILES = (
    "annotator/loop.py",
    "annotator/rounds/batch.py",
    "annotator/rounds/queueing.py",
    "annotator/methods/calibration.py",
    "annotator/methods/guarantee.py",
    "annotator/labeling/session.py",
    "store/annotations.py",
    "store/queue.py",
)
TESTS = ("tests/store", *(f"tests/annotator/{room}" for room in ("methods", "rounds", "labeling")))  # of these rooms
COMMAND = Command(
    __doc__,
    full={
        "count": 300, "seed": 0, "file": FILES, "tests": TESTS, "seconds": 60.0,
        "jobs": 1, "recorded": "",
    },
    quick={"count": 20, "file": ("annotator/methods/guarantee.py",), "tests": ("tests/annotator/methods",)},
    tiny={
        "count": 3, "file": ("annotator/methods/guarantee.py",), "seconds": 5.0,
        "tests": ("tests/annotator/methods/test_guarantee.py",),
    },
    figures=("made", "killed", "survived", "timed_out", "share"),
    figures_by="file",
)  # fmt: skip
WAITING = ("test_crash.py", "test_worker.py")  # their processes take longer than they tell of these modules
PYTEST = ("-q", "-m", "not slow and not soak", "-p", "no:xdist", "-p", "no:cacheprovider")
PYTEST += tuple(f"--ignore-glob=*/{name}" for name in WAITING)
LOADED = "ignore::pytest.PytestAssertRewriteWarning"  # the libraries are loaded before pytest begins
FIRST = 10  # tests that are collected alone, because most mutants fail one of the fastest
SURVIVED, KILLED, TIMED_OUT = OUTCOMES = ("survived", "killed", "timed_out")


@dataclass(frozen=True)
class Mutant:
    """A changed file: the number of the change, and its lines and those of its function; unchanged without a number."""

    file: str
    number: int | None = None
    lines: range = range(0)
    function: range = range(0)

    @property
    def source(self) -> str:
        """The source before the change."""
        return (ROOT / self.file).read_text(encoding="utf-8")

    @property
    def changed(self) -> str:
        """The source after the change."""
        return ast.unparse(ast.parse(self.source)) if self.number is None else mutate(self.source, self.number)


@dataclass
class Record:
    """What the tests do without a change."""

    seconds: dict[str, float] = field(default_factory=dict)  # by test, of those that passed
    tests: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # by file and number of the line
    libraries: list[str] = field(default_factory=list)  # modules that were imported

    def tests_of(self, mutant: Mutant, seconds: float) -> list[str]:
        """Return the tests that run the changed lines, or else the function, or else the file: the fastest, at most
        so many seconds in all, and at least one if there is any.
        """
        by_line = self.tests[mutant.file]
        for lines in (mutant.lines, mutant.function, by_line):
            found = {test for line in lines for test in by_line.get(str(line), ()) if test in self.seconds}
            if found:
                ordered = sorted(found, key=lambda test: self.seconds[test])
                within = np.cumsum([self.seconds[test] for test in ordered]) <= seconds
                return ordered[: max(1, int(within.sum()))]
        return []


class Recorder:
    """A plugin of pytest that records how long each test takes and which lines it runs."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        from coverage import Coverage

        self.paths, self.record, self.failed = {file: str(root / file) for file in files}, Record(), set[str]()
        self.coverage = Coverage(data_file=None, include=[*self.paths.values()], config_file=False)
        self.coverage.set_option("run:core", "ctrace")  # the newer one sees a line in one test only
        self.coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Begin a test."""
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count the time of each phase of a test."""
        self.record.seconds[report.nodeid] = self.record.seconds.get(report.nodeid, 0.0) + report.duration
        if not report.passed:
            self.failed.add(report.nodeid)

    def pytest_runtest_logfinish(self) -> None:
        """End a test."""
        self.coverage.switch_context("")

    def pytest_sessionfinish(self) -> None:
        """Complete the record, without the tests that failed or were skipped."""
        self.coverage.stop()
        data, seconds = self.coverage.get_data(), self.record.seconds
        for file, path in self.paths.items():
            self.record.tests[file] = {str(line): tests for line, tests in data.contexts_by_lineno(path).items()}
        self.record.seconds = {test: seconds[test] for test in seconds if test not in self.failed}
        self.record.libraries = [name for name in sys.modules if _is_library(name)]


class Hurry:
    """A plugin of pytest that runs the fastest files first and does not simplify failing examples."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = seconds

    def pytest_collection(self) -> None:
        """Change how examples are drawn, after tests/conftest.py has."""
        from hypothesis import Phase, settings

        settings.register_profile("hurry", settings.default, phases=(Phase.explicit, Phase.generate))
        settings.load_profile("hurry")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Sort the tests by the time of their file, then their own."""
        files: dict[Path, float] = {}
        for item in items:
            files[item.path] = files.get(item.path, 0.0) + self.seconds.get(item.nodeid, 0.0)
        items.sort(key=lambda item: (files[item.path], str(item.path), self.seconds.get(item.nodeid, 0.0)))


def _is_library(name: str) -> bool:
    is_plugin = "pytest" in name.removeprefix("_pytest")
    return not (is_plugin or name.startswith("__") or name.partition(".")[0] in OURS)


def _enter(root: Path) -> None:
    """Make this process work in a copy of the project, with none of our modules and without output."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    os.chdir(root)
    sys.path[0] = os.environ["PYTHONPATH"] = str(root)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _record(root: Path, files: Sequence[str], tests: Sequence[str], path: Path) -> None:
    """Run the tests and write what they do to a file. Runs in a process of its own."""
    _enter(root)
    import pytest

    recorder = Recorder(root, files)
    pytest.main([*PYTEST, *tests], plugins=[recorder])
    path.write_text(json.dumps(asdict(recorder.record)), encoding="utf-8")


def _try(root: Path, tests: Sequence[str], seconds: Mapping[str, float]) -> None:
    """Run the tests until one fails, and exit as pytest does. Runs in a process of its own."""
    _enter(root)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    import pytest

    for some in (tests[:FIRST], tests[FIRST:]):
        if some and (code := pytest.main(["-x", "-W", LOADED, *PYTEST, *some], plugins=[Hurry(seconds)])):
            os._exit(code)
    os._exit(0)


def _run(limit: float | None, function: Callable[..., None], *args: Any) -> int | None:
    """Run a function in a process forked from this one and return its exit code; None after `limit` seconds."""
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    process.join(limit)
    if process.exitcode is None:
        for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        return None
    return process.exitcode


def outcome(mutant: Mutant, root: Path, record: Record, seconds: float) -> str:
    """Run the tests of a mutant in a copy of the project."""
    tests, path = record.tests_of(mutant, seconds), root / mutant.file
    if not tests:
        return SURVIVED
    path.write_text(mutant.changed, encoding="utf-8")
    os.utime(path, (0, mutant.number or 0))  # its own time, so that no compiled file of another is taken for it
    code = _run(20 + 3 * sum(record.seconds[test] for test in tests), _try, root, tests, record.seconds)
    shutil.copy2(ROOT / mutant.file, path)
    return TIMED_OUT if code is None else KILLED if code else SURVIVED


def draw(files: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Draw mutants at random, one from each of `count` equal stretches of all files; all if there are fewer."""
    trees = {file: ast.parse(Mutant(file).source) for file in files}
    found = [Mutant(file, one.number, one.lines, one.function) for file in files for one in changes(trees[file])]
    rng = np.random.default_rng(seed)
    return [found[rng.choice(part)] for part in np.array_split(np.arange(len(found)), min(count, len(found)))]


def record_of(root: Path, given: Any) -> Record:
    """Return what the tests do, read from the file `recorded` if it exists and else written to it."""
    path = Path(given.recorded or scratch() / "recorded.json")
    if not path.exists():
        _run(None, _record, root, given.file, given.tests, path)
    return Record(**json.loads(path.read_text(encoding="utf-8")))


def load_libraries(names: Sequence[str]) -> None:
    """Import what the tests import, so that every process has it from the start."""
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()


def count_outcomes(found: Sequence[tuple[str, str]], files: Sequence[str]) -> dict[str, Any]:
    """Count (file, outcome) pairs, in all and by file; `share` of all mutants were killed or timed out."""

    def count(some: Sequence[str]) -> dict[str, int]:
        return {"made": len(some), **{kind: some.count(kind) for kind in OUTCOMES}}

    every = count([kind for _, kind in found])
    by_file = {file: count([kind for one, kind in found if one == file]) for file in files}
    return {**every, "share": round(1 - every[SURVIVED] / every["made"], 3), **by_file}


def main() -> None:
    """Try the mutants, print those that no test noticed, and count."""
    given = COMMAND.read()
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "projects")
    first = Path(shutil.copytree(ROOT, scratch() / "0", ignore=ignored))
    record = record_of(first, given)
    load_libraries(record.libraries)
    for file in given.file:
        if outcome(Mutant(file), first, record, given.seconds) != SURVIVED:
            sys.exit(f"The tests fail without a change of {file}.")
    free: SimpleQueue[Path] = SimpleQueue()
    for root in [first, *(Path(shutil.copytree(first, scratch() / str(n))) for n in range(1, given.jobs))]:
        free.put(root)

    def attempt(mutant: Mutant) -> tuple[str, str]:
        root = free.get()
        found = outcome(mutant, root, record, given.seconds)
        free.put(root)
        if found != KILLED:
            line = f"{mutant.file}:{mutant.lines.start}"
            print(f"{found} {line}  {difference(mutant.source, mutant.changed)}", flush=True)
        return mutant.file, found

    with ThreadPoolExecutor(given.jobs) as pool:
        found = list(pool.map(attempt, draw(given.file, given.count, given.seed)))
    print_last(count_outcomes(found, given.file))


if __name__ == "__main__":
    main()
