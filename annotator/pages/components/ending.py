"""Where nothing is asked on the label page: why that is, and what can be done."""

import time
from collections.abc import Callable

import streamlit as st

from annotator.i18n import say, say_many
from annotator.labeling.session import Rest, rest
from annotator.pages.components import layout
from annotator.project import Project

SOON = 1.0  # seconds after which a page that was drawn may be drawn again


def tell(project: Project, annotator: str, ask_again: Callable[[], None]) -> None:
    """Say that all is answered, or that others have what is left on screen, or how many were skipped."""
    left = rest(project, annotator)
    if left == Rest(0, 0, 0):
        st.success(say("Every utterance has an answer."))
        st.write(say("Export the dataset, import more utterances, or undo answers."))
    if left.with_others:
        st.info(
            say_many(
                "Nothing to label right now: {n:,} utterance is reserved for others.",
                "Nothing to label right now: {n:,} utterances are reserved for others.",
                left.with_others,
            )
        )
    if left.skipped:
        st.info(
            say_many(
                "{n:,} utterance that you skipped has no answer yet.",
                "{n:,} utterances that you skipped have no answer yet.",
                left.skipped,
            )
        )
        st.button(say("Return to the skipped utterances"), key="skipped", type="primary", on_click=ask_again)
    if left.with_others or left.to_ask:
        _watch(annotator, time.monotonic())


@st.fragment(run_every="5s")
def _watch(annotator: str, since: float) -> None:
    """Draw the page anew once something is free, or nothing is with others any more."""
    if time.monotonic() - since < SOON:
        return
    with layout.opened_project(layout.PATIENCE) as project:
        left = rest(project, annotator)
    if left.to_ask or not left.with_others:
        st.rerun()
