"""Record how long each test takes and which lines of some files it runs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Record:
    """What the tests do without a change."""

    seconds: dict[str, float] = field(default_factory=dict)  # by test, of those that passed
    tests: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # by file and number of the line
    libraries: list[str] = field(default_factory=list)  # modules that were imported

    def tests_of(self, file: str, places: Sequence[Iterable[int]], seconds: float) -> list[str]:
        """Return the tests that run any line of the first of these places that some test runs, or else of the file.

        The fastest and narrowest, at most so many seconds in all, and at least one if there is any.
        """
        by_line = {int(line): tests for line, tests in self.tests[file].items()}
        breadth = Counter(test for tests in by_line.values() for test in tests)  # lines of the file
        for lines in (*places, by_line):
            found = {test for line in lines for test in by_line.get(line, ()) if test in self.seconds}
            if found:
                ordered = sorted(found, key=lambda test: self.seconds[test] * breadth[test])
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
