"""The review page: one case with all answers side by side, decided with one key."""

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

import streamlit as st

from annotator.codebook.definition import Codebook, CodebookLabel, codebook_of
from annotator.errors import AnswerRefused
from annotator.i18n import number, say
from annotator.labeling.after_answer import follow_up
from annotator.labeling.review import QUEUES, Case, adjudicate, case, take_back
from annotator.methods.prediction_sets import LARGE
from annotator.pages.components import browser, keys, label_card, layout, pending
from annotator.pages.components.state import REVIEW_LIST, ReviewState
from annotator.project import Project
from annotator.rounds.batch import AUDIT
from store import labels
from store.annotations import ADJUDICATED, Answer, Kind


def show() -> None:
    """Show the page."""
    st.title(say("Review", "page"))
    browser.listen()
    with layout.opened_project() as project:
        waiting = {name: queue.find(project) for name, queue in QUEUES.items()}
        name = _choose(waiting)
        postponed = ReviewState.current().postponed.get((project.folder, name), [])
        ids = [i for i in waiting[name] if i not in postponed]
        if not ids:
            _nothing(project, name, len(postponed))
            return
        layout.html("quiet", f"{say(QUEUES[name].about)} {QUEUES[name].summarize(project)}")
        now = case(project, _in_hand(project, name, ids))
        _utterance(now)
        _show_answers(project, now)
        _decision(project, name, now)


def enter(name: str) -> None:
    """Go to a queue from another page."""
    REVIEW_LIST.set(name)
    st.switch_page(st.Page(show, title=say("Review", "page"), url_path="review"))


def _choose(waiting: dict[str, list[int]]) -> str:
    """Let the user choose a review queue; the default is the first that is not empty."""
    first = next((name for name, ids in waiting.items() if ids), next(iter(waiting)))
    REVIEW_LIST.set(REVIEW_LIST.get() or first)  # set anew: Streamlit drops it when the page changes
    chosen = st.pills(
        say("Review list"),
        list(QUEUES),
        format_func=lambda name: f"{say(QUEUES[name].shown)} · {len(waiting[name])}",
        key=REVIEW_LIST.key,
        required=True,
        label_visibility="collapsed",
    )
    return str(chosen or first)


def _in_hand(project: Project, name: str, ids: list[int]) -> int:
    """Return the case to show. It stays until it is decided or postponed, here or elsewhere."""
    page, owner = ReviewState.current(), (project.folder, name)
    if page.case is None or page.case[0] != owner or page.case[1] not in ids:
        page.case = (owner, ids[0])
    return page.case[1]


def _nothing(project: Project, name: str, postponed: int) -> None:
    if postponed:
        st.info(say("No more cases in this list. {n} postponed.", n=postponed))
        st.button(say("Review postponed cases"), key="again", on_click=_resume, args=((project.folder, name),))
    else:
        st.success(say(QUEUES[name].empty))
    _undo_button()


def _utterance(now: Case) -> None:
    turns = "".join(layout.as_html("turn", turn.speaker, turn.text) for turn in now.turns_before)
    st.html(turns + layout.as_html("utterance", now.utterance.speaker, now.utterance.text))


def _show_answers(project: Project, now: Case) -> None:
    """Show people's answers and, if allowed, the prediction side by side."""
    names = labels.names(project.db)
    rows = [_answer(answer, names) for answer in now.answers]
    if now.suggestion:
        label, probability = now.suggestion
        rows.append(_answer_html(say("The model"), f"{names[label]} · {number(probability, '.0%')}", ""))
    elif now.utterance.slice == AUDIT:
        rows.append(_answer_html(say("The model"), say("not shown"), say("Audit utterance: it measures the model.")))
    st.html(f'<div class="answers">{"".join(rows)}</div>')
    for note in now.notes:
        layout.html("quiet", note)


def _answer(given: Answer, names: Mapping[int, str]) -> str:
    label = say("none fits") if given.said_label_id is None else names[given.said_label_id]
    notes = [say("codebook version {n}", n=given.codebook_version), given.at[:10]]
    notes += [say("retired")] if given.kind == "out_of_use" else []
    if given.label_id is not None and given.label_id != given.said_label_id:
        notes.append(say("counts as {label}", label=names[given.label_id]))
    notes += [say("unsure")] * bool(given.unsure) + [say("“{name}”", name=given.comment)] * bool(given.comment)
    adjudicated = given.strategy == ADJUDICATED
    who = say("{name} (adjudicated)", name=given.annotator) if adjudicated else given.annotator
    return _answer_html(who, label, ", ".join(notes))


