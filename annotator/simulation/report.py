"""Report on simulated sessions, in sentences and as an HTML page: what the tool would save on a labeled file."""

from collections.abc import Iterator, Sequence

import numpy as np

from annotator.methods.query_strategies import strategy_named
from annotator.reporting import charts, html
from annotator.simulation.curves import Comparison, Curve, compare, curve_of, mean_interval, reached
from annotator.simulation.runner import BASELINE, EVERYTHING
from annotator.simulation.runs import Run

SHARES = (0.90, 0.95)  # of the accuracy with the whole pool answered


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """Compare the accuracy of every strategy with the baseline; empty if the baseline was not run."""
    names = strategies(runs)
    if BASELINE not in names:
        return []
    return [compare(_curve(runs, name), _curve(runs, BASELINE)) for name in names if name != BASELINE]


def _curve(runs: Sequence[Run], strategy: str) -> Curve:
    return curve_of([run.point for run in runs], strategy)


def strategies(runs: Sequence[Run]) -> list[str]:
    """List the strategies that were run, without the sessions that answer everything."""
    return [name for name in dict.fromkeys(run.strategy for run in runs) if name != EVERYTHING]


def sentences(runs: Sequence[Run]) -> list[str]:
    """Describe each strategy's gain, the answers it takes, and when it would have been advised to stop."""
    return [
        *map(sentence, comparisons(runs)),
        *filter(None, (_reach(runs, name) for name in strategies(runs))),
        *(_stop(runs, name) for name in strategies(runs)),
    ]


def sentence(one: Comparison) -> str:
    """Describe how a strategy compares with random sampling."""
    shown = _shown(one.strategy)
    low, high = one.saved_interval
    if one.verdict == "as good":
        return f"{shown}: not clearly better or worse than random sampling in these sessions."
    saved = f"{one.saved:.0%} fewer answers (95 % interval {low:.0%} to {high:.0%})"
    return f"{shown}: {one.verdict} than random sampling; {saved} for the accuracy that it reaches in the end."


def _reach(runs: Sequence[Run], name: str) -> str:
    """Describe how many answers give nearly the accuracy of the whole pool; empty if that was not run."""
    whole, curve = _curve(runs, EVERYTHING), _curve(runs, name)
    if not whole.values.size:
        return ""
    best = float(whole.mean[-1])
    parts = ", ".join(f"{share:.0%} of it {_after(curve, share * best)}" for share in SHARES)
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
    """Describe when sessions would have been advised to stop, and how going on changed the accuracy."""
    chosen = [run for run in runs if run.strategy == name]
    last = {run.seed: run for run in chosen}
    stopped = {run.seed: run for run in reversed(chosen) if run.outlook.steady}  # the first such round of each seed
    if not stopped:
        return f"{_shown(name)}: none of {len(last)} sessions was advised to stop."
    gains = [last[seed].metrics.accuracy - run.metrics.accuracy for seed, run in stopped.items()]
    labels = np.mean([run.labels for run in stopped.values()])
    return (
        f"{_shown(name)}: {len(stopped)} of {len(last)} sessions were advised to stop, after {labels:,.0f} "
        f"answers on average; continuing to the end changed the accuracy by {np.mean(gains):+.3f} "
        f"({min(gains):+.3f} to {max(gains):+.3f})."
    )


def _shown(name: str) -> str:
    return strategy_named(name).shown


def page(runs: Sequence[Run], title: str) -> str:
    """Return the simulation report as an HTML page."""
    points = [point for name in strategies(runs) for point in _points(_curve(runs, name))]
    seeds = len({run.seed for run in runs})
    caption = (
        f"{seeds} simulated sessions per strategy, each on its own sample of the pool. All answers are counted, "
        "including audit answers. Bands: 95 % intervals of the mean over sessions."
    )
    curves = html.figure(charts.label_curves(points), "curves", caption, width=640, half=False)
    table = html.table([_line(point, runs) for point in points])
    return html.page(title, [*map(html.Paragraph, sentences(runs)), curves, table])


def _points(curve: Curve) -> Iterator[charts.CurvePoint]:
    for place, labels in enumerate(curve.labels.tolist()):
        low, high = mean_interval(curve.values[:, place])
        mean = float(curve.mean[place])
        yield charts.CurvePoint(curve.strategy, labels, mean, max(0.0, low), min(1.0, high))


def _line(point: charts.CurvePoint, runs: Sequence[Run]) -> dict[str, str]:
    chosen = [run for run in runs if (run.strategy, run.labels) == (point.strategy, point.labels)]
    macro_f1, ece = np.mean([(run.metrics.macro_f1, run.metrics.ece) for run in chosen], axis=0)
    ahead = [run.outlook for run in chosen]
    wrong, open_, expected = np.mean([(one.wrong, one.open, one.wrong_expected) for one in ahead], axis=0)
    return {
        "Strategy": strategy_named(point.strategy).shown,
        "Labels": str(point.labels),
        "Accuracy": f"{point.accuracy:.3f}",
        "95 % interval": f"{point.low:.3f} to {point.high:.3f}",
        "Macro-F1": f"{macro_f1:.3f}",
        "ECE": f"{ece:.3f}",
        "Wrong suggestions": f"{wrong:,.0f} of {open_:,.0f}",
        "Expected": f"{expected:,.0f}",
    }
