"""The pictures of the insights: what is drawn, and in which colours. Readable without a legend.

Blue is what was measured, grey what chance or exact probabilities would give, orange what was asked for or is
missing. The three can be told apart by colour-blind people, and on a light and on a dark ground.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from annotator.findings import MOST_CONFUSED
from annotator.insights import Confusion, Coverage, LabelCount, Measured, Pace, ReliabilityBin

BLUE, GREY, ORANGE = "#3a87c4", "#858585", "#d5661a"
MOST_LABELS = 20  # more than that cannot be read in one picture
NAME = 150  # pixels that a label's name may take

Chart = alt.LayerChart | alt.FacetChart | alt.Chart


def _rows(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    return alt.InlineData(values=[dict(row) for row in rows])


def _titled(chart: Chart, title: str, height: int) -> Chart:
    return chart.properties(title=alt.TitleParams(title, anchor="start"), height=height, width="container")


def _percent(domain: tuple[float, float] = (0, 1)) -> dict[str, Any]:
    return {"scale": alt.Scale(domain=list(domain), clamp=True), "axis": alt.Axis(format="%", tickCount=5)}


def learning_curve(rounds: Sequence[Measured]) -> Chart:
    """Draw how often each round was right, with its 95 % interval, over the labels it was trained on."""
    rows = [
        {
            "labels": one.trained_on,
            "right": one.accuracy,
            "low": one.accuracy_interval[0] if one.accuracy_interval else one.accuracy,
            "high": one.accuracy_interval[1] if one.accuracy_interval else one.accuracy,
            "round": f"round {one.number}",
            "n": one.n,
        }
        for one in rounds
        if one.accuracy is not None
    ]
    base = alt.Chart(_rows(rows)).encode(
        x=alt.X("labels:Q", title="labels trained on", axis=alt.Axis(tickMinStep=1, tickCount=6)),
        tooltip=["round:N", "labels:Q", "n:Q", *_shares("right", "low", "high")],
    )
    band = base.mark_area(color=BLUE, opacity=0.2).encode(y=alt.Y("low:Q", title=None), y2="high:Q")
    bars = base.mark_rule(color=BLUE, opacity=0.6).encode(y="low:Q", y2="high:Q")
    line = base.mark_line(color=BLUE, point={"color": BLUE, "size": 60, "filled": True}).encode(
        y=alt.Y("right:Q", title="right, of 100", **_percent())
    )
    names = base.mark_text(dy=-12, color=GREY).encode(y="right:Q", text="round:N")
    return _titled(alt.layer(band, bars, line, names), "How often each round is right", 260)


def _shares(*fields: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{field}:Q", format=".0%") for field in fields]


def reliability(bins: Sequence[ReliabilityBin]) -> Chart:
    """Draw how often the model was right by how sure it was; grey is where exact probabilities would lie."""
    rows = [
        {
            "sure": one.confidence,
            "right": one.accuracy,
            "low": one.low,
            "high": one.high,
            "from": one.band[0],
            "to": one.band[1],
            "n": one.n,
            "shown": f"n = {one.n}",
        }
        for one in bins
    ]
    floor = max(0.0, min([0.5, *(one.confidence for one in bins)]) - 0.05)
    base = alt.Chart(_rows(rows)).encode(
        x=alt.X("sure:Q", title="how sure it was", **_percent((floor, 1))),
        tooltip=["n:Q", *_shares("sure", "right", "low", "high", "from", "to")],
    )
    exact = base.mark_rule(color=GREY, strokeWidth=14, opacity=0.3).encode(y=alt.Y("from:Q", title=None), y2="to:Q")
    interval = base.mark_rule(color=BLUE).encode(y="low:Q", y2="high:Q")
    points = base.mark_point(color=BLUE, filled=True, size=80, opacity=1).encode(
        y=alt.Y("right:Q", title="how often it was right", **_percent())
    )
    counts = base.mark_text(dx=9, align="left", color=GREY).encode(y="right:Q", text="shown:N")
    ends = _rows([{"sure": floor, "right": floor}, {"sure": 1, "right": 1}])
    line = alt.Chart(ends).mark_line(color=GREY, strokeDash=[4, 4]).encode(x="sure:Q", y="right:Q")
    return _titled(alt.layer(exact, line, interval, points, counts), "Is it right as often as it says?", 260)


def risk_coverage(curve: Sequence[Coverage], target: float) -> Chart:
    """Draw the errors among the surest suggestions by how many of them are taken, with the most that are wished."""
    rows = [{"taken": one.coverage, "wrong": one.error, "low": one.low, "high": one.high, "n": one.n} for one in curve]
    top = min(1.0, max([2 * (1 - target), *(one.error + 0.08 for one in curve)]))
    base = alt.Chart(_rows(rows)).encode(
        x=alt.X("taken:Q", title="the surest so many of all suggestions", **_percent()),
        tooltip=["n:Q", *_shares("taken", "wrong", "low", "high")],
    )
    band = base.mark_area(color=BLUE, opacity=0.2, clip=True).encode(y=alt.Y("low:Q", title=None), y2="high:Q")
    line = base.mark_line(color=BLUE, clip=True).encode(
        y=alt.Y("wrong:Q", title="wrong among them", **_percent((0, top)))
    )
    most = alt.Chart(_rows([{"wished": 1 - target, "shown": f"at most {100 * (1 - target):.0f} in 100", "at": 1}]))
    limit = most.mark_rule(color=ORANGE, strokeDash=[6, 4], strokeWidth=2).encode(y="wished:Q")
    name = most.mark_text(color=ORANGE, align="right", dy=-8, fontWeight="bold").encode(
        x="at:Q", y="wished:Q", text="shown:N"
    )
    return _titled(alt.layer(band, line, limit, name), "How many of the surest suggestions are wrong", 260)


def confusion(found: Confusion, title: str, dark: bool = False) -> Chart:
    """Draw which label the model says where which is right; what it confuses is orange."""
    kept = found.worst(MOST_CONFUSED)
    largest = max(1.0, float(kept.counts.max(initial=0)))
    rows = [
        {
            "says": kept.names[i],
            "is": kept.names[j],
            "count": float(kept.counts[i, j]),
            "shown": f"{kept.counts[i, j]:,.0f}" if kept.counts[i, j] >= 0.5 else "",
            "strength": float(kept.counts[i, j]) / largest,
            "kind": "right" if i == j else "wrong",
        }
        for i in range(len(kept.names))
        for j in range(len(kept.names))
    ]
    order = list(kept.names)
    base = alt.Chart(_rows(rows)).encode(
        x=alt.X("is:N", title="the label that is right", sort=order, axis=_names(-40)),
        y=alt.Y("says:N", title="the model says", sort=order, axis=_names(0)),
        tooltip=["says:N", "is:N", alt.Tooltip("count:Q", format=",.1f")],
    )
    cells = base.mark_rect(stroke=GREY, strokeOpacity=0.25).encode(
        color=alt.Color("kind:N", scale=alt.Scale(domain=["right", "wrong"], range=[BLUE, ORANGE]), legend=None),
        opacity=alt.Opacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0, 0.65]), legend=None),
    )
    texts = base.mark_text(fontSize=13, color="#f2f2f2" if dark else "#1a1a1a").encode(text="shown:N")
    return _titled(alt.layer(cells, texts), title, max(160, 34 * len(order)))


def _names(angle: int) -> alt.Axis:
    return alt.Axis(labelAngle=angle, labelLimit=NAME, ticks=False, domain=False)


PARTS = {
    "pool": ("answered, to learn from", BLUE, 1.0),
    "audit": ("answered, to measure", BLUE, 0.55),
    "accepted": ("accepted unseen", ORANGE, 0.9),
    "expected": ("expected in what is left", GREY, 0.45),
}


def label_counts(counts: Sequence[LabelCount]) -> Chart:
    """Draw how often each label was given, accepted, and is to be expected; the most frequent where there are many."""
    kept = sorted(counts, key=lambda one: -one.total)[:MOST_LABELS]
    shown = [name for part, (name, _, _) in PARTS.items() if any(getattr(one, part) for one in kept)]
    rows = [
        {"label": one.name, "part": name, "place": place, "count": float(getattr(one, part))}
        for one in kept
        for place, (part, (name, _, _)) in enumerate(PARTS.items())
    ]
    styles = {name: (colour, opacity) for name, colour, opacity in PARTS.values()}
    colours, opacities = zip(*(styles[name] for name in shown), strict=True) if shown else ((), ())
    chart = (
        alt.Chart(_rows(rows))
        .mark_bar()
        .encode(
            x=alt.X("sum(count):Q", title="utterances", stack="zero"),
            y=alt.Y("label:N", title=None, sort=[one.name for one in kept], axis=_names(0)),
            color=alt.Color("part:N", scale=alt.Scale(domain=shown, range=list(colours)), legend=_legend()),
            opacity=alt.Opacity("part:N", scale=alt.Scale(domain=shown, range=list(opacities)), legend=_legend()),
            order="place:Q",
            tooltip=["label:N", "part:N", alt.Tooltip("sum(count):Q", format=",.0f", title="utterances")],
        )
        .transform_filter(alt.FieldOneOfPredicate(field="part", oneOf=shown))
    )
    return _titled(chart, "How often each label occurs", max(110, 30 * len(kept) + 20))


def _legend() -> alt.Legend:
    return alt.Legend(title=None, orient="bottom", columns=2, labelLimit=220)


def time_per_answer(pace: Pace) -> Chart:
    """Draw the median seconds an answer took, 25 answers at a time."""
    rows = [
        {"answers": one.last, "seconds": one.seconds, "which": f"answers {one.first} to {one.last}"}
        for one in pace.steps
    ]
    base = alt.Chart(_rows(rows)).encode(
        x=alt.X("answers:Q", title="answers given", axis=alt.Axis(tickMinStep=1, tickCount=6)),
        y=alt.Y("seconds:Q", title="seconds an answer", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5)),
        tooltip=["which:N", alt.Tooltip("seconds:Q", format=".1f")],
    )
    line = base.mark_line(color=BLUE, point={"color": BLUE, "size": 50, "filled": True})
    all_ = alt.Chart(_rows([{"seconds": pace.seconds or 0}])).mark_rule(color=GREY, strokeDash=[4, 4])
    return _titled(alt.layer(line, all_.encode(y="seconds:Q")), "How long an answer takes", 220)


def svg(chart: Chart, name: str, width: int = 420) -> str:
    """Draw a chart as SVG without script, fetching nothing. `name` keeps its ids apart from others'."""
    drawn = io.StringIO()
    chart.properties(width=width).configure(font="sans-serif", background="#ffffff").save(drawn, format="svg")
    return re.sub(r'( id="|url\(#)(clip|gradient)', rf"\1{name}-\2", drawn.getvalue())
