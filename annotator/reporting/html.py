"""Write the report: everything on the Insights page in one HTML file that needs no network and no scripts.

Each figure comes with its n and its method. The template, `page.html.jinja`, escapes all text; only the charts, which
are SVG made here, go in as they are.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from annotator import __version__, i18n
from annotator.codebook.definition import codebook_of
from annotator.i18n import later, number, say, say_many
from annotator.labeling.auto_accept import offer
from annotator.methods.guarantee import Guarantee, NotYet, Target
from annotator.project import Project
from annotator.reporting import charts, guarantees, stopping, summary, text
from annotator.reporting.summary import Answers, InUse
from annotator.rounds.summaries import STATES
from store import acceptances, annotations, rounds, utterances

MOST_FLIPS = 10


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text; an empty one is left out."""

    kind: ClassVar[str] = "paragraph"
    text: str
    quiet: bool = False  # in small print


@dataclass(frozen=True)
class Figure:
    """A chart with its caption."""

    kind: ClassVar[str] = "figure"
    svg: str
    caption: str
    half: bool = True  # two fit side by side


@dataclass(frozen=True)
class Table:
    """A table; one without rows is left out."""

    kind: ClassVar[str] = "table"
    rows: Sequence[Sequence[object]]
    header: Sequence[str] = ()


