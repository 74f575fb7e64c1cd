"""Whatever the order in which people answer, retrain, accept, adjudicate and change the codebook, every page works."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from annotator.codebook import changes
from annotator.codebook.definition import codebook_of, create_project
from annotator.errors import AnnotatorError
from annotator.exchange.export import ExportPlan, dataset_card, export_rows
from annotator.exchange.imports import add_utterances
from annotator.labeling import auto_accept, bulk, review, session
from annotator.labeling.search import Search, find
from annotator.labeling.session import Answer, next_question
from annotator.loop import run_round
from annotator.methods.guarantee import Target
from annotator.methods.query_strategies import STRATEGIES
from annotator.project import Project
from annotator.reporting import summary
from annotator.rounds.candidates import candidates
from annotator.rounds.lifecycle import roll_back
from store import acceptances, annotations, rounds, utterances
from store.utterances import NewUtterance
from tests.annotator.codebook.test_history import some
from tests.annotator.scenes import CONFIG, LABELS, classifier_of, draft, label_pool, make, say, texts, truth

people = st.sampled_from(["ada", "ben"])
kinds = st.sampled_from(["right", "right", "label", "none_fits", "skip"])
targets = st.builds(Target, st.sampled_from([0.5, 0.8]), st.sampled_from([0.5, 0.9]))


class Work(RuleBasedStateMachine):
    """Two people work on one small project."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        config = replace(CONFIG, batch_size=5, audit_share=0.4, minimum_labels=2)
        self.project = create_project(Path(self.folder.name) / "p", draft(*LABELS), config)
        self.db = self.project.db
        self.made = 0
        self.bring(60)

    def teardown(self) -> None:
        self.project.close()
        self.folder.cleanup()

    def bring(self, count: int) -> None:
        new = enumerate(texts(count, self.made), start=self.made)
        add_utterances(self.project, [NewUtterance(f"u{i}", text) for i, text in new])
        self.made += count

    def pick(self, number: int) -> int:
        used = codebook_of(self.project).ids
        return used[number % len(used)]

    def do(self, act: Callable[..., Any], *args: Any) -> None:
        """Do it or see it refused, with a hint."""
        try:
            act(self.project, *args)
        except AnnotatorError as refused:
            event(f"refused: {refused.message.split('“')[0]}")
            assert refused.hint  # noqa: PT017

    # What people do

    @initialize(begun=st.booleans())
    def begin(self, begun: bool) -> None:
        """Start at the beginning, or where suggestions can be accepted."""
        if begun:
            label_pool(self.project, 9)
            self.answer_the_audit_slice()
            run_round(self.project, classifier_of(self.project), self.project.config)

    @rule(who=people, count=st.sampled_from([1, 8]), kind=kinds, label=some)
    def answer(self, who: str, count: int, kind: Any, label: int) -> None:
        while count and (question := next_question(self.project, who)):
            meant = codebook_of(self.project).id_of(truth(question.utterance.text)) or self.pick(label)
            given = {"right": meant, "label": self.pick(label)}.get(kind)
            session.answer(self.project, question, who, Answer("label" if given else kind, given))
            count -= 1

    @rule(label=some, number=some)
    def disagree(self, label: int, number: int) -> None:
        pool = utterances.ids_in(self.db, "pool")
        for who, place in (("ada", label), ("ben", label + 1)):
            say(self.project, pool[number % len(pool)], who, self.pick(place))

    @rule()
    def answer_the_audit_slice(self) -> None:
        codebook = codebook_of(self.project)
        for row in utterances.read(self.db, utterances.ids_in(self.db, "audit")):
            say(self.project, row.id, "ada", codebook.id_of(truth(row.text)) or codebook.ids[0], "audit")

    @rule(who=people)
    def take_an_answer_back(self, who: str) -> None:
        session.undo(self.project, who)

    @rule(strategy=st.sampled_from(sorted(STRATEGIES)))
    def retrain(self, strategy: str) -> None:
        self.project.config = replace(self.project.config, strategy=strategy)
        self.do(run_round, classifier_of(self.project), self.project.config)

    @rule(number=some)
    def put_an_older_round_in_use(self, number: int) -> None:
        every = rounds.history(self.db)
        with suppress(ValueError):  # it was never in use
            if every:
                roll_back(self.project, every[number % len(every)].id, "ben")

    @rule(wanted=targets, per_label=st.booleans())
    def accept(self, wanted: Target, per_label: bool) -> None:
        self.do(auto_accept.accept, "ada", wanted, per_label)
        event(f"{'some' if acceptances.count_standing(self.db) else 'nothing'} accepted")

    @rule(number=some)
    def take_an_acceptance_back(self, number: int) -> None:
        if every := acceptances.history(self.db):
            auto_accept.take_back(self.project, every[number % len(every)].id, "ben")

    @rule(queue=st.sampled_from(sorted(review.QUEUES)), label=some)
    def adjudicate(self, queue: str, label: int) -> None:
        for utterance in review.QUEUES[queue].find(self.project)[:1]:
            review.adjudicate(self.project, review.case(self.project, utterance), "cid", "label", self.pick(label))

    @rule(word=st.sampled_from(["roads", "will", "hope"]), label=some, replace_mine=st.booleans())
    def answer_all_that_is_found(self, word: str, label: int, replace_mine: bool) -> None:
        wanted, said = Search(words=word), Answer("label", self.pick(label))
        plan = bulk.preview(self.project, "ada", find(self.project, wanted), said, replace_mine)
        self.do(bulk.answer_all, "ada", wanted, said, plan.ids)

    @rule(number=some, other=some, change=st.sampled_from(["add", "merge", "split", "retire"]))
    def change_the_codebook(self, number: int, other: int, change: str) -> None:
        names = [{"name": f"label {number}"}, {"name": f"label {number + 1}"}]
        wanted: dict[str, Callable[[Project], changes.Change]] = {
            "add": lambda project: changes.add(project, names[0]),
            "merge": lambda project: changes.merge(project, [self.pick(number)], self.pick(other)),
            "split": lambda project: changes.split(project, self.pick(number), names),
            "retire": lambda project: changes.retire(project, self.pick(number)),
        }
        self.do(lambda project: make(project, wanted[change](project)))

    @rule(count=st.sampled_from([1, 9]))
    def import_more(self, count: int) -> None:
        self.bring(count)

    # What holds all the time

    @invariant()
    def every_page_can_be_read(self) -> None:
        for queue in review.QUEUES.values():
            queue.summarize(self.project)
            for utterance in queue.find(self.project)[:1]:
                said = review.case(self.project, utterance).suggestion
                assert said is None or not math.isnan(said[1])
        used = summary.in_use(self.project)
        summary.label_counts(self.project, used)
        summary.people_agree(self.project)
        if used:
            summary.coverage_curve(used)
            summary.expected_confusion(used)
            summary.flips(self.project, used, 5)
            for per_label in (False, True):
                auto_accept.offer(self.project, Target(0.8, 0.9), per_label)

    @invariant()
    def what_is_asked_has_neither_an_answer_nor_been_accepted(self) -> None:
        asked = candidates(self.project, None)
        done = annotations.answered_ids(self.db) | acceptances.standing_ids(self.db)
        assert not done.intersection(asked.pool)
        assert not annotations.answered_ids(self.db).intersection([*asked.audit, *asked.accepted])

    @invariant()
    def an_export_has_no_utterance_twice_and_says_which_labels_were_accepted(self) -> None:
        plan = ExportPlan(with_model=True)
        rows = list(export_rows(self.project, plan))
        assert len({row.id for row in rows}) == len(rows) <= self.made
        assert all((row.source == "accepted") == bool(row.acceptance) for row in rows)
        assert dataset_card(self.project, plan, len(rows))


USUAL = settings(max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
TestWork = Work.TestCase
TestWork.settings = USUAL


@pytest.mark.soak
class TestMoreWork(Work.TestCase):  # type: ignore[misc]
    settings = settings(USUAL, max_examples=50)
