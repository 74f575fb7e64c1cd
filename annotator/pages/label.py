"""The label page: one utterance at a time, one key per label."""

import time
from contextlib import suppress
from dataclasses import replace
from functools import partial

import streamlit as st

from annotator.codebook.definition import Codebook, codebook_of
from annotator.errors import AnnotatorError, AnswerRefused, ProjectBusy
from annotator.i18n import say
from annotator.labeling.after_answer import follow_up
from annotator.labeling.screen import Screen
from annotator.labeling.session import Answer, Question, ask_skipped_again
from annotator.pages.components import (
    browser,
    choices,
    ending,
    explanation,
    keys,
    label_card,
    layout,
    notes,
    onboarding,
    pending,
    preferences,
)
from annotator.pages.components.choices import Offered
from annotator.pages.components.state import COMMENT, UNSURE, LabelState, Visit
from annotator.project import Project
from store import jobs, utterances
from store.annotations import Kind


def show() -> None:
    """Show the page."""
    browser.listen()
    with layout.opened_project(layout.PATIENCE) as project:
        if not _prepare(project):
            pending.await_project()
            return
        label_card.color_buttons(codebook_of(project), "label")
    _panel()
    preferences.offer()


def _prepare(project: Project) -> bool:
    """Create the screen state, or refresh it when the whole page is run again.

    Returns False if another program is writing and no utterance has been reserved yet.
    """
    page = LabelState.current()
    screen = page.screen
    if screen and screen.owner == (project.folder, layout.annotator()):
        before = screen.question
        with suppress(ProjectBusy):  # keep it unchanged
            screen.refresh(project)
        if before and (screen.question is None or screen.question.utterance.id != before.utterance.id):
            page.lost_comment = COMMENT.get().strip() or page.lost_comment
            _turn_to(screen)
        return True
    try:
        page.screen = Screen(project, layout.annotator())
    except ProjectBusy:
        return False
    _turn_to(page.screen)
    _follow_up(project)
    return True


def _turn_to(screen: Screen) -> None:
    """Start the timer and set the fields for the current question, with the undone answer if there is one."""
    explanation.forget()
    LabelState.current().shown_at = time.monotonic()
    draft = screen.question.draft if screen.question else None
    fields = (bool(draft and draft.unsure), draft.comment if draft else "")
    if fields != (UNSURE.get(), COMMENT.get()):  # setting a field takes time, so set only what changes
        UNSURE.set(fields[0])
        COMMENT.set(fields[1])


@st.fragment
def _panel() -> None:
    """Show everything that an answer changes. As a fragment, only this part is redrawn after an answer."""
    screen = _screen()
    with layout.opened_project() as project:
        with st.container():  # in a container, so that the utterance is not drawn twice when messages change
            _messages()
        onboarding.strip(project, "label")
        _progress(screen)
        if screen.question is None:
            ending.show(project, screen.annotator, _ask_again)
            _undo_button()
            return
        codebook = codebook_of(project)
        offered = choices.offered(codebook, screen.question)
        _reading(offered, screen.question)
        choices.show(codebook, offered, screen.question, _answer)
        _other_answers(project, codebook, screen.question)
        _notes(project, codebook, screen)
        explanation.show()
        pending.reach_the_page()
        if jobs.active(project.db) and not Visit.current().job_is_active:
            st.rerun()  # a round has started automatically; the sidebar must show it


def _messages() -> None:
    layout.show_last_error()
    page = LabelState.current()
    comment, page.lost_comment = page.lost_comment, ""
    if comment:
        layout.html("quiet", say("Your comment was not stored: “{comment}”", comment=comment))


def _follow_up(project: Project) -> None:
    """Start what is due. The answer is stored: an error is shown beside the next utterance."""
    try:
        follow_up(project)
    except AnnotatorError as error:
        Visit.current().error = error


@layout.guarded
def _answer(utterance_id: int, kind: Kind, label_id: int | None, name: str) -> None:
    """Store an answer and show the next utterance. A second key press for the same utterance is ignored."""
    page = LabelState.current()
    question = page.screen.question if page.screen else None
    if page.screen is None or question is None or question.utterance.id != utterance_id:
        return
    milliseconds = round((time.monotonic() - page.shown_at) * 1000)
    given = _as_typed(Answer(kind, label_id, milliseconds=milliseconds))
    pending.submit(name, partial(_store, page.screen, question, given))


def _store(screen: Screen, question: Question, given: Answer, project: Project) -> None:
    """Store an answer, show the next utterance, and start a round or reorder the batch if due."""
    if screen.question and screen.question.utterance.id == question.utterance.id:
        given = _as_typed(given)  # include what was typed while it waited
    try:
        screen.answer(project, given, question)
    except AnswerRefused:
        LabelState.current().lost_comment = given.comment
        _turn_to(screen)
        raise
    _turn_to(screen)
    _follow_up(project)


def _as_typed(given: Answer) -> Answer:
    """Return an answer with the unsure mark and the comment entered on the page, if their fields are on it."""
    unsure = UNSURE.get() if UNSURE.has_value else given.unsure
    comment = COMMENT.get().strip() if COMMENT.has_value else given.comment
    return replace(given, unsure=unsure, comment=comment)