Part = Paragraph | Figure | Table


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, figures and tables."""

    title: str
    parts: Sequence[Part]


def report(project: Project) -> str:
    """Return the report of a project in its present state as an HTML page."""
    answers = annotations.answers(project.db)  # read once and passed on
    used = summary.in_use(project, answers)
    sections = _of_round(project, used, answers) if used else []
    sections += [_work(project, used, answers), _people(project, answers)]
    sections += [_rounds(project), _settings(project, used), _codebook(project)]
    return page(project.name, _introduction(project, used), sections)


def page(title: str, introduction: Iterable[Part], sections: Iterable[Section] = ()) -> str:
    """Return an HTML page that needs no network and no scripts."""
    return _template().render(
        language=i18n.now(), title=title, introduction=list(introduction), sections=list(sections)
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")


def figure(chart: charts.Chart, name: str, caption: str, width: int = 420, half: bool = True) -> Figure:
    """Return a chart with its caption. `name` keeps the ids in its SVG apart from those of other charts."""
    return Figure(charts.svg(chart, name, width), caption, half)


def table(rows: Sequence[Mapping[str, object]]) -> Table:
    """Return rows with the same keys as a table with a header."""
    return Table([list(row.values()) for row in rows], list(rows[0]) if rows else ())


def _introduction(project: Project, used: InUse | None) -> list[Part]:
    counts, now = utterances.count_slices(project.db), datetime.now(UTC).isoformat()
    size = say_many(
        "{n:,} utterance, {audit:,} of them in the random audit sample; {answered:,} answered by people.",
        "{n:,} utterances, {audit:,} of them in the random audit sample; {answered:,} answered by people.",
        counts["pool"] + counts["audit"],
        audit=counts["audit"],
        answered=annotations.count_answered(project.db),
    )
    written = say("Created {day} UTC by Annotator {version}.", day=text.day(now), version=__version__)
    no_round = "" if used else say("There is no round yet, so nothing is known about the model.")
    return [Paragraph(written, quiet=True), Paragraph(size), Paragraph(no_round)]


# The round in use


def _of_round(project: Project, used: InUse, answers: Answers) -> list[Section]:
    sections = [_quality(project, used, answers), _auto_accept(project, used, answers)]
    return [*sections, *_confusion(used), _changes(project, used)]


def _quality(project: Project, used: InUse, answers: Answers) -> Section:
    curve, found = summary.learning_curve(project), used.metrics
    advice = stopping.with_gain(project, stopping.advise(project), answers=answers)
    parts: list[Part] = [
        Paragraph(f"{text.accuracy(used)} {text.unfitting(used)}".strip()),
        Paragraph(text.calibration_quality(used)),
        Paragraph(stopping.sentence(advice)),
        Paragraph(text.in_use(used), quiet=True),
    ]
    if any(one.metrics for one in curve):
        parts.append(figure(charts.learning_curve(curve), "curve", text.curve(curve)))
    if found and found.reliability:
        parts.append(figure(charts.reliability(found.reliability), "bins", text.bins(found.reliability)))
    evidence = text.from_audit(used.row.audited_on)
    parts += [
        table([text.figures(one) for one in curve]),
        Paragraph(f"{evidence} {text.figures_explained()}", quiet=True),
        _each_label(used),
        Paragraph(text.queried(summary.queried_accuracy(project, answers))),
    ]
    return Section(say("Model quality"), parts)


def _each_label(used: InUse) -> Table:
    each = used.metrics.each_label if used.metrics else ()
    rows = [
        {
            say("Label"): name,
            say("Precision"): number(one.precision, ".2f"),
            say("Recall"): number(one.recall, ".2f"),
            say("F1"): number(one.f1, ".2f"),
            say("Audit answers"): one.n,
        }
        for name, one in zip(used.names, each, strict=False)
    ]
    return table(rows)


def _auto_accept(project: Project, used: InUse, answers: Answers) -> Section:
    made = offer(project, Target(project.config.precision), answers=answers)
    curve = summary.coverage_curve(used)
    (one,) = made.guarantees.values()
    evidence = guarantees.rests_on(one) if isinstance(one, Guarantee) else ""
    offered = guarantees.offered(made) or (guarantees.not_yet(one, used) if isinstance(one, NotYet) else "")
    parts: list[Part] = [Paragraph(f"{offered} {evidence}".strip())]
    if curve:
        caption = f"{text.from_audit(len(curve))} {say('Shaded: 95 % intervals.')} {say(_CERTIFIED)}"
        parts.append(figure(charts.risk_coverage(curve, made.target.precision), "risk", caption))
    parts += [Paragraph(guarantees.acceptance(act)) for act in acceptances.history(project.db)]
    return Section(say("Auto-accept"), parts)


_CERTIFIED = later(
    "The guarantee is certified by Learn-then-Test with fixed-sequence testing (Angelopoulos et al. 2021): thresholds "
    "are tested from the strictest on, each with the exact hypergeometric tail on audit answers, until the first one "
    "fails. The calibrated probabilities above the threshold must also reach the target on average."
)


def _confusion(used: InUse) -> list[Section]:
    observed, expected = summary.observed_confusion(used), summary.expected_confusion(used)
    drawn = (
        (observed, say("Observed on audit answers"), "observed", text.confusion_observed(observed)),
        (expected, say("Expected in open utterances"), "expected", text.confusion_expected(expected)),
    )
    figures = [figure(charts.confusion(one, title), name, caption) for one, title, name, caption in drawn if one.total]
    return [Section(say("Confusions"), figures)] if figures else []


def _changes(project: Project, used: InUse) -> Section:
    found = summary.flips(project, used, MOST_FLIPS)
    parts: list[Part] = [Paragraph(text.flipped(found))]
    if found is not None:
        rows = [
            {
                say("Utterance"): one.text,
                say("Round {n}", n=found.before): f"{one.before} ({text.in_100(one.before_probability)} %)",
                say("Round {n}", n=found.now): f"{one.now} ({text.in_100(one.now_probability)} %)",
            }
            for one in found.flips
        ]
        parts.append(table(rows))
        if found.changed > MOST_FLIPS:
            parts.append(Paragraph(say("The {n} with the highest probability now.", n=MOST_FLIPS), quiet=True))
    return Section(say("Changes in the last round"), parts)


# The work


def _work(project: Project, used: InUse | None, answers: Answers) -> Section:
    counts, pace = summary.label_counts(project, used, answers), summary.time_per_answer(project, answers)
    rows = [
        {
            say("Label"): one.name,
            say("Answered, training"): one.pool,
            say("Answered, audit"): one.audit,
            say("Auto-accepted"): one.accepted,
            say("Expected in open utterances"): f"{one.expected:.0f}",
        }
        for one in counts
    ]
    parts: list[Part] = []
    if any(one.total for one in counts):
        parts.append(figure(charts.label_counts(counts), "labels", text.counted(used)))
    if pace.steps:
        parts.append(figure(charts.time_per_answer(pace), "pace", text.paced(pace)))
    return Section(say("Labels and answering time"), [*parts, table(rows)])


def _people(project: Project, answers: Answers) -> Section:
    return Section(say("Agreement between people"), [Paragraph(text.agreed(summary.people_agree(project, answers)))])


# Methods and settings


def _rounds(project: Project) -> Section:
    rows = [
        {
            say("Round"): row.number,
            say("State"): say(STATES.get(row.state, row.state)),
            say("Backbone"): row.backbone,
            say("Trained on"): row.trained_on,
            say("Audit answers"): row.audited_on,
            say("Codebook"): say("version {n}", n=row.codebook_version),
            say("Started"): text.day(row.started_at),
        }
        for row in reversed(rounds.history(project.db))
    ]
    none = "" if rows else say("None.")
    return Section(say("Rounds"), [table(rows), Paragraph(none), Paragraph(say(_METHOD), quiet=True)])


_METHOD = later(
    "Audit utterances are drawn at random at import and answered without a suggestion. They are never "
    "trained on. Probabilities are calibrated on them, and the figures are cross-fitted. Times are UTC."
)


def _settings(project: Project, used: InUse | None) -> Section:
    config = json.loads(used.row.config if used else project.config.to_json())
    recipe = config.pop("recipe", {})
    flat = {**config, **{f"recipe: {name}": value for name, value in recipe.items()}}
    first = say("Configuration of the first round")
    title = say("Configuration of round {n}", n=used.row.number) if used else first
    return Section(title, [Table([(name, "–" if value in (None, "", []) else value) for name, value in flat.items()])])


def _codebook(project: Project) -> Section:
    codebook = codebook_of(project)
    rows = [
        {
            say("Label"): codebook.path(one.id),
            say("Definition"): one.definition,
            say("Examples"): "\n".join(one.examples),
        }
        for one in codebook.labels
    ]
    title = say("Codebook, version {n}", n=codebook.version)
    return Section(title, [Paragraph(codebook.instruction), table(rows)])
