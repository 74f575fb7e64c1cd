"""Charts of the Insights page, the report and the simulation report, readable without a legend.

Blue marks measurements, gray what chance or exact probabilities would give, and orange targets and errors. Color-blind
people can tell the three apart, on light and on dark backgrounds.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from annotator.i18n import later, number, say, signs
from annotator.methods.metrics import Bin
from annotator.reporting.summary import Confusion, Coverage, LabelCount, Measured, Pace
from annotator.reporting.text import MOST_CONFUSED

BLUE, GRAY, ORANGE = "#3a87c4", "#858585", "#d5661a"
MOST_LABELS = 20  # that can be read in one chart
NAME = 150  # maximum width of a label's name, in pixels

Chart = alt.LayerChart | alt.FacetChart | alt.Chart


def _rows(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    return alt.InlineData(values=[dict(row) for row in rows])


def _titled(chart: Chart, title: str, height: int) -> Chart:
    """Finish a chart: as wide as its container, with a plot `height` pixels high without its axes."""
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    head = alt.TitleParams(title, anchor="start", frame="bounds")
    sized = chart.properties(title=head, height=height, width="container", autosize=fit)
    finished: Chart = sized.configure(locale=_locale())  # the only place that configures: a second call would undo it
    return finished


def _locale() -> alt.Locale:
    """Return the number format of the current language, for axes and tooltips."""
    decimal, group, percent = signs()
    currency = ["", ""]  # a required field, not used here
    numbers = alt.NumberLocale(decimal=decimal, thousands=group, grouping=[3], percent=percent, currency=currency)
    return alt.Locale(number=numbers)


def _counted(field: str, title: str) -> alt.X:
    axis = alt.Axis(tickMinStep=1, tickCount=6, format=",d")
    return alt.X(f"{field}:Q", title=title, scale=alt.Scale(zero=False, padding=24), axis=axis)


def _share(field: str, title: str, domain: tuple[float, float] = (0, 1)) -> alt.Y:
    """Return a vertical axis of shares. All layers use the same title, so that it appears once."""
    scale = alt.Scale(domain=list(domain), clamp=True)
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format="%", tickCount=5))


def _lowest(values: Sequence[float]) -> float:
    """Return the start of an axis, the next lower multiple of 0.1, so that close values can be told apart."""
    return max(0.0, math.floor(10 * min(values, default=0)) / 10)


def learning_curve(rounds: Sequence[Measured]) -> Chart:
    """Draw each round's accuracy, with its 95 % interval, by number of training examples."""
    known = [one for one in rounds if one.accuracy is not None]
    ends = {one.number for one in (*known[:1], *known[-1:])}
    rows = [
        {
            "labels": one.trained_on,
            "right": one.accuracy,
            "low": one.accuracy_interval[0] if one.accuracy_interval else one.accuracy,
            "high": one.accuracy_interval[1] if one.accuracy_interval else one.accuracy,
            "round": say("round {n}", n=one.number),
            "named": say("round {n}", n=one.number) if one.number in ends else "",
            "n": one.n,
        }
        for one in known
    ]
    title, domain = say("accuracy"), (_lowest([float(row["low"] or 0) for row in rows]), 1.0)
    base = alt.Chart(_rows(rows)).encode(
        x=_counted("labels", say("training examples")),
        tooltip=["round:N", "labels:Q", "n:Q", *_shares("right", "low", "high")],
    )
    band = base.mark_area(color=BLUE, opacity=0.2).encode(y=_share("low", title, domain), y2="high:Q")
    bars = base.mark_rule(color=BLUE, opacity=0.6).encode(y=_share("low", title, domain), y2="high:Q")
    line = base.mark_line(color=BLUE, point={"color": BLUE, "size": 60, "filled": True})
    names = base.mark_text(dy=-14, color=GRAY, fontSize=12).encode(y=_share("right", title, domain), text="named:N")
    layers = (band, bars, line.encode(y=_share("right", title, domain)), names)
    return _titled(alt.layer(*layers), say("Accuracy by round"), 220)


