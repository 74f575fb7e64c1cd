"""Shown on the label page when nothing is left to ask: the reason and the next steps."""

import time
from collections.abc import Callable

import streamlit as st

from annotator.i18n import say, say_many
from annotator.labeling.session import Rest, rest
from annotator.pages.components import layout
from annotator.project import Project

SOON = 1.0  # seconds to wait before the page is redrawn


def show(project: Project, annotator: str, ask_again: Callable[[], None]) -> None:
    """Show whether all utterances are answered, reserved for others, or skipped."""
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
    """Redraw the page once an utterance is free or none is reserved for others."""
    if time.monotonic() - since < SOON:
        return
    with layout.opened_project(layout.PATIENCE) as project:
        left = rest(project, annotator)
    if left.to_ask or not left.with_others:
        st.rerun()
