"""“Why?” on the label page: requested and shown without interrupting labeling."""

from pathlib import Path

import streamlit as st

from annotator.codebook.definition import Codebook
from annotator.errors import AnnotatorError
from annotator.i18n import say
from annotator.labeling.explanation import Explanation, PendingExplanation
from annotator.labeling.session import Question
from annotator.pages.components import keys, layout
from annotator.pages.components.state import ExplanationRequest, LabelState, Visit
from annotator.project import Project
from store import jobs


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
        disabled=busy or LabelState.current().explanation is not None,
        help=say("Not available while a round runs: the round needs the memory.") if busy else asks,
        on_click=_ask,
        args=(project.folder, question.utterance.id),
    )


def show() -> None:
    """Show the explanation, or that it is pending."""
    request = LabelState.current().explanation
    if request and request.found:
        _show_text(request.found)
    elif request:
        _poll()


def forget() -> None:
    """Cancel the request: its utterance is no longer on screen."""
    page = LabelState.current()
    request, page.explanation = page.explanation, None
    if request and not request.found:
        request.pending.stop()


@layout.guarded
def _ask(folder: Path, utterance_id: int) -> None:
    """Start a request, once and only for the utterance on screen: a key press may arrive after the page changed."""
    page = LabelState.current()
    shown = page.screen.question if page.screen else None
    if shown and shown.utterance.id == utterance_id and page.explanation is None:
        page.explanation = ExplanationRequest(PendingExplanation.start(folder, utterance_id))


@st.fragment(run_every="1s")
def _poll() -> None:
    """Poll for the explanation while labeling continues."""
    page = LabelState.current()
    request = page.explanation
    if request is None:
        return
    try:
        request.found = request.pending.answer()
    except AnnotatorError as error:
        page.explanation, Visit.current().error = None, error
        st.rerun()
    if request.found:
        st.rerun()
    st.status(say("Asking the untrained language model. You can keep labeling."), state="running")


def _show_text(found: Explanation) -> None:
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
