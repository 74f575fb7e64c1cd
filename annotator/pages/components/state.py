"""Session state: all that a visit remembers between runs, one dataclass per page, and the values of keyed widgets.

Only this module touches Streamlit's session state. A reload of the browser discards all of it; what must last is in the
database.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, Self, TypeVar, cast

import streamlit as st

from annotator.codebook.changes import Proposal
from annotator.exchange.export import ExportPlan
from annotator.i18n import ENGLISH
from annotator.labeling.explanation import Explanation, PendingExplanation
from annotator.labeling.screen import Screen
from annotator.labeling.search import Search
from annotator.project import Project
from store.files.import_report import ImportReport

Value = TypeVar("Value")


@dataclass(frozen=True)
class Widget(Generic[Value]):
    """The value of the widget with this key, or `default` while it is not on the page."""

    key: str
    default: Value

    def get(self) -> Value:
        """Return the current value; within the widget's callback, the new one."""
        return cast(Value, st.session_state.get(self.key, self.default))

    def set(self, value: Value) -> None:
        """Set the value. Refused by Streamlit once the widget has been drawn in this run."""
        st.session_state[self.key] = value

    @property
    def has_value(self) -> bool:
        """Whether the widget is on the page or its value has been set. Streamlit drops the value with the widget."""
        return self.key in st.session_state


PROJECT: Widget[str | None] = Widget("project", None)
ANNOTATOR = Widget("annotator", "")
UNSURE = Widget("unsure", False)
COMMENT = Widget("comment", "")
REVIEW_LIST = Widget("review-list", "")
ALL_CHANGES = Widget("all-changes", False)
TYPED_LABELS = Widget("typed-labels", "")


class _State:
    @classmethod
    def current(cls) -> Self:
        """Return this visit's object, new on first use."""
        if cls.__name__ not in st.session_state:
            st.session_state[cls.__name__] = cls()
        return cast(Self, st.session_state[cls.__name__])


@dataclass(frozen=True)
class Unsaved:
    """An answer that has not been stored yet."""

    answer: str  # in words
    folder: Path  # of its project, which may no longer be the open one
    write: Callable[[Project], None]


@dataclass
class Visit(_State):
    """What all pages share."""

    language: str = ENGLISH
    error: Exception | None = None  # of the last callback, until it is shown
    created: str = ""  # new project, to be opened by the next run
    job_is_active: bool = False  # as the sidebar shows it
    unsaved: Unsaved | None = None
    unsaved_shown: Unsaved | None = None
    tour_end: tuple[tuple[Path, str], str] | None = None  # (folder, annotator), and the page that shows the farewell


@dataclass
class ExplanationRequest:
    """The request for the utterance on screen, and the explanation once it is ready."""

    pending: PendingExplanation
    found: Explanation | None = None


@dataclass
class LabelState(_State):
    """State of the label page."""

    screen: Screen | None = None
    shown_at: float = 0.0  # monotonic seconds at which the current question appeared
    lost_comment: str = ""  # typed for an utterance that has gone unanswered, until it is shown
    shows_examples: bool = False
    opened: tuple[int, int | None] | None = None  # utterance, and the open group of the tree, None for its top
    explanation: ExplanationRequest | None = None


@dataclass(frozen=True)
class Found:
    """Ids of the utterances that a search has found in a project."""

    folder: Path
    search: Search
    ids: list[int]


@dataclass
class SearchState(_State):
    """State of the search page."""

    found: Found | None = None
    in_context: int | None = None  # id of the utterance that is shown with its context


@dataclass
class ReviewState(_State):
    """State of the review page. A list is identified by its project's folder and its name."""

    case: tuple[tuple[Path, str], int] | None = None  # list, and id of the utterance on screen
    postponed: dict[tuple[Path, str], list[int]] = field(default_factory=dict)  # ids by list


@dataclass(frozen=True)
class PendingChange:
    """A change of the codebook that waits for confirmation."""

    owner: tuple[Path, Any]  # project and place on the page
    title: str
    proposal: Proposal


@dataclass
class CodebookState(_State):
    """State of the codebook page."""

    chosen_label: int | None = None
    pending: PendingChange | None = None


@dataclass
class InsightsState(_State):
    """State of the insights page."""

    report: tuple[tuple[Any, ...], str] | None = None  # state of the project, and the report on it as HTML


@dataclass
class DataState(_State):
    """State of the data page."""

    report: ImportReport | None = None  # of the last import, until it is shown
    labels_offered: str = ""  # labels of the chosen file
    labels_typed: str = ""  # last content of the text field, which Streamlit forgets when the field is hidden
    labels_to_add: tuple[str, ...] = ()  # by the next run

    @cached_property
    def uploads(self) -> TemporaryDirectory[str]:
        """Folder of the uploaded files, deleted with the session."""
        return TemporaryDirectory(prefix="annotator-")


@dataclass
class ExportState(_State):
    """State of the export page."""

    prepared: tuple[Path, ExportPlan, bytes] | None = None  # project, plan, and the archive
