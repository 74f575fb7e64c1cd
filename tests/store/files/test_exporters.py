"""Exports can be read back unchanged, open safely in a spreadsheet, and are written atomically."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotator.errors import BadFile, BadInput, UnknownName
from store.files.exporters import FORMATS, FORMULA, NO_LABEL, Field, export

FIELDS = [
    Field("id", "text"),
    Field("text", "text"),
    Field("slice", "text"),
    Field("label", "text"),
    Field("annotations", "integer"),
    Field("agreement", "number"),
    Field("unsure", "flag"),
    Field("at", "time"),
    Field("probabilities", "probabilities"),
]
LABELS = ["card lost", "=other"]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def row(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "id": f"a{number}",
        "text": "=cmd|' /C calc'!A0, “quoted”\r\nand \"more\" 🙂",
        "slice": "pool",
        "label": "card lost",
        "annotations": 2,
        "agreement": 0.1 + 0.2,
        "unsure": 1,
        "at": MOMENT.isoformat(),
        "probabilities": {"card lost": 0.75, "=other": 0.25},
    } | changed


ROWS = [
    row(1),
    row(2, text="-5", slice="audit", label="=other", unsure=0),
    row(3, label=None, annotations=None, agreement=None, unsure=None, at=None, probabilities=None),
]


def flat(given: dict[str, Any]) -> dict[str, Any]:
    """Spread a row out as a table holds it, in the types that were declared."""
    table = {name: value for name, value in given.items() if name != "probabilities"}
    table["unsure"] = None if given["unsure"] is None else bool(given["unsure"])
    table["at"] = None if given["at"] is None else MOMENT
    return table | {f"p({label})": (given["probabilities"] or {}).get(label) for label in LABELS}


FLAT = [flat(each) for each in ROWS]


def unquoted(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def read_csv(path: Path) -> list[dict[str, Any]]:
    casts: dict[str, Any] = {
        "annotations": int,
        "agreement": float,
        "unsure": "true".__eq__,
        "at": datetime.fromisoformat,
    }
    casts |= {f"p({label})": float for label in LABELS}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [
            {name: casts.get(name, unquoted)(cell) if cell else None for name, cell in cells.items()}
            for cells in csv.DictReader(stream)
        ]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    for each in read:
        probabilities = each.pop("probabilities") or {}
        each["at"] = each["at"] and datetime.fromisoformat(each["at"])
        each |= {f"p({label})": probabilities.get(label) for label in LABELS}
    return read


def read_parquet(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


def read_dataset(path: Path) -> list[dict[str, Any]]:
    import datasets

    read = [each for split in datasets.load_from_disk(path).values() for each in split]
    for each in read:
        each["label"] = None if each["label"] == NO_LABEL else LABELS[each["label"]]
    return sorted(read, key=lambda each: str(each["id"]))


READERS = {"csv": read_csv, "jsonl": read_jsonl, "parquet": read_parquet, "dataset": read_dataset}


# Contract of every format


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"answers{FORMATS[name].suffix}"
    assert export(iter(ROWS), FIELDS, LABELS, path, name) == 3
    assert READERS[name](path) == FLAT


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_the_order_of_its_columns(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"answers{FORMATS[name].suffix}"
    export([dict(reversed(row(1).items()))], FIELDS, LABELS, path, name)
    assert list(READERS[name](path)[0]) == list(FLAT[0])


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_hold_no_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"answers{FORMATS[name].suffix}"
    assert export([], FIELDS, LABELS, path, name) == 0
    assert READERS[name](path) == []


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_replaces_what_it_wrote_before(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / f"answers{FORMATS[name].suffix}"
    export(ROWS, FIELDS, LABELS, path, name)
    export([row(7)], FIELDS, LABELS, path, name)
    assert [each["id"] for each in READERS[name](path)] == ["a7"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_leaves_the_old_file_and_no_half_one_when_it_fails(tmp_path: Path, name: str) -> None:
    def breaking() -> Iterator[dict[str, Any]]:
        yield row(8)
        raise RuntimeError("the power went out")

    path = tmp_path / f"answers{FORMATS[name].suffix}"
    export(ROWS, FIELDS, LABELS, path, name)
    with pytest.raises(RuntimeError, match="power"):
        export(breaking(), FIELDS, LABELS, path, name)
    assert READERS[name](path) == FLAT
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_refuses_to_replace_a_folder_of_something_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(BadFile, match="not an earlier export"):
        export(ROWS, FIELDS, LABELS, tmp_path / "mine", name)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reports_a_place_it_cannot_write_to(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadFile, match="cannot be written"):
        export(ROWS, FIELDS, LABELS, tmp_path / "file" / "answers", name)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="csv, jsonl, parquet, dataset"):
        export(ROWS, FIELDS, LABELS, tmp_path / "answers", "docx")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"1 column.*p\(card lost\)"):
        export(ROWS, [*FIELDS, Field("p(card lost)", "text")], LABELS, tmp_path / "answers.csv", "csv")


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet"])
def test_files_but_for_the_data_set_are_written_as_a_stream(tmp_path: Path, name: str) -> None:
    open_rows: list[int] = []

    class Counted(dict[str, Any]):
        alive = 0

        def __init__(self, **values: Any) -> None:
            super().__init__(values)
            Counted.alive += 1
            open_rows.append(Counted.alive)

        def __del__(self) -> None:
            Counted.alive -= 1

    fields = [Field("id", "text")]
    path = tmp_path / f"answers{FORMATS[name].suffix}"
    assert export((Counted(id="a") for _ in range(20_001)), fields, LABELS, path, name) == 20_001
    assert max(open_rows) <= 10_001


# CSV


def test_a_csv_has_a_byte_order_mark_unless_it_is_not_wanted(tmp_path: Path) -> None:
    export(ROWS, FIELDS, LABELS, tmp_path / "with.csv", "csv")
    export(ROWS, FIELDS, LABELS, tmp_path / "without.csv", "csv", bom=False)
    assert (tmp_path / "with.csv").read_bytes() == b"\xef\xbb\xbf" + (tmp_path / "without.csv").read_bytes()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "\0=1", "＝1", "'=1"])
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(tmp_path: Path, text: str) -> None:
    fields = [Field("text", "text"), Field("number", "number")]
    export([{"text": text, "number": -1.5}], fields, LABELS, tmp_path / "answers.csv", "csv")
    with (tmp_path / "answers.csv").open(encoding="utf-8-sig", newline="") as stream:
        assert list(csv.reader(stream)) == [["text", "number"], [f"'{text}", "-1.5"]]


def test_a_column_name_is_as_safe_as_a_text(tmp_path: Path) -> None:
    export([], [Field("=1+1", "text")], LABELS, tmp_path / "answers.csv", "csv", bom=False)
    assert (tmp_path / "answers.csv").read_text() == "'=1+1\n"


hostile = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("=+-@'\",;\t\r\n\0"), max_size=20)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(hostile, max_size=5))
def test_no_text_of_a_csv_is_a_formula_and_each_can_be_had_back(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "answers.csv"
    export([{"id": "a", "text": text} for text in texts], [FIELDS[0], FIELDS[1]], LABELS, path, "csv")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        cells = [cells[1] for cells in csv.reader(stream, strict=True)][1:]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\0")) for cell in cells)
    assert [unquoted(cell) for cell in cells] == texts


# Values


def test_what_is_no_text_in_a_text_column_is_written_as_json(tmp_path: Path) -> None:
    export([{"metadata": {"größe": [1]}}], [Field("metadata", "text")], [], tmp_path / "answers.parquet", "parquet")
    assert read_parquet(tmp_path / "answers.parquet") == [{"metadata": '{"größe": [1]}'}]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_none(tmp_path: Path, number: float) -> None:
    export([{"n": number, "p": {"a": number}}], [Field("n", "number"), Field("p", "probabilities")], ["a"],
           tmp_path / "answers.jsonl", "jsonl")  # fmt: skip
    assert json.loads((tmp_path / "answers.jsonl").read_text()) == {"n": None, "p": {"a": None}}


# The data set


def test_a_data_set_has_the_named_splits_and_the_labels_as_classes(tmp_path: Path) -> None:
    import datasets

    export(ROWS, FIELDS, LABELS, tmp_path / "answers", "dataset", splits={"pool": "learn", "audit": "measure"})
    read = datasets.load_from_disk(tmp_path / "answers")
    assert {name: split["id"][:] for name, split in read.items()} == {"learn": ["a1", "a3"], "measure": ["a2"]}
    assert read["learn"].features["label"] == datasets.ClassLabel(names=LABELS)
    assert read["learn"]["label"][:] == [0, NO_LABEL]


@pytest.mark.parametrize("changed", [{"slice": "context"}, {"label": "retired"}])
def test_a_data_set_refuses_a_slice_or_a_label_that_it_has_no_place_for(
    tmp_path: Path, changed: dict[str, str]
) -> None:
    with pytest.raises(BadInput, match=next(iter(changed.values()))):
        export([row(1, **changed)], FIELDS, LABELS, tmp_path / "answers", "dataset")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_imports_torch_and_only_the_data_set_imports_datasets(tmp_path: Path, name: str) -> None:
    script = f"""
import sys
from pathlib import Path
from store.files.exporters import Field, export
rows = [{{"slice": "pool", "label": "a", "n": 1}}]
fields = [Field("slice", "text"), Field("label", "text"), Field("n", "number")]
export(rows, fields, ["a"], Path({str(tmp_path / "answers")!r}), {name!r})
print("torch" in sys.modules, "datasets" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", str(name == "dataset")]
    assert ran.stderr == ""
