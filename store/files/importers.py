"""Import files: each row becomes an utterance to label, context, or a reported rejection.

A value that cannot be used unchanged is rejected and reported, never repaired silently; only outer white space and
Windows line ends are normalized. Reading of formats is in `readers.py`.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from annotator.errors import BadInput, Message
from store import imports
from store.files.import_report import ImportReport
from store.files.provenance import why_no_answer
from store.files.readers import Cells, Rejected, read_header, read_rows
from store.files.reconciling import Given, Seen, Stored, Terms, reconcile
from store.imports import StagedRow
from store.utterances import NewUtterance, SamplingUnit

STRANGE = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]"
)  # control characters, except tab and line ends, and surrogates

Numbered = tuple[int, NewUtterance | Rejected]
_BATCH, _CHARACTERS = 1_000, 1_000_000  # rows, and characters of their texts, in memory at once

KNOWN_NAMES = {
    "text": ("text", "utterance", "sentence", "content", "message", "body"),
    "id": ("id", "external_id", "utterance_id"),
    "label": ("label", "class", "category", "gold"),
    "conversation": ("conversation_id", "conversation", "dialogue_id", "dialog_id", "transcript_id", "session"),
    "turn": ("turn", "turn_id", "position"),
    "speaker": ("speaker", "role", "interlocutor"),
    "split": ("split",),
}


@dataclass(frozen=True)
class Columns:
    """The roles of a file's columns."""

    text: str
    id: str | None = None
    label: str | None = None
    conversation: str | None = None
    turn: str | None = None
    speaker: str | None = None
    split: str | None = None

    @cached_property
    def taken(self) -> list[str]:
        """The columns stored as fields of an utterance; all others become metadata."""
        named = (self.text, self.id, self.label, self.conversation, self.turn, self.speaker)
        return [name for name in named if name is not None]


@dataclass(frozen=True)
class ImportPlan:
    """Settings of an import. `label_only` is a column and the value of rows to label; other rows are context."""

    columns: Columns
    label_only: tuple[str, str] | None = None
    with_labels: bool = True
    max_characters: int = 20_000
    keep_copies: bool = False
    encoding: str = "utf-8"


def detect_columns(header: Sequence[str]) -> Columns:
    """Detect the roles of columns by well-known names. Raises BadInput if there is no text column."""
    by_name = {name.strip().casefold().replace(" ", "_").replace("-", "_"): name for name in reversed(header)}
    found = {
        role: next((by_name[name] for name in names if name in by_name), None) for role, names in KNOWN_NAMES.items()
    }
    text = found.pop("text")
    if text is None:
        raise BadInput(
            Message(
                "None of the {n} columns has a known name for the text. The columns are: {header}.",
                n=len(header),
                header=", ".join(header),
            ),
            Message("Choose the text column, or rename it to one of: {names}.", names=", ".join(KNOWN_NAMES["text"])),
        )
    return Columns(text, **found)


def parse_filter(text: str, header: Sequence[str]) -> tuple[str, str]:
    """Split `speaker=client` into column and value. Raises BadInput."""
    column, equals, value = text.partition("=")
    if not equals:
        raise BadInput(
            Message("“{text}” does not specify which rows to label.", text=text),
            "Write column=value, such as speaker=client.",
        )
    _require([column.strip()], header)
    return column.strip(), value.strip()


def read_utterances(path: Path, plan: ImportPlan) -> Iterator[NewUtterance | Rejected]:
    """Stream the utterances and rejections of a file. Raises BadFile, and BadInput for a missing column."""
    for _, utterance in _numbered_utterances(path, plan):
        yield utterance


def preview(path: Path, plan: ImportPlan, limit: int = 20) -> list[NewUtterance | Rejected]:
    """Return the utterances and rejections of the first rows of a file."""
    return list(islice(read_utterances(path, plan), limit))


def labels_in(path: Path, plan: ImportPlan) -> dict[str, int]:
    """Count the labels that an import would store as people's answers, most frequent first."""
    if plan.columns.label is None:
        return {}
    found: Counter[str] = Counter()
    terms = _terms(plan, lambda name: 0)
    with Seen() as seen:
        for batch in _batches(_numbered_utterances(path, replace(plan, with_labels=True))):
            rows = [(number, new) for number, new in batch if isinstance(new, NewUtterance)]
            outcomes = reconcile(rows, Stored(), seen, terms)
            found.update(one.staged.new.given_label for one in outcomes if one.staged and one.staged.new.given_label)
    return dict(found.most_common())


Draw = Callable[[Iterator[SamplingUnit]], Iterable[int]]


@dataclass(frozen=True)
class Rules:
    """The project's rules for an import: its labels, and the draw of the audit sample."""

    given: Given
    codebook_version: int
    draw: Draw  # from the rows to label, returns the numbers of those in the audit sample
    whole_conversations: bool = False


def import_file(db: Database, path: Path, plan: ImportPlan, rules: Rules) -> ImportReport:
    """Add a whole file to the project, in short transactions. The caller must close the import afterwards.

    Importing the same file again adds nothing. Raises BadFile or BadInput, in which case nothing is added.
    """
    report, terms = ImportReport(), _terms(plan, rules.given)
    with imports.staging(db, rules.codebook_version), Seen() as seen:
        for batch in _batches(_numbered_utterances(path, plan)):
            imports.stage(db, _staged(db, batch, seen, terms, report))
        imports.assign_to_audit(db, rules.draw(imports.to_label(db, rules.whole_conversations)))
    imports.move(db)
    return report


