"""The report: all that the insights say on one HTML page that needs no network and no script, to print or to send.

Every figure stands with its n and with how it was estimated. Whatever a person has written is escaped.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from annotator import __version__, i18n
from annotator.codebook.definition import codebook_of
from annotator.i18n import later, number, say, say_many
from annotator.labeling.auto_accept import offer
from annotator.methods.guarantee import Guarantee, NotYet, Target
from annotator.project import Project
from annotator.reporting import baseline, charts, guarantees, stopping, summary, text
from annotator.reporting.summary import InUse
from annotator.rounds.summaries import STATES
from store import acceptances, annotations, rounds, utterances

MOST_FLIPS = 10

_STYLE = """
body { font: 11pt/1.45 Georgia, serif; color: #1a1a1a; background: #fff; max-width: 46rem; margin: 2rem auto;
    padding: 0 1rem; overflow-wrap: anywhere; }
h1, h2, th, figcaption, .quiet { font-family: sans-serif; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; break-after: avoid; }
.quiet, figcaption { font-size: .82rem; color: #555; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; margin: .6rem 0; }
th, td { min-width: 4.2em; text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0;
    border-bottom: 1px solid #ddd; }
th { overflow-wrap: normal; }
td { unicode-bidi: plaintext; white-space: pre-line; }
tr, figure { break-inside: avoid; }
figure { margin: .8rem 0; vertical-align: top; box-sizing: border-box; }
svg { max-width: 100%; height: auto; }
@media (min-width: 640px), print { figure { display: inline-block; width: 49%; padding-right: 1rem; } }
@page { margin: 18mm; }
@media print { body { margin: 0; max-width: none; } .wide { overflow: visible; } }
"""


def report(project: Project) -> str:
    """Write the report of a project as it stands, as one HTML file."""
    used = summary.in_use(project)
    parts = [_head(project), *(_of_round(project, used) if used else [_text(say(_NO_ROUND))])]
    parts += [_work(project, used), _people(project), _rounds(project), _settings(project, used), _codebook(project)]
    return html(project.name, "\n".join(parts))


def html(title: str, body: str) -> str:
    """Write a page that needs no network and no script; `body` is HTML."""
    title, spoken = escape(title), i18n.now()
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!DOCTYPE html>\n<html lang="{spoken}"><head>{meta}<title>{title}</title><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


_NO_ROUND = later("No round has been made yet, so nothing is known about the model.")


def _text(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part) + "</section>"


def _figure(chart: charts.Chart, name: str, caption: str) -> str:
    return f"<figure>{charts.svg(chart, name)}<figcaption>{escape(caption)}</figcaption></figure>"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows of the same columns as a table; nothing for no rows."""
    if not rows:
        return ""
    return _lines([rows[0].keys(), *(row.values() for row in rows)], headed=True)


def _lines(rows: Iterable[Iterable[Any]], headed: bool = False) -> str:
    cells = [[escape("" if cell is None else str(cell)) for cell in row] for row in rows]
    written = ["".join(f"<td>{cell}</td>" for cell in row) for row in cells]
    if headed:
        written[0] = "".join(f'<th scope="col">{cell}</th>' for cell in cells[0])
    return '<div class="wide"><table>' + "".join(f"<tr>{row}</tr>" for row in written) + "</table></div>"


def _head(project: Project) -> str:
    """Say what this is about, how much of it there is, and when it was written."""
    slices, now = utterances.count_slices(project.db), datetime.now(UTC).isoformat()
    size = say_many(
        "{n:,} utterance, {audit:,} of them drawn at random for the audit slice; {answered:,} answered by people.",
        "{n:,} utterances, {audit:,} of them drawn at random for the audit slice; {answered:,} answered by people.",
        slices["pool"] + slices["audit"],
        audit=slices["audit"],
        answered=annotations.count_answered(project.db),
    )
    written = say("Written {day} UTC by Annotator {version}.", day=text.day(now), version=__version__)
    return f"<h1>{escape(project.name)}</h1>" + _text(written, "quiet") + _text(size)


# The round in use


def _of_round(project: Project, used: InUse) -> list[str]:
    return [_quality(project, used), _acceptance(project, used), _confusion(used), _changes(project, used)]


def _quality(project: Project, used: InUse) -> str:
    curve, bins = summary.learning_curve(project), summary.reliability_bins(used)
    was_measured = any(one.accuracy is not None for one in curve)
    return _section(
        say("How good the model is"),
        _text(f"{text.how_right(used)} {text.unfitting(used)}".strip()),
        _text(text.how_believable(used)),
        _text(stopping.sentence(stopping.with_gain(project, stopping.advise(project)))),
        _text(text.in_use(used), "quiet"),
        _figure(charts.learning_curve(curve), "curve", text.curve(curve)) if was_measured else "",
        _figure(charts.reliability(bins), "bins", text.bins(bins)) if bins else "",
        table([text.figures(one) for one in curve]),
        _text(f"{text.from_audit(summary.measured(used.row).n)} {text.figures_explained()}", "quiet"),
        _each_label(used),
        _text(text.queried(summary.queried_accuracy(project))),
        *_choosing(project),
    )


def _choosing(project: Project) -> list[str]:
    """Say what choosing has given; drawn where it can be told."""
    found = baseline.recent_comparison(project)
    figure = _figure(charts.choosing(found.steps), "choosing", baseline.explained(found)) if found.steps else ""
    return [_text(baseline.sentence(found)), figure]


def _each_label(used: InUse) -> str:
    each = used.metrics.get("each_label", [])
    rows = [
        {
            say("Label"): name,
            say("Precision"): number(one["precision"], ".2f"),
            say("Recall"): number(one["recall"], ".2f"),
            say("F1"): number(one["f1"], ".2f"),
            say("Audit answers"): one["n"],
        }
        for name, one in zip(used.names, each, strict=False)
    ]
    return table(rows)


def _acceptance(project: Project, used: InUse) -> str:
    """Say what could be accepted now and what has been."""
    made, curve = offer(project, Target(project.config.precision)), summary.coverage_curve(used)
    (one,) = made.guarantees.values()
    rests = guarantees.rests_on(one) if isinstance(one, Guarantee) else ""
    said = guarantees.offered(made) or (guarantees.not_yet(one, used) if isinstance(one, NotYet) else "")
    caption = f"{text.from_audit(len(curve))} {say('Shaded: 95 % intervals.')} {say(_CERTIFIED)}"
    return _section(
        say("Accepting suggestions unseen"),
        _text(f"{said} {rests}"),
        _figure(charts.risk_coverage(curve, made.target.precision), "risk", caption) if curve else "",
        *(_text(guarantees.acceptance(act)) for act in acceptances.history(project.db)),
    )


_CERTIFIED = later(
    "What may be accepted is certified by Learn-then-Test with fixed-sequence testing (Angelopoulos et al. 2021): "
    "thresholds from the strictest on, each by the exact hypergeometric tail on audit answers, until the first that "
    "fails. The calibrated probabilities above it must say so on average, too."
)


def _confusion(used: InUse) -> str:
    observed, expected = summary.observed_confusion(used), summary.expected_confusion(used)
    drawn = (
        (observed, say("Seen on audit answers"), "observed", text.confusion_observed(observed)),
        (expected, say("Expected in what is left"), "expected", text.confusion_expected(expected)),
    )
    figures = [_figure(charts.confusion(one, title), name, said) for one, title, name, said in drawn if one.total]
    return _section(say("What the model confuses"), *figures) if figures else ""


def _changes(project: Project, used: InUse) -> str:
    found = summary.flips(project, used, MOST_FLIPS)
    if found is None:
        return _section(say("What the last round changed"), _text(text.flipped(None)))
    rows = [
        {
            say("Utterance"): one.text,
            say("Round {n} said", n=found.before): f"{one.before} ({text.in_100(one.before_probability)} %)",
            say("Round {n} says", n=found.now): f"{one.now} ({text.in_100(one.now_probability)} %)",
        }
        for one in found.flips
    ]
    more = say("The {n} of which it is surest now.", n=MOST_FLIPS) if found.changed > MOST_FLIPS else ""
    return _section(say("What the last round changed"), _text(text.flipped(found)), table(rows), _text(more, "quiet"))


# The work


def _work(project: Project, used: InUse | None) -> str:
    counts, pace = summary.label_counts(project, used), summary.time_per_answer(project)
    rows = [
        {say("Label"): one.name, say("Answered, to learn from"): one.pool, say("Answered, to measure"): one.audit}
        | {say("Accepted unseen"): one.accepted, say("Expected in what is left"): f"{one.expected:.0f}"}
        for one in counts
    ]
    drawn = any(one.total for one in counts)
    return _section(
        say("Labels and work"),
        _figure(charts.label_counts(counts), "labels", text.counted(used)) if drawn else "",
        _figure(charts.time_per_answer(pace), "pace", text.paced(pace)) if pace.steps else "",
        table(rows),
    )


def _people(project: Project) -> str:
    return _section(say("How far people agree"), _text(text.agreed(summary.people_agree(project))))


# How it was made


def _rounds(project: Project) -> str:
    rows = [
        {say("Round"): row["number"], say("State"): say(STATES.get(row["state"], row["state"]))}
        | {say("Backbone"): row["backbone"], say("Trained on"): row["trained_on"]}
        | {say("Audit answers"): row["audited_on"], say("Codebook"): say("version {n}", n=row["codebook_version"])}
        | {say("Started"): text.day(row["started_at"])}
        for row in reversed(rounds.history(project.db))
    ]
    return _section(say("Rounds"), table(rows) or _text(say("None.")), _text(say(_METHOD), "quiet"))


_METHOD = later(
    "Audit utterances were drawn at random at import and answered without a suggestion. No round is measured on an "
    "answer that its model was trained on: they are kept from training, or, below cross_fit_below of them, each is "
    "measured by another model that was trained without it. Probabilities are calibrated on them, cross-fitted. Times "
    "are UTC."
)


def _settings(project: Project, used: InUse | None) -> str:
    config = json.loads(used.row["config"] if used else project.config.to_json())
    recipe = config.pop("recipe", {})
    flat = {**config, **{f"recipe: {name}": value for name, value in recipe.items()}}
    first = say("Configuration of the first round")
    title = say("Configuration of round {n}", n=used.row["number"]) if used else first
    shown = ((name, "–" if value in (None, "", []) else value) for name, value in flat.items())
    return _section(title, _lines(shown))


def _codebook(project: Project) -> str:
    codebook = codebook_of(project)
    rows = [
        {say("Label"): one.name, say("Definition"): one.definition, say("Examples"): "\n".join(one.examples)}
        for one in codebook.labels
    ]
    return _section(say("Codebook, version {n}", n=codebook.version), _text(codebook.instruction), table(rows))
