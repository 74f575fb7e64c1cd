"""Replayed sessions are reported in sentences and on one page: the gain of a strategy, and how many answers suffice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotator.methods.metrics import Metrics
from annotator.simulation.report import comparisons, page, sentence, sentences, strategies
from annotator.simulation.runner import EVERYTHING
from annotator.simulation.runs import Outlook, Run


def made_up(strategy: str, seed: int, labels: int, accuracy: float, steady: bool = False) -> Run:
    metrics = Metrics(30, accuracy, (0.0, 1.0), macro_f1=0.5, nll=0.6, brier=0.4, ece=0.1)
    ahead = Outlook(steady, open=800, wrong_expected=107.4, wrong=120)
    return Run(strategy, seed, 1, labels, labels, 0, 1.0, 0.7, 0.2, ahead, metrics)


RUNS = [
    made_up(name, seed, labels, base + 0.001 * labels + 0.01 * seed)
    for name, base in (("margin", 0.6), ("random", 0.5))
    for seed in (0, 1, 2)
    for labels in (50, 100, 200)
]


def test_a_strategy_is_compared_with_drawing_at_random_and_with_nothing_else():
    (one,) = comparisons(RUNS)
    assert one.strategy == "margin"
    assert one.area == pytest.approx(0.1)
    assert sentence(one).startswith("Closest call: better than random sampling; 50% fewer answers")
    assert comparisons([run for run in RUNS if run.strategy == "margin"]) == []


def test_a_difference_that_the_seeds_do_not_bear_out_is_not_claimed():
    uneven = [
        made_up("margin", run.seed, run.labels, run.metrics.accuracy - (0.1 if run.seed else 0))
        if run.strategy == "margin"
        else run
        for run in RUNS
    ]
    assert "not clearly better or worse" in sentence(comparisons(uneven)[0])


def test_the_page_shows_curves_figures_and_verdict():
    made = page(RUNS, "What <b>it</b> takes")
    assert "What &lt;b&gt;it&lt;/b&gt; takes" in made
    assert "<svg" in made
    assert "Closest call: better than random sampling" in made
    assert "3 simulated sessions per strategy" in made
    assert made.count("<tr>") >= 1 + 2 * 3, "a heading, and each strategy at each number of labels"
    assert "0.810" in made, "what margin has at 200 labels on average: 0.6 + 0.2 + 0.01"
    assert "120 of 800" in made
    assert "107" in made


def test_what_the_whole_pool_gives_says_how_many_labels_are_enough():
    whole = [made_up(EVERYTHING, seed, 1000, 0.8 + 0.01 * seed) for seed in (0, 1, 2)]
    said = sentences(RUNS + whole)
    assert len(strategies(RUNS + whole)) == 2, "to answer everything is no strategy"
    assert said[1:3] == [
        "Closest call: all 1,000 answers give an accuracy of 0.810; 90% of it takes 119 (95 % interval 109 to 129), "
        "95% of it takes 159 (95 % interval 149 to 169).",
        "Random: all 1,000 answers give an accuracy of 0.810; 90% of it takes more than 200, "
        "95% of it takes more than 200.",
    ]
    assert "<svg" in page(RUNS + whole, "x")


def test_one_session_tells_no_interval():
    alone = [run for run in RUNS if run.seed == 0] + [made_up(EVERYTHING, 0, 1000, 0.8)]
    told = "Closest call: all 1,000 answers give an accuracy of 0.800; 90% of it takes 120, 95% of it takes 160."
    assert told in sentences(alone)


def test_where_some_draws_of_seeds_do_not_get_there_the_interval_is_open():
    uneven = [
        made_up("margin", seed, labels, 0.5 + 0.1 * seed + 0.001 * labels) for seed in (0, 1) for labels in (50, 200)
    ]
    assert "95% of it takes 180 (95 % interval 130 to more than 200)" in " ".join(
        sentences(uneven + [made_up(EVERYTHING, seed, 1000, 0.73 / 0.95) for seed in (0, 1)])
    )


def test_when_the_advice_to_stop_came_and_what_going_on_gave():
    stopping = [
        replace(run, outlook=Outlook(run.labels >= 100 and run.seed < 2)) for run in RUNS if run.strategy == "margin"
    ]
    assert sentences(stopping) == [
        "Closest call: 2 of 3 sessions were advised to stop, after 100 answers on average; "
        "continuing to the end changed the accuracy by +0.100 (+0.100 to +0.100)."
    ]
    assert "Closest call: none of 3 sessions was advised to stop." in sentences(RUNS)
