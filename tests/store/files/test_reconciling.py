"""A second file completes existing rows where that is safe; other changes are reported row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from store import imports, utterances
from store.files.import_report import ImportReport
from store.files.importers import Columns, ImportPlan, Rules, detect_columns, import_file, labels_in
from store.files.readers import read_header
from tests.store.rows import add_labels, say
from tests.store.sample_files import texts, write_jsonl

LABELS = {"yes": 1, "no": 2}


def take(db: Database, path: Path, **how: Any) -> ImportReport:
    def given(name: str) -> int | str:
        return LABELS.get(name, f"“{name}” is no label")

    plan = ImportPlan(detect_columns(read_header(path)), **how)
    report = import_file(db, path, plan, Rules(given, codebook_version=1, draw=lambda rows: []))
    imports.close(db)
    return report


def lines(report: ImportReport) -> dict[int, str]:
    return {one.row: one.reason for one in report.rejected}


def answers(db: Database) -> set[tuple[str, str, int]]:
    sql = """SELECT utterance.external_id, annotator, label_id FROM annotation
             JOIN utterance ON utterance.id = utterance_id"""
    return set(db.execute(sql).fetchall())


@pytest.fixture(autouse=True)
def labels(db: Database) -> list[int]:
    return add_labels(db)


@pytest.mark.parametrize(
    ("second", "brought"),
    [
        ("1,c1,2,ann,hi,x", "turn “2”"),
        ("1,c2,1,ann,hi,x", "conversation “c2”"),
        ("1,c1,1,ben,hi,x", "speaker “ben”"),
        ("1,c1,1,ann,hi,y", "party “y”"),
        ("1,c2,3,ben,hi,y", "conversation “c2”, turn “3”, speaker “ben”, party “y”"),
    ],
)
def test_whatever_a_second_file_says_differently_is_reported(
    tmp_path: Path, db: Database, second: str, brought: str
) -> None:
    header = "id,conversation,turn,speaker,text,party\n"
    take(db, texts(tmp_path / "a.csv", f"{header}1,c1,1,ann,hi,x\n2,c1,9,ann,ho,x\n"))
    before = list(db["utterance"].rows)
    report = take(db, texts(tmp_path / "b.csv", f"{header}{second}\n2,c1,9,ann,ho,x\n"))
    assert lines(report) == {2: f"It is already imported; not applied: {brought}."}
    assert (report.unchanged, report.not_applied, report.kinds()) == (1, 1, {"change": 1})
    assert "1 unchanged, 1 with changes that were not applied, 1 problem reported" in report.summary()
    assert list(db["utterance"].rows) == before


def test_a_second_file_that_says_less_changes_nothing(tmp_path: Path, db: Database) -> None:
    take(db, texts(tmp_path / "a.csv", "id,text,speaker,party,label\n1,hi,ann,x,yes\n"))
    report = take(db, texts(tmp_path / "b.csv", "id,text\n1,hi\n"))
    assert (report.unchanged, report.rejected) == (1, [])


def test_a_label_that_comes_later_is_taken_where_nobody_has_answered(tmp_path: Path, db: Database) -> None:
    take(db, texts(tmp_path / "a.csv", "id,text\n1,first\n2,second\n3,third\n"))
    say(db, "ada", 2, 1)
    path = texts(tmp_path / "b.csv", "id,text,label\n1,first,yes\n2,second,no\n3,third,perhaps\n")
    report = take(db, path)
    assert answers(db) == {("1", "given", 1), ("2", "ada", 1)}
    assert lines(report) == {3: "It is already imported; not applied: label “no”.", 4: "“perhaps” is no label"}
    assert (report.labels_added, report.completed, report.not_applied, report.unchanged) == (1, 1, 2, 0)
    again = take(db, path)
    assert (again.unchanged, again.labels_added, lines(again)) == (1, 0, lines(report))


def test_another_label_than_the_one_given_is_reported(tmp_path: Path, db: Database) -> None:
    take(db, texts(tmp_path / "a.csv", "id,text,label\n1,first,yes\n"))
    report = take(db, texts(tmp_path / "b.csv", "id,text,label\n1,first,no\n"))
    assert lines(report) == {2: "It is already imported; not applied: label “no”."}
    assert answers(db) == {("1", "given", 1)}


def test_labels_that_are_left_out_on_purpose_are_not_reported(tmp_path: Path, db: Database) -> None:
    path = texts(tmp_path / "a.csv", "id,text,label\n1,first,yes\n")
    take(db, path, with_labels=False)
    assert take(db, path, with_labels=False).unchanged == 1
    assert take(db, path).labels_added == 1
    assert answers(db) == {("1", "given", 1)}


def test_the_answer_of_a_second_annotator_is_reported_within_a_file_and_between_two(
    tmp_path: Path, db: Database
) -> None:
    path = texts(tmp_path / "a.csv", "id,annotator,text,label\n7,1,nice,yes\n7,2,nice,no\n")
    assert lines(take(db, path)) == {3: "Row 2 has the same id, “7”; the label “no” is not imported."}
    report = take(db, texts(tmp_path / "b.csv", "id,annotator,text,label\n7,2,nice,no\n"))
    assert lines(report) == {2: "It is already imported; not applied: label “no”, annotator “2”."}


def test_what_was_context_by_mistake_is_put_up_for_labeling_by_a_corrected_import(tmp_path: Path, db: Database) -> None:
    rows = "conversation,turn,speaker,text,label\n1,1,client,I feel bad,yes\n1,2,therapist,Tell me,\n"
    path = texts(tmp_path / "a.csv", rows)
    take(db, path, label_only=("speaker", "klient"))
    assert utterances.count_slices(db) == {"pool": 0, "audit": 0, "context": 2}
    report = take(db, path, label_only=("speaker", "client"))
    assert utterances.count_slices(db) == {"pool": 1, "audit": 0, "context": 1}
    assert (report.now_to_label, report.unchanged, report.rejected) == (1, 1, [])
    assert answers(db) == {("a-2", "given", 1)}
    back = take(db, path, label_only=("speaker", "klient"))
    assert lines(back) == {2: "It is already imported for labeling and does not become context."}
    assert utterances.count_slices(db)["pool"] == 1


def test_a_renamed_copy_does_not_double_the_turns_of_a_conversation(tmp_path: Path, db: Database) -> None:
    rows = "conversation,speaker,text\nC1,A,hello\nC1,B,hi\nC1,A,hello\n"
    take(db, texts(tmp_path / "chat.csv", rows))
    copy = texts(tmp_path / "chat (1).csv", rows + "C1,B,new\n")
    report = take(db, copy)
    assert lines(report) == {row: f"“chat-{row}” is the same turn of conversation “C1”." for row in (2, 3, 4)}
    assert [row.text for row in utterances.iterate(db)] == ["hello", "hi", "hello", "new"]
    assert take(db, copy, keep_copies=True).to_label == 3


def test_many_differences_are_named_in_one_short_line(tmp_path: Path, db: Database) -> None:
    row = {"id": "1", "text": "hi"}
    take(db, write_jsonl(tmp_path / "a.jsonl", [row]))
    report = take(db, write_jsonl(tmp_path / "b.jsonl", [row | {f"c{n}": "x" * 100 for n in range(9)}]))
    assert lines(report)[1].endswith("…”, c4 “" + "x" * 40 + "…”, ….")


# Labels that are not a person's answer

NO_ANSWERS = [
    {"answer": "reject"},
    {"answer": "ignore"},
    {"Answer": " Reject "},
    {"source": "model"},
    {"source": "accepted"},
    {"kind": "skip"},
    {"kind": "none_fits"},
    {"kind": "out_of_use"},
    {"kind": "disputed"},
    {"was_skipped": True},
    {"was_cancelled": "true"},
    {"status": "rejected"},
    {"status": "discarded"},
    {"response_status": ["discarded"]},
    {"annotator": "gpt-4o"},
    {"annotator": "model"},
    {"label_source": "prediction"},
    {"accepted": False},
    {"manual": "0"},
]
ANSWERS = [
    {"answer": "accept"},
    {"source": "expert"},
    {"source": "given"},
    {"source": "twitter"},
    {"kind": "label"},
    {"was_cancelled": False},
    {"status": "submitted"},
    {"annotator": "Manuel"},
    {"annotator": "anna"},
    {"note": "reject"},
    {"accepted": True},
]


@pytest.mark.parametrize("columns", NO_ANSWERS, ids=str)
def test_a_label_that_is_no_persons_answer_is_not_taken_as_one_and_the_text_is(
    tmp_path: Path, db: Database, columns: dict[str, Any]
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "you fool", "label": "yes", **columns}])
    report = take(db, path)
    assert (report.to_label, report.with_label, report.kinds()) == (1, 0, {"label": 1})
    [name] = columns
    assert lines(report)[1].startswith("Its label “yes” was not imported as a person's answer: column “" + name)
    assert answers(db) == set()
    assert labels_in(path, ImportPlan(detect_columns(read_header(path)))) == {}


@pytest.mark.parametrize("columns", ANSWERS, ids=str)
def test_a_label_that_nothing_speaks_against_is_taken(tmp_path: Path, db: Database, columns: dict[str, Any]) -> None:
    report = take(db, write_jsonl(tmp_path / "a.jsonl", [{"text": "you fool", "label": "yes", **columns}]))
    assert (report.with_label, report.rejected) == (1, [])


def test_a_label_column_of_what_a_model_said_gives_no_answers(tmp_path: Path, db: Database) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "you fool", "prediction": "yes"}])
    plan = ImportPlan(Columns("text", label="prediction"))
    report = import_file(db, path, plan, Rules(lambda name: 1, 1, lambda rows: []))
    assert lines(report) == {
        1: "Its label “yes” was not imported: column “prediction” contains predictions, judging by its name."
    }


def test_a_row_without_a_label_that_was_skipped_is_no_problem(tmp_path: Path, db: Database) -> None:
    row = {"id": "1", "text": "hi", "label": None, "kind": "skip", "source": "expert"}
    assert take(db, write_jsonl(tmp_path / "a.jsonl", [row])).rejected == []


def test_labels_are_counted_only_of_rows_that_an_import_would_take(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "text": "a", "speaker": "client", "label": "yes"},
        {"id": "2", "text": "b", "speaker": "agent", "label": "context only"},
        {"id": "3", "text": " ", "speaker": "client", "label": "no text"},
        {"id": "1", "text": "c", "speaker": "client", "label": "same id"},
        {"id": "4", "text": "A", "speaker": "client", "label": "copy"},
        {"id": "5", "text": "d", "speaker": "client", "label": "no", "answer": "accept"},
        {"id": "6", "text": "e", "speaker": "client", "label": "rejected", "answer": "reject"},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    plan = ImportPlan(detect_columns(["id", "text", "speaker", "label"]), ("speaker", "client"), with_labels=False)
    assert labels_in(path, plan) == {"yes": 1, "no": 1}


def test_the_table_of_a_report_has_every_line(tmp_path: Path, db: Database) -> None:
    report = take(db, texts(tmp_path / "a.csv", "text,label\nhi,perhaps\n,\n hi,no\n"))
    table = report.table().splitlines()
    assert table[0] == "row,kind,reason"
    assert [line.split(",")[:2] for line in table[1:]] == [["2", "label"], ["3", "row"], ["4", "row"]]
    assert report.kinds() == {"label": 1, "row": 2}
