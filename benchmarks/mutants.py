"""Change the code in one place at a time and count the changes that a test notices.

    python -m benchmarks.mutants [--count 300] [--seed 1] [--file store/queue.py]

The tests run once to record which lines each of them runs. Each mutant (benchmarks/mutation.py) then has a process that
is forked after the tests have been collected, and runs the tests of the changed line, the fastest and narrowest, up to
`seconds` in all, until one fails. A change inside a function is put into the functions that are loaded; for any other,
the changed file is written to a copy of this folder, and the tests are collected anew. A mutant that no test runs has
survived.
"""

import ast
import gc
import importlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import psutil

from benchmarks.command import Command, scratch
from benchmarks.covered import Record, Recorder
from benchmarks.measure import print_last
from benchmarks.mutation import changes, difference, functions_of, is_within_functions, mutate

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
    quick={"count": 20, "file": ("store/annotations.py", "store/queue.py"), "tests": ("tests/store",)},
    tiny={"count": 3, "file": ("store/queue.py",), "tests": ("tests/store/test_queue.py",)},
    figures=("made", "killed", "survived", "timed_out", "share"),
    figures_by="file",
)  # fmt: skip
WAITING = ("test_crash.py", "test_worker.py")  # they wait for processes of their own and cover little of these modules
PYTEST = (
    *("-q", "-m", "not slow and not soak", "-p", "no:xdist", "-p", "no:cacheprovider"),
    *(f"--ignore-glob=*/{name}" for name in WAITING),
)
LOADED = "ignore::pytest.PytestAssertRewriteWarning"  # the libraries are loaded before pytest begins
FAILED = 9  # exit code after a test that failed; pytest's own are 2 to 4 if a changed file cannot be imported
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


class Hurry:
    """A plugin of pytest: the fastest files first, no further than the first failure, examples not simplified."""

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

    def pytest_runtest_logreport(self, report: Any) -> None:
        """End the process of a mutant that a test noticed."""
        if report.failed:
            os._exit(FAILED)


class Trial(Hurry):
    """The same, which tries mutants once the tests have been collected."""

    def __init__(self, seconds: Mapping[str, float], attempt: Callable[[Sequence[Any]], None]) -> None:
        super().__init__(seconds)
        self.attempt = attempt

    def pytest_runtestloop(self, session: Any) -> bool:
        """Try the mutants."""
        self.attempt(session.items)
        return True


def _is_ours(name: str) -> bool:
    is_copied = str(getattr(sys.modules[name], "__file__", "")).startswith(str(scratch()))
    return is_copied or name.partition(".")[0] in OURS


def _is_library(name: str) -> bool:
    is_plugin = "pytest" in name.removeprefix("_pytest")
    return not (is_plugin or name.startswith("__") or _is_ours(name))


def _enter(root: Path) -> None:
    """Make this process work in a copy of the project, with none of our modules."""
    for name in [name for name in sys.modules if _is_ours(name)]:
        del sys.modules[name]
    os.chdir(root)
    sys.path[0] = os.environ["PYTHONPATH"] = str(root)


def _record(root: Path, files: Sequence[str], tests: Sequence[str], path: Path) -> None:
    """Run the tests and write what they do to a file. Runs in a process of its own."""
    _enter(root)
    import pytest

    recorder = Recorder(root, files)
    pytest.main([*PYTEST, *tests], plugins=[recorder])
    recorder.record.libraries = [name for name in sys.modules if _is_library(name)]
    path.write_text(json.dumps(asdict(recorder.record)), encoding="utf-8")


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def _collect_and_run(root: Path, tests: Sequence[str], seconds: Mapping[str, float]) -> None:
    """Run the tests in a copy of the project, and exit as pytest does. Runs in a process of its own."""
    _silence()
    _enter(root)
    import pytest

    os._exit(pytest.main(["-W", LOADED, *PYTEST, *tests], plugins=[Hurry(seconds)]))


