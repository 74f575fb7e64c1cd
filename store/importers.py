"""What becomes of each row of a file: an utterance to label, context around one, or a refusal with its number.

A value that cannot be taken as it stands is refused and reported, never repaired in silence; only outer whitespace
and Windows line ends are normalised. How a file is read at all is in `readers.py`.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from annotator.errors import BadInput
from store.database import fetch_value, immediate
from store.readers import Rejected, read_header, read_rows
from store.utterances import NewUtterance, add, twin_of

STRANGE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")  # of the controls, tab and line ends are text

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
    """Which column of a file holds what."""

    text: str
    id: str | None = None
    label: str | None = None
    conversation: str | None = None
    turn: str | None = None
    speaker: str | None = None
    split: str | None = None

    @property
    def taken(self) -> list[str]:
        """Name the columns that are stored as fields of an utterance; all others become its metadata."""
        named = (self.text, self.id, self.label, self.conversation, self.turn, self.speaker)
        return [name for name in named if name is not None]


@dataclass(frozen=True)
class ImportPlan:
    """How a file is to be taken. `label_only` is a column and the value of the rows to label; others are context."""

    columns: Columns
    label_only: tuple[str, str] | None = None
    with_labels: bool = True
    max_characters: int = 20_000
    keep_copies: bool = False
    encoding: str = "utf-8"


@dataclass
class ImportReport:
    """What was taken from a file and what was not."""

    to_label: int = 0
    context: int = 0
    with_label: int = 0
    already_there: int = 0
    rejected: list[Rejected] = field(default_factory=list)

    def summary(self) -> str:
        """Say it in one plain sentence."""
        labelled = f" ({self.with_label:,} of them with a label)" if self.with_label else ""
        return (
            f"Added {_counted(self.to_label, 'utterance')} to label{labelled} and {self.context:,} as context; "
            f"{self.already_there:,} were there already, {_counted(len(self.rejected), 'problem')} reported."
        )


def detect_columns(header: Sequence[str]) -> Columns:
    """Tell from well-known names which column holds what. Raises BadInput if no column is known to hold the text."""
    by_name = {name.strip().casefold().replace(" ", "_").replace("-", "_"): name for name in reversed(header)}
    found = {
        role: next((by_name[name] for name in names if name in by_name), None) for role, names in KNOWN_NAMES.items()
    }
    text = found.pop("text")
    if text is None:
        raise BadInput(
            f"None of the {len(header)} columns is known to hold the text. There are: {', '.join(header)}.",
            f"Name the text column yourself, or call it one of: {', '.join(KNOWN_NAMES['text'])}.",
        )
    return Columns(text, **found)


def parse_filter(text: str, header: Sequence[str]) -> tuple[str, str]:
    """Split `speaker=client` into column and value. Raises BadInput."""
    column, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"“{text}” does not say which rows to label.", "Write column=value, such as speaker=client.")
    _require([column.strip()], header)
    return column.strip(), value.strip()


def read_utterances(path: Path, plan: ImportPlan) -> Iterator[NewUtterance | Rejected]:
    """Stream what a file would give. Raises BadFile, and BadInput for a column that is not there."""
    for _, read in _numbered_utterances(path, plan):
        yield read


def preview(path: Path, plan: ImportPlan, limit: int = 20) -> list[NewUtterance | Rejected]:
    """Return what the first rows of a file would give."""
    return list(islice(read_utterances(path, plan), limit))


def labels_in(path: Path, columns: Columns, encoding: str = "utf-8") -> dict[str, int]:
    """Count the labels that a file gives, most frequent first."""
    if columns.label is None:
        return {}
    _require(columns.taken, read_header(path, encoding))
    rows = (row for row in read_rows(path, encoding) if not isinstance(row, Rejected))
    given = (values.get(columns.label, "") for _, values in rows)
    return dict(Counter(name.strip() for name in given if isinstance(name, str) and name.strip()).most_common())


def import_file(
    db: Database, path: Path, plan: ImportPlan, on_label: Callable[[int, str], str | None]
) -> tuple[ImportReport, list[int]]:
    """Add a file to the project, all or nothing, and return what happened and the new ids to be labelled.

    `on_label(utterance_id, label_name)` records a given label or returns why it cannot; the utterance stays.
    Importing the same file again adds nothing. Raises BadFile and BadInput; then nothing was added.
    """
    report, to_label = ImportReport(), []
    with immediate(db), _ids_of_this_file(db):
        for number, new in _numbered_utterances(path, plan):
            if isinstance(new, Rejected):
                report.rejected.append(new)
            elif reason := _why_not_added(db, number, new, plan):
                report.rejected.append(Rejected(number, reason))
            elif _stored_text(db, new) is not None:
                report.already_there += 1
            elif new.context_only:
                add(db, new)
                report.context += 1
            else:
                to_label.append(add(db, new))
                report.to_label += 1
                _give_label(report, number, on_label(to_label[-1], new.given_label) if new.given_label else "")
    return report, to_label


def _give_label(report: ImportReport, number: int, refusal: str | None) -> None:
    """Enter the outcome of a given label: None if it was recorded, "" if none was given, else why not."""
    if refusal is None:
        report.with_label += 1
    elif refusal:
        report.rejected.append(Rejected(number, refusal))


@contextmanager
def _ids_of_this_file(db: Database) -> Iterator[None]:
    # A temporary table and not a set: SQLite moves it to disk when the file is large.
    db.execute("CREATE TEMP TABLE row_of_id (external_id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
    try:
        yield
    finally:
        db.execute("DROP TABLE IF EXISTS temp.row_of_id")


def _why_not_added(db: Database, number: int, new: NewUtterance, plan: ImportPlan) -> str | None:
    """Say why an utterance clashes with another, of this file or of the project."""
    seen = "INSERT OR IGNORE INTO row_of_id VALUES (?, ?)"
    if db.execute(seen, (new.external_id, number)).rowcount == 0:
        earlier = fetch_value(db, "SELECT number FROM row_of_id WHERE external_id = ?", (new.external_id,))
        return f"Row {earlier:,} has the same id, “{new.external_id}”."
    stored = _stored_text(db, new)
    if stored is not None:
        other = f"The id “{new.external_id}” is in the project already, with another text."
        return None if stored == new.text else other
    if plan.keep_copies or new.context_only or new.conversation is not None:
        return None
    twin = twin_of(db, new.text)
    return None if twin is None else f"The text is a copy of “{twin}”."


def _stored_text(db: Database, new: NewUtterance) -> str | None:
    text: str | None = fetch_value(db, "SELECT text FROM utterance WHERE external_id = ?", (new.external_id,))
    return text


# From rows to utterances


def _numbered_utterances(path: Path, plan: ImportPlan) -> Iterator[tuple[int, NewUtterance | Rejected]]:
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


def _utterance(fallback_id: str, values: Mapping[str, Any], plan: ImportPlan, turns: Counter[str]) -> NewUtterance:
    columns = plan.columns
    column, wanted = plan.label_only or (None, "")
    context = _get(values, column).casefold() != wanted.strip().casefold()
    conversation = _get(values, columns.conversation) or None
    return NewUtterance(
        external_id=_get(values, columns.id) or fallback_id,
        text=_text(values, columns),
        conversation=conversation,
        turn=_turn(values, columns, conversation, turns),
        speaker=_get(values, columns.speaker) or None,
        metadata={name: value for name, value in values.items() if name not in columns.taken and value != ""},
        context_only=context,
        given_label=None if context or not plan.with_labels else _get(values, columns.label) or None,
    )


def _text(values: Mapping[str, Any], columns: Columns) -> str:
    return _get(values, columns.text).replace("\r\n", "\n")


def _turn(values: Mapping[str, Any], columns: Columns, conversation: str | None, turns: Counter[str]) -> float | None:
    if columns.turn is not None:
        given = _get(values, columns.turn)
        return float(given) if given else None
    if conversation is None:
        return None
    turns[conversation] += 1  # no column says it: the order of the file does
    return float(turns[conversation])


def _get(values: Mapping[str, Any], column: str | None) -> str:
    return "" if column is None else str(values.get(column, "")).strip()


def _why_not_taken(values: Mapping[str, Any], plan: ImportPlan) -> str | None:
    """Say why a row cannot become an utterance, or None."""
    columns = plan.columns
    for name in columns.taken:
        if not isinstance(values.get(name, ""), str):
            return f"Column “{name}” holds a list or an object where one value is needed."
    if strange := _strange_character("".join(values)):
        return f"The name of a column holds {strange}."
    for name, value in values.items():
        if strange := _strange_character(value):
            return f"Column “{name}” holds {strange}."
    length = len(_text(values, columns))
    if length == 0:
        return "There is no text."
    if length > plan.max_characters:
        return f"The text has {length:,} characters, more than the {plan.max_characters:,} allowed."
    return _why_no_turn(_get(values, columns.turn), _get(values, columns.conversation)) if columns.turn else None


def _strange_character(value: Any) -> str | None:
    """Name the first character that is no text: a control character or half of a surrogate pair."""
    found = STRANGE.search(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    if found is None:
        return None
    what = "the control character" if found[0] < " " else "half of a surrogate pair,"
    return f"{what} U+{ord(found[0]):04X}"


def _why_no_turn(turn: str, conversation: str) -> str | None:
    if not turn:
        return f"It belongs to conversation “{conversation}” but has no turn number." if conversation else None
    try:
        finite = math.isfinite(float(turn))
    except ValueError:
        finite = False
    return None if finite else f"The turn “{turn}” is no number."


def _require(names: Iterable[str], header: Sequence[str]) -> None:
    missing = [name for name in names if name not in header]
    if missing:
        raise BadInput(f"There is no column “{missing[0]}”.", f"The file has these: {', '.join(header)}.")


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