def _answer_html(who: str, answer: str, notes: str) -> str:
    return (
        f'<div class="card" dir="auto"><div class="who">{escape(who)}</div>'
        f'<div class="answer">{escape(answer)}</div><div class="who">{escape(notes)}</div></div>'
    )


def _decision(project: Project, name: str, now: Case) -> None:
    codebook = codebook_of(project)
    offered = _offered(codebook, now)
    asks = keys.asks(now.utterance.id, offered, "adjudicate", {keys.NONE_FITS: "adjudicate-none", keys.SKIP: "later"})
    label_card.color_buttons(codebook, "adjudicate")
    wins = say("Your decision outweighs all answers and is exported as adjudicated.")
    st.html(f'<div class="quiet" {asks}>{escape(wins)}</div>')
    if len(offered) < len(codebook.labels):
        names = {label.id: label.name for label in codebook.labels}
        label_card.find_label(codebook, now.utterance.id, lambda label: _adjudicate(now, "label", label, names[label]))
    with st.container(horizontal=True):
        for label in offered:
            _button(label, now)
    none_fits, later = (now, "none_fits", None, say("None fits")), ((project.folder, name), now.utterance.id)
    with st.container(horizontal=True):
        st.button(
            say("None fits"), key="adjudicate-none", shortcut=keys.NONE_FITS, on_click=_adjudicate, args=none_fits
        )
        st.button(say("Later"), key="later", shortcut=keys.SKIP, on_click=_postpone, args=later)
        _undo_button()


def _offered(codebook: Codebook, now: Case) -> Sequence[CodebookLabel]:
    """Return the labels with a button: all, or for a large codebook those already given, on the number keys.

    Keys of a tree differ within a group alone, so that its labels are on the number keys too.
    """
    if len(codebook.labels) <= LARGE:
        return keys.numbered(codebook.labels) if codebook.groups else codebook.labels
    return keys.numbered([label for label in codebook.labels if label.id in now.named][:LARGE])


def _button(label: CodebookLabel, now: Case) -> None:
    st.button(
        layout.plain(label.name),
        key=f"adjudicate-{label.id}",
        shortcut=label.key or None,
        help=layout.plain(label.definition) or None,
        on_click=_adjudicate,
        args=(now, "label", label.id, label.name),
    )


def _undo_button() -> None:
    st.button(say("Undo"), key="undo-adjudicated", shortcut=keys.UNDO, icon=":material/undo:", on_click=_take_back)


@layout.guarded
def _adjudicate(now: Case, kind: Kind, label_id: int | None, name: str = "") -> None:
    """Decide the case on screen. A second key press for the same case is ignored."""
    shown = ReviewState.current().case
    if shown is None or shown[1] != now.utterance.id:
        return
    pending.submit(name, partial(_store, now, layout.annotator(), (kind, label_id)))


def _store(now: Case, annotator: str, decided: tuple[Kind, int | None], project: Project) -> None:
    """Store a decision and move to the next case, even if someone else has already decided this one."""
    page = ReviewState.current()
    try:
        adjudicate(project, now, annotator, *decided)
    except AnswerRefused:
        page.case = None
        raise
    page.case = None
    follow_up(project)


def _postpone(queue: tuple[Path, str], utterance_id: int) -> None:
    ReviewState.current().postponed.setdefault(queue, []).append(utterance_id)


def _resume(queue: tuple[Path, str]) -> None:
    ReviewState.current().postponed.pop(queue, None)


@layout.guarded
def _take_back() -> None:
    if pending.drop():  # the decision was not stored yet
        return
    with layout.opened_project() as project:
        utterance_id = take_back(project, layout.annotator())
        if utterance_id is None:
            st.toast(say("There is no decision to undo."))
        else:
            ReviewState.current().case = ((project.folder, REVIEW_LIST.get()), utterance_id)
            follow_up(project)
