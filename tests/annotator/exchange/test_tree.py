"""Labels in groups go out with their paths, and paths come in as labels in groups."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import draft_from_names, parse_codebook
from annotator.exchange.export import ExportPlan, export_project
from annotator.exchange.imports import add_utterances, import_file
from annotator.labeling.session import Answer, answer, next_question
from annotator.project import Project
from store.files.importers import ImportPlan, detect_columns, labels_in
from store.files.readers import read_header
from store.utterances import NewUtterance

TREE = {
    "labels": [
        {"name": "Money", "definition": "Paid.", "labels": [{"name": "refund"}, {"name": "charge"}]},
        {"name": "Delivery", "labels": [{"name": "late"}, {"name": "damaged"}]},
        {"name": "other"},
    ]
}


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Project]:
    with create_project(tmp_path / "tree", parse_codebook(TREE)) as project:
        add_utterances(project, [NewUtterance(str(n), f"text {n}") for n in range(5)])
        for name in ("refund", "late", "other", "charge"):
            answer(project, next_question(project, "ada"), "ada", Answer("label", codebook_of(project).id_of(name)))
        yield project


@pytest.mark.parametrize("rows", ["utterances", "answers"])
def test_every_label_is_exported_with_its_path(tree: Project, tmp_path: Path, rows: str) -> None:
    export_project(tree, tmp_path / "rows.jsonl", ExportPlan("jsonl", rows))  # type: ignore[arg-type]
    exported = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["label_path"] for row in exported} == {"Money / refund", "Delivery / late", "other", "Money / charge"}
    assert all(row["label_path"].split(" / ")[-1] == row["label"] for row in exported)
    card = (tmp_path / "rows.README.md").read_text(encoding="utf-8")
    assert "- **Money** (group): Paid.\n  - **refund**: (no definition)" in card
    assert "`label_path`" in card


def test_a_dataset_has_the_paths_beside_the_class_labels(tree: Project, tmp_path: Path) -> None:
    import datasets

    export_project(tree, tmp_path / "set", ExportPlan("dataset"))
    (split,) = (one for one in datasets.load_from_disk(tmp_path / "set").values() if len(one) >= 3)
    names = split.features["label"].names
    assert names == list(codebook_of(tree).names)
    assert all(row["label_path"].split(" / ")[-1] == names[row["label"]] for row in split)


def test_a_codebook_without_groups_has_no_paths(tmp_path: Path) -> None:
    with create_project(tmp_path / "flat", draft_from_names(["a", "b"])) as project:
        add_utterances(project, [NewUtterance(str(n), f"text {n}") for n in range(2)])
        answer(project, next_question(project, "ada"), "ada", Answer("label", 1))
        export_project(project, tmp_path / "rows.jsonl", ExportPlan("jsonl"))
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines())
    assert "label_path" not in row
    assert "label_path" not in (tmp_path / "rows.README.md").read_text(encoding="utf-8")


def test_exported_paths_make_the_same_tree_and_the_same_labels_again(tree: Project, tmp_path: Path) -> None:
    export_project(tree, tmp_path / "rows.csv", ExportPlan("csv"))
    with (tmp_path / "rows.csv").open(encoding="utf-8-sig") as file:
        rows = [(row["id"], row["text"], row["label_path"]) for row in csv.DictReader(file)]
    paths = tmp_path / "paths.csv"
    with paths.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text", "label"), *rows])
    with create_project(tmp_path / "again", parse_codebook(TREE)) as again:
        report = import_file(again, paths, ImportPlan(detect_columns(read_header(paths))))
        assert (report.with_label, report.rejected) == (len(rows), [])


def test_a_file_whose_labels_are_all_paths_makes_groups(tmp_path: Path) -> None:
    paths = tmp_path / "paths.csv"
    lines = ["id,text,label", "1,a,Money / refund", "2,b,Money / charge", "3,c,Delivery / late"]
    paths.write_text("\n".join(lines), encoding="utf-8")
    plan = ImportPlan(detect_columns(read_header(paths)))
    with create_project(tmp_path / "new", draft_from_names(sorted(labels_in(paths, plan)))) as project:
        book = codebook_of(project)
        assert [book.path(i) for i in book.ids] == ["Delivery / late", "Money / charge", "Money / refund"]
        report = import_file(project, paths, plan)
        assert (report.with_label, report.rejected) == (3, [])
