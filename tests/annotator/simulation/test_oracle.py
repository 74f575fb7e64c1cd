"""The simulated annotator runs the loop that people run, within its budget, and the same each time."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from annotator import loop
from annotator.codebook.draft import parse_codebook
from annotator.config import RoundConfig
from annotator.errors import BadInput
from annotator.methods.metrics import Metrics
from annotator.simulation import oracle
from annotator.simulation.oracle import Plan, read_gold, simulate, summarize
from annotator.simulation.runs import Outlook, Run
from tests.annotator.scenes import draft, texts, truth, write_csv
from tests.fake import FakeClassifier

CONFIG = RoundConfig(minimum_labels=4)


@pytest.fixture(autouse=True)
def made(monkeypatch):
    """Put the fake in place of the language model, and return the classifiers that were asked for."""
    found: list[FakeClassifier] = []

    def load(backbone, task, recipe, template, cache):
        found.append(FakeClassifier(task))
        return found[-1]

    monkeypatch.setattr(oracle, "load_classifier", load)
    return found


FIGURES = {  # in a file of finished sessions and in `--json`
    *("strategy", "seed", "round", "labels", "trained_on", "audited_on", "temperature", "raw_nll", "raw_ece"),
    *("steady", "open", "wrong_expected", "wrong", "n", "accuracy", "accuracy_interval", "macro_f1", "nll", "brier"),
    *("macro_f1_interval", "ece", "ece_band", "aurc", "each_label", "reliability", "raw"),
    "shortlist_limit",
}


def figures(runs):
    return [replace(run, seed=0) for run in runs]


def test_every_round_of_every_seed_is_judged_on_the_test_split(labeled):
    runs = list(simulate(Plan(labeled, labels=40, rounds=2, config=CONFIG), [0, 1]))
    assert [(run.seed, run.round, run.labels) for run in runs] == [
        (0, 1, 20),
        (0, 2, 40),
        (1, 1, 20),
        (1, 2, 40),
    ]
    assert {run.metrics.n for run in runs} == {30}
    for run in runs:
        assert set(oracle.SCORES) <= FIGURES == set(run.as_dict())
        assert 0 <= run.metrics.accuracy <= 1
    assert runs[1].metrics.accuracy > 0.8


def test_every_round_tells_what_it_would_advise_and_what_is_wrong_among_the_rest(labeled):
    runs = list(simulate(Plan(labeled, labels=75, rounds=5, config=CONFIG), [0]))
    assert not any(run.outlook.steady for run in runs[:2]), "three rounds are the least"
    for run in runs:
        assert run.outlook.wrong <= run.outlook.open <= 90 - run.labels
        assert 0 <= run.outlook.wrong_expected <= run.outlook.open
    assert runs[0].outlook.wrong > runs[-1].outlook.wrong
    alike = next(simulate(Plan(labeled, labels=30, config=replace(CONFIG, strategy="random")), [0]))
    assert alike.outlook.wrong / alike.outlook.open == pytest.approx(1 - alike.metrics.accuracy, abs=0.25)


def test_where_all_is_answered_nothing_is_wrong_among_the_rest(labeled):
    (run,) = simulate(Plan(labeled, labels=90, config=CONFIG), [0])
    assert (run.outlook.open, run.outlook.wrong, run.outlook.wrong_expected) == (0, 0, 0.0)


def test_audit_answers_count_towards_the_budget(labeled):
    for run in simulate(Plan(labeled, labels=40, rounds=2, config=CONFIG), [0]):
        assert run.trained_on + run.audited_on == run.labels
        assert run.audited_on == pytest.approx(0.2 * run.labels, abs=1)


def test_what_a_round_said_where_the_answer_is_known_can_be_kept(labeled, tmp_path):
    plan = Plan(labeled, labels=40, rounds=2, keep=tmp_path / "kept", config=CONFIG)
    runs = list(simulate(plan, [0]))
    kept = [np.load(tmp_path / "kept" / f"labels-{run.labels}-seed-0.npz") for run in runs]
    for run, arrays in zip(runs, kept, strict=True):
        assert len(arrays["audit"]) == len(arrays["audit_truth"]) == run.audited_on
        assert len(arrays["test"]) == len(arrays["test_truth"]) == run.metrics.n
        assert (arrays["test"].argmax(axis=1) == arrays["test_truth"]).mean() == pytest.approx(run.metrics.accuracy)
        np.testing.assert_allclose(arrays["probe"], log_softmax(arrays["test"] / 2, axis=1))
        assert arrays["examples"] == run.trained_on


def test_the_same_seed_gives_the_same_figures_and_another_others(labeled):
    plan = Plan(labeled, labels=30, pool_limit=60, config=CONFIG)
    first, again, other = (figures(simulate(plan, [seed])) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_seed_gives_the_same_figures_whatever_runs_before_it(labeled):
    plan = Plan(labeled, labels=30, config=CONFIG)
    assert list(simulate(plan, [0, 1]))[1] == next(simulate(plan, [1]))


def test_a_round_without_a_model_is_left_out_where_the_draw_is_random(labeled, made, monkeypatch):
    shots = []
    monkeypatch.setattr(FakeClassifier, "zero_shot", lambda self: shots.append(1))
    list(simulate(Plan(labeled, labels=30, config=RoundConfig(strategy="random")), [0]))
    assert shots == []
    assert len(made) == 1


def test_without_a_split_a_fifth_is_held_back_the_same_for_every_seed(tmp_path):
    path = write_csv(tmp_path / "f.csv", [{"text": text, "label": truth(text)} for text in texts(200)])
    gold, again = (read_gold(Plan(path)) for _ in range(2))
    assert len(gold.test) == pytest.approx(40, abs=12)
    assert len(gold.train) + len(gold.test) == 200
    assert gold == again
    assert not {row.text for row in gold.train} & {row.text for row in gold.test}
    (run,) = simulate(Plan(path, labels=30, config=CONFIG), [0])
    assert run.metrics.n == len(gold.test)


def test_the_test_split_is_never_asked(labeled, monkeypatch):
    asked = []
    monkeypatch.setattr(
        oracle,
        "answer",
        lambda p, q, a, s, real=oracle.answer: asked.append(q.utterance.external_id) or real(p, q, a, s),
    )
    list(simulate(Plan(labeled, labels=500, config=CONFIG), [0]))
    assert sorted(asked) == sorted(f"r{i}" for i in range(120) if i % 4)


def test_a_budget_above_the_pool_ends_with_the_pool(labeled):
    (run,) = simulate(Plan(labeled, labels=500, pool_limit=50, config=CONFIG, test_limit=10), [0])
    assert (run.labels, run.metrics.n) == (50, 10)


def conversations(tmp_path: Path) -> Path:
    rows = []
    for c in range(30):
        for turn, text in enumerate(texts(4, 4 * c), start=1):
            client = turn % 2 == 0
            rows.append(
                {
                    "id": f"c{c}t{turn}",
                    "text": text,
                    "label": truth(text) if client else "",
                    "split": "test" if c % 5 == 0 else "train",
                    "conversation": f"c{c}",
                    "turn": turn,
                    "speaker": "client" if client else "therapist",
                }
            )
    return write_csv(tmp_path / "talk.csv", rows)


def contexts_read(monkeypatch):
    read: list[tuple[str, ...]] = []
    real = loop.read_texts
    monkeypatch.setattr(
        loop,
        "read_texts",
        lambda project, ids, turns: [read.append(one.context) or one for one in real(project, ids, turns)],
    )
    return read


def test_turns_of_the_same_number_are_simulated_in_the_order_of_the_file(tmp_path, monkeypatch):
    rows = [
        {"id": f"c{c}-{i}", "text": f"{text} {c} {i}", "label": truth(text) if i % 2 else "", "turn": 1}
        | {"conversation": f"c{c}", "split": "test" if c % 5 == 0 else "train"}
        for c in range(30)
        for i, text in enumerate(texts(4, 4 * c))
    ]
    read = contexts_read(monkeypatch)
    list(simulate(Plan(write_csv(tmp_path / "talk.csv", rows), labels=20, pool_limit=10, config=CONFIG), [0]))
    assert {len(context) for context in read} == {1, 3}
    for context in read:
        assert [line.split()[-1] for line in context] == [str(i) for i in range(len(context))]


def test_turns_without_a_label_are_read_around_the_others(tmp_path, monkeypatch):
    path, read = conversations(tmp_path), contexts_read(monkeypatch)
    (run,) = simulate(Plan(path, labels=30, config=CONFIG), [0])
    assert run.metrics.n == 12
    assert read
    assert {len(context) for context in read} == {1, 3}
    assert all(context[0].startswith("therapist: ") for context in read)


def test_turns_of_a_context_file_are_read_around_the_others(tmp_path, monkeypatch):
    with conversations(tmp_path).open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    data = write_csv(tmp_path / "data.csv", [row for row in rows if row["label"]])
    whole = write_csv(tmp_path / "whole.csv", rows)  # a whole transcript has the labeled turns too
    read = contexts_read(monkeypatch)
    (run,) = simulate(Plan(data, context=whole, labels=30, config=CONFIG), [0])
    assert run.metrics.n == 12
    assert {len(context) for context in read} == {1, 3}


def test_the_labels_of_the_file_are_the_codebook_unless_one_is_given(labeled, made):
    list(simulate(Plan(labeled, labels=30, config=CONFIG), [0]))
    list(simulate(Plan(labeled, labels=30, config=CONFIG, codebook=draft("wish", "promise", "report")), [0]))
    assert [[label.name for label in one.task.labels] for one in made] == [
        ["promise", "report", "wish"],
        ["wish", "promise", "report"],
    ]


def test_the_figures_do_not_depend_on_how_labels_are_written(labeled):
    described = parse_codebook({"labels": [{"name": name.upper()} for name in ("promise", "report", "wish")]})
    plan = Plan(labeled, labels=30, config=CONFIG)
    assert list(simulate(plan, [0])) == list(simulate(Plan(labeled, labels=30, config=CONFIG, codebook=described), [0]))


def test_a_label_that_the_codebook_has_not_is_refused(labeled):
    with pytest.raises(BadInput, match="labels that the codebook lacks"):
        list(simulate(Plan(labeled, labels=30, config=CONFIG, codebook=draft("promise", "report")), [0]))


def test_a_file_without_labels_is_refused(tmp_path):
    path = write_csv(tmp_path / "f.csv", [{"text": text} for text in texts(20)])
    with pytest.raises(BadInput, match="no label column"):
        list(simulate(Plan(path), [0]))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_that_is_all_train_or_all_test_is_refused(tmp_path, split):
    path = write_csv(tmp_path / "f.csv", [{"text": text, "label": truth(text), "split": split} for text in texts(20)])
    with pytest.raises(BadInput, match="of 20 rows are test rows"):
        list(simulate(Plan(path), [0]))


def test_the_test_can_be_drawn_anew_from_all_rows(labeled):
    given, drawn = (read_gold(Plan(labeled, resplit=resplit)) for resplit in (False, True))
    assert len(drawn.test) == pytest.approx(0.2 * 120, abs=12)
    assert {row.external_id for row in drawn.test} != {row.external_id for row in given.test}
    assert len(drawn.train) + len(drawn.test) == 120


def test_a_file_with_one_label_is_refused(tmp_path):
    splits = ("train", "train", "test")
    rows = [{"text": text, "label": "promise", "split": splits[i % 3]} for i, text in enumerate(texts(9))]
    with pytest.raises(BadInput, match="has only one label"):
        list(simulate(Plan(write_csv(tmp_path / "f.csv", rows)), [0]))


def test_a_summary_is_of_the_last_round_of_every_seed():
    def run(seed, number, value):
        metrics = Metrics(30, value, (0.0, 1.0), macro_f1=value, nll=value, brier=value, ece=value)
        return Run("random", seed, number, 20, 16, 4, 1.0, value, value, Outlook(steady=False), metrics)

    found = summarize([run(0, 1, 0.1), run(0, 2, 0.6), run(1, 1, 0.2), run(1, 2, 0.8)])
    assert found["mean_accuracy"] == pytest.approx(0.7)
    assert found["sd_accuracy"] == pytest.approx(np.std([0.6, 0.8], ddof=1))
    assert set(found) == {f"{kind}_{name}" for kind in ("mean", "sd") for name in oracle.SCORES}
    assert summarize([run(0, 1, 0.5)])["sd_nll"] == 0


def test_an_oracle_errs_as_often_as_asked_and_the_same_for_every_strategy(labeled):
    gold = read_gold(Plan(labeled))
    erring = oracle.Answers(gold, {}, noise=0.3, seed=1)
    wrong = [row for row in gold.train if erring.of(row.external_id) != row.given_label]
    assert len(wrong) == pytest.approx(0.3 * len(gold.train), abs=15)
    assert erring.mistakes == oracle.Answers(gold, {}, noise=0.3, seed=1).mistakes
    assert erring.mistakes != oracle.Answers(gold, {}, noise=0.3, seed=2).mistakes
    assert oracle.Answers(gold, {}).mistakes == {}
    clean, noisy = (next(simulate(Plan(labeled, config=CONFIG, noise=n), [0])) for n in (0.0, 0.5))
    assert noisy.metrics.accuracy < clean.metrics.accuracy


def test_annotators_take_turns(labeled, monkeypatch):
    names = []
    real = oracle.answer
    monkeypatch.setattr(oracle, "answer", lambda p, q, a, s: names.append(a) or real(p, q, a, s))
    list(simulate(Plan(labeled, labels=6, annotators=2, config=replace(CONFIG, minimum_labels=2)), [0]))
    assert names == ["oracle", "oracle 2"] * 3


def test_what_does_not_change_from_seed_to_seed_is_asked_once(labeled, made):
    list(simulate(Plan(labeled, labels=20, config=CONFIG), [0, 1, 2]))
    assert sum(one.read for one in made) == 120  # each utterance of the file, test split included
