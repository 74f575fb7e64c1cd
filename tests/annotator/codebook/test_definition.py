"""Test codebooks: read from YAML or refused with the field at fault, and a separate key for every label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.codebook.definition import Codebook, CodebookLabel
from annotator.codebook.draft import (
    INSTRUCTION,
    KEYS,
    CodebookDraft,
    LabelDraft,
    codebook_yaml,
    draft_from_names,
    parse_codebook,
    parse_codebook_text,
    read_codebook,
    read_labels,
)
from annotator.errors import BadCodebook
from annotator.exchange.samples import SAMPLES

GOOD = """
name: Promises
instruction: Is it one?
speaker: client
context_turns: 2
labels:
  - name: promise
    definition: Says what will be done.
    examples: [We will build it.]
    key: "p"
  - name: not_a_promise
    words: other
"""


def codebook(*labels: LabelDraft | str) -> Codebook:
    drafts = [label if isinstance(label, LabelDraft) else LabelDraft(name=label) for label in labels]
    rows = [
        CodebookLabel(i, d.name, d.definition, tuple(d.examples), d.words, d.key) for i, d in enumerate(drafts, start=7)
    ]
    return Codebook("Choose.", tuple(rows), 1)


def test_a_good_codebook_is_read_whole(tmp_path):
    path = tmp_path / "codebook.yaml"
    path.write_text(GOOD, encoding="utf-8")
    draft = read_codebook(path)
    assert (draft.name, draft.instruction, draft.speaker, draft.context_turns) == (
        "Promises",
        "Is it one?",
        "client",
        2,
    )
    assert [label.name for label in draft.labels] == ["promise", "not_a_promise"]
    assert draft.labels[0].examples == ["We will build it."]
    assert [label.key for label in draft.labels] == ["p", "1"]


def test_what_is_left_out_takes_its_default():
    draft = parse_codebook_text("labels: [{name: a}, {name: b}]")
    assert (draft.instruction, draft.context_turns, draft.speaker) == (INSTRUCTION, 3, None)


def test_a_color_is_read_in_the_spelling_of_earlier_versions():
    drafts = parse_codebook_text("labels: [{name: a, colour: grey}, {name: b, colour: teal}, {name: c, color: gray}]")
    assert [label.color for label in drafts.labels] == ["gray", "teal", "gray"]


def test_a_number_may_be_a_name():
    assert [label.name for label in parse_codebook_text("labels: [{name: 1}, {name: 2}]").labels] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("labels: [{name: a}", "not valid YAML"),
        ("", "cannot be used"),
        ("just text", "cannot be used"),
        ("labels: []", "at least 1"),
        ("labels: [{name: a}]", "at least two labels"),
        ("name: x", "labels: Field required"),
        ("labels: [{name: a}, {definition: x}]", "labels.1.name: Field required"),
        ("labels: [{name: a}, {name: ''}]", "labels.1.name"),
        ("labels: [{name: a}, {name: '  '}]", "labels.1.name"),
        ("labels: [{name: a}, {name: b, color: red}]", "labels.1.color"),
        ("labels: [{name: a}, {name: b, key: xy}]", "labels.1.key"),
        ("labels: [{name: a}, {name: b}]\ncontext_turns: -1", "context_turns"),
        ("labels: [{name: a}, {name: yes}]", "labels.1.name"),
        ("labels: [{name: a}, {name: A}]", "have the same label words, “a”"),
        ("labels: [{name: not_it}, {name: not it}]", "have the same label words, “not it”"),
        ("labels: [{name: a, words: x}, {name: b, words: X}]", "have the same label words, “x”"),
        ("labels: [{name: a, words: x}, {name: A, words: y}]", "used twice: a"),
        ("labels: [{name: a, key: k}, {name: b, key: K}]", "used twice or not available: k"),
        ("labels: [{name: a, key: s}, {name: b}]", "used twice or not available: s"),
    ],
)
def test_a_bad_codebook_is_refused_with_the_field_at_fault(text, says):
    with pytest.raises(BadCodebook) as caught:
        parse_codebook_text(text)
    assert says in str(caught.value)
    assert caught.value.hint


def test_a_codebook_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadCodebook, match=r"no codebook file .*x\.yaml"):
        read_codebook(tmp_path / "x.yaml")


def test_a_codebook_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "codebook.yaml"
    path.write_bytes("labels: [{name: größe}, {name: b}]".encode("latin-1"))
    with pytest.raises(BadCodebook, match="not UTF-8"):
        read_codebook(path)


names = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12).filter(
        lambda name: name.replace("_", " ").strip()
    ),
    min_size=2,
    max_size=40,
    unique_by=lambda name: " ".join(name.replace("_", " ").strip().casefold().split()),
)


@given(names)
def test_every_label_has_a_key_of_its_own_while_there_are_keys(given_names):
    keys = [label.key for label in draft_from_names(given_names).labels]
    assert keys == [*KEYS, *[""] * len(keys)][: len(keys)]


@given(names, st.data())
def test_keys_that_were_chosen_are_kept_and_the_others_go_around_them(given_names, data):
    some = data.draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=len(given_names)))
    labels = [{"name": n, "key": some[i] if i < len(some) else ""} for i, n in enumerate(given_names)]
    keys = [label.key for label in parse_codebook({"labels": labels}).labels]
    assert keys[: len(some)] == some
    used = [key for key in keys if key]
    assert len(used) == len(set(used))
    assert set(used) <= set(KEYS)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40).map(str.strip)


@given(given_names=names, definition=texts, instruction=texts, turns=st.integers(0, 20), speaker=st.none() | texts)
def test_a_codebook_written_as_yaml_is_read_back_the_same(given_names, definition, instruction, turns, speaker):
    labels = [{"name": name, "definition": definition, "examples": [definition] * 2} for name in given_names]
    content = {"instruction": instruction, "context_turns": turns, "speaker": speaker, "labels": labels}
    draft = parse_codebook(content)
    assert parse_codebook_text(codebook_yaml(draft)) == draft


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_codebooks_of_the_samples_survive_the_round_trip(name):
    draft = SAMPLES[name].codebook
    assert parse_codebook_text(codebook_yaml(draft)) == draft


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\x85", "\u2028", "\u2029"])
def test_every_line_break_in_a_definition_survives_the_round_trip(line_break):
    draft = parse_codebook({"labels": [{"name": "a", "definition": f"one{line_break}two"}, {"name": "b"}]})
    assert parse_codebook_text(codebook_yaml(draft)) == draft


def test_checking_twice_changes_nothing():
    draft = CodebookDraft(labels=[LabelDraft(name="a"), LabelDraft(name="b", key="1")]).checked()
    assert draft.checked() == draft


# Finding labels


@pytest.mark.parametrize("name", ["not_a_promise", "not a promise", " Not A Promise ", "NOT_A_PROMISE"])
@pytest.mark.parametrize("stored", ["not_a_promise", "not a promise", "Not a promise"])
def test_a_name_is_found_whatever_its_case_and_separators(name, stored):
    assert codebook("promise", stored).id_of(name) == 8


def test_a_label_is_found_by_its_words():
    book = codebook(LabelDraft(name="CT+", words="change"), LabelDraft(name="CT-", words="sustain"))
    assert (book.id_of("change"), book.id_of("ct-")) == (7, 8)


def test_a_name_goes_before_the_words_of_another_label():
    book = codebook(LabelDraft(name="a", words="b"), LabelDraft(name="b", words="c"))
    assert book.id_of("b") == 8


def test_an_unknown_name_is_no_label():
    assert codebook("a", "b").id_of("c") is None
    assert codebook("a", "b").id_of("") is None


def test_labels_are_in_order_for_people_and_for_the_model():
    book = codebook(LabelDraft(name="a", definition="first", examples=["x"]), "b")
    assert (book.ids, book.names) == ((7, 8), ("a", "b"))
    assert book.label(8).name == "b"
    task = book.task()
    assert task.instruction == "Choose."
    assert [(label.name, label.definition, label.examples) for label in task.labels] == [
        ("a", "first", ("x",)),
        ("b", "", ()),
    ]


@pytest.mark.parametrize(
    ("text", "known", "labels"),
    [
        ("promise: what will be done\n\n  other ", [], [("promise", "what will be done"), ("other", "")]),
        ("7:30\nre: a: b\nend:", [], [("7:30", ""), ("re", "a: b"), ("end", "")]),
        (
            "re: money\nre: money: about it\nre: rest",
            ["re: money"],
            [("re: money", ""), ("re: money", "about it"), ("re", "rest")],
        ),
    ],
)
def test_labels_are_read_as_they_are_typed(text, known, labels):
    assert [(one["name"], one["definition"]) for one in read_labels(text, known)] == labels
