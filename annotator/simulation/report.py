"""Whether the tool will pay off: what replayed sessions tell, in sentences and on one page."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from annotator.methods.query_strategies import strategy_named
from annotator.reporting import charts, html
from annotator.simulation.curves import Comparison, Curve, compare, curve_of, mean_interval, reached
from annotator.simulation.runner import BASELINE, EVERYTHING, Run

FIGURES = ("accuracy", "macro_f1", "ece", "open", "wrong", "wrong_expected")
SHARES = (0.90, 0.95)  # of what the whole pool gives


def comparisons(runs: Sequence[Run], score: str = "accuracy") -> list[Comparison]:
    """Compare every strategy with the baseline, if that was run."""
    names = strategies(runs)
    if BASELINE not in names:
        return []
    baseline = curve_of(runs, BASELINE, score)
    return [compare(curve_of(runs, name, score), baseline) for name in names if name != BASELINE]


def strategies(runs: Sequence[Run]) -> list[str]:
    """List what was replayed, but for sessions in which everything was answered."""
    return [name for name in dict.fromkeys(run["strategy"] for run in runs) if name != EVERYTHING]


def sentences(runs: Sequence[Run]) -> list[str]:
    """Say what each strategy gives, how many labels it takes, and when it would have been advised to stop."""
    return [
        *map(sentence, comparisons(runs)),
        *filter(None, (_reach(runs, name) for name in strategies(runs))),
        *(_stop(runs, name) for name in strategies(runs)),
    ]


def sentence(one: Comparison) -> str:
    """Say what a strategy is worth."""
    shown = _shown(one.strategy)
    low, high = one.saved_interval
    if one.verdict == "as good":
        return f"{shown}: no better and no worse than drawing at random, as far as these sessions tell."
    saved = f"{one.saved:.0%} of the labels saved (95 % interval {low:.0%} to {high:.0%})"
    return f"{shown}: {one.verdict} than drawing at random; {saved} to be as good as that is in the end."


def _reach(runs: Sequence[Run], name: str) -> str:
    """Say how many labels give nearly what the whole pool gives; nothing where that was not tried."""
    whole, curve = curve_of(runs, EVERYTHING), curve_of(runs, name)
    if not whole.values.size:
        return ""
    best = float(whole.mean[-1])
    parts = ", ".join(f"{share:.0%} of that {_after(curve, share * best)}" for share in SHARES)
    return f"{_shown(name)}: all {whole.labels[-1]:,} answers give an accuracy of {best:.3f}; {parts}."


def _after(curve: Curve, target: float) -> str:
    labels, low, high = reached(curve, target)
    if not np.isfinite(labels):
        return f"takes more than {curve.labels[-1]:,}"
    if len(curve.seeds) < 2:
        return f"takes {labels:,.0f}"
    most = f"{high:,.0f}" if np.isfinite(high) else f"more than {curve.labels[-1]:,}"
    return f"takes {labels:,.0f} (95 % interval {low:,.0f} to {most})"


def _stop(runs: Sequence[Run], name: str) -> str:
    """Say when sessions would have been advised to stop, and what going on gave them."""
    mine = [run for run in runs if run["strategy"] == name]
    last = {run["seed"]: run for run in mine}
    stopped = {run["seed"]: run for run in reversed(mine) if run["steady"]}  # the first time that it came
    if not stopped:
        return f"{_shown(name)}: in none of {len(last)} sessions did the advice to stop come."
    gains = [last[seed]["accuracy"] - run["accuracy"] for seed, run in stopped.items()]
    labels = np.mean([run["labels"] for run in stopped.values()])
    return (
        f"{_shown(name)}: the advice to stop came in {len(stopped)} of {len(last)} sessions, after {labels:,.0f} "
        f"answers on average; to go on to the end changed the accuracy by {np.mean(gains):+.3f} "
        f"({min(gains):+.3f} to {max(gains):+.3f})."
    )


def _shown(name: str) -> str:
    return strategy_named(name).shown


def page(runs: Sequence[Run], title: str) -> str:
    """Write it all as one HTML page."""
    rows = [row for name in strategies(runs) for row in _rows(runs, name)]
    drawn = charts.svg(charts.label_curves(rows), "curves", width=640)
    said = "".join(f"<p>{escape(one)}</p>" for one in sentences(runs))
    seeds = len({run["seed"] for run in runs})
    how = (
        f"{seeds} simulated sessions a strategy, each on another sample of the pool. Every answer counts, "
        "audit answers included. Bands are 95 % intervals of the mean over sessions."
    )
    body = f"<h1>{escape(title)}</h1>{said}{drawn}<p class='quiet'>{escape(how)}</p>{html.table(_table(rows))}"
    return html.html(title, body)


def _rows(runs: Sequence[Run], name: str) -> list[dict[str, Any]]:
    curves = {score: curve_of(runs, name, score) for score in FIGURES}
    rows = []
    for place, labels in enumerate(curves["accuracy"].labels.tolist()):
        low, high = mean_interval(curves["accuracy"].values[:, place])
        means = {score: float(curve.mean[place]) for score, curve in curves.items()}
        rows.append({"strategy": name, "labels": labels, **means, "low": max(0.0, low), "high": min(1.0, high)})
    return rows


def _table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "Strategy": strategy_named(row["strategy"]).shown,
            "Labels": str(row["labels"]),
            "Accuracy": f"{row['accuracy']:.3f}",
            "95 % interval": f"{row['low']:.3f} to {row['high']:.3f}",
            "Macro-F1": f"{row['macro_f1']:.3f}",
            "ECE": f"{row['ece']:.3f}",
            "Wrong in the rest": f"{row['wrong']:,.0f} of {row['open']:,.0f}",
            "Expected wrong": f"{row['wrong_expected']:,.0f}",
        }
        for row in rows
    ]
