"""Test arbitrary sequences of changes: answers stay reachable, counts add up, and every change can be undone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlite_utils import Database

from annotator.codebook import changes, definition, history
from annotator.codebook.definition import codebook_of
from annotator.config import RoundConfig
from annotator.errors import AnnotatorError, TooFewAnswers
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.consensus import consensus_labels
from store import annotations, labels, questions, rounds, utterances
from store.annotations import ADJUDICATED, NewAnnotation
from store.database import immediate
from store.faults import Connection
from store.migrations import migrations
from store.questions import FIRST
from store.utterances import NewUtterance
from tests.annotator.scenes import classifier_of

UTTERANCES, PEOPLE = 6, ("ada", "ben")
CONFIG = RoundConfig(batch_size=4, minimum_labels=2)
some = st.integers(0, 999)  # which of those there are, counted around


def in_memory(folder: Path) -> Project:
    """Make a project whose database touches no disk: three labels, a few utterances with answers."""
    db = Database(sqlite3.connect(":memory:", isolation_level=None, factory=Connection))
    migrations.apply(db)
    db.execute("PRAGMA foreign_keys = ON")
    project = Project(folder, db)
    with immediate(project.db):
        questions.instruct(project.db, "Choose.")
        for n, name in enumerate(("change", "neutral", "sustain"), start=1):
            labels.add(project.db, name, definition=f"{name}!", key=str(n))
        for n in range(UTTERANCES):
            utterances.add(project.db, NewUtterance(f"u{n}", f"text {n} {'abc'[n % 3]}"))
            given = 1 + n % 4
            kind: Any = "none_fits" if given == 4 else "label"
            new = (n + 1, "eve", kind, given if given < 4 else None, "random", 3)
            annotations.record(project.db, NewAnnotation(*new))
        utterances.move_to_audit(project.db, [utterances.add(project.db, NewUtterance("audit", "to measure"))])
    return project


def walked(book: definition.Codebook, place: int | None = None) -> list[definition.CodebookLabel]:
    """Return the labels and groups as a walk through the tree meets them."""
    return [one for node in book.held(place) for one in (node, *(walked(book, node.id) if node.is_group else []))]


class Codebook(RuleBasedStateMachine):
    """People answer and change the codebook at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.project = in_memory(Path(self.folder.name))
        self.db = self.project.db
        self.first = self.state()
        self.names = iter(f"label {n}" for n in range(10_000))

    def teardown(self) -> None:
        self.take_everything_back()
        self.project.close()
        self.folder.cleanup()

    def state(self) -> Any:
        """What there is to see: the codebook in use, and every standing answer as it counts."""
        book = codebook_of(self.project)
        answers = [(row.id, row.kind, row.label_id) for row in annotations.answers(self.db)]
        return book.instruction, book.nodes, answers, annotations.to_look_at(self.db, self.none_fits_since)

    @property
    def none_fits_since(self) -> int:
        return questions.read(self.db).none_fits_since

    def pick(self, number: int) -> int:
        used = codebook_of(self.project).ids
        return used[number % len(used)]

    def node(self, number: int) -> int:
        """Pick a label or group in use."""
        nodes = codebook_of(self.project).nodes
        return nodes[number % len(nodes)].id

    def place(self, number: int) -> int | None:
        """Pick a group in use, or the top."""
        places = [None, *(group.id for group in codebook_of(self.project).groups)]
        return places[number % len(places)]

    def change(self, make: Any, *args: Any) -> None:
        """Make a change, or see it refused; then nothing has changed."""
        self.try_to(lambda: changes.make(self.project, changes.propose(self.project, make(self.project, *args)), "ada"))

    def try_to(self, act: Callable[[], int]) -> None:
        before, version = self.state(), labels.version(self.db)
        try:
            assert act() == version + 1
        except AnnotatorError as refused:
            event(f"refused: {refused.message.split('“')[0]}")
            assert (self.state(), labels.version(self.db), bool(refused.hint)) == (before, version, True)  # noqa: PT017

    # What people do

    @rule(
        utterance=some,
        person=st.sampled_from(PEOPLE),
        label=some,
        kind=st.sampled_from(["label", "label", "none_fits"]),
    )
    def answer(self, utterance: int, person: str, label: int, kind: Any) -> None:
        given = self.pick(label) if kind == "label" else None
        new = (1 + utterance % UTTERANCES, person, kind, given, "random", labels.version(self.db))
        annotations.record(self.db, NewAnnotation(*new))

    @rule(utterance=some, label=some)
    def adjudicate(self, utterance: int, label: int) -> None:
        new = (1 + utterance % UTTERANCES, "cid", "label", self.pick(label), ADJUDICATED, labels.version(self.db))
        annotations.record(self.db, NewAnnotation(*new))

    @rule(person=st.sampled_from(PEOPLE))
    def take_an_answer_back(self, person: str) -> None:
        annotations.undo(self.db, person)

    @rule()
    def make_a_round(self) -> None:
        with suppress(TooFewAnswers):
            done = run_round(self.project, classifier_of(self.project), CONFIG)
            used, taught = codebook_of(self.project).ids, consensus_labels(annotations.answers(self.db))
            assert done.row.label_ids == used
            assert done.row.trained_on in (0, len(taught))

    # What is done to the codebook

    @rule(look=st.booleans())
    def add(self, look: bool) -> None:
        self.change(changes.add, {"name": next(self.names)}, look)

    @rule(label=some, field=st.sampled_from(changes.WRITTEN), value=some, look=st.booleans())
    def revise(self, label: int, field: str, value: int, look: bool) -> None:
        values = {"examples": [f"example {value}"], "key": "abd"[value % 3], "color": ["", "blue"][value % 2]}
        self.change(changes.revise, self.pick(label), {field: values.get(field, f"text {value % 5}")}, look)

    @rule(order=st.randoms(), group=some)
    def reorder(self, order: Any, group: int) -> None:
        place = self.place(group)
        ids = [node.id for node in codebook_of(self.project).held(place)]
        order.shuffle(ids)
        self.change(changes.reorder, ids, place)

    @rule(members=st.sets(some, max_size=3))
    def group(self, members: set[int]) -> None:
        ids = list(dict.fromkeys(self.node(number) for number in sorted(members)))
        self.change(changes.group, {"name": f"group {next(self.names)}"}, ids)

    @rule(node=some, group=some)
    def move(self, node: int, group: int) -> None:
        self.change(changes.move, self.node(node), self.place(group))

    @precondition(lambda self: codebook_of(self.project).groups)
    @rule(group=some)
    def dissolve(self, group: int) -> None:
        groups = codebook_of(self.project).groups
        self.change(changes.dissolve, groups[group % len(groups)].id)

    @rule(source=some, into=some)
    def merge_nodes(self, source: int, into: int) -> None:
        self.change(changes.merge, [self.node(source)], self.node(into))

    @rule(number=some)
    def instruct(self, number: int) -> None:
        self.change(changes.instruct, f"Choose {number % 3}.")

    @rule(source=some, into=some)
    def merge(self, source: int, into: int) -> None:
        self.change(changes.merge, [self.pick(source)], self.pick(into))

    @rule(label=some, parts=st.integers(1, 3))
    def split(self, label: int, parts: int) -> None:
        self.change(changes.split, self.pick(label), [{"name": next(self.names)} for _ in range(parts)])

    @rule(label=some)
    def retire(self, label: int) -> None:
        self.change(changes.retire, self.pick(label))

    @rule(label=some)
    def restore(self, label: int) -> None:
        every = sorted(labels.names(self.db))
        self.change(changes.restore, every[label % len(every)])

    @rule(number=some)
    def take_a_change_back(self, number: int) -> None:
        done = [event.version for event in labels.events(self.db)]
        self.try_to(lambda: history.undo(self.project, done[number % len(done)], "ben"))

    # What holds all the time

    @invariant()
    def every_answer_is_reachable_and_counts_add_up(self) -> None:
        standing = self.db.execute("SELECT count(*) FROM said").fetchone()[0]
        answers, used = annotations.answers(self.db), set(codebook_of(self.project).ids)
        kinds, by_label = annotations.counts(self.db), annotations.count_labels(self.db)
        assert len(answers) == standing == sum(kinds.values())
        assert sum(by_label.values()) == kinds["label"]
        assert set(by_label) <= used
        assert set(consensus_labels(answers).values()) <= used
        looked = {row.id for row in annotations.to_look_at(self.db, self.none_fits_since)}
        assert looked <= {row.id for row in answers}
        for row in answers:
            assert (row.kind == "label") == (row.label_id in used)
            since = [other for other in answers if other.utterance_id == row.utterance_id and other.id > row.id]
            assert row.kind != "out_of_use" or row.id in looked or since

    @invariant()
    def the_codebook_can_be_used(self) -> None:
        book = codebook_of(self.project)
        assert len(book.labels) >= 2
        assert len({label.name.casefold() for label in book.labels}) == len(book.labels)
        for place in (None, *(group.id for group in book.groups)):
            keys = [node.key for node in book.held(place) if node.key]
            assert len(keys) == len(set(keys))

    @invariant()
    def the_counts_of_a_group_are_those_of_its_labels(self) -> None:
        book, by_label = codebook_of(self.project), annotations.count_labels(self.db)

        def count(place: int | None) -> int:
            return sum(count(node.id) if node.is_group else by_label.get(node.id, 0) for node in book.held(place))

        assert count(None) == annotations.counts(self.db)["label"]
        for group in book.groups:
            assert count(group.id) == sum(by_label.get(label, 0) for label in book.under(group.id))
            assert set(book.under(group.id)) <= set(book.ids)
        assert [node.id for node in book.nodes] == [node.id for node in walked(book)]

    @invariant()
    def what_was_done_last_and_stands_is_what_holds(self) -> None:
        history = labels.events(self.db)
        added = {event.version for event in history if event.added}  # taken back, they go out of use
        done = [e for e in history if not e.undone and (e.undoes is None or e.undoes in added)]
        last = {(i, name): pair[1] for one in done for i, pairs in one.labels.items() for name, pair in pairs.items()}
        rows = {row["id"]: row for row in self.db.query("SELECT * FROM label")}
        freed = {i for one in history if one.undoes for i, pairs in one.labels.items() if "key" in pairs}
        held = {(i, name) for i, name in last if name != "key" or i not in freed}  # its key may have been taken
        assert {one: last[one] for one in held} == {(i, name): rows[i][name] for i, name in held}
        asked = {name: after for one in done for name, (_, after) in one.questions.get(FIRST, {}).items()}
        assert asked == {name: getattr(questions.read(self.db), name) for name in asked}

    @invariant()
    def the_past_can_be_read(self) -> None:
        now, past = codebook_of(self.project), history.codebook_at(self.project, labels.version(self.db))
        assert (past.instruction, past.nodes) == (now.instruction, now.nodes)
        names = labels.names(self.db)
        assert all(history.describe(event, names) for event in labels.events(self.db))

    @invariant()
    @precondition(lambda self: rounds.promoted(self.db) is not None)
    def probabilities_are_of_the_labels_in_use(self) -> None:
        found = rounds.predictions_of(self.db, rounds.promoted(self.db))
        assert found.label_ids == codebook_of(self.project).ids
        assert np.allclose(found.probabilities.sum(axis=1), 1)
        assert found.unknown < set(found.label_ids)

    def take_everything_back(self) -> None:
        """Undo answers and changes, newest first: the first state is there again."""
        for person in (*PEOPLE, "cid"):
            while annotations.undo(self.db, person, adjudicated=person == "cid"):
                pass
        for version in range(labels.version(self.db), 3, -1):
            if not labels.events(self.db)[version - 1].undone:
                history.undo(self.project, version, "ada")
        assert self.state() == self.first


USUAL = settings(max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
TestCodebook = Codebook.TestCase
TestCodebook.settings = USUAL


@pytest.mark.soak
class TestMoreOfTheCodebook(Codebook.TestCase):  # type: ignore[misc]
    settings = settings(USUAL, max_examples=100)