def label_curves(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Draw accuracy by number of answers for each strategy, with the interval of its mean, by color and dash."""
    base = alt.Chart(_rows(rows)).encode(x=alt.X("labels:Q", title=say("answers given")))
    domain = (_lowest([row["low"] for row in rows]), 1.0)
    band = base.mark_area(opacity=0.15).encode(
        y=_share("low", say("accuracy"), domain), y2="high:Q", color=alt.Color("strategy:N", title=None)
    )
    line = base.mark_line(point=True).encode(
        y=_share("accuracy", say("accuracy"), domain),
        color="strategy:N",
        strokeDash=alt.StrokeDash("strategy:N", title=None),
    )
    return _titled(band + line, say("Accuracy by number of answers"), 320)


def _shares(*fields: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{field}:Q", format=".0%") for field in fields]


def reliability(bins: Sequence[Bin]) -> Chart:
    """Draw accuracy by confidence; gray is the range of exact probabilities.

    Each bin has a column of its own: bins of equal size crowd at high confidence and would overlap on a linear scale.
    """
    rows = [
        {
            "bin": f"{place}|{number(one.confidence, '.0%')}|n = {one.n}",
            "sure": one.confidence,
            "right": one.accuracy,
            "low": one.low,
            "high": one.high,
            "from": one.band[0],
            "to": one.band[1],
            "n": one.n,
        }
        for place, one in enumerate(bins)
    ]
    edges = [edge for one in bins for edge in (one.low, one.band[0])]
    title, domain = say("observed accuracy"), (_lowest(edges), 1.0)
    base = alt.Chart(_rows(rows)).encode(
        x=alt.X(
            "bin:O",
            title=say("mean probability of the suggestion"),
            sort=None,
            axis=alt.Axis(labelAngle=0, labelExpr="slice(split(datum.label, '|'), 1)", ticks=False),
        ),
        tooltip=["n:Q", *_shares("sure", "right", "low", "high", "from", "to")],
    )
    exact = base.mark_bar(color=GRAY, opacity=0.3, width=30).encode(y=_share("from", title, domain), y2="to:Q")
    confidence = base.mark_tick(color=GRAY, thickness=2, width=30).encode(y=_share("sure", title, domain))
    interval = base.mark_rule(color=BLUE, strokeWidth=2).encode(y=_share("low", title, domain), y2="high:Q")
    points = base.mark_point(color=BLUE, filled=True, size=90, opacity=1).encode(y=_share("right", title, domain))
    return _titled(alt.layer(exact, confidence, interval, points), say("Probabilities and observed accuracy"), 220)


def risk_coverage(curve: Sequence[Coverage], target: float) -> Chart:
    """Draw the error rate by coverage, most confident suggestions first, with the target's error rate as a limit."""
    rows = [{"taken": one.coverage, "wrong": one.error, "low": one.low, "high": one.high, "n": one.n} for one in curve]
    top = min(1.0, max([2 * (1 - target), *(one.error + 0.08 for one in curve)]))
    base = alt.Chart(_rows(rows)).encode(
        x=alt.X("taken:Q", title=say("share of suggestions, most confident first"), axis=_percent()),
        tooltip=["n:Q", *_shares("taken", "wrong", "low", "high")],
    )
    title = say("error rate")
    band = base.mark_area(color=BLUE, opacity=0.2).encode(y=_share("low", title, (0, top)), y2="high:Q")
    line = base.mark_line(color=BLUE).encode(y=_share("wrong", title, (0, top)))
    shown = say("at most {n:.0f} in 100", n=100 * (1 - target))
    most = alt.Chart(_rows([{"limit": 1 - target, "shown": shown, "at": 1}]))
    limit = most.mark_rule(color=ORANGE, strokeDash=[6, 4], strokeWidth=2).encode(y=_share("limit", title, (0, top)))
    name = most.mark_text(color=ORANGE, align="right", dy=-8, fontWeight="bold").encode(
        x="at:Q", y=_share("limit", title, (0, top)), text="shown:N"
    )
    return _titled(alt.layer(band, line, limit, name), say("Errors among the most confident suggestions"), 220)


def _percent() -> alt.Axis:
    return alt.Axis(format="%", tickCount=5)


def confusion(found: Confusion, title: str, dark: bool = False) -> Chart:
    """Draw a confusion matrix, with confusions in orange."""
    kept = found.worst(MOST_CONFUSED)
    largest = max(1.0, float(kept.counts.max(initial=0)))
    rows = [
        {
            "predicted": kept.names[i],
            "true": kept.names[j],
            "count": float(kept.counts[i, j]),
            "shown": number(float(kept.counts[i, j]), ",.0f") if kept.counts[i, j] >= 0.5 else "",
            "strength": float(kept.counts[i, j]) / largest,
            "kind": "right" if i == j else "wrong",
        }
        for i in range(len(kept.names))
        for j in range(len(kept.names))
    ]
    order = list(kept.names)
    level = len(order) <= 4 and max(map(len, order), default=0) <= 10  # the names fit side by side
    base = alt.Chart(_rows(rows)).encode(
        x=alt.X("true:N", title=say("true label"), sort=order, axis=_names(0 if level else -40)),
        y=alt.Y("predicted:N", title=say("predicted label"), sort=order, axis=_names(0)),
        tooltip=["predicted:N", "true:N", alt.Tooltip("count:Q", format=",.1f")],
    )
    cells = base.mark_rect(stroke=GRAY, strokeOpacity=0.25).encode(
        color=alt.Color("kind:N", scale=alt.Scale(domain=["right", "wrong"], range=[BLUE, ORANGE]), legend=None),
        opacity=alt.Opacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0, 0.65]), legend=None),
    )
    texts = base.mark_text(fontSize=13, color="#f2f2f2" if dark else "#1a1a1a").encode(text="shown:N")
    return _titled(alt.layer(cells, texts), title, 36 * len(order))


