"""“Why?” on the label page: requested and shown without interrupting labeling."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from annotator.codebook.definition import Codebook
from annotator.errors import AnnotatorError
from annotator.i18n import say
from annotator.labeling.explanation import Explanation, PendingExplanation
from annotator.labeling.screen import Screen
from annotator.labeling.session import Question
from annotator.pages.components import keys, layout
from annotator.project import Project
from store import jobs


@dataclass
class _Request:
    """The request for the utterance on screen, and the explanation once it is ready."""

    pending: PendingExplanation
    found: Explanation | None = None


def offer(project: Project, codebook: Codebook, question: Question) -> None:
    """Show the button if the question has a suggestion."""
    if question.suggestion is None:
        return
    busy = jobs.active(project.db) is not None
    asks = say("Ask the untrained language model for a reason")
    st.button(
        say("Why?"),
        key="ask-why",
        type="tertiary",
        shortcut=keys.spare(keys.WHY, codebook),
        disabled=busy or "why" in st.session_state,
        help=say("Not available while a round runs: the round needs the memory.") if busy else asks,
        on_click=_ask,
        args=(project.folder, question.utterance.id),
    )


def tell() -> None:
    """Show the explanation, or that it is pending."""
    asked: _Request | None = st.session_state.get("why")
    if asked and asked.found:
        _tell(asked.found)
    elif asked:
        _look()


def forget() -> None:
    """Cancel the request: its utterance is no longer on screen."""
    asked: _Request | None = st.session_state.pop("why", None)
    if asked and not asked.found:
        asked.pending.stop()


@layout.guarded
def _ask(folder: Path, utterance_id: int) -> None:
    """Start a request, once and only for the utterance on screen: a key press may arrive after the page changed."""
    screen: Screen | None = st.session_state.get("desk")
    shown = screen.question if screen else None
    if shown and shown.utterance.id == utterance_id and "why" not in st.session_state:
        st.session_state["why"] = _Request(PendingExplanation.start(folder, utterance_id))


@st.fragment(run_every="1s")
def _look() -> None:
    """Poll for the explanation while labeling continues."""
    asked: _Request | None = st.session_state.get("why")
    if asked is None:
        return
    try:
        asked.found = asked.pending.answer()
    except AnnotatorError as error:
        del st.session_state["why"]
        st.session_state["error"] = error
        st.rerun()
    if asked.found:
        st.rerun()
    st.status(say("Asking the untrained language model. You can keep labeling."), state="running")


def _tell(found: Explanation) -> None:
    """Show the generated text literally, with a caveat."""
    st.text(found.text)
    st.caption(
        say(
            "Written by {backbone} without any training on your answers; by itself it would choose "
            "“{label}”. This text does not explain how the probabilities above were computed.",
            backbone=layout.plain(found.backbone),
            label=layout.plain(found.label),
        )
    )
