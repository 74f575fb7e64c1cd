"""Test exported rows in every format: the origin of each label, and the data card."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from annotator.codebook.changes import make, merge, propose, retire
from annotator.codebook.definition import codebook_of
from annotator.exchange.export import (
    FIELDS,
    MEANINGS,
    ExportPlan,
    dataset_card,
    default_filename,
    export_project,
    export_rows,
)
from annotator.exchange.imports import add_utterances, import_file
from annotator.labeling.session import Answer, answer, next_question
from annotator.loop import run_round
from store import annotations, labels, rounds, utterances
from store.annotations import ADJUDICATED, NewAnnotation
from store.files.exporters import FORMATS
from store.files.importers import ImportPlan, detect_columns
from store.utterances import NewUtterance
from tests.annotator.scenes import classifier_of, label_pool, new_project, texts, truth, work_through

EVERY_FORMAT = pytest.mark.parametrize("name", sorted(FORMATS))


@pytest.fixture
def project(tmp_path):
    with new_project(tmp_path / "p") as project:
        label_pool(project, 9)
        run_round(project, classifier_of(project), project.config)
        work_through(project, 4)
        yield project


def rows_of(project, **plan):
    return list(export_rows(project, ExportPlan(**plan)))


def read(path: Path, name: str) -> list[dict]:
    match name:
        case "csv":
            with path.open(encoding="utf-8-sig", newline="") as stream:
                return list(csv.DictReader(stream))
        case "jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        case "parquet":
            return pq.read_table(path).to_pylist()
    splits = datasets.load_from_disk(str(path))
    names = splits["train"].features["label"].names
    rows = [row for split in splits.values() for row in split]
    return [{**row, "label": names[row["label"]] if row["label"] >= 0 else None} for row in rows]


def test_a_row_has_who_labeled_it_and_why_it_was_asked(project):
    found = {row.id: row for row in rows_of(project)}
    standing = annotations.answers(project.db)
    assert len(found) == len(standing)
    names = {label.id: label.name for label in codebook_of(project).labels}
    numbers = {one.id: one.number for one in rounds.history(project.db)}
    for one in standing:
        (utterance,) = utterances.read(project.db, [one.utterance_id])
        row = found[utterance.external_id]
        assert row.label == names[one.label_id] == truth(row.text)
        assert (row.source, row.annotator, row.answers) == ("expert", "ada", 1)
        assert (row.slice, row.strategy, row.propensity) == (
            utterance.slice,
            one.strategy,
            one.propensity,
        )
        assert row.round == numbers.get(one.round_id)
        assert row.suggested_probability == one.suggested_probability
    assert {row.round for row in found.values()} == {None, 1}
    assert any(row.suggested_label for row in found.values())


def test_labels_that_came_with_a_file_say_so(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        path = tmp_path / "f.csv"
        path.write_text("text,label\n" + "".join(f"{text},{truth(text)}\n" for text in texts(10)))
        import_file(project, path, ImportPlan(detect_columns(["text", "label"])))
        assert {(row.source, row.annotator) for row in rows_of(project)} == {("given", "given")}


def test_rows_of_the_model_are_there_only_if_asked_for_and_only_where_nobody_answered(project):
    experts = rows_of(project)
    assert {row.source for row in experts} == {"expert"}
    every = rows_of(project, with_model=True)
    assert [row for row in every if row.source == "expert"] == experts
    model = [row for row in every if row.source == "model"]
    assert len(model) + len(experts) == 60
    assert not {row.id for row in model} & {row.id for row in experts}
    for row in model:
        assert row.label == max(row.probabilities, key=row.probabilities.get)
        assert sum(row.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert (row.model_round, row.answers, row.annotator) == (1, 0, None)


def test_a_skipped_utterance_says_so_or_has_a_row_of_the_model(project):
    question = next_question(project, "ada")
    answer(project, question, "ada", Answer("skip"))
    name = question.utterance.external_id
    passed = {row.id: row for row in rows_of(project)}[name]
    assert (passed.kind, passed.label, passed.annotator, passed.answers) == ("skip", None, "ada", 0)
    found = {row.id: row for row in rows_of(project, with_model=True)}[name]
    assert (found.source, found.kind) == ("model", "label")
    assert [one["kind"] for one in json.loads(found.answers_given)] == ["skip"]


def test_where_most_say_that_none_fits_the_row_says_so_and_a_draw_is_disputed(project):
    taken = annotations.answered_ids(project.db)
    first, second = [i for i in utterances.ids_in(project.db, "pool") if i not in taken][:2]
    label = codebook_of(project).ids[0]
    for utterance, who, kind in [(first, "ada", "none_fits"), (second, "ada", "label"), (second, "ben", "none_fits")]:
        said = NewAnnotation(utterance, who, kind, label if kind == "label" else None, "test", 1)
        annotations.record(project.db, said)
    found = {row.id: row for row in rows_of(project)}
    ids = [row.external_id for row in utterances.read(project.db, [first, second])]
    assert (found[ids[0]].kind, found[ids[0]].label) == ("none_fits", None)
    tied = found[ids[1]]
    assert (tied.kind, tied.label, tied.given_label, tied.annotator) == ("disputed", None, None, "ada;ben")
    assert (tied.source, tied.strategy, tied.answers, tied.at) == ("expert", "test", 2, None)
    name = labels.names(project.db)[label]
    assert [(one["annotator"], one["kind"], one["label"]) for one in json.loads(tied.answers_given)] == [
        ("ada", "label", name),
        ("ben", "none_fits", None),
    ]
    assert [row.kind for row in rows_of(project, rows="answers") if row.id == ids[1]] == ["label", "none_fits"]


def test_several_answers_become_one_row_or_one_each(project):
    one = annotations.answers(project.db)[0]
    for who in ("ben", "eve"):
        said = NewAnnotation(one.utterance_id, who, "label", one.label_id, "test", 1, unsure=who == "ben")
        annotations.record(project.db, said)
    name = utterances.read(project.db, [one.utterance_id])[0].external_id
    (row,) = (row for row in rows_of(project) if row.id == name)
    assert (row.annotator, row.answers, row.unsure) == ("ada;ben;eve", 3, True)
    each = [row for row in rows_of(project, rows="answers") if row.id == name]
    assert [(row.annotator, row.unsure) for row in each] == [("ada", 0), ("ben", 1), ("eve", 0)]


def test_context_is_never_exported(tmp_path):
    with new_project(tmp_path / "p") as project:
        add_utterances(project, [NewUtterance(f"c{i}", f"around {i}", "c", i, context_only=True) for i in range(5)])
        label_pool(project, 9)
        run_round(project, classifier_of(project), project.config)
        for kind in ("utterances", "answers"):
            found = rows_of(project, rows=kind, with_model=True)
            assert len(found) == 60
            assert {row.slice for row in found} == {"pool", "audit"}


@EVERY_FORMAT
@pytest.mark.parametrize("with_model", [False, True])
def test_every_format_holds_every_row_with_its_label_and_source(project, tmp_path, name, with_model):
    plan = ExportPlan(name, with_model=with_model)
    path = tmp_path / "out" / default_filename(project, plan)
    expected = {row.id: (row.label, row.source, row.slice) for row in export_rows(project, plan)}
    assert export_project(project, path, plan) == len(expected)
    found = read(path, name)
    assert len(found) == len(expected)
    assert {row["id"]: (row["label"], row["source"], row["slice"]) for row in found} == expected
    card = path / "README.md" if path.is_dir() else path.with_name("p.README.md")
    text = card.read_text(encoding="utf-8")
    assert text.startswith("# Test\n") or (name == "dataset" and "\n---\n# Test\n" in text)


@EVERY_FORMAT
def test_a_project_without_answers_exports_no_rows(tmp_path, name):
    with new_project(tmp_path / "p") as project:
        path = tmp_path / f"out{FORMATS[name].suffix}"
        assert export_project(project, path, ExportPlan(name)) == 0
        assert read(path, name) == []


@EVERY_FORMAT
def test_an_answer_in_a_retired_label_leaves_as_such_with_the_label_that_was_given(project, tmp_path, name):
    given = Counter(answer.label_id for answer in annotations.answers(project.db))
    gone = codebook_of(project).id_of("wish")
    make(project, propose(project, retire(project, gone)), "ada")
    path = tmp_path / f"out{FORMATS[name].suffix}"
    export_project(project, path, ExportPlan(name, rows="answers"))
    found = read(path, name)
    retired = [row for row in found if row["kind"] == "out_of_use"]
    assert len(retired) == given[gone]
    assert {(row["label"] or None, row["given_label"]) for row in retired} == {(None, "wish")}
    export_project(project, path, ExportPlan(name, with_model=True))
    found = read(path, name)
    assert "wish" not in {row["label"] for row in found}, "no utterance has a label that is out of use"
    if name != "jsonl":
        assert "p(wish)" not in found[0]
    card = next(tmp_path.rglob("*README.md")).read_text(encoding="utf-8")
    assert "*wish* was retired" in card


def test_a_merged_label_leaves_as_the_one_it_counts_as_with_the_one_that_was_given(project):
    target, report = codebook_of(project).id_of("wish"), codebook_of(project).id_of("report")
    before = list(export_rows(project, ExportPlan(with_model=True)))
    make(project, propose(project, merge(project, [target], report)), "ada")
    after = list(export_rows(project, ExportPlan(with_model=True)))
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        if old.source == "expert":
            assert new.label == ("report" if old.label == "wish" else old.label)
            assert new.given_label == old.label
            assert new.codebook_version == old.codebook_version
        if old.probabilities:
            joint = old.probabilities["wish"] + old.probabilities["report"]
            assert new.probabilities["report"] == pytest.approx(joint, abs=2e-6)
    assert "*wish* was merged; its answers count as *report*" in dataset_card(project, ExportPlan(), len(after))


def test_what_was_adjudicated_wins_and_is_marked(project):
    answered = next(iter(annotations.answers(project.db)))
    other = next(i for i in codebook_of(project).ids if i != answered.label_id)
    new = (answered.utterance_id, "cleo", "label", other, ADJUDICATED, codebook_of(project).version)
    annotations.record(project.db, NewAnnotation(*new))
    (name,) = (row.external_id for row in utterances.read(project.db, [answered.utterance_id]))
    (row,) = (row for row in export_rows(project, ExportPlan()) if row.id == name)
    assert (row.label, row.source, row.strategy) == (
        labels.names(project.db)[other],
        "adjudicated",
        "adjudicated",
    )
    assert row.answers == 2


def test_a_retired_label_that_nobody_used_leaves_no_column(tmp_path):
    with new_project(tmp_path / "p") as project:
        gone = codebook_of(project).id_of("wish")
        project.db.execute("UPDATE label SET retired_at = '2026-01-01' WHERE id = ?", (gone,))
        export_project(project, tmp_path / "out.csv", ExportPlan("csv"))
        assert "p(wish)" not in (tmp_path / "out.csv").read_text(encoding="utf-8-sig").splitlines()[0]


def test_every_column_has_a_meaning():
    assert [field.name for field in FIELDS] == list(MEANINGS)


def test_every_row_has_exactly_the_columns_there_are_in_their_order(project):
    for rows in ("utterances", "answers"):
        for row in rows_of(project, rows=rows, with_model=True):
            assert list(row.cells()) == list(MEANINGS)


def test_the_card_lists_codebook_counts_rounds_and_columns(project):
    plan = ExportPlan(with_model=True)
    found = rows_of(project, with_model=True)
    card = dataset_card(project, plan, len(found))
    assert f"{len(found)} rows" in card
    for label in codebook_of(project).labels:
        assert f"- **{label.name}**" in card
    for name, meaning in MEANINGS.items() - {("label_path", MEANINGS["label_path"])}:  # there are no groups
        assert f"- `{name}`: {meaning}" in card
    in_pool = sum((row.label, row.source, row.slice) == ("wish", "expert", "pool") for row in found)
    assert f"| wish | expert | pool | {in_pool} |" in card
    assert f"| **all** |  |  | {len(found)} |" in card
    promoted = rounds.promoted(project.db)
    line = next(line for line in card.splitlines() if line.startswith("| 1 |"))
    assert f"| {promoted.trained_on} | {promoted.audited_on} |" in line
    assert "random sample" in card


def test_a_card_of_a_project_without_a_round_is_whole_too(tmp_path):
    with new_project(tmp_path / "p") as project:
        card = dataset_card(project, ExportPlan(), 0)
        assert "## Rounds" in card
        assert "(no definition)" in card


def test_an_unmeasured_round_says_so(tmp_path):
    with new_project(tmp_path / "p") as project:
        run_round(project, classifier_of(project), project.config)
        assert "not measured" in dataset_card(project, ExportPlan(), 0)
