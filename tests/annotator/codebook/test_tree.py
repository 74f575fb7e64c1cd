"""A codebook may be a tree: groups at any depth, of which only the labels are answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotator.codebook import changes, history
from annotator.codebook.definition import Codebook, codebook_of, create_project
from annotator.codebook.draft import (
    CodebookDraft,
    codebook_yaml,
    draft_from_names,
    parse_codebook,
    parse_codebook_text,
    schema,
)
from annotator.errors import BadCodebook, BadInput
from annotator.project import Project
from model.types import Group
from store import labels

DOCS = Path(__file__).parents[3] / "docs"
TREE = """
labels:
  - name: Money
    definition: What is paid.
    labels:
      - {name: Cards, labels: [{name: lost card}, {name: new card, key: x}]}
      - {name: refund}
  - {name: Delivery, labels: [{name: late parcel}, {name: damaged parcel}]}
  - {name: other}
"""
LEAVES = ("lost card", "new card", "refund", "late parcel", "damaged parcel", "other")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with create_project(tmp_path / "p", parse_codebook_text(TREE)) as made:
        yield made


def ids(book: Codebook) -> dict[str, int]:
    return {node.name: node.id for node in book.nodes}


def make(project: Project, change: changes.Change) -> int:
    return changes.make(project, changes.propose(project, change), "ada")


def paths(project: Project) -> list[str]:
    book = codebook_of(project)
    return [book.path(label.id) for label in book.labels]


def keys(project: Project, group: str | None) -> dict[str, str]:
    book = codebook_of(project)
    return {node.name: node.key for node in book.held(ids(book)[group] if group else None)}


def test_the_labels_of_a_tree_are_its_leaves_in_the_order_of_the_file(project: Project) -> None:
    book = codebook_of(project)
    assert book.names == LEAVES
    assert [group.name for group in book.groups] == ["Money", "Cards", "Delivery"]
    assert paths(project)[0] == "Money / Cards / lost card"
    assert book.under(ids(book)["Money"]) == tuple(ids(book)[name] for name in LEAVES[:3])
    assert book.task().labels[0].groups == (Group("Money", "What is paid."), Group("Cards"))


def test_keys_are_unique_in_each_group_alone(project: Project) -> None:
    assert keys(project, None) == {"Money": "1", "Delivery": "2", "other": "3"}
    assert keys(project, "Money") == {"Cards": "1", "refund": "2"}
    assert keys(project, "Cards") == {"lost card": "1", "new card": "x"}


@pytest.mark.parametrize("name", ["late parcel", "LATE PARCEL", "Delivery / late parcel", " delivery / Late parcel "])
def test_a_label_is_found_by_its_name_and_by_its_path(project: Project, name: str) -> None:
    book = codebook_of(project)
    assert book.id_of(name) == ids(book)["late parcel"]


@pytest.mark.parametrize("name", ["Delivery", "Money / Cards", "Money / late parcel"])
def test_a_group_and_a_wrong_path_are_no_label(project: Project, name: str) -> None:
    assert codebook_of(project).id_of(name) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("labels: [{name: A, labels: [{name: b}]}]", "at least two labels"),
        ("labels: [{name: A, words: x, labels: [{name: b}, {name: c}]}]", "neither examples nor words"),
        ("labels: [{name: A, labels: [{name: b}]}, {name: C, labels: [{name: B}]}]", "the same label words"),
        ("labels: [{name: A, labels: [{name: b}]}, {name: a, labels: [{name: c}]}]", "used twice: a"),
        ("labels: [{name: A, labels: [{name: b / c}]}, {name: A / b, labels: [{name: c}]}]", "used twice: a / b / c"),
        ("labels: [{name: A, labels: [{name: b, key: k}, {name: c, key: k}]}]", "Keys used twice"),
    ],
)
def test_a_tree_that_cannot_be_used_is_refused(text: str, fault: str) -> None:
    with pytest.raises(BadCodebook, match=fault):
        parse_codebook_text(text)


def test_a_tree_is_read_as_it_was_written() -> None:
    draft = parse_codebook_text(TREE)
    assert parse_codebook_text(codebook_yaml(draft)) == draft
    assert parse_codebook(draft.model_dump()) == draft


def test_names_that_are_all_paths_become_groups() -> None:
    draft = draft_from_names(["A / x", "A / B / y", "A / B / z", "C / w"])
    assert [leaf.name for leaf in draft.leaves] == ["x", "y", "z", "w"]
    assert [one.name for one in draft.labels] == ["A", "C"]


@pytest.mark.parametrize("names", [["A / x", "B / y"], ["A / x", "A / y", "z"], ["A / x", "A / y", "B / x"]])
def test_other_names_with_a_separator_stay_names(names: list[str]) -> None:
    assert [one.name for one in draft_from_names(names).labels] == names


def test_the_schema_and_the_example_in_the_documentation_are_those_of_the_program() -> None:
    assert (DOCS / "codebook.schema.json").read_text(encoding="utf-8") == schema()
    fields = {name for kind in (CodebookDraft, *json.loads(schema())["$defs"].values()) for name in fields_of(kind)}
    page = (DOCS / "codebook.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in fields)
    example = parse_codebook_text(page.split("```yaml")[1].split("```")[0])
    assert [leaf.name for leaf in example.leaves][1:3] == ["refund delay", "double charge"]


def fields_of(kind: object) -> list[str]:
    return list(kind["properties"] if isinstance(kind, dict) else CodebookDraft.model_fields)


# Changes of the tree


def test_a_group_moves_with_all_that_it_holds_and_an_undo_moves_it_back(project: Project) -> None:
    before, at = paths(project), ids(codebook_of(project))
    version = make(project, changes.move(project, at["Cards"], at["Delivery"]))
    assert paths(project)[-3:] == ["Delivery / Cards / lost card", "Delivery / Cards / new card", "other"]
    assert keys(project, "Delivery") == {"late parcel": "1", "damaged parcel": "2", "Cards": "3"}, "1 was taken"
    history.undo(project, version, "ada")
    assert paths(project) == before
    assert keys(project, "Money") == {"Cards": "1", "refund": "2"}


def test_labels_go_into_a_new_group_at_the_place_of_the_first(project: Project) -> None:
    at = ids(codebook_of(project))
    make(project, changes.group(project, {"name": "Complaints"}, [at["late parcel"], at["other"]]))
    assert paths(project)[-3:] == [
        "Delivery / Complaints / late parcel",
        "Delivery / Complaints / other",
        "Delivery / damaged parcel",
    ]


def test_a_dissolved_group_passes_on_what_it_holds_until_it_is_restored(project: Project) -> None:
    before, at = paths(project), ids(codebook_of(project))
    make(project, changes.dissolve(project, at["Cards"]))
    assert paths(project)[:3] == ["Money / lost card", "Money / new card", "Money / refund"]
    assert keys(project, "Money") == {"lost card": "1", "new card": "x", "refund": "2"}
    make(project, changes.restore(project, at["Cards"]))
    assert paths(project) == before


def test_a_group_that_is_merged_passes_its_labels_to_the_other(project: Project) -> None:
    at = ids(codebook_of(project))
    make(project, changes.merge(project, [at["Delivery"]], at["Cards"]))
    assert paths(project)[:4] == [
        f"Money / Cards / {name}" for name in ("lost card", "new card", "late parcel", "damaged parcel")
    ]
    assert len(set(keys(project, "Cards").values())) == 4


def test_the_parts_of_a_split_label_are_in_its_group(project: Project) -> None:
    at = ids(codebook_of(project))
    make(project, changes.split(project, at["late parcel"], [{"name": "a day late"}, {"name": "a week late"}]))
    assert paths(project)[3:6] == ["Delivery / a day late", "Delivery / a week late", "Delivery / damaged parcel"]


def test_what_makes_no_tree_is_refused(project: Project) -> None:
    at = ids(codebook_of(project))
    with pytest.raises(BadCodebook, match="“Money” would be inside itself"):
        changes.move(project, at["Money"], at["Cards"])
    with pytest.raises(BadCodebook, match="would be inside itself"):
        changes.merge(project, [at["Money"]], at["Cards"])
    with pytest.raises(BadInput, match="cannot be merged"):
        changes.merge(project, [at["Money"]], at["other"])
    with pytest.raises(BadInput, match="cannot be split"):
        changes.split(project, at["Money"], [{"name": "a"}, {"name": "b"}])
    with pytest.raises(BadInput, match="already"):
        changes.move(project, at["refund"], at["Money"])
    with pytest.raises(BadCodebook, match="neither examples nor words"):
        changes.revise(project, at["Money"], {"words": "cash"})


def test_every_change_of_the_tree_is_described(project: Project) -> None:
    at = ids(codebook_of(project))
    make(project, changes.move(project, at["refund"], None))
    make(project, changes.move(project, at["other"], at["Money"]))
    make(project, changes.group(project, {"name": "New"}, [at["refund"], at["late parcel"]]))
    make(project, changes.merge(project, [at["Cards"]], at["Delivery"]))
    make(project, changes.dissolve(project, at["Money"]))
    names = labels.names(project.db)
    assert [history.describe(event, names) for event in labels.events(project.db)][-5:] == [
        "“refund” moved out of all groups",
        "“other” moved into the group “Money”",
        "“refund”, “late parcel” put into the new group “New”",
        "group “Cards” merged into “Delivery”",
        "group “Money” dissolved",
    ]
    moved = changes.propose(project, changes.move(project, at["other"], at["Delivery"]))
    assert history.consequences(moved)[0] == "No answer changes. The model reads the new tree from the next round on."


def test_a_name_that_is_the_path_of_another_label_is_refused() -> None:
    other = {"name": "Mail", "labels": [{"name": "Money / refund", "words": "by mail"}]}
    money = {"name": "Money", "labels": [{"name": "refund"}, {"name": "fee"}]}
    with pytest.raises(BadCodebook, match="money / refund"):
        parse_codebook({"labels": [other, money]})


def test_groups_whose_names_look_the_same_are_refused() -> None:
    groups = [
        {"name": name, "labels": [{"name": f"{number}"}]} for number, name in enumerate(("Caf\u00e9", "Cafe\u0301"))
    ]
    with pytest.raises(BadCodebook, match="used twice"):
        parse_codebook({"labels": groups})


@pytest.mark.parametrize(
    "names",
    [
        ["A / x", "A / y", "a / z"],  # two groups that differ by case
        ["A / x", "A / y", "A / x / z"],  # a label and a group with the same name
        ["A / x", "A / y", "A /  / z"],  # a group without a name
        ["A / play_music", "A / playMusic"],  # the same words
        ["A / x", "A / y", "B / X"],  # the same name
    ],
)
def test_names_that_make_no_valid_tree_remain_names(names: list[str]) -> None:
    assert [one.name for one in draft_from_names(names).labels] == names


def test_a_file_with_hundreds_of_levels_is_refused() -> None:
    text = "labels: [{name: a}, " + "{name: g, labels: [" * 400 + "{name: b}" + "]}" * 400 + "]"
    with pytest.raises(BadCodebook, match="inside each other"):
        parse_codebook_text(text)


@pytest.mark.parametrize("place", ["other", "Cards", None])
def test_nothing_is_placed_into_a_label_or_a_group_out_of_use(project: Project, place: str | None) -> None:
    into = ids(codebook_of(project))[place] if place else 99
    refund = ids(codebook_of(project))["refund"]
    make(project, changes.dissolve(project, ids(codebook_of(project))["Cards"]))
    for change in (
        lambda: changes.move(project, refund, into),
        lambda: changes.add(project, {"name": "new", "parent_id": into}),
    ):
        with pytest.raises(BadInput, match="no such group"):
            change()


def test_a_label_is_not_dissolved_and_a_group_not_retired(project: Project) -> None:
    with pytest.raises(BadInput, match="Only a group"):
        changes.dissolve(project, ids(codebook_of(project))["other"])
    with pytest.raises(BadInput, match="cannot be retired"):
        changes.retire(project, ids(codebook_of(project))["Cards"])


def test_an_added_label_comes_last_after_others_have_been_moved(project: Project) -> None:
    for group in ("Money", "Delivery", "Money", "Delivery"):
        book = codebook_of(project)
        make(project, changes.move(project, ids(book)["other"], ids(book)[group]))
    make(project, changes.move(project, ids(codebook_of(project))["other"], None))
    make(project, changes.add(project, {"name": "new"}))
    assert codebook_of(project).names[-2:] == ("other", "new")


def test_what_is_inside_a_group_stays_in_it_when_both_are_put_into_a_new_one(project: Project) -> None:
    known = ids(codebook_of(project))
    make(project, changes.group(project, {"name": "All"}, [known["lost card"], known["Cards"], known["other"]]))
    assert paths(project)[:4] == [
        "Money / All / Cards / lost card",
        "Money / All / Cards / new card",
        "Money / All / other",
        "Money / refund",
    ]


def test_a_change_can_be_undone_when_its_keys_are_taken_by_then(project: Project) -> None:
    book = codebook_of(project)
    away = make(project, changes.move(project, ids(book)["late parcel"], None))
    make(project, changes.add(project, {"name": "lost parcel", "parent_id": ids(book)["Delivery"]}))
    assert keys(project, "Delivery") == {"damaged parcel": "2", "lost parcel": "1"}
    history.undo(project, away, "ada")
    assert keys(project, "Delivery") == {"damaged parcel": "2", "lost parcel": "1", "late parcel": "3"}
