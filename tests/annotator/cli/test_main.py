"""Each command does what its help states, and reports errors without a traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from annotator import __version__
from annotator.cli import simulate, terminal
from annotator.cli.main import main
from annotator.codebook.definition import codebook_of
from annotator.loop import run_round
from annotator.project import Project
from annotator.simulation import oracle
from model.recipe import Recipe
from store import annotations, jobs, utterances
from store.files.exporters import FORMATS
from tests.annotator.scenes import another_writes, classifier_of, label_pool, new_project, texts, truth
from tests.fake import FakeClassifier


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal wide enough that no sentence is broken."""
    monkeypatch.setattr(terminal.console, "width", 400)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def good(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)  # no traceback
    assert "Traceback" not in result.output
    assert result.output.splitlines()[-1].startswith("Error: ")
    return result.output


@pytest.fixture
def labeled(tmp_path) -> Path:
    path = tmp_path / "labelled.csv"
    path.write_text("text,label\n" + "".join(f"{text},{truth(text)}\n" for text in texts(60)))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    with new_project(tmp_path / "p") as project:
        label_pool(project, 9)
        run_round(project, classifier_of(project), project.config)
    return tmp_path / "p"


def test_the_version_is_told():
    assert __version__ in good("--version")


def test_a_project_is_made_from_a_sample(tmp_path):
    assert "Created" in good("new", tmp_path / "p", "--sample", "political_promises")
    with Project.open(tmp_path / "p") as project:
        assert codebook_of(project).names == ("promise", "not a promise")


def test_a_project_is_made_from_a_codebook(tmp_path):
    (tmp_path / "c.yaml").write_text("labels: [{name: a}, {name: b}]")
    good("new", tmp_path / "p", "--codebook", tmp_path / "c.yaml")
    with Project.open(tmp_path / "p") as project:
        assert (codebook_of(project).names, project.name) == (("a", "b"), "p")


def test_a_project_is_made_from_the_labels_of_a_file(tmp_path, labeled):
    good("new", tmp_path / "p", "--labels-from", labeled)
    with Project.open(tmp_path / "p") as project:
        assert codebook_of(project).names == ("promise", "report", "wish")