def _patch_and_run(functions: Sequence[FunctionType], new: Mapping[str, CodeType], items: Sequence[Any]) -> None:
    """Change functions by their qualified names, and run tests. Runs in a process of its own."""
    _silence()
    for one in functions:
        one.__code__ = new[one.__code__.co_qualname]
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
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


class Trials:
    """What mutants are tried with: copies of the project, and the tests collected from the first of them."""

    def __init__(self, roots: Sequence[Path], record: Record, seconds: float, items: Sequence[Any]) -> None:
        self.record, self.seconds, self.items = record, seconds, items
        self.loaded, self.copies = roots[0], SimpleQueue[Path]()
        for root in roots[1:]:
            self.copies.put(root)
        self.functions: dict[str, list[FunctionType]] = {}
        for one in gc.get_objects():
            if isinstance(one, FunctionType):
                self.functions.setdefault(one.__code__.co_filename, []).append(one)

    def within(self, mutant: Mutant) -> str:
        """Return the outcome of a change within the functions of a file."""
        tests, path = set(self._tests_of(mutant)), str(self.loaded / mutant.file)
        chosen, new = [item for item in self.items if item.nodeid in tests], functions_of(mutant.changed, path)
        known = [one for one in self.functions.get(path, ()) if one.__code__.co_qualname in new]
        return self._outcome(tests, _patch_and_run, known, new, chosen)

    def anew(self, mutant: Mutant) -> str:
        """Return the outcome of any change of a file, of which the tests are collected again."""
        tests, root = self._tests_of(mutant), self.copies.get()
        path = root / mutant.file
        path.write_text(mutant.changed, encoding="utf-8")
        os.utime(path, (0, mutant.number or 0))  # its own time, so that no compiled file of another is taken for it
        found = self._outcome(tests, _collect_and_run, root, tests, self.record.seconds)
        shutil.copy2(ROOT / mutant.file, path)
        self.copies.put(root)
        return found

    def _tests_of(self, mutant: Mutant) -> list[str]:
        return self.record.tests_of(mutant.file, (mutant.lines, mutant.function), self.seconds)

    def _outcome(self, tests: Collection[str], function: Callable[..., None], *args: Any) -> str:
        if not tests:
            return SURVIVED
        code = _run(20 + 3 * sum(self.record.seconds[test] for test in tests), function, *args)
        if code == 1:
            raise RuntimeError("The process of a mutant ended without an outcome.")
        return TIMED_OUT if code is None else KILLED if code else SURVIVED

    def attempt(self, mutant: Mutant) -> tuple[str, str]:
        """Return a mutant's file and outcome, and print it unless it was killed."""
        found = self.within(mutant) if is_within_functions(mutant.source, mutant.changed) else self.anew(mutant)
        if found != KILLED:
            line = f"{mutant.file}:{mutant.lines.start}"
            print(f"{found} {line}  {difference(mutant.source, mutant.changed)}", flush=True)
        return mutant.file, found


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
    roots = [Path(shutil.copytree(ROOT, scratch() / str(n), ignore=ignored)) for n in range(given.jobs + 1)]
    record = record_of(roots[0], given)
    load_libraries(record.libraries)
    found: list[tuple[str, str]] = []

    def attempt(items: Sequence[Any]) -> None:
        trials = Trials(roots, record, given.seconds, items)
        for file in given.file:
            if {trials.within(Mutant(file)), trials.anew(Mutant(file))} != {SURVIVED}:
                print(f"The tests fail or take too long without a change of {file}.", flush=True)
                os._exit(1)
        with ThreadPoolExecutor(given.jobs) as pool:
            found.extend(pool.map(trials.attempt, draw(given.file, given.count, given.seed)))

    _enter(roots[0])
    import pytest

    pytest.main(["-s", "-W", LOADED, *PYTEST, *given.tests], plugins=[Trial(record.seconds, attempt)])
    print_last(count_outcomes(found, given.file))


if __name__ == "__main__":
    main()
