"""An answer that waits for another program to end its writing: kept, shown, and stored once, as soon as it can be."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from annotator.errors import AnnotatorError, ProjectBusy
from annotator.i18n import say
from annotator.pages.components import layout
from annotator.project import Project

MOMENT = 0.5  # seconds after which a page that was drawn may be drawn again
Write = Callable[[Project], None]
"""Stores the answer and does what follows from it. Raises ProjectBusy if nothing has been written."""


@dataclass(frozen=True)
class Unsaved:
    """An answer that is not stored yet."""

    told: str  # the answer in words
    folder: Path  # of its project, whichever is open by now
    write: Write


def submit(told: str, write: Write) -> None:
    """Store an answer now, or keep it while another program writes. Until it is stored, others are refused."""
    if kept():
        st.toast(say("Key ignored: the previous answer is not saved yet."))
        return
    try:
        with layout.opened_project(layout.PATIENCE) as project:
            write(project)
    except ProjectBusy:
        path = layout.folder()
        assert path
        st.session_state["unsaved"] = Unsaved(told, path, write)


def kept() -> Unsaved | None:
    """Return the answer that waits, if there is one."""
    return st.session_state.get("unsaved")


def drop() -> bool:
    """Forget the answer that waits; say whether there was one."""
    return st.session_state.pop("unsaved", None) is not None


def tell() -> None:
    """Store the answer that waits, or say that it does and try again every second. Before the page is drawn."""
    if kept():
        _try()
    st.session_state["told_unsaved"] = kept()
    if kept():
        _try_again(time.monotonic())


def reach_the_page() -> None:
    """Draw the whole page anew where only a part of it has been, and an answer waits that nothing shows yet.

    After the widgets of that part: those that a run does not reach lose what was typed.
    """
    if kept() is not st.session_state.get("told_unsaved"):
        st.rerun()


@st.fragment(run_every="1s")
def _try_again(drawn: float) -> None:
    if time.monotonic() - drawn > MOMENT:
        _try()
    if waiting := kept():
        st.warning(
            say(
                "Not saved yet: another program is writing to this project. Your answer “{answer}” is kept and will be "
                "saved as soon as possible.",
                answer=layout.plain(waiting.told),
            )
        )
    else:
        st.rerun()


def _try() -> None:
    """Store the answer that waits, once; an error other than that another program is writing is shown."""
    waiting = kept()
    if waiting is None:
        return
    try:
        with Project.open(waiting.folder, layout.PATIENCE) as project:
            waiting.write(project)
    except ProjectBusy:
        return
    except AnnotatorError as error:
        st.session_state["error"] = error
    drop()


def await_project() -> None:
    """Say that the page cannot be shown while another program writes, and look again every second."""
    st.info(say("Another program is writing to this project. This page appears as soon as it can be read."))
    _look_again(time.monotonic())


@st.fragment(run_every="1s")
def _look_again(since: float) -> None:
    if time.monotonic() - since > MOMENT:  # not at once, as the page is drawn
        st.rerun()
