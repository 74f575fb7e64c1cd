"""One thing is changed at a time, what only a reader notices is left alone, and a mutant lives if no test fails."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

from benchmarks.covered import Record
from benchmarks.mutants import OUTCOMES, _run, draw
from benchmarks.mutation import changes, difference, mutate

ROOT = Path(__file__).resolve().parents[2]
TOY = dedent("""
    def is_adult(age):
        return age >= 18

    def greeting():
        return "hello"
""")
TOY_TEST = dedent("""
    from toy import greeting, is_adult

    def test_the_age_is_18():
        assert is_adult(18)
        assert not is_adult(17)

    def test_something_is_returned():
        assert greeting()
""")
BY_LINE = {"3": ["tests/test_toy.py::test_the_age_is_18"], "6": ["tests/test_toy.py::test_something_is_returned"]}


def mutants_of(source: str) -> list[str]:
    count = len(list(changes(ast.parse(source))))
    return [mutate(source, number) for number in range(count)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", {"x = a <= b", "x = a >= b"}),
        ("x = a == b and c", {"x = a != b and c", "x = a == b or c"}),
        ("x = not a", {"x = a"}),
        ("x = a + 1", {"x = a - 1", "x = a + 2"}),
        ("x = 0.5", {"x = 1.0"}),
        ("x = 'a'", {"x = 'aXX'"}),
        ("x = -y", {"x = y"}),
        ("x += y", {"pass", "x -= y"}),
        ("x[y] = z", {"pass"}),
        ("x = y[a:b]", {"x = y[:b]", "x = y[a:]"}),
        ("x = y if z else w", {"x = y if not z else w"}),
        ("x = f(a, b, c=d)", {"x = f(b, a, c=d)", "x = f(a, b)"}),
        ("f(a)", {"pass"}),
        ("while x:\n    break", {"while not x:\n    break", "while x:\n    continue"}),
        (
            "@property\ndef f(self):\n    return a",
            {"def f(self):\n    return a", "@property\ndef f(self):\n    return None"},
        ),
        ("x = 'SELECT a FROM b WHERE c = 1'", {"x = 'SELECT a FROM b WHERE c != 1'"}),
        (
            "x = 'FROM b WHERE c > 1 OR d IN (2) ORDER BY e'",
            {
                "x = 'FROM b WHERE c > 1 AND d IN (2) ORDER BY e'",
                "x = 'FROM b WHERE c > 1 OR d NOT IN (2) ORDER BY e'",
                "x = 'FROM b WHERE c >= 1 OR d IN (2) ORDER BY e'",
                "x = 'FROM b WHERE c > 1 OR d IN (2) ORDER BY e DESC'",
            },
        ),
    ],
)
def test_each_operator_constant_condition_argument_and_statement_is_changed_alone(
    source: str, expected: set[str]
) -> None:
    made = mutants_of(source)
    assert set(made) == expected
    assert len(made) == len(expected)


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "x: int",
        "def f(a: int | None) -> str | None:\n    return None",
        "_LOG.warning('%s', x + 1)",
        "raise ValueError('wrong')",
        "x = later('A sentence.')",
        "@cache\ndef f():\n    return None",
        "Kind = Literal['a', 'b']",
        "@dataclass(frozen=True)\nclass A:\n    pass",
        "x = zip(a, strict=True)",
        "import a",
    ],
)
def test_what_only_a_reader_or_a_type_checker_notices_is_left_alone(source: str) -> None:
    assert set(mutants_of(source)) <= {"pass", source.partition("\n")[2]}


def test_a_change_knows_its_lines_and_its_function() -> None:
    found = {(one.lines, one.function) for one in changes(ast.parse(TOY))}
    assert found == {(range(3, 4), range(2, 4)), (range(6, 7), range(5, 7))}
    assert difference(TOY, mutate(TOY, 0)) == "- return age >= 18  + return None"


def test_the_tests_of_the_line_come_before_those_of_the_function_and_the_file() -> None:
    seconds = {"slow": 9.0, "fast": 1.0, "other": 1.0}
    record = Record(seconds, {"a.py": {"2": ["slow", "fast", "failed"], "3": ["other"], "9": []}})
    assert record.tests_of("a.py", ([2], [1, 2, 3]), 60) == ["fast", "slow"]
    assert record.tests_of("a.py", ([2], [1, 2, 3]), 5) == ["fast"]
    assert record.tests_of("a.py", ([1], [1, 2]), 60) == ["fast", "slow"]
    assert record.tests_of("a.py", ([1], [1, 2]), 0.5) == ["fast"]
    assert set(record.tests_of("a.py", ([9], [9]), 60)) == {"fast", "slow", "other"}
    broad = Record({"broad": 0.5, "narrow": 1.0}, {"a.py": {"1": ["broad", "narrow"], "2": ["broad"], "3": ["broad"]}})
    assert broad.tests_of("a.py", ([1],), 60) == ["narrow", "broad"]
    assert Record(seconds, {"a.py": {"2": ["failed"]}}).tests_of("a.py", ([2],), 60) == []


def test_mutants_are_drawn_by_seed_from_all_files_by_their_size() -> None:
    files = ("store/queue.py", "store/annotations.py")
    drawn = draw(files, 20, 0)
    assert drawn == draw(files, 20, 0) != draw(files, 20, 1)
    assert len({(one.file, one.number) for one in drawn}) == 20
    sizes = [len(draw([file], 10**6, 0)) for file in files]
    share = sum(one.file == files[0] for one in drawn) / 20
    assert share == pytest.approx(sizes[0] / sum(sizes), abs=0.05)


def test_a_process_that_takes_too_long_is_ended() -> None:
    start = time.perf_counter()
    assert _run(0.2, time.sleep, 60) is None
    assert _run(60.0, sys.exit, 3) == 3
    assert time.perf_counter() - start < 30


def run_on_toy(folder: Path, *arguments: str) -> tuple[list[str], dict[str, object]]:
    """Run the command on a project of one module."""
    (folder / "tests").mkdir(parents=True)
    (folder / "toy.py").write_text(TOY)
    (folder / "tests" / "test_toy.py").write_text(TOY_TEST)
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["slow", "soak"]\npythonpath = ["."]')
    script = f"import pathlib, benchmarks.mutants as m; m.ROOT = pathlib.Path({str(folder)!r}); m.main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--file", "toy.py", "--tests", "tests", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    return [line for line in lines if line.startswith(OUTCOMES)], json.loads(last)


def test_a_mutant_that_no_test_notices_survives_and_is_printed(tmp_path: Path) -> None:
    seconds = {test: 0.1 for tests in BY_LINE.values() for test in tests}
    (tmp_path / "recorded.json").write_text(json.dumps({"seconds": seconds, "tests": {"toy.py": BY_LINE}}))
    lines, last = run_on_toy(tmp_path / "toy", "--recorded", str(tmp_path / "recorded.json"))
    assert lines == ["survived toy.py:6  - return 'hello'  + return 'helloXX'"]
    assert {key: last[key] for key in ("made", "killed", "survived", "timed_out")} == {
        "made": 5,
        "killed": 4,
        "survived": 1,
        "timed_out": 0,
    }
    assert last["toy.py"] == {key: last[key] for key in ("made", "killed", "survived", "timed_out")}
    assert last["share"] == 0.8


def test_which_test_runs_which_line_is_recorded(tmp_path: Path) -> None:
    pytest.importorskip("coverage", reason="coverage is not installed; make soak installs it")
    path = tmp_path / "recorded.json"
    run_on_toy(tmp_path / "toy", "--recorded", str(path), "--count", "1")
    recorded = json.loads(path.read_text())
    assert set(recorded["seconds"]) == {test for tests in BY_LINE.values() for test in tests}
    assert {line: [test for test in tests if test] for line, tests in recorded["tests"]["toy.py"].items()} == {
        "2": [],
        "5": [],
        **BY_LINE,
    }
