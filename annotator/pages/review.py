"""The review page: one case with all answers side by side, decided with one key."""

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape

import streamlit as st

from annotator.codebook.definition import Codebook, CodebookLabel, codebook_of
from annotator.errors import AnswerRefused
from annotator.i18n import number, say
from annotator.labeling.after_answer import follow_up
from annotator.labeling.review import QUEUES, Case, case, settle, take_back
from annotator.methods.prediction_sets import LARGE
from annotator.pages.components import keys, label_card, layout, pending
from annotator.project import Project
from annotator.rounds.batch import AUDIT
from store import labels
from store.annotations import ADJUDICATED, Answer, Kind


def show() -> None:
    """Show the page."""
    st.title(say("Review", "page"))
    st.html(label_card.STYLE)
    keys.listen()
    with layout.opened_project() as project:
        if error := st.session_state.pop("error", None):
            layout.show_error(error)
        waiting = {name: queue.find(project) for name, queue in QUEUES.items()}
        name = _choose(waiting)
        passed = st.session_state.setdefault("passed", {}).get((project.folder, name), [])
        ids = [i for i in waiting[name] if i not in passed]
        if not ids:
            _nothing(project, name, len(passed))
            return
        layout.html("quiet", f"{say(QUEUES[name].about)} {QUEUES[name].tell(project)}")
        now = case(project, _in_hand(project, name, ids))
        _utterance(now)
        _voices(project, now)
        _settling(project, name, now)


def enter(name: str) -> None:
    """Go to a queue from another page."""
    st.session_state["review_queue"] = name
    st.switch_page(st.Page(show, title=say("Review", "page"), url_path="review"))


def _choose(waiting: dict[str, list[int]]) -> str:
    """Let the user choose a review queue; the default is the first that is not empty."""
    first = next((name for name, ids in waiting.items() if ids), next(iter(waiting)))
    st.session_state["review_queue"] = st.session_state.get("review_queue", first)  # kept when the page changes
    chosen = st.segmented_control(
        say("Review list"),
        list(QUEUES),
        format_func=lambda name: f"{say(QUEUES[name].shown)} · {len(waiting[name])}",
        key="review_queue",
        required=True,
        label_visibility="collapsed",
    )
    return str(chosen or first)


def _in_hand(project: Project, name: str, ids: list[int]) -> int:
    """Return the case to show. It stays until it is decided or postponed, here or elsewhere."""
    kept: tuple[object, int] | None = st.session_state.get("case")
    owner = (project.folder, name)
    if kept is None or kept[0] != owner or kept[1] not in ids:
        kept = (owner, ids[0])
        st.session_state["case"] = kept
    return kept[1]


def _nothing(project: Project, name: str, passed: int) -> None:
    if passed:
        st.info(say("No more cases in this list. {n} postponed.", n=passed))
        st.button(say("Review postponed cases"), key="again", on_click=_forget, args=((project.folder, name),))
    else:
        st.success(say(QUEUES[name].empty))
    _undo_button()


def _utterance(now: Case) -> None:
    for turn in now.turns_before:
        layout.html("turn", turn.text, turn.speaker or "")
    layout.html("utterance", now.utterance.text, now.utterance.speaker or "")


def _voices(project: Project, now: Case) -> None:
    """Show people's answers and, if allowed, the prediction side by side."""
    names = labels.names(project.db)
    said = [_answer(answer, names) for answer in now.answers]
    if now.suggestion:
        label, probability = now.suggestion
        said.append(_voice(say("The model"), f"{names[label]} · {number(probability, '.0%')}", ""))
    elif now.utterance.slice == AUDIT:
        said.append(_voice(say("The model"), say("not shown"), say("Audit utterance: it measures the model.")))
    st.html(f'<div class="voices">{"".join(said)}</div>')
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
    return _voice(who, label, ", ".join(notes))


def _voice(who: str, said: str, notes: str) -> str:
    return (
        f'<div class="voice" dir="auto"><div class="who">{escape(who)}</div>'
        f'<div class="said">{escape(said)}</div><div class="who">{escape(notes)}</div></div>'
    )


def _settling(project: Project, name: str, now: Case) -> None:
    codebook = codebook_of(project)
    offered = _offered(codebook, now)
    asks = keys.asks(now.utterance.id, offered, "settle", {keys.NONE_FITS: "settle-none", keys.SKIP: "later"})
    wins = say("Your decision outweighs all answers and is exported as adjudicated.")
    st.html(f'<div class="quiet" {asks}>{escape(wins)}</div>')
    if len(offered) < len(codebook.labels):
        names = {label.id: label.name for label in codebook.labels}
        label_card.find_label(codebook, now.utterance.id, lambda label: _settle(now, "label", label, names[label]))
    with st.container(horizontal=True):
        for label in offered:
            _button(label, now)
    none_fits, later = (now, "none_fits", None, say("None fits")), ((project.folder, name), now.utterance.id)
    with st.container(horizontal=True):
        st.button(say("None fits"), key="settle-none", shortcut=keys.NONE_FITS, on_click=_settle, args=none_fits)
        st.button(say("Later"), key="later", shortcut=keys.SKIP, on_click=_pass_over, args=later)
        _undo_button()


def _offered(codebook: Codebook, now: Case) -> Sequence[CodebookLabel]:
    """Return the labels with a button: all, or for a large codebook those already given, on the number keys."""
    if len(codebook.labels) <= LARGE:
        return codebook.labels
    return keys.numbered([label for label in codebook.labels if label.id in now.named][:LARGE])


def _button(label: CodebookLabel, now: Case) -> None:
    st.button(
        layout.plain(label.name),
        key=f"settle-{label.id}",
        shortcut=label.key or None,
        help=layout.plain(label.definition) or None,
        on_click=_settle,
        args=(now, "label", label.id, label.name),
    )


def _undo_button() -> None:
    st.button(say("Undo"), key="undo-settled", shortcut=keys.UNDO, icon=":material/undo:", on_click=_take_back)


@layout.guarded
def _settle(now: Case, kind: Kind, label_id: int | None, told: str = "") -> None:
    """Decide the case on screen. A second key press for the same case is ignored."""
    if st.session_state.get("case", (None, None))[1] != now.utterance.id:
        return
    pending.submit(told, partial(_store, now, layout.annotator(), (kind, label_id)))


def _store(now: Case, annotator: str, decided: tuple[Kind, int | None], project: Project) -> None:
    """Store a decision and move to the next case, even if someone else has already decided this one."""
    try:
        settle(project, now, annotator, *decided)
    except AnswerRefused:
        st.session_state.pop("case", None)
        raise
    st.session_state.pop("case", None)
    follow_up(project)


def _pass_over(queue: tuple[object, str], utterance_id: int) -> None:
    passed = st.session_state["passed"]
    passed[queue] = [*passed.get(queue, []), utterance_id]


def _forget(queue: tuple[object, str]) -> None:
    st.session_state["passed"].pop(queue, None)


@layout.guarded
def _take_back() -> None:
    if pending.drop():  # the decision was not stored yet
        return
    with layout.opened_project() as project:
        utterance_id = take_back(project, layout.annotator())
        if utterance_id is None:
            st.toast(say("There is no decision to undo."))
        else:
            name = st.session_state["review_queue"]
            st.session_state["case"] = ((project.folder, name), utterance_id)
            follow_up(project)
