"""Every format gives the same utterances, nothing is lost silently, and a large file never fills the memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from annotator.errors import BadFile, BadInput
from store import imports, utterances
from store.files.importers import (
    Columns,
    ImportPlan,
    ImportReport,
    Rules,
    detect_columns,
    import_file,
    labels_in,
    parse_filter,
    preview,
    read_utterances,
)
from store.files.readers import READERS, Rejected, read_header
from store.files.reconciling import Given
from store.utterances import NewUtterance
from tests.store.rows import add_labels
from tests.store.sample_files import ROWS, WRITERS, texts, write_csv, write_jsonl, write_parquet

COLUMNS = Columns("text", id="id", label="label", conversation="conversation", turn="turn", speaker="speaker")
CLIENT_ONLY = ("speaker", "client")


def reasons(path: Path, plan: ImportPlan) -> dict[int, str]:
    return {read.row: read.reason for read in read_utterances(path, plan) if isinstance(read, Rejected)}


def rules(given: Given = lambda name: 1) -> Rules:
    """Take every label for the first one, and draw nothing for measuring."""
    return Rules(given, codebook_version=1, draw=lambda rows: [])


def take(db: Database, path: Path, plan: ImportPlan, given: Given = lambda name: 1) -> ImportReport:
    report = import_file(db, path, plan, rules(given))
    imports.close(db)
    return report


def given_labels(db: Database) -> dict[str, int]:
    sql = """SELECT external_id, label_id FROM annotation JOIN utterance ON utterance.id = utterance_id
             WHERE annotator = 'given' AND strategy = 'given'"""
    return dict(db.execute(sql).fetchall())


# Contract of every format


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_gives_the_same_utterances(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"calls{suffix}", ROWS)
    stars = {"stars": "4"}
    assert list(read_utterances(path, ImportPlan(COLUMNS, CLIENT_ONLY))) == [
        NewUtterance("a1", ROWS[0]["text"], "c1", 1.0, "agent", stars, context_only=True),
        NewUtterance("a2", ROWS[1]["text"], "c1", 2.0, "client", stars, given_label="loss"),
        NewUtterance("a3", ROWS[2]["text"], "c2", 1.5, "client", stars, given_label="other"),
    ]


@pytest.mark.parametrize("suffix", READERS)
def test_the_columns_of_every_format_are_told_by_their_names(tmp_path: Path, suffix: str) -> None:
    assert detect_columns(read_header(WRITERS[suffix](tmp_path / f"calls{suffix}", ROWS))) == COLUMNS


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_counts_its_labels(tmp_path: Path, suffix: str) -> None:
    rows = [*ROWS, {**ROWS[1], "id": "a4"}]
    assert labels_in(WRITERS[suffix](tmp_path / f"calls{suffix}", rows), ImportPlan(COLUMNS, keep_copies=True)) == {
        "loss": 2,
        "other": 1,
    }


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_refuses_a_column_that_is_not_there(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"calls{suffix}", ROWS)
    with pytest.raises(BadInput, match=r"no column “body”.*speaker"):
        list(read_utterances(path, ImportPlan(Columns("body"))))


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_reports_a_row_without_text_with_its_number(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"calls{suffix}", [ROWS[0], {**ROWS[1], "text": " \n"}, ROWS[2]])
    row = 3 if suffix in (".csv", ".tsv", ".xlsx") else 2
    assert reasons(path, ImportPlan(COLUMNS)) == {row: "There is no text."}


# Columns and filters


def test_columns_are_told_whatever_their_case_and_spacing() -> None:
    found = detect_columns(["Utterance ID", "Message", "Category", "Dialogue-Id", "Turn", "Role", "Split", "Other"])
    assert found == Columns("Message", "Utterance ID", "Category", "Dialogue-Id", "Turn", "Role", "Split")


def test_a_header_without_a_known_text_column_is_refused_with_its_columns() -> None:
    with pytest.raises(BadInput, match=r"None of the 2 columns.*Satz, Nummer"):
        detect_columns(["Satz", "Nummer"])


def test_a_filter_is_a_column_and_a_value() -> None:
    assert parse_filter("speaker = client", ["text", "speaker"]) == CLIENT_ONLY


@pytest.mark.parametrize("text", ["speaker", "role=client"])
def test_a_filter_that_names_no_column_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_filter(text, ["text", "speaker"])


# Rows


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("one,two,three", "It has 3 fields, but the header has 2"),
        ("one", "It has 1 fields, but the header has 2"),
        ('"one" two,', "Lines 3 to 3 of the file are not valid CSV"),
        ("nul\0,", "“text” contains the control character U+0000"),
        ("fine,bell\a", "“note” contains the control character U+0007"),
        ("x" * 21 + ",", "21 characters, more than the 20 allowed"),
    ],
)
def test_a_row_that_cannot_be_taken_is_reported_and_the_others_are(tmp_path: Path, row: str, reason: str) -> None:
    path = texts(tmp_path / "calls.csv", f"text,note\nbefore,\n{row}\nafter,\n")
    plan = ImportPlan(Columns("text"), max_characters=20)
    before, rejected, after = read_utterances(path, plan)
    assert isinstance(rejected, Rejected)
    assert rejected.row == 3
    assert reason in rejected.reason
    assert (before, after) == (NewUtterance("calls-2", "before"), NewUtterance("calls-4", "after"))


@pytest.mark.parametrize("line", ['{"text": ["a"]}', '{"text": "\\ud800"}', '{"text": "a", "\\ud800": 1}'])
def test_a_json_object_that_is_no_utterance_is_reported_with_its_number(tmp_path: Path, line: str) -> None:
    path = texts(tmp_path / "calls.jsonl", f'{{"text": "before"}}\n\n{line}\n{{"text": "after"}}\n')
    assert list(reasons(path, ImportPlan(Columns("text")))) == [3]


def test_outer_whitespace_and_windows_line_ends_are_all_that_is_changed(tmp_path: Path) -> None:
    path = texts(tmp_path / "calls.csv", 'text\r\n" two\r\n  lines\t"\r\n')
    assert list(read_utterances(path, ImportPlan(Columns("text")))) == [NewUtterance("calls-2", "two\n  lines")]


def test_the_encoding_of_the_plan_is_used(tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_bytes("text\nGrüße\n".encode("cp1252"))
    assert preview(path, ImportPlan(Columns("text"), encoding="cp1252")) == [NewUtterance("calls-2", "Grüße")]


def test_nested_values_go_into_the_metadata_as_they_are(tmp_path: Path) -> None:
    row = {"text": "hi", "tags": [{"b": 1}, {"b": 2}], "yes": True, "none": None, "half": 0.5}
    for path in (write_jsonl(tmp_path / "calls.jsonl", [row]), write_parquet(tmp_path / "calls.parquet", [row])):
        [read] = read_utterances(path, ImportPlan(Columns("text")))
        assert isinstance(read, NewUtterance)
        assert read.metadata["yes"] == "true"
        assert read.metadata["half"] == "0.5"
        assert "none" not in read.metadata
    [read] = preview(tmp_path / "calls.jsonl", ImportPlan(Columns("text")))
    assert isinstance(read, NewUtterance)
    assert read.metadata["tags"] == row["tags"]


@pytest.mark.parametrize("turn", ["second", "nan", "inf", ""])
def test_a_turn_that_is_no_number_is_reported(tmp_path: Path, turn: str) -> None:
    path = texts(tmp_path / "calls.csv", f"text,conversation,turn\na,c1,1\nb,c1,{turn}\n")
    assert list(reasons(path, ImportPlan(detect_columns(read_header(path))))) == [3]


def test_turns_that_no_column_numbers_are_numbered_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = texts(tmp_path / "calls.csv", "text,conversation\na,c1\nb,c2\nc,c1\nd,\n")
    plan = ImportPlan(Columns("text", conversation="conversation"))
    turns = [(read.conversation, read.turn) for read in read_utterances(path, plan) if isinstance(read, NewUtterance)]
    assert turns == [("c1", 1.0), ("c2", 1.0), ("c1", 2.0), (None, None)]


def test_a_preview_is_as_long_as_asked(tmp_path: Path) -> None:
    assert len(preview(write_csv(tmp_path / "calls.csv", ROWS), ImportPlan(COLUMNS), limit=2)) == 2


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t\",;'=")), max_size=5))
def test_any_text_comes_out_of_a_csv_as_it_went_in(tmp_path: Path, hostile: list[str]) -> None:
    path = write_csv(tmp_path / "calls.csv", [{"id": "first", "text": "."}, *({"id": "", "text": t} for t in hostile)])
    read = [r.text for r in read_utterances(path, ImportPlan(Columns("text", id="id"))) if isinstance(r, NewUtterance)]
    assert read == [".", *(text.strip() for text in hostile if text.strip())]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_of_50_megabytes_is_read_in_2(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"calls{suffix}"
    line = "x" * 9_990 if suffix == ".csv" else json.dumps({"text": "x" * 9_976})
    with path.open("w") as stream:
        stream.write("text\n" if suffix == ".csv" else "")
        stream.writelines(f"{line}\n" for _ in range(5_000))
    tracemalloc.start()
    try:
        read = sum(1 for _ in read_utterances(path, ImportPlan(Columns("text"))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == 5_000
    assert path.stat().st_size > 49_000_000
    # JSONL holds the objects looked at for the header one by one, so both stay far below the file.
    assert peak < 2_000_000


# Into the project


def test_an_import_adds_what_is_to_label_and_its_context(tmp_path: Path, db: Database) -> None:
    add_labels(db)
    path = write_csv(tmp_path / "calls.csv", ROWS)
    report = take(db, path, ImportPlan(COLUMNS, CLIENT_ONLY), lambda name: 1 if name == "loss" else 2)
    assert (report.to_label, report.context, report.with_label, report.rejected) == (2, 1, 2, [])
    assert given_labels(db) == {"a2": 1, "a3": 2}
    assert utterances.count_slices(db) == {"pool": 2, "audit": 0, "context": 1}
    assert report.summary() == (
        "Added 2 utterances to label (2 of them with a label) and 1 as context; "
        "0 unchanged, 0 with changes that were not applied, 0 problems reported."
    )


def test_importing_a_file_again_adds_nothing(tmp_path: Path, db: Database) -> None:
    rows = [*ROWS, {**ROWS[0], "text": "same id"}]
    path, plan = write_csv(tmp_path / "calls.csv", rows), ImportPlan(COLUMNS)
    add_labels(db)
    first, again = take(db, path, plan), take(db, path, plan)
    assert (again.to_label, again.context, again.with_label, again.already_there) == (0, 0, 0, 3)
    assert (again.unchanged, again.not_applied) == (3, 0)
    assert again.rejected == first.rejected == [Rejected(5, "Row 2 has the same id, “a1”.")]
    assert utterances.count_slices(db)["pool"] == 3


def test_an_id_that_comes_back_with_another_text_is_reported(tmp_path: Path, db: Database) -> None:
    plan = ImportPlan(Columns("text"))
    take(db, texts(tmp_path / "calls.csv", "text\nfirst\n"), plan)
    report = take(db, texts(tmp_path / "calls.csv", "text\nsecond\n"), plan)
    assert report.rejected == [Rejected(2, "The id “calls-2” is already in the project, with another text.")]


def test_a_copy_of_a_text_is_reported_unless_copies_are_kept(tmp_path: Path, db: Database) -> None:
    path = texts(tmp_path / "calls.csv", "text\nThe card\nthe  CARD\n")
    report = take(db, path, ImportPlan(Columns("text")))
    assert report.rejected == [Rejected(3, "The text is a copy of “calls-2”.")]
    assert utterances.count_slices(db)["pool"] == 1
    report = take(db, path, ImportPlan(Columns("text"), keep_copies=True))
    assert report.rejected == []
    assert report.already_there == 1
    assert utterances.count_slices(db)["pool"] == 2


def test_the_same_text_may_be_said_in_two_conversations(tmp_path: Path, db: Database) -> None:
    path = texts(tmp_path / "calls.csv", "text,conversation\nyes,c1\nyes,c2\nyes,c2\n")
    report = take(db, path, ImportPlan(Columns("text", conversation="conversation")))
    assert (report.to_label, report.rejected) == (3, [])


def test_a_label_that_is_refused_is_reported_and_its_utterance_stays(tmp_path: Path, db: Database) -> None:
    path = write_csv(tmp_path / "calls.csv", ROWS)
    add_labels(db)
    report = take(db, path, ImportPlan(COLUMNS), lambda name: 1 if name == "loss" else f"There is no label “{name}”.")
    assert (report.to_label, report.with_label, utterances.count_slices(db)["pool"]) == (3, 1, 3)
    assert report.rejected == [Rejected(4, "There is no label “other”.")]


def test_labels_are_left_out_if_so_asked(tmp_path: Path, db: Database) -> None:
    path = write_csv(tmp_path / "calls.csv", ROWS)
    report = take(db, path, ImportPlan(COLUMNS, with_labels=False), lambda _: pytest.fail("asked"))
    assert report.with_label == 0


def test_a_file_that_breaks_off_leaves_the_project_as_it_was(tmp_path: Path, db: Database) -> None:
    path = tmp_path / "calls.csv"
    path.write_bytes(b"text\n" + b"".join(b"row %d\n" % n for n in range(5_000)) + b"\xff\n")
    for _ in range(2):
        with pytest.raises(BadFile):
            take(db, path, ImportPlan(Columns("text")))
    assert utterances.count_slices(db)["pool"] == 0
