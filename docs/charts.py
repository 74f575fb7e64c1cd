"""Draw the charts of the accuracy, calibration, label-efficiency and performance pages from their published figures.

    python -m docs.charts

Reads `docs/published_figures.json` and writes one SVG a page into `docs/pictures`. It measures nothing: each page names
the command that measures its figures. When a figure on a page changes, change it in the JSON file and draw again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt

FIGURES = Path(__file__).with_name("published_figures.json")
PICTURES = Path(__file__).with_name("pictures")
BLUE, ORANGE, GREEN, GRAY, DARK = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0", "#4a5568"
Rows = Sequence[Mapping[str, Any]]


def accuracy_chart(rows: Rows) -> alt.FacetChart:
    """Return bars of accuracy for each method, with the standard deviation over seeds where there are several."""
    spread = [
        row | {"low": row["mean"] - (row["deviation"] or 0), "high": row["mean"] + (row["deviation"] or 0)}
        for row in map(dict, rows)
    ]
    order = _in_order(rows, "method")
    base = alt.Chart().encode(y=alt.Y("method:N", title=None, sort=order))
    bars = base.mark_bar().encode(
        x=alt.X("mean:Q", title="accuracy", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("method:N", legend=None, scale=alt.Scale(domain=order, range=[GRAY, GRAY, BLUE])),
    )
    lines = base.mark_rule(color=DARK, strokeWidth=1.5).encode(x="low:Q", x2="high:Q")
    layers = alt.layer(bars, lines, data=_data(spread)).properties(width=200, height=75)
    return layers.facet(facet=_panel("data", rows), columns=3)


def calibration_chart(rows: Rows) -> alt.LayerChart:
    """Return bars of the share of rounds that pass, with a mark at the limit where it was computed."""
    shares = [
        dict(row) | {"share": row["passed"] / row["of"], "count": f"{row['passed']} of {row['of']}"} for row in rows
    ]
    order = _in_order(rows, "rounds")
    base = alt.Chart(_data(shares)).encode(y=alt.Y("rounds:N", title=None, sort=order, axis=alt.Axis(labelLimit=300)))
    x = alt.X("share:Q", title="rounds that pass on 1,000 rows; mark: limit", scale=alt.Scale(domain=[0, 1]))
    bars = base.mark_bar(color=BLUE).encode(x=x)
    text = base.mark_text(align="left", dx=8, color="white").encode(x=alt.datum(0), text="count:N")
    limit = (
        base.transform_filter("isValid(datum.limit)").mark_tick(color=ORANGE, thickness=3, size=22).encode(x="limit:Q")
    )
    return alt.layer(bars, text, limit).properties(width=420, height=150)


def label_efficiency_chart(rows: Rows) -> alt.FacetChart:
    """Return learning curves, one panel a data set, one line a method."""
    points = [
        {"data": row["data"], "method": row["method"], "answers": int(answers), "accuracy": accuracy}
        for row in rows
        for answers, accuracy in row["accuracy"].items()
    ]
    order = _in_order(rows, "method")
    color = alt.Scale(domain=order, range=[BLUE, "#90cdf4", GREEN, GRAY, ORANGE])
    legend = alt.Legend(orient="bottom", columns=3, labelLimit=250)
    lines = alt.Chart(_data(points)).mark_line(point=True).encode(
        x=alt.X("answers:Q", title="answers", axis=alt.Axis(values=[50, 100, 200])),
        y=alt.Y("accuracy:Q", title="accuracy", scale=alt.Scale(zero=False)),
        color=alt.Color("method:N", title=None, scale=color, legend=legend),
    )  # fmt: skip
    panels = lines.properties(width=190, height=150).facet(facet=_panel("data", rows), columns=3)
    return panels.resolve_scale(y="independent").resolve_axis(x="independent")


def performance_chart(rows: Rows) -> alt.LayerChart:
    """Return bars of how many times as fast Annotator is as each alternative, on a logarithmic axis."""
    named = [dict(row) | {"pair": f"{row['task']}: {row['against']}", "text": f"{row['times']} ×"} for row in rows]
    base = alt.Chart(_data(named)).encode(
        y=alt.Y("pair:N", title=None, sort=_in_order(named, "pair"), axis=alt.Axis(labelLimit=300))
    )
    x = alt.X("times:Q", title="times as fast as …", scale=alt.Scale(type="log", domain=[0.9, 40]))
    bars = base.mark_bar(color=BLUE).encode(x=x, x2=alt.datum(1))
    text = base.mark_text(align="left", dx=5).encode(x=x, text="text:N")
    return alt.layer(bars, text).properties(width=420, height=150)


CHARTS: Mapping[str, Callable[[Rows], Any]] = {
    "accuracy": accuracy_chart,
    "calibration": calibration_chart,
    "label_efficiency": label_efficiency_chart,
    "performance": performance_chart,
}


def picture(name: str) -> Path:
    """Return where the chart of this name lies."""
    return PICTURES / f"{name.replace('_', '-')}.svg"


def main() -> None:
    """Draw every chart."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    for name, chart in CHARTS.items():
        chart(figures[name]).configure(background="white", font="sans-serif").save(picture(name))


def _data(rows: Rows) -> alt.Data:
    return alt.Data(values=[dict(row) for row in rows])


def _in_order(rows: Rows, name: str) -> list[str]:
    return list(dict.fromkeys(row[name] for row in rows))


def _panel(name: str, rows: Rows) -> alt.Facet:
    return alt.Facet(f"{name}:N", title=None, sort=_in_order(rows, name), header=alt.Header(labelFontSize=13))


if __name__ == "__main__":
    main()
