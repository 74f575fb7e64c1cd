"""How you like to work: what the annotator chooses for his label page, in a window of its own."""

from datetime import UTC, datetime

import streamlit as st

from annotator.i18n import CODES, named, say
from annotator.labeling.preferences import Preferences, choose, preferences
from annotator.labeling.screen import Screen
from annotator.pages.components import layout, onboarding


def offer() -> None:
    """Put the way to the choices into the sidebar. They stand in a window: what is on the page slows every key."""
    title = say("Preferences")
    if st.sidebar.button(title, key="wishes", icon=":material/tune:", width="stretch"):
        st.dialog(title, on_dismiss="rerun")(_window)()


def _window() -> None:
    """Show the choices; each holds at once, and the page follows when the window closes."""
    with layout.opened_project() as project:
        now = preferences(project, layout.annotator())
        as_model = project.config.context_turns
        _fields(now, as_model)
        onboarding.offer(project)


def _fields(now: Preferences, as_model: int) -> None:
    st.toggle(
        say("Show suggestions"),
        now.suggestions,
        key="wish-suggestions",
        on_change=_keep,
        help=say("A few are always hidden, to measure how suggestions influence answers."),
    )
    st.toggle(
        say("Reveal the prediction after I answer"),
        now.outcome,
        key="wish-outcome",
        on_change=_keep,
        help=say("Never for audit utterances."),
    )
    turns = as_model if now.turns is None else now.turns
    st.number_input(say("Turns shown before the utterance"), 0, 50, turns, key="wish-turns", on_change=_keep)
    st.number_input(say("Daily goal (answers)"), 0, 10_000, now.goal, 10, key="wish-goal", on_change=_keep)
    minutes = say("Suggest a break after (minutes)")
    st.number_input(minutes, 0, 240, now.rest_after, 5, key="wish-rest", on_change=_keep, help=say("0: never."))
    codes = ["", *CODES]
    st.selectbox(
        say("Language"),
        codes,
        codes.index(now.language if now.language in CODES else ""),
        format_func=lambda code: named(code) if code else say("same as the browser"),
        key="wish-language",
        on_change=_keep,
        help=say("Language of the app. Utterances, labels and files are not translated."),
    )


@layout.guarded
def _keep() -> None:
    """Store all choices under the annotator's name."""
    said = st.session_state
    with layout.opened_project() as project:
        as_model = said["wish-turns"] == project.config.context_turns
        chosen = Preferences(
            suggestions=said["wish-suggestions"],
            turns=None if as_model else said["wish-turns"],
            outcome=said["wish-outcome"],
            goal=said["wish-goal"],
            rest_after=said["wish-rest"],
            language=said["wish-language"],
        )
        choose(project, layout.annotator(), chosen)
    layout.speak()


def rest(screen: Screen) -> str:
    """Suggest a break, in a line, once it is time."""
    minutes = screen.sitting.minutes_without_pause(datetime.now(UTC))
    if not screen.preferences.rest_after or minutes < screen.preferences.rest_after:
        return ""
    return say(
        "You have worked for {n} minutes without a break. A short pause helps to keep answers consistent.", n=minutes
    )
