"""A change of the codebook that waits for confirmation: shown with its effects in its place, applied or left."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from annotator.codebook import changes, history
from annotator.errors import BadInput
from annotator.i18n import say
from annotator.pages.components import layout
from annotator.pages.components.state import CodebookState, PendingChange
from annotator.project import Project
from store.labels import Change


def propose(project: Project, place: Any, title: str, build: Callable[[], Change]) -> None:
    """Prepare a change and preview it in its place; show the error if it is refused."""
    try:
        proposal = changes.propose(project, build())
    except BadInput as refused:
        layout.show_error(refused)
        return
    CodebookState.current().pending = PendingChange((project.folder, place), title, proposal)
    st.rerun()


def pending(project: Project, place: Any) -> bool:
    """Show the change that waits for confirmation at this place; return whether there is one."""
    page = CodebookState.current()
    waiting = page.pending
    if waiting is None or waiting.owner != (project.folder, place):
        return False
    with st.container(border=True):
        st.markdown(f"**{waiting.title}?**")
        st.markdown("\n".join(f"- {line}" for line in history.consequences(waiting.proposal)))
        with st.container(horizontal=True):
            st.button(say("Apply"), type="primary", key="do-it", on_click=_apply)
            st.button(say("Cancel"), key="leave-it", on_click=choose, args=(page.chosen_label,))
    return True


@layout.guarded
def _apply() -> None:
    page = CodebookState.current()
    waiting, page.pending = page.pending, None
    assert waiting
    with layout.opened_project() as project:
        version = changes.make(project, waiting.proposal, layout.annotator())
    page.chosen_label = None
    st.toast(say("Applied for all annotators. The codebook is now at version {n}.", n=version))


def choose(label_id: int | None) -> None:
    """Open a label or group for editing, or none, and leave the change that waits."""
    page = CodebookState.current()
    page.chosen_label, page.pending = label_id, None
