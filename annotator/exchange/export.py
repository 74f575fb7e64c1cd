"""Export the labeled dataset: its rows, the origin of every label, and a data card."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np

from annotator.codebook.definition import codebook_of
from annotator.exchange import card
from annotator.exchange.columns import FIELDS as FIELDS
from annotator.exchange.columns import MEANINGS as MEANINGS
from annotator.exchange.columns import ExportRow
from annotator.project import Project
from annotator.rounds.consensus import Verdict
from annotator.rounds.statuses import Status, statuses
from store import labels, rounds, utterances
from store.annotations import ADJUDICATED, GIVEN, Answer, same_person
from store.files.columns import imported_columns
from store.files.exporters import FORMATS, Field, export, write_text
from store.utterances import Utterance

Rows = Literal["utterances", "answers"]
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class ExportPlan:
    """What to export. `rows`: one row per utterance with its consensus label, or one per answer."""

    format: str = "csv"
    rows: Rows = "utterances"
    with_model: bool = False  # also utterances that only the model has labeled


def export_project(project: Project, path: Path, plan: ExportPlan, context: "ExportContext | None" = None) -> int:
    """Write the dataset and its card; return the number of rows."""
    context, tally = context or ExportContext(project, plan), Tally()
    rows = (row.cells() for row in _tallied(export_rows(project, plan, context), tally))
    count = export(rows, context.fields, codebook_of(project).names, path, plan.format)
    beside = path / "README.md" if path.is_dir() else path.with_name(f"{path.stem}.README.md")
    front = card.front_matter(path, {part for *_, part in tally}) if path.is_dir() else ""
    write_text(beside, front + _card(project, plan, context, tally, path.name))
    return count


def default_filename(project: Project, plan: ExportPlan) -> str:
    """Return the default file name of an export, after its project."""
    return f"{project.folder.resolve().name}{FORMATS[plan.format].suffix}"


def export_rows(project: Project, plan: ExportPlan, context: "ExportContext | None" = None) -> Iterator[ExportRow]:
    """Yield the rows in import order, each with the origin of its label.

    All but unlabeled utterances have a row, including those that are disputed or skipped, or whose label is retired.
    """
    context = context or ExportContext(project, plan)
    yield from map(context.in_tree, _rows(project, plan, context))


def _rows(project: Project, plan: ExportPlan, context: "ExportContext") -> Iterator[ExportRow]:
    for utterance in utterances.iterate(project.db):
        status = context.statuses.of(utterance.id)
        if plan.rows == "answers":
            given = context.statuses.answers.get(utterance.id, [])
            yield from (context.answer_row(utterance, answer) for answer in given)
        elif status not in ("accepted", "model", "unlabeled"):
            yield context.verdict_row(utterance)
        if status == "accepted":
            yield context.accepted_row(utterance)
        elif status == "model":
            yield context.model_row(utterance)


class _OfUtterance(TypedDict):
    id: str
    text: str
    conversation: str | None
    turn: float | None
    speaker: str | None
    slice: str
    model_round: int | None
    probabilities: Mapping[str, float] | None
    imported: dict[str, object]


class ExportContext:
    """What all rows share: the status of each utterance, label names, round numbers, predictions, imported columns."""

    def __init__(self, project: Project, plan: ExportPlan) -> None:
        self.names: dict[int | None, str] = dict(labels.names(project.db).items())
        self.numbers: dict[int | None, int] = {one.id: one.number for one in rounds.history(project.db)}
        self._read_predictions(project)
        scored = self._places if plan.with_model and self._order else ()
        self.statuses = statuses(project, scored)
        used = codebook_of(project)
        self._paths = {one.name: used.path(one.id) for one in used.labels} if used.groups else {}
        self.ours = tuple(field for field in FIELDS if used.groups or field.name != "label_path")
        ours = [*(field.name for field in self.ours), *(f"p({name})" for name in used.names)]
        self.imported = imported_columns(utterances.metadata_names(project.db), ours)
        self.fields = (*self.ours, *(Field(name, "text") for name in self.imported.values()))

    def _read_predictions(self, project: Project) -> None:
        promoted = rounds.promoted(project.db)
        self.round = promoted.number if promoted else None
        self._places: dict[int, int] = {}
        self._order: list[str] = []
        if promoted:
            found = rounds.predictions_of(project.db, promoted)
            is_trained = [i not in found.unknown for i in found.label_ids]
            self._order = [self.names[i] for i, kept in zip(found.label_ids, is_trained, strict=True) if kept]
            self._shares = np.round(found.probabilities[:, is_trained], 6)
            self._places = {int(i): place for place, i in enumerate(found.utterance_ids)}

    def in_tree(self, row: ExportRow) -> ExportRow:
        """Return the row with the path of its label, if labels are in groups."""
        return replace(row, label_path=self._paths.get(row.label or "")) if self._paths else row

    def answer_row(self, utterance: Utterance, answer: Answer) -> ExportRow:
        """Return the row of one answer."""
        return self._answered(utterance, Verdict(answer.kind, answer.label_id, (answer,), answer), None)

    def verdict_row(self, utterance: Utterance) -> ExportRow:
        """Return the row of the consensus on an utterance."""
        found = self.statuses.verdicts[utterance.id]
        row = self._answered(utterance, found, self._all_given(utterance.id))
        return _undecided(row) if found.kind == "disputed" else row

    def _answered(self, utterance: Utterance, found: Verdict, answers_given: str | None) -> ExportRow:
        """Return the row of an answered utterance; where it is disputed, of one of the answers."""
        one, people = found.decisive, found.votes or self._without_vote(found)
        return ExportRow(
            **self._of_utterance(utterance),
            label=self.names.get(one.label_id),
            given_label=self.names.get(one.said_label_id),
            kind=found.kind,
            source=_source(one),
            annotator=";".join({same_person(answer.annotator): answer.annotator for answer in people}.values()),
            answers=len(found.votes),
            answers_given=answers_given,
            unsure=any(answer.unsure for answer in people),
            comment="\n".join(answer.comment for answer in people if answer.comment),
            round=self.numbers.get(one.round_id),
            strategy=one.strategy,
            between_rounds=one.chosen_after is not None,
            propensity=one.propensity,
            pool_size=one.pool_size,
            suggested_label=self.names.get(one.suggested_label_id),
            suggested_probability=one.suggested_probability,
            withheld=one.withheld or None,
            withheld_label=self.names.get(one.withheld_label_id),
            withheld_probability=one.withheld_probability,
            codebook_version=one.codebook_version,
            milliseconds=one.milliseconds,
            at=datetime.fromisoformat(one.at),
        )

    def _without_vote(self, found: Verdict) -> Sequence[Answer]:
        """Return the answers of a kind without a vote: skips, or answers with a retired label."""
        given = self.statuses.answers[found.decisive.utterance_id]
        return [answer for answer in given if answer.kind == found.decisive.kind]

    def accepted_row(self, utterance: Utterance) -> ExportRow:
        """Return the row of an auto-accepted utterance, with the label it was accepted with."""
        act = self.statuses.accepted[utterance.id]
        return ExportRow(
            **self._of_utterance(utterance),
            label=self.names[act.label_id],
            given_label=self.names[act.said_label_id],
            source="accepted",
            annotator=act.annotator,
            answers_given=self._all_given(utterance.id),
            round=self.numbers[act.round_id],
            codebook_version=act.codebook_version,
            suggested_label=self.names[act.label_id],
            suggested_probability=act.probability,
            at=datetime.fromisoformat(act.at),
            acceptance=act.acceptance_id,
            promise=card.guaranteed(act),
        )

    def model_row(self, utterance: Utterance) -> ExportRow:
        """Return the row of an utterance that only the model has labeled."""
        shares = self._shares[self._places[utterance.id]]
        label, given = self._order[int(shares.argmax())], self._all_given(utterance.id)
        return ExportRow(**self._of_utterance(utterance), label=label, source="model", answers_given=given)

    def _of_utterance(self, utterance: Utterance) -> _OfUtterance:
        """Return the columns that do not depend on answers."""
        place = self._places.get(utterance.id)
        predicted = dict(zip(self._order, self._shares[place].tolist(), strict=True)) if place is not None else None
        extra = utterance.metadata if self.imported else {}
        return {
            "id": utterance.external_id,
            "text": utterance.text,
            "conversation": utterance.conversation,
            "turn": utterance.turn,
            "speaker": utterance.speaker,
            "slice": utterance.slice,
            "model_round": self.round if predicted else None,
            "probabilities": predicted,
            "imported": {column: extra.get(name) for name, column in self.imported.items()},
        }

    def _all_given(self, utterance_id: int) -> str | None:
        """Return all standing answers as JSON, with the labels in use where possible."""
        given = [
            {
                "annotator": a.annotator,
                "source": _source(a),
                "kind": a.kind,
                "label": self.names.get(a.label_id or a.said_label_id),
            }
            for a in self.statuses.answers.get(utterance_id, [])
        ]
        return _encode(given) if given else None


def _undecided(row: ExportRow) -> ExportRow:
    """Return a row without the columns of a single answer, because several differ."""
    row = replace(row, label=None, given_label=None, codebook_version=None, milliseconds=None, at=None)
    row = replace(row, suggested_label=None, suggested_probability=None)
    return replace(row, withheld=None, withheld_label=None, withheld_probability=None)


def _source(answer: Answer) -> str:
    return answer.strategy if answer.strategy in (GIVEN, ADJUDICATED) else "expert"


Tally = Counter[
    tuple[str, bool, str, str]
]  # number of rows by label (or else kind), whether it is a label, source, and slice


def _tallied(rows: Iterable[ExportRow], tally: Tally) -> Iterator[ExportRow]:
    """Yield rows unchanged and count them."""
    for row in rows:
        tally[row.label or row.kind, bool(row.label), row.source, row.slice] += 1
        yield row


def left_out(counts: Mapping[Status, int], with_model: bool) -> str:
    """Return, in English, how many utterances are not exported and why; empty if all are."""
    n, every = counts["unlabeled"], sum(counts.values())
    if not n:
        return ""
    verb = "is" if n == 1 else "are"
    return f"{n:,} of {every:,} utterances {verb} left out because nobody has answered. {_MODEL[with_model]}"


_MODEL = {
    False: "Predictions of the model can be exported for them (--with-model).",
    True: "The model has not scored them either.",
}


def dataset_card(project: Project, plan: ExportPlan, count: int) -> str:
    """Return the card of a dataset that was exported with `count` rows."""
    context, tally = ExportContext(project, plan), Tally()
    for _ in _tallied(export_rows(project, plan, context), tally):
        pass
    return _card(project, plan, context, tally, default_filename(project, plan), count)


def _card(
    project: Project, plan: ExportPlan, context: ExportContext, tally: Tally, filename: str, count: int | None = None
) -> str:
    """Return the README of an exported dataset: codebook, counts, selection of utterances, rounds."""
    count = tally.total() if count is None else count
    written = f"{count} rows, exported as {FORMATS[plan.format].shown}, one {plan.rows.rstrip('s')} per row."
    counts = context.statuses.counts()
    parts = [
        f"# {card.escaped(project.name)}",
        f"{written} {left_out(counts, plan.with_model)}".strip(),
        "## Contents\n\n" + card.contents(counts, ["unlabeled"]),
        "## Reading the file\n\n" + card.READING[plan.format].replace("{name}", filename),
        card.codebook(project),
        "## Counts\n\n" + _counts(tally),
        "## Before computing statistics\n\n" + card.WARNING,
        "## Auto-accepted suggestions\n\n" + card.accepted(project),
        "## Rounds\n\n" + card.rounds(project),
        "## Columns\n\n" + "\n".join(f"- `{field.name}`: {MEANINGS[field.name]}" for field in context.ours),
        "## Imported columns\n\n" + _imported(context),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _counts(tally: Tally) -> str:
    rows = [
        (card.escaped(name) if is_label else name, source, part, n)
        for (name, is_label, source, part), n in sorted(tally.items())
    ]
    return card.table(("label", "source", "slice", "rows"), [*rows, ("**all**", "", "", tally.total())])


def _imported(context: ExportContext) -> str:
    """List the columns that were copied from the imported files."""
    if not context.imported:
        return "The imported files had no other columns."
    intro = (
        "Columns of the imported files, as text; lists and objects as JSON; empty if a file does not have the column."
    )
    lines = [
        f"- {card.escaped(column)}" + (f" (*{card.escaped(name)}* in the file)" if column != name else "")
        for name, column in context.imported.items()
    ]
    return f"{intro}\n\n" + "\n".join(lines)