def _names(angle: int) -> alt.Axis:
    return alt.Axis(labelAngle=angle, labelLimit=NAME, labelFlush=False, ticks=False, domain=False)


PARTS = {
    "pool": (later("answered, training"), BLUE, 1.0),
    "audit": (later("answered, audit"), BLUE, 0.55),
    "accepted": (later("auto-accepted"), ORANGE, 0.9),
    "expected": (later("expected in open utterances"), GRAY, 0.45),
}


def label_counts(counts: Sequence[LabelCount]) -> Chart:
    """Draw how often each label was given, auto-accepted and is expected, for the most frequent labels."""
    kept = sorted(counts, key=lambda one: -one.total)[:MOST_LABELS]
    shown = [say(name) for part, (name, _, _) in PARTS.items() if any(getattr(one, part) for one in kept)]
    rows = [
        {"label": one.name, "part": say(name), "place": place, "count": float(getattr(one, part))}
        for one in kept
        for place, (part, (name, _, _)) in enumerate(PARTS.items())
    ]
    styles = {say(name): (color, opacity) for name, color, opacity in PARTS.values()}
    colors, opacities = zip(*(styles[name] for name in shown), strict=True) if shown else ((), ())
    each = alt.Scale(type="ordinal", domain=shown, range=list(opacities))  # by default they are spread evenly
    chart = (
        alt.Chart(_rows(rows))
        .mark_bar()
        .encode(
            x=alt.X("sum(count):Q", title=say("utterances"), stack="zero"),
            y=alt.Y("label:N", title=None, sort=[one.name for one in kept], axis=_names(0)),
            color=alt.Color("part:N", scale=alt.Scale(domain=shown, range=list(colors)), legend=_legend()),
            opacity=alt.Opacity("part:N", scale=each, legend=_legend()),
            order="place:Q",
            tooltip=["label:N", "part:N", alt.Tooltip("sum(count):Q", format=",.0f", title=say("utterances"))],
        )
        .transform_filter(alt.FieldOneOfPredicate(field="part", oneOf=shown))
    )
    return _titled(chart, say("Label frequencies"), 28 * len(kept))


def _legend() -> alt.Legend:
    return alt.Legend(title=None, orient="bottom", direction="vertical", labelLimit=220)


def time_per_answer(pace: Pace) -> Chart:
    """Draw the median seconds per answer, over 25 answers each."""
    rows = [
        {
            "answers": one.last,
            "seconds": one.seconds,
            "which": say("answers {first} to {last}", first=one.first, last=one.last),
        }
        for one in pace.steps
    ]
    base = alt.Chart(_rows(rows)).encode(
        x=alt.X("answers:Q", title=say("answers given"), axis=alt.Axis(tickMinStep=1, tickCount=6)),
        y=alt.Y("seconds:Q", title=say("seconds per answer"), scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5)),
        tooltip=["which:N", alt.Tooltip("seconds:Q", format=".1f")],
    )
    line = base.mark_line(color=BLUE, point={"color": BLUE, "size": 50, "filled": True})
    all_ = alt.Chart(_rows([{"seconds": pace.seconds or 0}])).mark_rule(color=GRAY, strokeDash=[4, 4])
    return _titled(alt.layer(line, all_.encode(y="seconds:Q")), say("Time per answer"), 150)


def svg(chart: Chart, name: str, width: int = 420) -> str:
    """Return a chart as self-contained SVG. `name` keeps its ids apart from those of other charts."""
    drawn = io.StringIO()
    chart.properties(width=width, background="#ffffff").save(drawn, format="svg")
    return re.sub(r'( id="|url\(#)(clip|gradient)', rf"\1{name}-\2", drawn.getvalue())
