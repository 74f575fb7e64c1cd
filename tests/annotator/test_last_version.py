"""A project that the last version made, with rounds, an acceptance and a merge: it opens, goes on, exports its rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from annotator.codebook import history
from annotator.codebook.definition import codebook_of
from annotator.exchange.export import ExportPlan, Rows, export_project
from annotator.labeling.session import answer, next_question, undo
from annotator.loop import run_round
from annotator.project import Project
from store import acceptances, labels, rounds
from store.database import FILENAME
from tests.annotator.scenes import classifier_of, right
from tests.store.frozen import thaw

PLACE = Path(__file__).with_name("last_version")
FORMER_KINDS = ("label", "none_fits")  # the last version left all other utterances out


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    folder = thaw((PLACE / "project.sql").read_text(encoding="utf-8"), tmp_path / "p")
    (folder / "adapters").mkdir()
    with Project.open(folder) as opened:
        yield opened


def exported(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row["id"], row["annotator"] if path.stem == "answers" else ""): row for row in rows}


@pytest.mark.parametrize("rows", ["utterances", "answers"])
def test_it_exports_the_same_rows(project: Project, tmp_path: Path, rows: Rows) -> None:
    name = "rows.jsonl" if rows == "utterances" else "answers.jsonl"
    export_project(project, tmp_path / name, ExportPlan("jsonl", rows))
    now, before = exported(tmp_path / name), exported(PLACE / name)
    for key, row in before.items():
        assert {column: now[key][column] for column in row} == row
    new = [row for key, row in now.items() if key not in before]
    assert all(row["kind"] not in FORMER_KINDS for row in new), "only utterances without a label may be new"


def test_it_goes_on(project: Project) -> None:
    assert codebook_of(project).names == ("promise", "report")
    assert [act.size for act in acceptances.history(project.db)] == [3]
    before = len(rounds.history(project.db))
    for _ in range(6):
        question = next_question(project, "ada")
        assert question
        answer(project, question, "ada", right(project, question))
    assert undo(project, "ada")
    assert run_round(project, classifier_of(project), project.config).row.number == before


def test_its_colors_have_their_american_names_and_a_change_of_one_can_be_undone(tmp_path: Path) -> None:
    folder = thaw((PLACE / "project.sql").read_text(encoding="utf-8"), tmp_path / "p")
    details = json.dumps({"labels": {"1": {"colour": ["blue", "grey"], "key": ["1", "x"]}}, "guide": {}})
    with closing(sqlite3.connect(folder / FILENAME)) as connection, connection:
        connection.execute("UPDATE label SET colour = 'grey', key = 'x' WHERE id = 1")
        sql = (
            "INSERT INTO codebook_event (kind, details, at, author) VALUES ('revise', ?, '2026-01-01T00:00:00', 'ada')"
        )
        connection.execute(sql, (details,))
    with Project.open(folder) as project:
        assert codebook_of(project).label(1).color == "gray"
        changed = labels.events(project.db)[-1]
        assert changed.labels[1]["color"] == ("blue", "gray")
        assert history.describe(changed, {1: "promise"}) == "“promise”: key “1” → “x”, color “blue” → “gray”"
        history.undo(project, changed.version, "ada")
        assert codebook_of(project).label(1).color == "blue"
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            project.db.execute("UPDATE codebook_event SET author = 'eve'")
