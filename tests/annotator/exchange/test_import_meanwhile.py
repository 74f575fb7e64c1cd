"""Test that an import blocks nobody, and that a killed import leaves nothing or is finished later."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from annotator.errors import ImportRunning
from annotator.exchange.imports import add_utterances, import_file
from annotator.labeling.session import answer, next_question
from annotator.project import Project
from store import annotations, imports, queue, utterances
from store.database import fetch_value
from store.files.importers import ImportPlan, detect_columns
from store.utterances import NewUtterance
from tests.annotator import doomed
from tests.annotator.rounds.test_crash import Doomed, sound
from tests.annotator.scenes import change, new_project, right, texts, truth, write_csv

PLAN = ImportPlan(detect_columns(["id", "text", "label"]))


def write_rows(path: Path, count: int, start: int = 1000) -> Path:
    rows = [{"id": f"r{i}", "text": text, "label": truth(text)} for i, text in enumerate(texts(count, start))]
    return write_csv(path, rows)


def state(project: Project) -> tuple[int, int, int]:
    """Return how many utterances there are, how many for measuring, and how many labels came with a file."""
    counts = utterances.count_slices(project.db)
    given = fetch_value(project.db, "SELECT count(*) FROM annotation WHERE strategy = 'given'")
    return sum(counts.values()), counts["audit"], given


def test_nobody_waits_long_for_an_import_of_many_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "f.csv", 20_000, 10_000)
    waits: list[float] = []
    with new_project(tmp_path / "p", 3000) as project:
        change(project, retrain_every=0)
        importing = Doomed.start(doomed.take_file, tmp_path / "p", path)
        assert importing.wait_for("begin") == ["begin"]
        start = time.monotonic()
        while importing.process.is_alive():
            began = time.monotonic()
            question = next_question(project, "ada")
            assert question
            answer(project, question, "ada", right(project, question))
            waits.append(time.monotonic() - began)
            time.sleep(0.01)
        importing.process.join()
        ended = time.monotonic()
        assert importing.process.exitcode == 0
        assert state(project)[0] == 23_000
    assert len(waits) > 5
    assert max(waits) < (ended - start) / 5


def test_no_step_of_an_import_holds_the_write_lock_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    with new_project(tmp_path / "p", 0) as project:
        trace(project, used)
        import_file(project, write_rows(tmp_path / "f.csv", 10_000), PLAN)
    assert len(used) > 10
    assert max(used) < sum(used) / 4, "a transaction's share of the processor time"


def trace(project: Project, used: list[float]) -> None:
    """Note the processor time of each transaction of a connection that is a writer from its start."""
    began = 0.0

    def note(statement: str) -> None:
        nonlocal began
        if statement.startswith("BEGIN IMMEDIATE"):
            began = time.process_time()
        elif statement.startswith("COMMIT") and began:
            used.append(time.process_time() - began)
            began = 0.0

    project.db.conn.set_trace_callback(note)


def test_a_killed_import_leaves_nothing_or_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(22)
    path = write_rows(tmp_path / "f.csv", 3000)
    longest, outcomes = 1.2 * whole_import(tmp_path), set[int]()
    for number in range(8):
        folder = tmp_path / f"p{number}"
        new_project(folder, 30).close()
        importing = Doomed.start(doomed.take_file, folder, path)
        importing.wait_for("begin")
        time.sleep(rng.uniform(0, longest))
        importing.kill()
        with Project.open(folder) as project:
            assert sound(project)
            found = state(project)
            assert found in ((30, 6, 0), (3030, 6 + 306, 3000)), number
            assert not imports.under_way(project.db)
            assert fetch_value(project.db, "SELECT count(*) FROM staged") == 0
            outcomes.add(found[0])
            longest *= 1.4 if 3030 not in outcomes else 0.7 if 30 not in outcomes else 1  # other work comes and goes
            again = import_file(project, path, PLAN)
            assert state(project) == (3030, 6 + 306, 3000)
            assert (again.to_label, again.unchanged) == ((3000, 0) if found[0] == 30 else (0, 3000))
    assert outcomes == {30, 3030}


def whole_import(folder: Path) -> float:
    """Return how many seconds an import takes that nobody kills."""
    new_project(folder / "whole", 30).close()
    importing = Doomed.start(doomed.take_file, folder / "whole", folder / "f.csv")
    importing.wait_for("begin")
    began = time.monotonic()
    assert importing.wait_for("done") == ["done"]
    importing.process.join()
    return time.monotonic() - began


def stop_in(monkeypatch: pytest.MonkeyPatch, step: str, after: int) -> None:
    """Let an import end as if its process had died, so many steps of a kind later."""
    left, real = after, getattr(imports, step)

    def doomed_step(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    monkeypatch.setattr(imports, step, doomed_step)


def in_a_process(work: Callable[[], None]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(
    ("step", "after", "is_there"),
    [("stage", 2, False), ("_move_some", 0, True), ("_move_some", 3, True), ("close", 0, True)],
)
def test_an_import_is_finished_from_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: int, is_there: bool
) -> None:
    path = write_rows(tmp_path / "f.csv", 3000)
    new_project(tmp_path / "p", 0).close()

    def work() -> None:
        stop_in(monkeypatch, step, after)
        with Project.open(tmp_path / "p") as project:
            import_file(project, path, PLAN)

    assert in_a_process(work) == -signal.SIGKILL
    with Project.open(tmp_path / "p") as project:
        assert state(project) == ((3000, 306, 3000) if is_there else (0, 0, 0))
        order = "SELECT external_id FROM utterance ORDER BY id"
        assert [row[0] for row in project.db.execute(order)] == [f"r{i}" for i in range(3000 * is_there)]
        assert not imports.under_way(project.db)


def test_an_import_that_fails_while_it_moves_is_finished_when_the_project_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "f.csv", 1000)
    with new_project(tmp_path / "p", 0) as project, monkeypatch.context() as patch:
        real, steps = imports._move_some, []

        def fail(*arguments: Any) -> bool:
            steps.append(1)
            if len(steps) == 3:
                raise OSError("the disk is full")
            return real(*arguments)

        patch.setattr(imports, "_move_some", fail)
        with pytest.raises(OSError, match="disk is full"):
            import_file(project, path, PLAN)
        assert 0 < state(project)[0] < 1000
    with Project.open(tmp_path / "p") as project:
        assert state(project) == (1000, 200, 1000)
        assert queue.size(project.db) == 0  # all of them came with their labels


def test_two_imports_never_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "PATIENCE", 0.3)
    path = write_rows(tmp_path / "f.csv", 100)
    with new_project(tmp_path / "p", 10) as project:
        me = psutil.Process()
        values = (me.pid, me.create_time(), 1, "2026-01-01")
        project.db.execute("INSERT INTO import VALUES (1, 'staging', ?, ?, ?, ?)", values)
        with pytest.raises(ImportRunning):
            import_file(project, path, PLAN)
        with pytest.raises(ImportRunning):
            add_utterances(project, [NewUtterance("x", "new")])
        assert imports.under_way(project.db), "the other one is alive"
        project.db.execute("UPDATE import SET pid_started = 0")  # the number is another process's now
        assert import_file(project, path, PLAN).to_label == 100


def test_what_is_answered_while_rows_move_stays_the_persons(tmp_path: Path) -> None:
    with new_project(tmp_path / "p", 0) as project:
        path = write_csv(tmp_path / "f.csv", [{"id": f"r{i}", "text": text} for i, text in enumerate(texts(30))])
        import_file(project, path, ImportPlan(detect_columns(["id", "text"])))
        question = next_question(project, "ada")
        assert question
        answer(project, question, "ada", right(project, question))
        rows = [{"id": f"r{i}", "text": text, "label": truth(text)} for i, text in enumerate(texts(30))]
        report = import_file(project, write_csv(tmp_path / "g.csv", rows), PLAN)
        assert (report.labels_added, report.not_applied) == (29, 1)
        assert len(annotations.answers(project.db)) == 30
