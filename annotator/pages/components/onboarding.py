"""The onboarding strip above a page, with the next step. It has a constant height and covers nothing."""

import streamlit as st

from annotator.exchange.samples import is_sample
from annotator.i18n import say
from annotator.labeling import onboarding
from annotator.pages.components import layout
from annotator.pages.components.state import Visit
from annotator.project import Project

ENDS_ON = ("insights", "export")  # reaching one of these with a trained round completes the tour


def strip(project: Project, here: str) -> None:
    """Show the next step, if there is a tour. Once it is over, the database is not queried again."""
    owner = (project.folder, layout.annotator())
    over = Visit.current().tour_end
    if over is None or over[0] != owner:
        step = onboarding.next_step(project, layout.annotator())
        arrived = step == onboarding.LOOK and here in ENDS_ON
        if step and not arrived:
            _draw(step, here)
            return
        if arrived:
            onboarding.end(project, layout.annotator())
        over = (owner, here if arrived else "")
    elif over[1] != here:
        over = (owner, "")
    Visit.current().tour_end = over
    if over[1]:
        st.html(_strip_html("", say(onboarding.FAREWELL)))


def _draw(step: onboarding.Step, here: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="tour"):
        with st.container(width="stretch"):
            st.html(_strip_html(say("Step {n} of {whole}", n=step.number, whole=onboarding.STEPS), say(step.text)))
        if step.page != here:
            there = st.Page(_placeholder, title=step.page, url_path=step.page)
            st.page_link(there, label=say("Go there"), icon=":material/arrow_forward:")
        st.button(say("End the tour"), key="end-tour", type="tertiary", icon=":material/close:", on_click=_end)


def _placeholder() -> None:
    """Stand in for a page in a link; only its address matters."""


def _strip_html(lead: str, text: str) -> str:
    return f'<div class="tour" role="status">{layout.as_html("", lead, text)}</div>'


@layout.guarded
def _end() -> None:
    with layout.opened_project() as project:
        onboarding.end(project, layout.annotator())


def offer(project: Project) -> None:
    """Show the button that restarts the tour, in sample projects."""
    if is_sample(project) and st.button(say("Restart the tour"), key="tour-again", on_click=_begin):
        st.rerun()  # closes the dialog


@layout.guarded
def _begin() -> None:
    with layout.opened_project() as project:
        onboarding.begin(project, layout.annotator())
    Visit.current().tour_end = None
