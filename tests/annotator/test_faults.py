"""Where nothing can be written, people still see and take what is there, and lose nothing that was on screen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from annotator.cli.main import main
from annotator.doctor import problems_of
from annotator.errors import BadFile, BadSetting, DiskFull, NoProject, ProjectReadOnly
from annotator.exchange.export import ExportPlan, export_project
from annotator.exchange.samples import create_sample, project_folders
from annotator.labeling.preferences import preferences
from annotator.labeling.screen import Screen
from annotator.labeling.session import Answer, standing
from annotator.project import Project
from annotator.reporting.html import report
from annotator.rounds.lifecycle import recover
from annotator.rounds.queueing import refill_queue
from store import annotations
from tests.disks import filled, read_only, small_disk


def answered(folder: Path, count: int = 3) -> None:
    with create_sample("client_talk", folder) as project:
        screen = Screen(project, "anna")
        for _ in range(count):
            screen.answer(project, Answer("label", 1))


def take_all(project: Project, elsewhere: Path) -> int:
    """Do whatever only reads; return how many rows were exported."""
    recover(project)
    assert standing(project, "").labeled == 3
    assert "<html" in report(project)
    return export_project(project, elsewhere / "out.csv", ExportPlan())


def annotator(*arguments: object) -> Result:
    """Run a command; an error that is not ours is raised here."""
    done = CliRunner(env={"COLUMNS": "1000"}).invoke(main, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_a_project_that_cannot_be_written_is_read_reported_and_exported(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        answered(disk / "project")
        with read_only(disk), Project.open(disk / "project") as project:
            assert take_all(project, tmp_path) == 3
            with pytest.raises(ProjectReadOnly) as caught:
                Screen(project, "anna")
            assert "you can write to" in caught.value.hint
            with pytest.raises(BadFile):
                export_project(project, disk / "out.csv", ExportPlan())
        with read_only(disk):
            assert "3 of 600" in annotator("status", disk / "project").stdout
            refused = annotator("retrain", disk / "project")
            assert refused.exit_code == 1
            assert "can be read, but not changed" in refused.stderr


@pytest.mark.parametrize("in_use", [False, True], ids=["closed", "open elsewhere"])
def test_on_a_full_disk_a_project_is_read_reported_and_exported_elsewhere(tmp_path: Path, in_use: bool) -> None:
    with small_disk(tmp_path / "disk") as disk:
        answered(disk / "project")
        holding = Project.open(disk / "project") if in_use else None
        with filled(disk), Project.open(disk / "project") as project:
            assert take_all(project, tmp_path) == 3
            with pytest.raises(BadFile, match="No space"):
                export_project(project, disk / "out.csv", ExportPlan())
            assert not [path.name for path in disk.iterdir() if "out" in path.name]
            with pytest.raises(DiskFull):
                refill_queue(project, "anna")
        if holding:
            holding.close()


def answer_on(project: Project, screen: Screen) -> None:
    """Answer until it fails: the journal has a little room."""
    while True:
        asked = screen.question
        try:
            screen.answer(project, Answer("label", 1))
        except DiskFull:
            assert screen.question is asked
            raise


def test_an_answer_that_a_full_disk_refuses_stays_on_the_desk_and_is_taken_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        answered(disk / "project")
        with Project.open(disk / "project") as project:
            screen = Screen(project, "anna")
            with filled(disk):
                with pytest.raises(DiskFull) as caught:
                    answer_on(project, screen)
                asked = screen.question
                assert not annotations.is_answered(project.db, asked.utterance.id)
                before = annotations.last_id(project.db)
                assert "Free some space" in caught.value.hint
            screen.answer(project, Answer("label", 1))
            assert annotations.last_id(project.db) == before + 1
            assert annotations.is_answered(project.db, asked.utterance.id)


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "dataset"])
def test_a_disk_that_fills_up_leaves_no_half_of_an_export(tmp_path: Path, format_: str) -> None:
    answered(tmp_path / "project", 30)
    with small_disk(tmp_path / "disk") as disk, Project.open(tmp_path / "project") as project:
        plan = ExportPlan(format_, "utterances")
        with filled(disk), pytest.raises(BadFile):
            export_project(project, disk / f"out{'.' + format_ if format_ != 'dataset' else ''}", plan)
        assert list(disk.iterdir()) == []


def test_a_report_that_cannot_be_written_whole_is_not_written(tmp_path: Path) -> None:
    answered(tmp_path / "project")
    with small_disk(tmp_path / "disk") as disk:
        with filled(disk):
            done = annotator("report", tmp_path / "project", "--out", disk / "report.html")
        assert done.exit_code == 1
        assert "cannot be written" in done.stderr
        assert list(disk.iterdir()) == []


def test_only_its_owner_may_read_an_export_and_its_card(tmp_path: Path) -> None:
    answered(tmp_path / "project")
    with Project.open(tmp_path / "project") as project:
        export_project(project, tmp_path / "out.csv", ExportPlan())
        export_project(project, tmp_path / "set", ExportPlan("dataset"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes["out.csv"] == modes["out.README.md"] == 0o600
    assert modes["set"] == 0o700


@pytest.mark.parametrize("stored", ["{", "[1]", '{"batch_size": "many"}', '{"recipe": 7}'])
def test_broken_settings_are_named_and_the_command_that_is_hinted_at_mends_them(tmp_path: Path, stored: str) -> None:
    answered(tmp_path / "project")
    with Project.open(tmp_path / "project") as project:
        project.db.execute("UPDATE setting SET value = ? WHERE key = 'config'", (stored,))
        with pytest.raises(BadSetting, match="“config”") as caught:
            _ = project.config
        assert "--reset 'config'" in caught.value.hint
        assert export_project(project, tmp_path / "out.csv", ExportPlan()) == 3
    assert "“config”" in annotator("settings", tmp_path / "project").stderr
    assert annotator("settings", tmp_path / "project", "--reset", "config").exit_code == 0
    with Project.open(tmp_path / "project") as project:
        assert project.config.batch_size == 25


@pytest.mark.parametrize("stored", ["{", "7", '{"goal": "much"}'])
def test_broken_preferences_are_named(tmp_path: Path, stored: str) -> None:
    answered(tmp_path / "project")
    with Project.open(tmp_path / "project") as project:
        sql = "INSERT OR REPLACE INTO setting (key, value) VALUES ('preferences of anna', ?)"
        project.db.execute(sql, (stored,))
        with pytest.raises(BadSetting, match="“preferences of anna”"):
            preferences(project, "anna")


def test_a_project_without_its_folder_of_adapters_opens_and_is_labelled(tmp_path: Path) -> None:
    answered(tmp_path / "project")
    shutil.rmtree(tmp_path / "project" / "adapters")
    with Project.open(tmp_path / "project") as project:
        recover(project)
        Screen(project, "anna").answer(project, Answer("label", 1))


def test_the_doctor_lists_what_is_wrong_with_a_project(tmp_path: Path) -> None:
    answered(tmp_path / "project")
    assert problems_of(tmp_path / "project") == []
    assert "No problems found" in annotator("doctor", tmp_path / "project").stdout
    with Project.open(tmp_path / "project") as project:
        project.db.execute("UPDATE setting SET value = '{' WHERE key = 'config'")
    assert problems_of(tmp_path / "project") == ["value in row 1 of setting is not valid JSON"]
    done = annotator("doctor", tmp_path / "project")
    assert (done.exit_code, "is not valid JSON" in done.stdout, "1 problem found" in done.stderr) == (1, True, True)
    (tmp_path / "project" / "project.db").write_bytes(b"")
    assert "is empty" in problems_of(tmp_path / "project")[0]
    with pytest.raises(NoProject):
        problems_of(tmp_path)


def test_json_in_rows_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    answered(tmp_path / "project")
    with Project.open(tmp_path / "project") as project:
        project.db.execute("UPDATE label SET examples = '[' WHERE id = 1")
    done = annotator("export", tmp_path / "project", "--out", tmp_path / "out.csv")
    assert "the examples of a label" in done.stderr


def test_projects_that_cannot_be_opened_are_listed_too(tmp_path: Path) -> None:
    for name in ("b-folder", "c-file"):
        (tmp_path / name).mkdir()
    (tmp_path / "b-folder" / "project.db").mkdir()
    (tmp_path / "c-file" / "project.db").write_bytes(b"")
    (tmp_path / "a-link").mkdir()
    (tmp_path / "a-link" / "project.db").symlink_to(tmp_path / "nowhere")
    (tmp_path / "d-nothing").mkdir()
    (tmp_path / "e.json").write_text(json.dumps({}))
    assert [path.name for path in project_folders(tmp_path)] == ["a-link", "b-folder", "c-file"]
    assert project_folders(tmp_path / "not there") == []
