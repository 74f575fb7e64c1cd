"""“Why?” on the label page: asked by the side of labelling, answered when it can be, never in its way."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from annotator.codebook.definition import Codebook
from annotator.errors import AnnotatorError
from annotator.i18n import say
from annotator.labeling.explanation import Asking, Explanation
from annotator.labeling.screen import Screen
from annotator.labeling.session import Question
from annotator.pages.components import keys, layout
from annotator.project import Project
from store import jobs


@dataclass
class _Asked:
    """What has been asked about the utterance on screen, and the answer once it is there."""

    asking: Asking
    found: Explanation | None = None


def offer(project: Project, codebook: Codebook, question: Question) -> None:
    """Offer the question where there is a suggestion, and nowhere else."""
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
        args=(project.folder, question.utterance["id"]),
    )


def tell() -> None:
    """Show what has come of the question."""
    asked: _Asked | None = st.session_state.get("why")
    if asked and asked.found:
        _tell(asked.found)
    elif asked:
        _look()


def forget() -> None:
    """Drop the question: the utterance it was about is no longer on screen."""
    asked: _Asked | None = st.session_state.pop("why", None)
    if asked and not asked.found:
        asked.asking.stop()


@layout.guarded
def _ask(folder: Path, utterance_id: int) -> None:
    """Ask once, and only about what is on screen: a key may arrive after the page has changed."""
    screen: Screen | None = st.session_state.get("desk")
    shown = screen.question if screen else None
    if shown and shown.utterance["id"] == utterance_id and "why" not in st.session_state:
        st.session_state["why"] = _Asked(Asking.start(folder, utterance_id))


@st.fragment(run_every="1s")
def _look() -> None:
    """Look whether the answer is there, while labelling goes on around it."""
    asked: _Asked | None = st.session_state.get("why")
    if asked is None:
        return
    try:
        asked.found = asked.asking.answer()
    except AnnotatorError as error:
        del st.session_state["why"]
        st.session_state["error"] = error
        st.rerun()
    if asked.found:
        st.rerun()
    st.status(say("Asking the untrained language model. You can keep labeling."), state="running")


def _tell(found: Explanation) -> None:
    """Show the words literally, and say what they are not."""
    st.text(found.text)
    st.caption(
        say(
            "Written by {backbone} without any training on your answers; by itself it would choose "
            "“{label}”. This text does not explain how the probabilities above were computed.",
            backbone=layout.plain(found.backbone),
            label=layout.plain(found.label),
        )
    )
