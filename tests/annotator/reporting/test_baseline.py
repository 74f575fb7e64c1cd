"""Whether choosing pays is told from answers that were drawn at random, and by answers that taught nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annotator.codebook.definition import codebook_of
from annotator.loop import run_round
from annotator.methods.query_strategies import DEFAULT
from annotator.reporting import baseline, charts
from annotator.reporting.baseline import MINIMUM, Comparison, Step, compare, recent_comparison, sentence
from annotator.reporting.learning_curve import Answered
from model.probe.heads import ASPECTS
from model.probe.probe import blank
from store import annotations, utterances
from store.annotations import GIVEN, NewAnnotation
from tests.annotator.scenes import change, classifier_of, label_pool, new_project, truth

SIZE = 4  # labels, the last two of them rare


def in_all_aspects(states: np.ndarray) -> np.ndarray:
    return np.tile(states, ASPECTS).astype(np.float32)


def steps_of(asked: Answered, audit: Answered, size: int) -> tuple[Step, ...]:
    return compare(asked, audit, blank(asked.states.shape[1], size))


def drawn(count: int, seed: int = 0) -> Answered:
    """Draw answers whose labels lie in different directions."""
    return of(np.random.default_rng(seed).choice(SIZE, count, p=[0.48, 0.48, 0.02, 0.02]), seed)


def of(columns: np.ndarray, seed: int = 0) -> Answered:
    noise = np.random.default_rng([seed, 1]).normal(size=(len(columns), 12))
    return Answered(in_all_aspects(noise + 6 * np.eye(SIZE, 12)[columns]), columns)


def slice_of(count: int) -> Answered:
    """Return audit answers of which half have labels that a draw seldom meets early: each of them is one of many."""
    return of(np.random.default_rng(5).integers(12, size=count) % SIZE)


def test_where_choosing_finds_what_a_draw_misses_it_is_seen_to_pay():
    rng = np.random.default_rng(0)
    labels, odds = 12, [0.3, 0.3, *[0.04] * 10]
    eye = 5 * np.eye(labels, 16)

    def made(columns: np.ndarray) -> Answered:
        return Answered(in_all_aspects(rng.normal(size=(len(columns), 16)) + eye[columns]), columns)

    every = made(np.tile(np.arange(labels), 10))
    steps = steps_of(every, made(rng.choice(labels, 120, p=odds)), labels)
    assert steps[0].answers == 2 * labels
    assert steps[0].interval[0] > 0, "a draw of 24 misses four of the ten rare labels"
    assert steps[-1].answers == 60
    assert steps[-1].gain < steps[0].gain


def test_where_one_label_alone_was_asked_for_it_is_seen_not_to_pay():
    last = steps_of(of(np.r_[np.zeros(30, dtype=int), 1]), slice_of(80), SIZE)[-1]
    assert last.interval[1] < 0
    assert last.queried < last.random


def test_where_what_was_asked_for_was_drawn_as_well_nothing_is_claimed():
    told = [steps_of(drawn(60, seed), drawn(100, 100 + seed), SIZE)[-1].interval for seed in range(10)]
    assert sum(low <= 0 <= high for low, high in told) >= 9


def test_few_audit_answers_tell_nothing_and_neither_do_few_others():
    assert steps_of(drawn(60), drawn(MINIMUM - 1), SIZE) == ()
    assert steps_of(drawn(9), drawn(MINIMUM), SIZE) == ()
    assert len(steps_of(drawn(60), drawn(MINIMUM), SIZE)) > 1


def test_a_slice_on_which_nothing_differs_proves_little():
    easy = steps_of(of(np.arange(30) % 2), of(np.arange(40) % 2), 2)[-1]
    assert easy.gain == 0
    assert easy.half_width > 1 / 40


def test_no_audit_answer_ever_teaches_what_judges_it():
    taught: list[set[int]] = []

    class Spy:
        """Notes what it is taught, and refuses to judge any of that. Each state carries its number."""

        bias = np.zeros(2)

        def refitted(self, states, labels):
            taught.append({int(row[0]) for row in states})
            return self

        def loglik(self, states):
            judged = {int(row[0]) for row in states}
            assert len(taught[-1] & judged) == 0
            return np.zeros((len(states), 2))

    audit = Answered(np.arange(60, dtype=np.float32)[:, None], np.arange(60) % 2)
    asked = Answered(np.arange(100, 160, dtype=np.float32)[:, None], np.arange(60) % 2)
    steps = compare(asked, audit, Spy())
    assert len(taught) == len(steps) * (baseline.SPLITS + 1)
    assert {len(one) for one in taught} == {step.answers for step in steps}


def test_labels_that_follow_no_rule_are_guessed_no_better_than_by_chance():
    rng = np.random.default_rng(0)
    noise = Answered(in_all_aspects(rng.normal(size=(200, 60))), rng.integers(2, size=200))
    last = steps_of(noise.first(100), noise.at(np.arange(100, 200)), 2)[-1]
    assert last.random < 0.6


# Of a project


@pytest.fixture
def project(tmp_path: Path):
    with new_project(tmp_path / "p", 300) as made:
        change(made, retrain_every=0)
        run_round(made, classifier_of(made), made.config)
        yield made


def answer_audit(project, count: int) -> None:
    codebook = codebook_of(project)
    for row in utterances.read(project.db, utterances.ids_in(project.db, "audit")[:count]):
        label = codebook.id_of(truth(row.text))
        annotations.record(project.db, NewAnnotation(row.id, "ada", "label", label, "audit", 1))


def ask(project, count: int, strategy: str = DEFAULT) -> list[int]:
    codebook = codebook_of(project)
    rows = utterances.read(project.db, utterances.ids_in(project.db, "pool")[:count])
    for row in rows:
        label = codebook.id_of(truth(row.text))
        annotations.record(project.db, NewAnnotation(row.id, "ada", "label", label, strategy, 1))
    return [row.id for row in rows]


def test_a_project_with_answers_of_both_kinds_is_told_what_choosing_gives(project):
    answer_audit(project, 60)
    ask(project, 50)
    found = recent_comparison(project)
    assert [step.answers for step in found.steps][-1] == 30
    assert (found.audit, found.audit_size, found.unavailable) == (60, 60, "")
    assert recent_comparison(project) is found, "a page need not wait again"


def test_what_was_labeled_on_the_label_page_counts_in_the_order_of_asking(project):
    label_pool(project, 30)
    asked = baseline.queried_answers(project, codebook_of(project).ids)
    assert len(asked) == 30
    first, second = list(asked)[:2]
    annotations.record(project.db, NewAnnotation(first, "ada", "label", 1, "adjudicated", 1))
    queried = baseline.queried_answers(project, codebook_of(project).ids)
    assert list(queried)[:2] == [first, second], "adjudicated later"


def test_what_a_search_found_was_not_asked_for(project):
    ask(project, 10, strategy="bulk")
    assert baseline.queried_answers(project, codebook_of(project).ids) == {}


@pytest.mark.parametrize(("strategy", "audit", "unavailable"), [("random", 60, "random"), (DEFAULT, 39, "few")])
def test_nothing_is_told_where_all_was_drawn_or_audit_answers_are_few(project, strategy, audit, unavailable):
    answer_audit(project, audit)
    ask(project, 50, strategy)
    found = recent_comparison(project)
    assert (found.unavailable, found.steps) == (unavailable, ())
    assert "omparing" in sentence(found) or "compared" in sentence(found)


def test_nothing_is_told_where_labels_came_with_the_file(project):
    ask(project, 1, GIVEN)
    assert "the file came with labels" in sentence(recent_comparison(project))


# In words


STEP = Step(40, 0.8, 0.7, 0.04)
FOUND = Comparison(80, 100, 40, (STEP,))


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (STEP, "helps: after the first 40 answers, the quick classifier is right 10 more times in 100"),
        (
            replace(STEP, queried=0.6),
            "has not helped: after the first 40 answers, the quick classifier is right 10 fewer times in 100",
        ),
        (
            replace(STEP, queried=0.72, half_width=0.1),
            "from -8 to +12. Detecting a difference of 5 in 100 takes about 320",
        ),
        (replace(STEP, queried=0.71), "from -3 to +5. If there is a difference, it is small."),
    ],
)
def test_the_sentence_says_what_is_known_and_no_more(step: Step, said: str):
    assert said in sentence(replace(FOUND, steps=(step,)))


def test_the_interval_of_a_loss_is_told_from_the_smaller_to_the_larger():
    assert "(6 to 14)" in sentence(FOUND)
    assert "(6 to 14)" in sentence(replace(FOUND, steps=(replace(STEP, queried=0.6),)))


@pytest.mark.parametrize("asked", [0.8, 0.6])
def test_it_is_drawn_with_both_lines_named(asked: float):
    drawn_ = charts.svg(charts.active_learning((replace(STEP, answers=10), replace(STEP, queried=asked))), "choosing")
    assert ">chosen<" in drawn_
    assert ">random<" in drawn_