def _terms(plan: ImportPlan, given: Given) -> Terms:
    named = {name: getattr(plan.columns, name) or name for name in ("conversation", "turn", "speaker", "label")}
    return Terms(named, plan.keep_copies, given)


def _staged(db: Database, batch: Sequence[Numbered], seen: Seen, terms: Terms, report: ImportReport) -> list[StagedRow]:
    """Return the rows to stage, and add all outcomes to the report."""
    before = len(report.rejected)
    report.rejected += [one for _, one in batch if isinstance(one, Rejected)]
    rows = [(number, new) for number, new in batch if isinstance(new, NewUtterance)]
    stored = Stored.of(db, [new for _, new in rows])
    outcomes = list(reconcile(rows, stored, seen, terms))
    for outcome in outcomes:
        report.enter(outcome)
    report.rejected[before:] = sorted(report.rejected[before:], key=lambda one: one.row)
    return [outcome.staged for outcome in outcomes if outcome.staged]


def _batches(rows: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    """Split rows into batches limited by number of rows and characters."""
    batch: list[Numbered] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row[1].text) if isinstance(row[1], NewUtterance) else 0
        if len(batch) == _BATCH or characters > _CHARACTERS:
            yield batch
            batch, characters = [], 0
    yield batch


# From rows to utterances


def _numbered_utterances(path: Path, plan: ImportPlan) -> Iterator[Numbered]:
    only = [plan.label_only[0]] if plan.label_only else []
    split = [plan.columns.split] if plan.columns.split else []
    _require([*plan.columns.taken, *split, *only], read_header(path, plan.encoding))
    turns: Counter[str] = Counter()
    for row in read_rows(path, plan.encoding):
        if isinstance(row, Rejected):
            yield row.row, row
            continue
        number, values = row
        reason = _why_not_taken(values, plan)
        if reason:
            yield number, Rejected(number, reason)
        else:
            yield number, _utterance(f"{path.stem}-{number}", values, plan, turns)


def _utterance(fallback_id: str, values: Cells, plan: ImportPlan, turns: Counter[str]) -> NewUtterance:
    columns = plan.columns
    column, wanted = plan.label_only or (None, "")
    context = _get(values, column).casefold() != wanted.strip().casefold()
    conversation = _get(values, columns.conversation) or None
    label = None if context or not plan.with_labels else _get(values, columns.label) or None
    refused = why_no_answer(values, columns.label) if label and columns.label else None
    return NewUtterance(
        external_id=_get(values, columns.id) or fallback_id,
        text=_text(values, columns),
        conversation=conversation,
        turn=_turn(values, columns, conversation, turns),
        speaker=_get(values, columns.speaker) or None,
        metadata={name: value for name, value in values.items() if name not in columns.taken and value != ""},
        context_only=context,
        given_label=None if refused else label,
        label_refused=refused or "",
    )


def _text(values: Cells, columns: Columns) -> str:
    return _get(values, columns.text).replace("\r\n", "\n")


def _turn(values: Cells, columns: Columns, conversation: str | None, turns: Counter[str]) -> float | None:
    if columns.turn is not None:
        given = _get(values, columns.turn)
        return float(given) if given else None
    if conversation is None:
        return None
    turns[conversation] += 1  # without a turn column, the order of the file counts
    return float(turns[conversation])


def _get(values: Cells, column: str | None) -> str:
    return "" if column is None else str(values.get(column, "")).strip()


def _why_not_taken(values: Cells, plan: ImportPlan) -> str | None:
    """Return why a row cannot become an utterance; None if it can."""
    columns = plan.columns
    for name in columns.taken:
        if not isinstance(values.get(name, ""), str):
            return Message("Column “{name}” contains a list or an object instead of a single value.", name=name)
    if strange := _strange_character("".join(values)):
        return Message("The name of a column contains {strange}.", strange=strange)
    for name, value in values.items():
        if strange := _strange_character(value):
            return Message("Column “{name}” contains {strange}.", name=name, strange=strange)
    length = len(_text(values, columns))
    if length == 0:
        return Message("There is no text.")
    if length > plan.max_characters:
        return Message(
            "The text has {length:,} characters, more than the {max_characters:,} allowed.",
            length=length,
            max_characters=plan.max_characters,
        )
    return _why_no_turn(_get(values, columns.turn), _get(values, columns.conversation)) if columns.turn else None


def _strange_character(value: Any) -> str | None:
    """Describe the first invalid character, a control character or half of a surrogate pair; None if there is none."""
    found = STRANGE.search(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    if found is None:
        return None
    what = "the control character" if found[0] < " " else "half of a surrogate pair,"
    return f"{what} U+{ord(found[0]):04X}"


def _why_no_turn(turn: str, conversation: str) -> str | None:
    if not turn:
        return (
            Message("It belongs to conversation “{conversation}” but has no turn number.", conversation=conversation)
            if conversation
            else None
        )
    try:
        finite = math.isfinite(float(turn))
    except ValueError:
        finite = False
    return None if finite else Message("The turn “{turn}” is not a number.", turn=turn)


def _require(names: Iterable[str], header: Sequence[str]) -> None:
    missing = [name for name in names if name not in header]
    if missing:
        raise BadInput(
            Message("There is no column “{missing}”.", missing=missing[0]),
            Message("The columns are: {header}.", header=", ".join(header)),
        )
