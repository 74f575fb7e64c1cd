"""Test the sample data against their datasheet; sample projects start without labels."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from annotator.codebook.definition import codebook_of
from annotator.errors import UnknownName
from annotator.exchange.samples import SAMPLES, create_sample, project_folders, workspace
from annotator.labeling.session import next_question
from annotator.rounds.snapshot import read_texts
from store import annotations, utterances
from store.utterances import text_hash

EVERY = pytest.mark.parametrize("name", sorted(SAMPLES))


def rows_of(name: str) -> list[dict[str, str]]:
    with SAMPLES[name].data.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def to_label(name: str) -> list[dict[str, str]]:
    speaker = SAMPLES[name].codebook.speaker
    return [row for row in rows_of(name) if speaker is None or row["speaker"] == speaker]


@pytest.mark.parametrize(("name", "count"), [("political_promises", 400), ("client_talk", 500)])
def test_there_is_enough_to_label(name, count):
    assert len(to_label(name)) >= count


@EVERY
def test_a_fifth_is_for_testing_and_every_label_is_in_both_parts(name):
    rows = to_label(name)
    assert {row["split"] for row in rows} == {"train", "test"}
    assert np.mean([row["split"] == "test" for row in rows]) == pytest.approx(0.2, abs=0.03)
    both = {(row["label"], row["split"]) for row in rows}
    assert len(both) == 2 * len(SAMPLES[name].codebook.labels)


@EVERY
def test_every_label_is_in_the_codebook_and_each_is_used(name):
    known = {label.name for label in SAMPLES[name].codebook.labels}
    used = Counter(row["label"] for row in to_label(name))
    assert set(used) == known
    assert min(used.values()) >= 0.1 * used.total()


@EVERY
def test_ids_are_unique(name):
    ids = [row["id"] for row in rows_of(name)]
    assert len(set(ids)) == len(ids)


@EVERY
def test_no_text_is_there_twice(name):
    """Short turns of a conversation may repeat: the turns before them differ."""
    texts = [row["text"] for row in to_label(name) if name != "client_talk" or len(row["text"].split()) >= 5]
    hashes = Counter(text_hash(text) for text in texts)
    assert hashes.most_common(1)[0][1] == 1


@EVERY
def test_no_two_texts_are_nearly_the_same(name):
    texts = [row["text"] for row in to_label(name) if len(row["text"].split()) >= 5]
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(3, 5)).fit_transform(texts)
    near = (vectors @ vectors.T).toarray() - np.eye(len(texts))
    one, other = np.unravel_index(near.argmax(), near.shape)
    assert near.max() < 0.55, f"{texts[one]} / {texts[other]}"


@EVERY
def test_the_examples_of_a_codebook_are_none_of_its_utterances(name):
    said = {text_hash(row["text"]) for row in rows_of(name)}
    assert not said & {text_hash(text) for label in SAMPLES[name].codebook.labels for text in label.examples}


def test_clients_speak_after_therapists_and_turns_are_in_order():
    rows = rows_of("client_talk")
    assert {row["speaker"] for row in rows} == {"client", "therapist"}
    assert all(not row["label"] for row in rows if row["speaker"] == "therapist")
    seen: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        seen.setdefault(row["conversation_id"], []).append(row)
    for turns in seen.values():
        assert [int(row["turn"]) for row in turns] == list(range(1, len(turns) + 1))
        assert len({row["split"] for row in turns}) == 1  # no conversation is in both parts
    clients = to_label("client_talk")
    first = {turns[0]["id"] for turns in seen.values()}
    assert sum(row["id"] not in first for row in clients) > 0.9 * len(clients)


@EVERY
def test_a_sample_project_has_everything_but_the_labels(name, tmp_path):
    with create_sample(name, tmp_path / "p") as project:
        slices = utterances.count_slices(project.db)
        rows, wanted = rows_of(name), to_label(name)
        assert slices["context"] == len(rows) - len(wanted)
        assert slices["pool"] + slices["audit"] == len(wanted)
        assert slices["audit"] == round(0.2 * len(wanted))
        assert annotations.last_id(project.db) == 0
        stored = {row.metadata_json for row in utterances.iterate(project.db)}
        labels = [label.name for label in codebook_of(project).labels]
        assert not [text for text in stored if any(f'"{name}"' in text for name in labels)]
        assert project.name == SAMPLES[name].codebook.name


def test_client_utterances_are_asked_with_the_turns_before(tmp_path):
    with create_sample("client_talk", tmp_path / "p") as project:
        question = next_question(project, "ada")
        assert question.utterance.speaker == "client"
        ids = utterances.ids_in(project.db, "pool")
        assert np.mean([len(one.context) > 0 for one in read_texts(project, ids, 3)]) > 0.9


def test_an_unknown_sample_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UnknownName, match="no sample called “poems”") as caught:
        create_sample("poems", tmp_path / "p")
    assert "client_talk" in caught.value.hint
    assert not (tmp_path / "p").exists()


def test_the_workspace_lists_its_projects_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNOTATOR_PROJECTS", str(tmp_path))
    for name in ("b", "a"):
        create_sample("political_promises", tmp_path / name).close()
    (tmp_path / "something else").mkdir()
    assert project_folders(workspace()) == [tmp_path / "a", tmp_path / "b"]