def _screen() -> Screen:
    """Return the state that `_prepare` created earlier in this run."""
    screen = LabelState.current().screen
    assert screen
    return screen


@layout.guarded
def _take_back() -> None:
    if pending.drop():  # the answer was not stored yet; its utterance is still shown
        return
    screen = _screen()
    with layout.opened_project(layout.PATIENCE) as project:
        if screen.take_back(project):
            _turn_to(screen)
            _follow_up(project)
        else:
            st.toast(say("There is no answer to undo."))


def _progress(screen: Screen) -> None:
    """Show the progress of batch and project, and today's answers and pace."""
    done, sitting = screen.standing, screen.sitting
    in_batch = done.batch_size - done.batch_left
    bars = (
        (say("This batch: {n:,} of {whole:,}", n=in_batch, whole=done.batch_size), in_batch, done.batch_size),
        (say("All: {n:,} of {whole:,}", n=done.labeled, whole=done.to_label), done.labeled, done.to_label),
    )
    drawn = "".join(
        f'<div class="part">{text}<div class="track"><div class="bar" '
        f'style="width:{count / max(1, whole):.1%}"></div></div></div>'
        for text, count, whole in bars
    )
    given, goal = len(sitting.times), screen.preferences.goal
    today = say("Today: {n} of {goal}", n=given, goal=goal) if goal else say("Today: {n}", n=given)
    pace = say(", {seconds:.0f} s each", seconds=sitting.pace) if sitting.pace else ""
    st.html(f'<div class="status" role="status">{drawn}<div class="part">{today}{pace}</div></div>')


def _reading(offered: Offered, question: Question) -> None:
    """Show the utterance in large type below the turns before it, in an area of constant height.

    The text is foreign: it is shown literally and nothing in it is rendered.
    """
    turns = "".join(layout.as_html("turn", turn.speaker, turn.text) for turn in question.turns_before)
    text = layout.as_html("utterance", question.utterance.speaker, question.utterance.text)
    others = {keys.NONE_FITS: "none-fits", keys.SKIP: "skip", **offered.ways}
    asks = keys.asks(question.utterance.id, offered.nodes, "label", others)
    st.html(
        f'<div class="reading" tabindex="0" role="region" aria-label="{say("Utterance")}" aria-live="polite" '
        f'{asks} data-place="{offered.place}">{turns}{text}</div>'
    )


def _other_answers(project: Project, codebook: Codebook, question: Question) -> None:
    asked = question.utterance.id
    with st.container(horizontal=True, vertical_alignment="center"):
        none_fits, skip = (asked, "none_fits", None, say("None fits")), (asked, "skip", None, say("Skip"))
        st.button(say("None fits"), key="none-fits", shortcut=keys.NONE_FITS, on_click=_answer, args=none_fits)
        st.button(say("Skip"), key="skip", shortcut=keys.SKIP, on_click=_answer, args=skip)
        _undo_button()
        marked = say("Key Q. Tick before you answer to mark the answer as unsure.")
        st.checkbox(say("Unsure"), key=UNSURE.key, help=marked)
        explanation.offer(project, codebook, question)


def _undo_button() -> None:
    st.button(say("Undo"), key="undo", shortcut=keys.UNDO, icon=":material/undo:", on_click=_take_back)


def _notes(project: Project, codebook: Codebook, screen: Screen) -> None:
    question = screen.question
    assert question
    st.text_input(say("Comment"), key=COMMENT.key, placeholder=say("M: stored with the answer"), max_chars=2000)
    lines = [notes.reasons(project, question), notes.outcome(codebook, screen), preferences.rest(screen)]
    layout.html("quiet notes", "\n".join(line for line in lines if line))
    with st.container(horizontal=True):
        shortcut = keys.spare(keys.EXAMPLES, codebook)
        st.button(say("Examples"), key="show-examples", type="tertiary", shortcut=shortcut, on_click=_turn_examples)
        if st.button(say("Conversation"), key="transcript", type="tertiary", shortcut=keys.TRANSCRIPT):
            st.dialog(say("Conversation"), width="large")(_transcript)(project, question)
        if st.button(say("Keys (?)"), key="keys", type="tertiary"):
            st.dialog(say("Keys"))(keys.show_table)()


def _turn_examples() -> None:
    page = LabelState.current()
    page.shows_examples = not page.shows_examples


def _transcript(project: Project, question: Question) -> None:
    """Show all turns of the conversation, with the utterance to label marked."""
    asked = question.utterance
    lines = (
        layout.as_html("turn here" if turn.id == asked.id else "turn", turn.speaker, turn.text)
        for turn in utterances.turns_around(project.db, asked)
    )
    st.html(f'<div class="transcript">{"".join(lines)}</div>')


@layout.guarded
def _ask_again() -> None:
    """Show the skipped utterances again."""
    screen = _screen()
    with layout.opened_project(layout.PATIENCE) as project:
        ask_skipped_again(project, screen.annotator)
        screen.bring_next(project)
        _turn_to(screen)
