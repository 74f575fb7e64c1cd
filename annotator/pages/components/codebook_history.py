"""History of the codebook: every change with an undo button, and the text of any version."""

from html import escape

import streamlit as st

from annotator.codebook import history
from annotator.i18n import say
from annotator.pages.components import label_card, layout
from annotator.pages.components.state import ALL_CHANGES, CodebookState
from annotator.project import Project
from store import labels
from store.labels import Event

LATEST = 20  # changes shown at first


def show(project: Project) -> None:
    """List the changes, newest first, with undo buttons; then the text of any version."""
    st.header(say("History"))
    made = [event for event in reversed(labels.events(project.db)) if event.author]
    if not made:
        st.caption(say("Changes appear here and can be undone."))
        return
    names = labels.names(project.db)
    for event in made if ALL_CHANGES.get() else made[:LATEST]:
        with st.container(horizontal=True, vertical_alignment="center"):
            with st.container(width="stretch"):
                _show_event(event, history.describe(event, names))
            if not event.undone:
                shown = say("Undo") if event.undoes is None else say("Redo")
                st.button(shown, key=f"undo-{event.version}", on_click=_take_back, args=(event.version,))
    if len(made) > LATEST:
        st.toggle(say("All {n} changes", n=len(made)), key=ALL_CHANGES.key)
    _past(project)


def _show_event(event: Event, description: str) -> None:
    kind = "event undone" if event.undone else "event"
    at = event.at[:16].replace("T", " ")
    when = escape(say("version {n}, {author}, {at} UTC", n=event.version, author=event.author, at=at))
    what = f'<span class="what">{escape(description)}</span>'
    st.html(f'<div class="{kind}" dir="auto">{what}<div class="when">{when}</div></div>')


@layout.guarded
def _take_back(version: int) -> None:
    CodebookState.current().pending = None
    with layout.opened_project() as project:
        history.undo(project, version, layout.annotator())


def _past(project: Project) -> None:
    """Show the text of any version, as annotators saw it when they answered."""
    first = min(event.version for event in labels.events(project.db) if event.author) - 1
    with st.expander(say("Earlier versions")):
        choices = list(range(labels.version(project.db), first - 1, -1))
        chosen = st.selectbox(say("Version"), choices, index=min(1, len(choices) - 1), key=f"version-{len(choices)}")
        past = history.codebook_at(project, chosen)
        layout.html("guideline", past.instruction)
        for label in past.labels:
            label_card.row(label)
