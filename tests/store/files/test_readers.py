"""Every format gives the same rows under the numbers a person counts, and no invalid row is lost silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotator.errors import BadFile, BadInput
from store.files.readers import READERS, Rejected, read_header, read_rows
from tests.store.sample_files import ROWS, WRITERS, texts, write_csv, write_parquet

AS_TEXT = [{**row, "turn": str(row["turn"]), "stars": "4"} for row in ROWS]


def sound(path: Path) -> list[tuple[int, dict[str, Any]]]:
    return [row for row in read_rows(path) if not isinstance(row, Rejected)]


def refused(path: Path) -> dict[int, str]:
    return {row.row: row.reason for row in read_rows(path) if isinstance(row, Rejected)}


# Contract of every format


def test_every_format_has_a_writer_in_these_tests() -> None:
    assert set(WRITERS) == set(READERS)


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_gives_the_same_columns_and_values(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"calls{suffix}", ROWS)
    assert read_header(path) == list(ROWS[0])
    assert [{**row, "turn": row["turn"].removesuffix(".0")} for _, row in sound(path)] == AS_TEXT


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_reports_a_file_of_something_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"calls{suffix}"
    path.write_bytes(b"\xff\xfe\x00\x01 no such format")
    with pytest.raises(BadFile, match=path.name):
        read_header(path)


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_reports_an_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"calls{suffix}"
    path.touch()
    with pytest.raises(BadFile, match=path.name):
        read_header(path)


# Files as a whole


def test_a_file_of_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"\.docx.*\.csv, \.tsv, \.jsonl"):
        read_header(texts(tmp_path / "calls.docx", ""))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no file"):
        read_header(tmp_path / "calls.csv")


@pytest.mark.parametrize("before", [0, 100_000])
def test_bytes_that_are_no_utf8_are_reported_with_their_place(tmp_path: Path, before: int) -> None:
    path = tmp_path / "calls.csv"
    path.write_bytes(b"text\n" + b"fine\n" * before + "Grüße\n".encode("cp1252"))
    with pytest.raises(BadFile, match=f"byte {5 + 5 * before + 3:,}, in line {before + 2:,}.*Save it as UTF-8"):
        list(read_rows(path))


def test_an_encoding_that_is_named_is_used(tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_bytes("text\nGrüße\n".encode("cp1252"))
    assert list(read_rows(path, "cp1252")) == [(2, {"text": "Grüße"})]
    with pytest.raises(BadInput, match="no encoding “cp-western”"):
        read_header(path, "cp-western")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_is_read_with_any_usual_delimiter_with_and_without_bom(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    path = write_csv(tmp_path / "calls.csv", ROWS, delimiter, encoding)
    assert read_header(path) == list(ROWS[0])
    assert [row for _, row in sound(path)] == AS_TEXT


def test_a_column_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="columns of the same name: text"):
        read_header(texts(tmp_path / "calls.csv", "text,text\na,b\n"))


def test_a_column_without_a_name_gets_its_place_for_one(tmp_path: Path) -> None:
    assert read_header(texts(tmp_path / "calls.csv", ",text\n0,a\n")) == ["column 1", "text"]


# Rows


def test_an_unclosed_quotation_mark_is_reported_with_the_lines_it_swallowed(tmp_path: Path) -> None:
    path = texts(tmp_path / "calls.csv", 'text\nfine\n"open\nswallowed\n')
    assert "Lines 3 to 4" in refused(path)[3]
    assert sound(path) == [(2, {"text": "fine"})]


def test_rows_are_counted_as_a_spreadsheet_does_whatever_lines_they_span(tmp_path: Path) -> None:
    path = texts(tmp_path / "calls.csv", 'text\r\n"two\r\nlines"\r\n\r\n fourth \r\n')
    assert sound(path) == [(2, {"text": "two\r\nlines"}), (4, {"text": " fourth "})]


@pytest.mark.parametrize("line", ['{"text": ', "[1]", "[" * 100_000])
def test_a_broken_json_line_is_reported_with_its_number(tmp_path: Path, line: str) -> None:
    path = texts(tmp_path / "calls.jsonl", f'{{"text": "before"}}\n\n{line}\n{{"text": "after"}}\n')
    assert list(refused(path)) == [3]
    assert sound(path) == [(1, {"text": "before"}), (4, {"text": "after"})]


def test_text_written_as_bytes_in_parquet_is_read_as_text(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "calls.parquet", [{"text": "Grüße".encode()}])
    assert sound(path) == [(1, {"text": "Grüße"})]
    with pytest.raises(BadFile, match="UTF8"):
        list(read_rows(write_parquet(tmp_path / "bytes.parquet", [{"text": b"\xff"}])))