def test_a_project_that_exists_is_refused_or_left_alone(folder):
    assert "already contains a project" in refused("new", folder, "--sample", "client_talk")
    good("new", folder, "--sample", "client_talk", "--if-missing")
    with Project.open(folder) as project:
        assert project.name == "Test"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "A project needs labels. Give --codebook, --labels-from or --sample."),
        (["--codebook", "nowhere.yaml"], "There is no codebook file nowhere.yaml. Check the path."),
        (["--labels-from", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_a_project_that_cannot_be_made_is_refused_and_leaves_nothing(tmp_path, options, says):
    assert says in refused("new", tmp_path / "p", *options)
    assert not (tmp_path / "p").exists()


def test_a_broken_codebook_is_refused_with_its_fault(tmp_path):
    (tmp_path / "c.yaml").write_text("labels: [{name: a}]")
    assert "at least two labels" in refused("new", tmp_path / "p", "--codebook", tmp_path / "c.yaml")


def test_an_import_reports_what_was_taken_and_what_was_not(tmp_path, labeled):
    good("new", tmp_path / "p", "--labels-from", labeled)
    with labeled.open("a") as stream:
        stream.write(f"{texts(1)[0]},promise\nsomething new,threat\n")
    output = good("import", tmp_path / "p", labeled)
    assert "Added 61 utterances to label (60 of them with a label)" in output
    assert "2 problems reported" in output
    assert "row 62: The text is a copy of" in output
    assert "row 63: “threat” is not a label of the codebook" in output


def test_a_second_import_says_what_is_unchanged_and_what_is_not_applied(tmp_path, labeled):
    good("new", tmp_path / "p", "--labels-from", labeled)
    good("import", tmp_path / "p", labeled)
    second = tmp_path / "second" / "labelled.csv"
    second.parent.mkdir()
    second.write_text(labeled.read_text().replace(",report", ",wish", 1))
    output = good("import", tmp_path / "p", second, "--report", tmp_path / "left.csv")
    assert "59 unchanged, 1 with changes that were not applied, 1 problem reported. Not taken: 1 change." in output
    assert "row 3: It is already imported; not applied: label “wish”." in output
    assert "3,change,It is already imported; not applied: label “wish”." in (tmp_path / "left.csv").read_text()


def test_a_long_report_is_cut_on_the_screen_and_whole_in_the_file(tmp_path, labeled):
    good("new", tmp_path / "p", "--labels-from", labeled)
    path = tmp_path / "unknown.csv"
    path.write_text("text,label\n" + "".join(f"text {n},[/x{n}]\n" for n in range(70)))
    output = good("import", tmp_path / "p", path, "--report", tmp_path / "left.csv")
    assert "70 problems reported" in output
    assert "row 2: “[/x0]” is not a label of the codebook" in output
    assert "… and 20 more." in output
    assert len((tmp_path / "left.csv").read_text().splitlines()) == 71


def test_a_codebook_is_made_of_the_labels_of_the_rows_that_will_be_labeled(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("text,speaker,label\na,client,yes\nb,client,no\nc,agent,small talk\n")
    good("new", tmp_path / "p", "--labels-from", path, "--only", "speaker=client")
    with Project.open(tmp_path / "p") as project:
        assert codebook_of(project).names == ("no", "yes")
    assert "--only filters the rows" in refused(
        "new", tmp_path / "q", "--sample", "client_talk", "--only", "speaker=client"
    )


def test_an_import_may_leave_labels_out_and_take_copies(tmp_path, labeled):
    good("new", tmp_path / "p", "--labels-from", labeled)
    with labeled.open("a") as stream:
        stream.write(f"{texts(1)[0]},promise\n")
    assert "Added 61 utterances to label and" in good("import", tmp_path / "p", labeled, "--no-labels", "--keep-copies")
    with Project.open(tmp_path / "p") as project:
        assert annotations.last_id(project.db) == 0


def test_an_import_labels_only_what_was_asked_for(tmp_path, folder):
    path = tmp_path / "talk.csv"
    path.write_text("text,speaker\nhow are you,therapist\nso and so,client\n")
    assert "Added 1 utterance to label and 1 as context" in good("import", folder, path, "--only", "speaker=client")


def test_the_text_column_may_have_any_name(tmp_path, folder):
    path = tmp_path / "f.csv"
    path.write_text("satz,nummer\nein Satz,1\n")
    assert "Added 1 utterance" in good("import", folder, path, "--text", "satz")
    assert "has a known name for the text" in refused("import", folder, path)
    path.write_text("text,satz\nein Satz,noch einer\n")
    assert "no column “sazt”" in refused("import", folder, path, "--text", "sazt")


def test_a_file_in_another_encoding_is_read_if_its_name_is_given(tmp_path, folder):
    path = tmp_path / "f.csv"
    path.write_bytes("text,größe\nein schöner Satz,3\n".encode("cp1252"))
    assert refused("import", folder, path)
    good("import", folder, path, "--encoding", "cp1252")
    with Project.open(folder) as project:
        assert "ein schöner Satz" in {row.text for row in utterances.iterate(project.db)}


@pytest.mark.parametrize("command", [["status"], ["export"], ["retrain"]])
def test_a_project_that_is_not_there_is_refused(tmp_path, command):
    assert "There is no project in" in refused(*command, tmp_path / "nowhere")


def test_a_file_that_is_not_there_is_refused(tmp_path, folder):
    assert "nowhere.csv" in refused("import", folder, tmp_path / "nowhere.csv")


def test_the_status_counts_answers_and_lists_rounds(folder):
    output = good("status", folder)
    with Project.open(folder) as project:
        answered = len(annotations.answered_ids(project.db))
    assert f"Test: {answered} of 60 utterances are answered." in output
    assert "No round is running." in output
    assert "promoted" in output


@pytest.mark.parametrize(
    "command", [("import", "FOLDER", "FILE"), ("retrain", "FOLDER"), ("settings", "FOLDER", "seed=1")]
)
def test_while_another_program_writes_a_command_says_so(folder, labeled, command, monkeypatch):
    monkeypatch.setattr("store.database.BUSY_SECONDS", 0.1)
    given = {"FOLDER": folder, "FILE": labeled}
    with another_writes(folder):
        said = refused(*(given.get(part, part) for part in command))
    assert "Another program is writing to this project" in said
    assert "Try again in a moment" in said


def test_while_another_program_writes_a_project_is_shown_and_exported(folder, tmp_path):
    with another_writes(folder):
        assert "utterances are answered" in good("status", folder)
        good("export", folder, "--out", tmp_path / "out.csv")


def test_a_round_that_hangs_is_told_and_cancelled(folder, monkeypatch):
    for grace in ("CANCEL_GRACE", "TERM_GRACE"):
        monkeypatch.setattr(jobs, grace, timedelta(seconds=0.2))
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as hanging, Project.open(folder) as project:
        job = jobs.begin(project.db, "test", 0)
        jobs.sign(project.db, job, hanging.pid)
        project.db.execute("UPDATE job SET heartbeat_at = '2020-01-01T00:00:00+00:00'")
        hanging.send_signal(signal.SIGSTOP)
        assert "not reported progress" in good("status", folder)
        assert "No round is running" in good("cancel", folder)
        assert jobs.get(project.db, job).state == "cancelled"
    assert "No round is running" in good("cancel", folder)


def test_settings_are_listed_changed_and_kept(folder):
    assert "quantization" in good("settings", folder)
    told = good("settings", folder, "recipe.quantization=nf4", "batch_size=40")
    assert [line.split()[1:6:2] for line in told.splitlines() if "quantization" in line] == [
        ["recipe.quantization", "nf4", "none"]
    ]
    with Project.open(folder) as project:
        assert (project.config.recipe.quantization, project.config.batch_size) == ("nf4", 40)
    assert "There is no setting called “batch”" in refused("settings", folder, "recipe.epochs=2", "batch=3")
    with Project.open(folder) as project:
        assert project.config.recipe.epochs == Recipe.epochs  # all or nothing


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_is_exported_with_its_card(folder, tmp_path, name):
    out = tmp_path / f"out{FORMATS[name].suffix}"
    output = good("export", folder, "--format", name, "--out", out)
    with Project.open(folder) as project:
        assert f"{len(annotations.answered_ids(project.db))} rows in" in output
    assert out.exists()
    assert (out / "README.md" if out.is_dir() else out.with_name("out.README.md")).exists()


def test_an_export_is_called_after_the_project(folder, monkeypatch):
    monkeypatch.chdir(folder)
    good("export", ".")
    assert (folder / "p.csv").exists()


def test_an_export_may_have_the_rows_of_the_model_too(folder, tmp_path):
    assert "60 rows in" in good("export", folder, "--with-model", "--out", tmp_path / "o.jsonl", "--format", "jsonl")


def test_an_export_does_not_replace_what_is_something_else(folder, tmp_path):
    (tmp_path / "out.csv").mkdir()
    assert "already exists and is not an earlier export" in refused("export", folder, "--out", tmp_path / "out.csv")


def test_a_simulation_prints_every_run_and_writes_all_figures(labeled, tmp_path, monkeypatch):
    monkeypatch.setattr(oracle, "load_classifier", lambda backbone, task, *_: FakeClassifier(task))
    out = tmp_path / "figures.json"
    output = good(
        "simulate", labeled, "--labels", 30, "--seeds", "0-1", "--rounds", 2, "--recipe", "epochs=3", "--json", out
    )
    assert output.count("trained on") == 4
    written = json.loads(out.read_text(encoding="utf-8"))
    assert [run["seed"] for run in written["runs"]] == [0, 0, 1, 1]
    assert written["config"]["recipe"]["epochs"] == 3
    assert 0 <= written["mean_accuracy"] <= 1
    assert f"mean_accuracy {written['mean_accuracy']:.3f}" in output


def test_a_simulation_says_how_many_labels_are_enough_if_asked(labeled, tmp_path, monkeypatch):
    monkeypatch.setattr(oracle, "load_classifier", lambda backbone, task, *_: FakeClassifier(task))
    page = tmp_path / "page.html"
    output = good("simulate", labeled, "--labels", "20,40", "--everything", "--report", page).replace("\n", " ")
    for said in ("all 48 answers give an accuracy of", "advised to stop"):
        assert said in output
        assert said in page.read_text(encoding="utf-8")
    assert "all 48 answers" not in good("simulate", labeled, "--labels", "20,40")


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", [0]), ("0,1,2", [0, 1, 2]), ("0-4", [0, 1, 2, 3, 4]), ("1,5-6", [1, 5, 6])]
)
def test_seeds_are_written_as_lists_and_ranges(text, numbers):
    assert simulate._numbers(None, None, text) == numbers


def test_a_simulation_that_cannot_be_run_is_refused(labeled, tmp_path):
    assert "no strategy called “guess”" in refused("simulate", labeled, "--strategy", "guess")
    (tmp_path / "f.csv").write_text("text\na\n")
    assert "no label column" in refused("simulate", tmp_path / "f.csv")
    for wrong in (["--rounds", 0], ["--labels", 0], ["--seeds", "x"]):
        assert run("simulate", labeled, *wrong).exit_code == 2
    odd = run("simulate", labeled, "--labels", "30,50", "--batch", 20)
    assert "No round ends at 30 answers: rounds end every 20 answers" in odd.output


@pytest.mark.parametrize(
    ("labels", "batch", "count", "rounds"),
    [([100], None, None, 1), ([50, 200], None, None, 4), ([100, 200], 25, None, 8), ([50, 100], None, 6, 6)],
)
def test_a_round_ends_at_each_number_of_labels(labels, batch, count, rounds):
    assert simulate._rounds(labels, batch, count) == rounds


def test_several_strategies_are_summed_up_apart(labeled, tmp_path, monkeypatch):
    monkeypatch.setattr(oracle, "load_classifier", lambda backbone, task, *_: FakeClassifier(task))
    out = tmp_path / "figures.json"
    output = good("simulate", labeled, "--labels", 20, "--strategy", "margin,random", "--seeds", "0,1", "--json", out)
    written = json.loads(out.read_text(encoding="utf-8"))
    for name in ("margin", "random"):
        ends = [one["accuracy"] for one in written["runs"] if one["strategy"] == name]
        assert written["strategies"][name]["mean_accuracy"] == pytest.approx(sum(ends) / 2)
        assert f"{name}: mean_accuracy" in output.replace("\n", " ")
    assert written["mean_accuracy"] == written["strategies"]["margin"]["mean_accuracy"]


@pytest.mark.slow
def test_the_doctor_says_what_this_machine_can_run():
    output = good("doctor")
    assert all(word in output for word in ("Python", "memory", "torch", "smollm2"))
