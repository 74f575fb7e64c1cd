"""The preferences dialog: an annotator's settings for the label page and the language."""

from datetime import UTC, datetime

import streamlit as st

from annotator.i18n import CODES, named, say
from annotator.labeling.preferences import Preferences, choose, preferences
from annotator.labeling.screen import Screen
from annotator.pages.components import layout, onboarding
from annotator.pages.components.state import Widget

SUGGESTIONS = Widget("preference-suggestions", True)
OUTCOME = Widget("preference-outcome", False)
TURNS = Widget("preference-turns", 0)
GOAL = Widget("preference-goal", 0)
BREAK = Widget("preference-break", 0)
LANGUAGE = Widget("preference-language", "")


def offer() -> None:
    """Show the button for the dialog in the sidebar. A dialog, because widgets on the page slow every key press."""
    title = say("Preferences")
    if st.sidebar.button(title, key="preferences", icon=":material/tune:", width="stretch"):
        st.dialog(title, on_dismiss="rerun")(_window)()


def _window() -> None:
    """Show the settings. Each is stored at once; the page is redrawn when the dialog closes."""
    with layout.opened_project() as project:
        now = preferences(project, layout.annotator())
        as_model = project.config.context_turns
        _fields(now, as_model)
        onboarding.offer(project)


def _fields(now: Preferences, as_model: int) -> None:
    st.toggle(
        say("Show suggestions"),
        now.suggestions,
        key=SUGGESTIONS.key,
        on_change=_keep,
        help=say("A few are always hidden, to measure how suggestions influence answers."),
    )
    st.toggle(
        say("Reveal the prediction after I answer"),
        now.outcome,
        key=OUTCOME.key,
        on_change=_keep,
        help=say("Never for audit utterances."),
    )
    turns = as_model if now.turns is None else now.turns
    st.number_input(say("Turns shown before the utterance"), 0, 50, turns, key=TURNS.key, on_change=_keep)
    st.number_input(say("Daily goal (answers)"), 0, 10_000, now.goal, 10, key=GOAL.key, on_change=_keep)
    minutes = say("Suggest a break after (minutes)")
    st.number_input(minutes, 0, 240, now.rest_after, 5, key=BREAK.key, on_change=_keep, help=say("0: never."))
    codes = ["", *CODES]
    st.selectbox(
        say("Language"),
        codes,
        codes.index(now.language if now.language in CODES else ""),
        format_func=lambda code: named(code) if code else say("same as the browser"),
        key=LANGUAGE.key,
        on_change=_keep,
        help=say("Language of the app. Utterances, labels and files are not translated."),
    )


@layout.guarded
def _keep() -> None:
    """Store all preferences under the annotator's name."""
    with layout.opened_project() as project:
        turns = TURNS.get()
        chosen = Preferences(
            suggestions=SUGGESTIONS.get(),
            turns=None if turns == project.config.context_turns else turns,
            outcome=OUTCOME.get(),
            goal=GOAL.get(),
            rest_after=BREAK.get(),
            language=LANGUAGE.get(),
        )
        choose(project, layout.annotator(), chosen)
    layout.set_language()


def rest(screen: Screen) -> str:
    """Return a suggestion to take a break when it is time, else an empty text."""
    minutes = screen.sitting.minutes_without_pause(datetime.now(UTC))
    if not screen.preferences.rest_after or minutes < screen.preferences.rest_after:
        return ""
    return say(
        "You have worked for {n} minutes without a break. A short pause helps to keep answers consistent.", n=minutes
    )
