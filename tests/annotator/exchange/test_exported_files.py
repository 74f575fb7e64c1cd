"""Test that exported files return every row and column to the programs that their card names."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pandas
import pyarrow.parquet as pq
import pytest
import yaml

from annotator.codebook.definition import codebook_of, create_project
from annotator.exchange import card
from annotator.exchange.export import MEANINGS, ExportPlan, dataset_card, export_project, export_rows
from annotator.exchange.imports import add_utterances, import_file
from annotator.project import Project
from store import utterances
from store.files.exporters import FORMATS
from store.files.importers import ImportPlan, detect_columns
from store.files.readers import read_header
from store.utterances import NewUtterance
from tests.annotator.scenes import PROMISE, draft, new_project, say, texts, write_csv

EVERY_FORMAT = pytest.mark.parametrize("name", sorted(FORMATS))
ODD = ("None", "NA", "null", "nan", "True", "1", "=sum", "a|b", "two\nlines", "*bold*", "_x_", "<i>")


def labeled(folder: Path, names: tuple[str, ...] = ODD, count: int = 60) -> Project:
    """Make a project in which every utterance has one of these labels."""
    project = create_project(folder, draft(*names))
    add_utterances(project, [NewUtterance(f"{i:03}", text) for i, text in enumerate(texts(count))])
    ids = codebook_of(project).ids
    for row in utterances.iterate(project.db):
        say(project, row.id, "ada", ids[row.id % len(ids)])
    return project


def loaded(path: Path, cache: Path) -> dict[str, list[dict]]:
    found = datasets.load_dataset(str(path), cache_dir=str(cache))
    return {split: part.to_list() for split, part in found.items()}


def on_disk(path: Path) -> dict[str, list[dict]]:
    return {split: part.to_list() for split, part in datasets.load_from_disk(str(path)).items()}


# All rows


def test_load_dataset_reads_every_row_of_the_folder_as_load_from_disk_does(tmp_path):
    with labeled(tmp_path / "p") as project:
        assert export_project(project, tmp_path / "out", ExportPlan("dataset")) == 60
    found = loaded(tmp_path / "out", tmp_path / "cache")
    assert found == on_disk(tmp_path / "out")
    assert {split: len(rows) for split, rows in found.items()} == {"train": 48, "audit": 12}
    names = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["audit"].features["label"]
    assert names.names == list(ODD)


def test_load_dataset_reads_a_folder_anew_that_was_exported_anew(tmp_path):
    with new_project(tmp_path / "p", 60) as project:
        for count in (3, 5):
            for one in utterances.ids_in(project.db, "pool")[:count]:
                say(project, one, "ada", PROMISE)
            export_project(project, tmp_path / "out", ExportPlan("dataset"))
            assert len(loaded(tmp_path / "out", tmp_path / "cache")["train"]) == count


def test_a_split_without_rows_does_not_keep_load_dataset_from_the_other(tmp_path):
    with new_project(tmp_path / "p", 60) as project:
        say(project, utterances.ids_in(project.db, "audit")[0], "ada", PROMISE)
        export_project(project, tmp_path / "out", ExportPlan("dataset"))
    found = loaded(tmp_path / "out", tmp_path / "cache")
    assert {split: len(rows) for split, rows in found.items()} == {"audit": 1}
    assert on_disk(tmp_path / "out")["train"] == []


def test_the_header_of_the_card_is_yaml_whatever_the_project_is_called(tmp_path):
    with labeled(tmp_path / "--- p: [", ODD) as project:
        export_project(project, tmp_path / "out", ExportPlan("dataset"))
    _, header, rest = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    (found,) = yaml.safe_load(header)["configs"]
    assert [one["split"] for one in found["data_files"]] == ["train", "audit"]
    assert rest.startswith("# ")


@EVERY_FORMAT
def test_what_the_card_says_on_reading_gives_every_label_as_it_is(tmp_path, monkeypatch, name):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / f"out{FORMATS[name].suffix}"
    with labeled(tmp_path / "p") as project:
        export_project(project, path, ExportPlan(name))
        expected = [(row.id, row.label) for row in export_rows(project, ExportPlan(name))]
    if name == "csv":
        expected = [(one, f"'{label}" if label.startswith("=") else label) for one, label in expected]
    text = next(tmp_path.rglob("*README.md")).read_text(encoding="utf-8")
    lines = text.split("```python\n")[1].split("```")[0].splitlines()
    monkeypatch.chdir(tmp_path)
    for line in lines:
        found = eval(
            line, {"pandas": pandas, "datasets": datasets, "json": json}
        )  # what a reader of the card would run
        frames = [found] if line.startswith("pandas") else [one.to_pandas() for one in found.values()]
        read = pandas.concat(frames)
        if name == "dataset":
            read["label"] = [ODD[code] for code in read["label"]]
        assert sorted(zip(read["id"], read["label"], strict=True)) == sorted(expected)


# Imported columns


ROWS = [
    {"id": "1", "text": "one", "label": "wish", "party": "A", "date": "2024-01-02", "kind": "007", "p(wish)": "x"},
    {"id": "2", "text": "two", "label": "report", "party": "", "date": "", "kind": "=1", "p(wish)": ""},
]


def read(path: Path, name: str) -> list[dict]:
    match name:
        case "csv":
            with path.open(encoding="utf-8-sig", newline="") as stream:
                return list(csv.DictReader(stream))
        case "jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        case "parquet":
            return pq.read_table(path).to_pylist()
    return [row for rows in on_disk(path).values() for row in rows]


@EVERY_FORMAT
@pytest.mark.parametrize("rows", ["utterances", "answers"])
def test_imported_columns_leave_with_every_row_in_every_format(tmp_path, name, rows):
    path = tmp_path / f"out{FORMATS[name].suffix}"
    with new_project(tmp_path / "p", 0) as project:
        import_file(project, write_csv(tmp_path / "f.csv", ROWS), ImportPlan(detect_columns(list(ROWS[0]))))
        assert export_project(project, path, ExportPlan(name, rows)) == 2
    first, second = sorted(read(path, name), key=lambda row: row["id"])
    found = {key: first[key] for key in ("party", "date", "imported_kind", "imported_p(wish)", "kind")}
    assert found == {
        "party": "A", "date": "2024-01-02", "imported_kind": "007", "imported_p(wish)": "x", "kind": "label"
    }  # fmt: skip
    assert {second[key] or None for key in ("party", "date", "imported_p(wish)")} == {None}
    assert second["imported_kind"] == ("'=1" if name == "csv" else "=1")
    text = next(tmp_path.rglob("*README.md")).read_text(encoding="utf-8")
    assert "\n- party\n- date\n- imported_kind (*kind* in the file)\n" in text


def test_imported_columns_of_several_files_and_of_other_types_are_text(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        several = [{"n": 1, "tags": ["a", "é"]}, {"n": 2.5, "flag": True}, {"tags": {"x": float("nan")}}, {}]
        add_utterances(
            project, [NewUtterance(text, text, metadata=m) for text, m in zip(texts(4), several, strict=True)]
        )
        for row in utterances.iterate(project.db):
            say(project, row.id, "ada", PROMISE)
        export_project(project, tmp_path / "out.parquet", ExportPlan("parquet"))
    found = pq.read_table(tmp_path / "out.parquet").select(["n", "tags", "flag"]).to_pylist()
    assert found == [
        {"n": "1", "tags": '["a", "é"]', "flag": None},
        {"n": "2.5", "tags": None, "flag": "true"},
        {"n": None, "tags": '{"x": NaN}', "flag": None},
        {"n": None, "tags": None, "flag": None},
    ]


def test_an_export_can_be_imported_and_exported_again_with_all_its_columns(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        import_file(project, write_csv(tmp_path / "f.csv", ROWS), ImportPlan(detect_columns(list(ROWS[0]))))
        export_project(project, tmp_path / "one.jsonl", ExportPlan("jsonl"))
    with new_project(tmp_path / "q", 0) as project:
        header = read_header(tmp_path / "one.jsonl")
        report = import_file(project, tmp_path / "one.jsonl", ImportPlan(detect_columns(header)))
        assert (report.to_label, report.with_label, report.rejected) == (2, 2, [])
        first, _ = (row.cells() for row in export_rows(project, ExportPlan()))
    assert (first["party"], first["kind"], first["imported_source"]) == ("A", "label", "given")
    assert first["imported_imported_kind"] == "label"
    assert first["imported_kind"] == "007"


# The card


def test_what_people_have_written_stays_in_its_line_and_its_cell(tmp_path):
    with labeled(tmp_path / "p") as project:
        text = dataset_card(project, ExportPlan(), 60)
    lines = text.splitlines()
    for name in ODD:
        shown = card.escaped(name)
        assert f"- **{shown}**: (no definition)" in lines
        assert any(line.startswith(f"| {shown} | expert | pool |") for line in lines)
    tables = [line for line in lines if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in tables} <= {5, 8}
    assert card.escaped("two\nlines | `x` <b> very_good _x_") == "two<br>lines \\| \\`x\\` \\<b\\> very_good \\_x\\_"


def test_an_imported_column_of_any_name_is_exported(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        (one,) = add_utterances(project, [NewUtterance("a", "Hello", metadata={"imported": "x", "cells": "y"})])
        say(project, one, "ada", PROMISE)
        (row,) = (row.cells() for row in export_rows(project, ExportPlan()))
        assert (set(row), row["imported"], row["cells"]) == ({*MEANINGS, "imported", "cells"}, "x", "y")
