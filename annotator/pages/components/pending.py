"""An answer that waits while another program writes: it is kept, shown, and stored as soon as possible."""

import time
from collections.abc import Callable

import streamlit as st

from annotator.errors import AnnotatorError, ProjectBusy
from annotator.i18n import say
from annotator.pages.components import layout
from annotator.pages.components.state import Unsaved, Visit
from annotator.project import Project

MOMENT = 0.5  # seconds to wait before the page is redrawn
Write = Callable[[Project], None]
"""Stores the answer and handles what follows. Raises ProjectBusy if nothing was written."""


def submit(answer: str, write: Write) -> None:
    """Store an answer now, or keep it while another program writes. Further answers are refused until it is stored."""
    if kept():
        st.toast(say("Key ignored: the previous answer is not saved yet."))
        return
    try:
        with layout.opened_project(layout.PATIENCE) as project:
            write(project)
    except ProjectBusy:
        path = layout.folder()
        assert path
        Visit.current().unsaved = Unsaved(answer, path, write)


def kept() -> Unsaved | None:
    """Return the waiting answer, if there is one."""
    return Visit.current().unsaved


def drop() -> bool:
    """Discard the waiting answer; return whether there was one."""
    waiting, Visit.current().unsaved = kept(), None
    return waiting is not None


def show() -> None:
    """Store the waiting answer, or show that it waits and retry every second. Call before the page is drawn."""
    if kept():
        _try()
    Visit.current().unsaved_shown = kept()
    if kept():
        _try_again(time.monotonic())


def reach_the_page() -> None:
    """Redraw the whole page if only a part was drawn and the waiting answer is not shown yet.

    Call after the widgets of that part: widgets that a run does not reach lose their input.
    """
    if kept() is not Visit.current().unsaved_shown:
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
                answer=layout.plain(waiting.answer),
            )
        )
    else:
        st.rerun()


def _try() -> None:
    """Try to store the waiting answer; show any error other than ProjectBusy."""
    waiting = kept()
    if waiting is None:
        return
    try:
        with Project.open(waiting.folder, layout.PATIENCE) as project:
            waiting.write(project)
    except ProjectBusy:
        return
    except AnnotatorError as error:
        Visit.current().error = error
    drop()


def await_project() -> None:
    """Show that the page is unavailable while another program writes, and retry every second."""
    st.info(say("Another program is writing to this project. This page appears as soon as it can be read."))
    _look_again(time.monotonic())


@st.fragment(run_every="1s")
def _look_again(since: float) -> None:
    if time.monotonic() - since > MOMENT:  # not immediately, while the page is being drawn
        st.rerun()
