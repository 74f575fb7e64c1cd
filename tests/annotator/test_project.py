"""Test that training and audit data never overlap, and that the model reads the right turns."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.codebook.definition import codebook_of, create_project
from annotator.config import RoundConfig
from annotator.errors import BadFile, NoProject, ProjectExists
from annotator.exchange.imports import add_utterances, import_file
from annotator.labeling.session import answer, next_question, undo
from annotator.project import Project
from annotator.rounds.candidates import candidates
from annotator.rounds.queueing import refill_queue
from annotator.rounds.snapshot import Snapshot, read_texts, take_snapshot
from store import annotations, queue, rounds, utterances
from store.annotations import NewAnnotation
from store.files.importers import ImportPlan, detect_columns
from store.utterances import NewUtterance, text_hash
from tests.annotator.scenes import (
    CONFIG,
    LABELS,
    change,
    draft,
    label_pool,
    new_project,
    right,
    texts,
    truth,
    write_csv,
)


def import_csv(project: Project, path: Path, rows: list[dict[str, object]], **how: object):
    write_csv(path, rows)
    return import_file(project, path, ImportPlan(detect_columns(list(rows[0])), **how))


def snapshot(project: Project, config: RoundConfig | None = None) -> Snapshot:
    return take_snapshot(project, config or project.config, np.random.default_rng(0))


def say(project: Project, utterance_id: int, label: str, annotator: str = "ada", strategy: str = "random") -> None:
    label_id = codebook_of(project).id_of(label)
    annotations.record(project.db, NewAnnotation(utterance_id, annotator, "label", label_id, strategy, 1))


def test_a_project_is_made_from_a_draft_and_opened_again(tmp_path):
    made = draft().model_copy(update={"context_turns": 1, "instruction": "Which?"})
    create_project(tmp_path / "p", made, CONFIG).close()
    with Project.open(tmp_path / "p") as project:
        assert project.name == "Test"
        assert codebook_of(project).names == LABELS
        assert codebook_of(project).instruction == "Which?"
        assert (project.config.context_turns, project.config.batch_size) == (1, 10)
        assert [label.key for label in codebook_of(project).labels] == ["1", "2", "3"]


def test_a_project_is_not_made_twice_nor_opened_where_none_is(tmp_path):
    create_project(tmp_path / "p", draft()).close()
    with pytest.raises(ProjectExists):
        create_project(tmp_path / "p", draft())
    with pytest.raises(NoProject):
        Project.open(tmp_path / "q")


def test_settings_are_kept(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        change(project, strategy="entropy", seed=9)
    with Project.open(tmp_path / "p") as project:
        assert (project.config.strategy, project.config.seed) == ("entropy", 9)


def test_an_import_fills_pool_audit_and_queue(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        rows = [{"id": f"x{i}", "text": text} for i, text in enumerate(texts(50))]
        report = import_csv(project, tmp_path / "f.csv", rows)
        assert (report.to_label, report.with_label, report.rejected) == (50, 0, [])
        assert utterances.count_slices(project.db) == {"pool": 40, "audit": 10, "context": 0}
        assert queue.size(project.db) == CONFIG.batch_size


def test_labels_that_come_with_a_file_are_trained_and_measured_on(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        rows = [{"text": text, "label": truth(text)} for text in texts(50)]
        report = import_csv(project, tmp_path / "f.csv", rows)
        assert report.with_label == 50
        found = snapshot(project)
        assert (len(found.train), len(found.audit)) == (40, 10)
        assert not found.open_pool
        names = {label.id: label.name for label in codebook_of(project).labels}
        for utterance, label in (found.train | found.audit).items():
            assert names[label] == truth(utterances.read(project.db, [utterance])[0].text)


def test_a_label_that_the_codebook_has_not_is_reported_and_its_utterance_kept(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        rows = [{"text": "one thing", "label": "Promise"}, {"text": "another thing", "label": "threat"}]
        report = import_csv(project, tmp_path / "f.csv", rows)
        assert (report.to_label, report.with_label) == (2, 1)
        assert [(r.row, "threat" in r.reason) for r in report.rejected] == [(3, True)]


def test_an_import_that_fails_leaves_nothing_behind(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        path = write_csv(tmp_path / "f.csv", [{"text": text} for text in texts(30)])
        with path.open("ab") as stream:
            stream.write(b"\xff\xfe broken\n")
        with pytest.raises(BadFile):
            import_file(project, path, ImportPlan(detect_columns(["text"])))
        assert utterances.count_slices(project.db) == {"pool": 0, "audit": 0, "context": 0}
        assert queue.size(project.db) == 0


def test_the_same_file_imported_again_changes_nothing(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        rows = [{"id": f"x{i}", "text": text} for i, text in enumerate(texts(30))]
        import_csv(project, tmp_path / "f.csv", rows)
        before = list(project.db["utterance"].rows)
        report = import_csv(project, tmp_path / "f.csv", rows)
        assert (report.to_label, report.already_there) == (0, 30)
        assert list(project.db["utterance"].rows) == before


def test_what_the_model_reads_are_the_turns_before_in_their_order(tmp_path):
    with new_project(tmp_path / "p", 0) as project:
        said = [(3, "ann", "three"), (1, "bob", "one"), (4, None, "four"), (2, "ann", "two"), (5, "bob", "five")]
        around = [NewUtterance(f"t{turn}", text, "c", turn, who, context_only=turn < 5) for turn, who, text in said]
        ids = add_utterances(project, [*around, NewUtterance("other", "elsewhere", "d", 4, "eve")])
        five, elsewhere = read_texts(project, [ids[4], ids[5]], 3)
        assert (five.text, five.context) == ("five", ("ann: two", "ann: three", "speaker: four"))
        assert elsewhere.context == ()
        assert read_texts(project, [ids[4]], 0)[0].context == ()
        assert len(read_texts(project, [ids[4]], 10)[0].context) == 4


def test_turns_of_the_same_number_stand_in_the_order_in_which_they_came(tmp_path):
    said = [("b", 1.0), ("e", 2.5), ("c", 1.0), ("d", 1.5), ("nowhere", None)]
    with new_project(tmp_path / "p", 0) as project:
        ids = add_utterances(project, [NewUtterance(text, text, "c", turn, "ann") for text, turn in said])
        read = {one.text: one.context for one in read_texts(project, ids, 2)}
        assert read == {
            "b": (),
            "c": ("ann: b",),
            "d": ("ann: b", "ann: c"),
            "e": ("ann: c", "ann: d"),
            "nowhere": (),
        }
        rows = {row.text: row for row in utterances.iterate(project.db)}
        around = {text: [turn.text for turn in utterances.turns_around(project.db, rows[text], 1)] for text in rows}
        assert around == {
            "b": ["b", "c"],
            "c": ["b", "c", "d"],
            "d": ["c", "d", "e"],
            "e": ["d", "e"],
            "nowhere": ["nowhere"],
        }
        assert all([t.text for t in utterances.turns_around(project.db, rows[i])] == list("bcde") for i in "bcde")


def test_texts_come_in_the_order_asked_for(tmp_path):
    with new_project(tmp_path / "p", 5) as project:
        assert [one.text for one in read_texts(project, [4, 1, 3], 0)] == [texts(5)[i] for i in (3, 0, 2)]


# Snapshots


def test_a_snapshot_scores_the_open_pool_and_the_audit_sample(tmp_path):
    with new_project(tmp_path / "p") as project:
        label_pool(project, 6)
        found = snapshot(project)
        pool, audit = (set(utterances.ids_in(project.db, name)) for name in ("pool", "audit"))
        assert len(found.train) == 6
        assert found.open_pool == pool - set(found.train)
        assert set(found.scored) == found.open_pool | audit
        assert list(found.scored) == sorted(found.scored)
        assert found.last_annotation == annotations.last_id(project.db)


def test_no_more_is_scored_than_the_limit_and_the_audit_sample_always(tmp_path):
    with new_project(tmp_path / "p") as project:
        config = change(project, score_limit=7)
        found, audit = snapshot(project, config), set(utterances.ids_in(project.db, "audit"))
        assert len(found.open_pool) == 7
        assert set(found.scored) == found.open_pool | audit
        other = take_snapshot(project, config, np.random.default_rng(1))
        assert other.open_pool != found.open_pool


def test_a_draw_is_neither_trained_on_nor_asked_again(tmp_path):
    with new_project(tmp_path / "p") as project:
        utterance = utterances.ids_in(project.db, "pool")[0]
        say(project, utterance, "promise", "ada")
        say(project, utterance, "report", "ben")
        assert utterance not in snapshot(project).train
        assert utterance not in snapshot(project).open_pool
        say(project, utterance, "report", "eve")
        assert snapshot(project).train[utterance] == codebook_of(project).id_of("report")


def test_a_skipped_utterance_stays_open(tmp_path):
    with new_project(tmp_path / "p") as project:
        utterance = utterances.ids_in(project.db, "pool")[0]
        annotations.record(project.db, NewAnnotation(utterance, "ada", "skip", None, "test", 1))
        assert utterance in snapshot(project).open_pool


def test_a_retired_label_is_not_trained_on(tmp_path):
    with new_project(tmp_path / "p") as project:
        label_pool(project, 12)
        gone = codebook_of(project).id_of("wish")
        assert gone in snapshot(project).train.values()
        project.db.execute("UPDATE label SET retired_at = '2026-01-01' WHERE id = ?", (gone,))
        assert gone not in (snapshot(project).train | snapshot(project).audit).values()


def test_the_digest_tells_whether_two_rounds_saw_the_same_answers(tmp_path):
    with new_project(tmp_path / "p", config=replace(CONFIG, audit_share=0.0)) as project:
        label_pool(project, 4)
        before = snapshot(project).digest
        assert snapshot(project).digest == before
        label_pool(project, 1)
        assert snapshot(project).digest != before
        undo(project, "ada")
        assert snapshot(project).digest == before


# Nothing people do lets an audit utterance into training

acts = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.sampled_from(["ada", "ben"])),
        st.tuples(st.just("force"), st.integers(0, 200), st.sampled_from(["ada", "ben"]), st.sampled_from(LABELS)),
        st.tuples(st.just("undo"), st.sampled_from(["ada", "ben"])),
        st.tuples(st.just("add"), st.integers(0, 30), st.integers(1, 25)),
        st.tuples(st.just("file"), st.integers(0, 30), st.integers(1, 25), st.booleans()),
        st.tuples(st.just("refill")),
    ),
    max_size=14,
)


class Adversary:
    """Perform any sequence of actions, and check that training and audit data never overlap."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project, self.files = folder, new_project(folder / "p", 20), 0
        self.ever_audit: set[int] = set()
        self.ever_trained: set[int] = set()

    def do(self, act: tuple) -> None:
        getattr(self, act[0])(*act[1:])
        self.check()

    def answer(self, annotator: str) -> None:
        if question := next_question(self.project, annotator):
            answer(self.project, question, annotator, right(self.project, question))

    def force(self, place: int, annotator: str, label: str) -> None:
        """Answer an utterance that nobody asked for."""
        ids = [row.id for row in utterances.iterate(self.project.db)]
        say(self.project, ids[place % len(ids)], label, annotator)

    def undo(self, annotator: str) -> None:
        undo(self.project, annotator)

    def refill(self) -> None:
        refill_queue(self.project)

    def add(self, start: int, count: int) -> None:
        self.files += 1
        new = [NewUtterance(f"a{self.files}-{i}", text) for i, text in enumerate(texts(count, start))]
        add_utterances(self.project, new)

    def file(self, start: int, count: int, keep_copies: bool) -> None:
        self.files += 1
        rows = [{"text": text, "label": truth(text)} for text in texts(count, start)]
        import_csv(self.project, self.folder / f"f{self.files}.csv", rows, keep_copies=keep_copies)

    def check(self) -> None:
        found = snapshot(self.project)
        rows = {row.id: row for row in utterances.iterate(self.project.db)}
        self.ever_audit |= {i for i, row in rows.items() if row.slice == "audit"}
        self.ever_trained |= set(found.train)
        assert not self.ever_audit & self.ever_trained
        assert set(found.audit) <= self.ever_audit
        assert not found.open_pool & self.ever_audit
        hashes = [{text_hash(row.text) for row in rows.values() if row.slice == name} for name in ("pool", "audit")]
        assert not hashes[0] & hashes[1]


@settings(max_examples=25, deadline=None)
@given(acts)
def test_no_audit_utterance_is_ever_trained_on_and_no_text_is_on_both_sides(sequence):
    with tempfile.TemporaryDirectory() as folder:
        adversary = Adversary(Path(folder))
        with adversary.project:
            adversary.check()
            for act in sequence:
                adversary.do(act)


def test_an_annotated_utterance_cannot_be_moved_to_the_audit_sample(tmp_path):
    with new_project(tmp_path / "p") as project:
        utterance = utterances.ids_in(project.db, "pool")[0]
        say(project, utterance, "promise")
        with pytest.raises(ValueError, match="annotated already"):
            utterances.move_to_audit(project.db, [utterance])


def test_before_a_round_there_is_none_in_use(tmp_path):
    with new_project(tmp_path / "p") as project:
        assert rounds.promoted(project.db) is None
        assert candidates(project, None).view is None
