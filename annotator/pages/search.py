"""The search page: find utterances, show their context, and answer all results at once."""

from collections.abc import Mapping
from functools import partial

import streamlit as st

from annotator.codebook.definition import codebook_of
from annotator.i18n import later, number, say, say_many
from annotator.labeling import bulk
from annotator.labeling.after_answer import follow_up
from annotator.labeling.bulk import Preview, preview
from annotator.labeling.search import Search, alike, find
from annotator.labeling.session import Answer
from annotator.pages.components import layout, pending
from annotator.project import Project
from store import annotations, labels, rounds, utterances
from store import bulk as acts
from store.annotations import Answer as Given
from store.faults import parsed
from store.search import NONE_FITS, Conditions, Quarrel, State
from store.utterances import Utterance

PAGE = 20  # utterances shown at once
ANY = -1  # no condition; not a valid label or round id
AROUND = 6  # turns shown on either side
STATES: dict[State, str] = {
    "any": later("answered or not"),
    "open": later("not answered yet"),
    "answered": later("answered"),
}
QUARRELS: dict[Quarrel, str] = {
    "": later("any"),
    "people": later("people disagree"),
    "model": later("the model disagrees with a person"),
}


def show() -> None:
    """Show the page."""
    st.title(say("Search", "page"))
    with layout.opened_project() as project:
        names = {**labels.names(project.db), NONE_FITS: say("none fits")}
        _form(project, names)
        asked = st.session_state.get("searched")
        if asked and asked[0] == project.folder:
            search, found = asked[1], asked[2]
            _found(project, names, found)
            if found:
                _answer_all(project, search, found)
        _acts(project, names)


def _form(project: Project, names: Mapping[int, str]) -> None:
    """Ask for the search conditions; the search runs when the button is pressed."""
    with st.form("search", border=False):
        words = st.text_input(say("Words"), key="search-words", placeholder=say("all must occur, in any order"))
        with st.expander(say("More conditions")):
            pattern = st.text_input(
                say("Pattern"), key="search-pattern", placeholder=say("a regular expression such as \\bmaybe\\b")
            )
            search = Search(words, pattern, _conditions(project, names))
        if st.form_submit_button(say("Search"), type="primary", icon=":material/search:"):
            with st.spinner(say("Searching")):
                st.session_state["searched"] = (project.folder, search, find(project, search))
            st.session_state.pop("around", None)


def _conditions(project: Project, names: Mapping[int, str]) -> Conditions:
    left, right = st.columns(2)
    numbers = {one.id: one.number for one in rounds.history(project.db)}
    any_label = [ANY, *codebook_of(project).ids]
    people = ["", *annotations.annotators(project.db)]
    said = layout.told_apart({ANY: say("any"), NONE_FITS: names[NONE_FITS]}, names)
    by = layout.told_apart({"": say("anyone")}, {name: name for name in people if name})
    asked_by_round = {ANY: say("any")} | {key: str(number) for key, number in numbers.items()}
    state = left.selectbox(say("State"), list(STATES), format_func=lambda state: say(STATES[state]), key="search-state")
    quarrel = right.selectbox(
        say("Agreement"), list(QUARRELS), format_func=lambda quarrel: say(QUARRELS[quarrel]), key="search-quarrel"
    )
    label = left.selectbox(
        say("Answered with"), [*any_label, NONE_FITS], format_func=said.__getitem__, key="search-label"
    )
    annotator = right.selectbox(say("Answered by"), people, format_func=by.__getitem__, key="search-by")
    asked_by = left.selectbox(
        say("Chosen by round"), list(asked_by_round), format_func=asked_by_round.__getitem__, key="search-round"
    )
    likeliest = right.selectbox(say("Predicted label"), any_label, format_func=said.__getitem__, key="search-likeliest")
    low, high = st.slider(
        say("Probability of the predicted label"), 0.0, 1.0, (0.0, 1.0), 0.01, key="search-probability"
    )
    label_id, round_id, likeliest_id = (None if one == ANY else one for one in (label, asked_by, likeliest))
    return Conditions(state, label_id, annotator, round_id, quarrel, likeliest_id, low, high)


def _found(project: Project, names: Mapping[int, str], found: list[int]) -> None:
    """List the results, one page at a time."""
    st.header(say_many("{n:,} utterance found", "{n:,} utterances found", len(found)))
    if not found:
        layout.html("quiet", say("Try fewer words or conditions."))
        return
    pages = -(-len(found) // PAGE)
    number = st.pagination(pages, key=f"page-of-{pages}") if pages > 1 else 1
    shown = found[(number - 1) * PAGE : number * PAGE]
    given: dict[int, list[str]] = {}
    for one in annotations.answers_to(project.db, shown):
        given.setdefault(one.utterance_id, []).append(f"{one.annotator}: {_said(one, names)}")
    for row in utterances.read(project.db, shown):
        _line(project, row, given.get(row.id, []))


def _said(given: Given, names: Mapping[int, str]) -> str:
    """Return a short text for an answer, with the label it counts as."""
    if given.kind == "out_of_use":
        return say("{label} (retired)", label=names[given.said_label_id or NONE_FITS])
    return say("skipped") if given.kind == "skip" else names.get(given.label_id or NONE_FITS, "")


def _line(project: Project, row: Utterance, given: list[str]) -> None:
    """Show one utterance with its answers and, on demand, its context and similar utterances."""
    notes = [*given, *([say("audit utterance")] if row.slice == "audit" else [])]
    with st.container(horizontal=True, vertical_alignment="top", gap="medium"):
        with st.container(width="stretch"):
            layout.html("found", row.text, row.speaker or "")
            layout.html("quiet", " · ".join(notes) or say("not answered yet"))
        st.button(say("Show context"), key=f"around-{row.id}", type="tertiary", on_click=_look_around, args=(row.id,))
    if st.session_state.get("around") == row.id:
        _around(project, row)


def _look_around(utterance_id: int) -> None:
    """Show or hide an utterance's context."""
    closed = st.session_state.get("around") == utterance_id
    st.session_state["around"] = None if closed else utterance_id


def _around(project: Project, row: Utterance) -> None:
    with st.container(border=True):
        if row.conversation is not None:
            st.caption(say("In the conversation"))
            turns = utterances.turns_around(project.db, row, AROUND)
            lines = (layout.spoken("turn here" if t.id == row.id else "turn", t.speaker, t.text) for t in turns)
            st.html("".join(lines))
        st.caption(say("Most similar"))
        with st.spinner(say("Comparing")):
            near = alike(project, row.id)
        texts = utterances.read(project.db, [utterance_id for utterance_id, _ in near])
        for other, (_, likeness) in zip(texts, near, strict=True):
            layout.html("turn", other.text, number(likeness, ".0%"))
        if not near:
            layout.html("quiet", say("No similar utterances."))


def _answer_all(project: Project, search: Search, found: list[int]) -> None:
    """Offer one answer for all results, with a preview of its effects."""
    codebook = codebook_of(project)
    named = {label.id: label.name for label in codebook.labels}
    names = layout.told_apart({NONE_FITS: say("none fits")}, named)
    with st.expander(say("Answer all {n:,} at once", n=len(found))):
        options = [*codebook.ids, NONE_FITS]
        chosen = st.selectbox(
            say("Answer"),
            options,
            index=None,
            format_func=names.__getitem__,
            key="bulk-label",
            placeholder="…",
        )
        replace = st.checkbox(say("Replace my other answers"), key="bulk-replace")
        if chosen is None:
            return
        said = Answer("label", chosen) if chosen else Answer("none_fits")
        plan = preview(project, layout.annotator(), found, said, replace)
        for line in effects(plan):
            layout.html("quiet", line)
        st.button(
            say("Answer {n:,} with “{label}”", n=len(plan.ids), label=names[chosen]),
            type="primary",
            key="bulk-do",
            disabled=not plan.ids,
            on_click=_do,
            args=(search, said, plan, named.get(chosen, names[NONE_FITS])),
        )


def effects(plan: Preview) -> list[str]:
    """Return one line for each effect that a bulk answer would have."""
    get = len(plan.ids)
    lines = (
        (True, say_many("{n:,} gets this answer.", "{n:,} get this answer.", get)),
        (
            plan.audit,
            say("{n:,} are left out: they belong to the audit sample and are answered one at a time.", n=plan.audit),
        ),
        (plan.same, say("{n:,} are left out: you have already given this answer.", n=plan.same)),
        (plan.kept, say("{n:,} are left out: you have given another answer.", n=plan.kept)),
        (plan.replaced, say("{n:,} of your answers are replaced.", n=plan.replaced)),
        (plan.beside, say("{n:,} have a different answer from someone else, which is kept.", n=plan.beside)),
        (plan.adjudicated, say("{n:,} were adjudicated; that decision still counts.", n=plan.adjudicated)),
        (
            plan.accepted,
            say("{n:,} were auto-accepted: your answer counts from now on.", n=plan.accepted),
        ),
    )
    return [line for counts, line in lines if counts]


@layout.guarded
def _do(search: Search, said: Answer, plan: Preview, told: str) -> None:
    pending.submit(told, partial(_store, layout.annotator(), search, said, plan))


def _store(annotator: str, search: Search, said: Answer, plan: Preview, project: Project) -> None:
    """Give the answer to all utterances in the preview that have not been answered since."""
    act = bulk.answer_all(project, annotator, search, said, plan.ids, plan.seen)
    st.toast(say("{n:,} answered.", n=acts.size(project.db, act)))
    follow_up(project)


def _acts(project: Project, names: Mapping[int, str]) -> None:
    """List bulk answers, each with an undo button."""
    done = acts.history(project.db, layout.annotator())
    if not done:
        return
    st.header(say("Bulk answers"))
    for act in done:
        answer = names.get(act.label_id or NONE_FITS, "")
        looked = parsed(act.search, "a search")
        what = " ".join(part for part in (looked["words"], looked["pattern"]) if part) or say("by conditions")
        with st.container(horizontal=True, vertical_alignment="center"):
            with st.container(width="stretch"):
                layout.html("quiet", f"{act.at[:16].replace('T', ' ')} · {act.size:,} × {answer} · {what}")
            st.button(
                say("Undone") if act.undone else say("Undo"),
                key=f"take-back-{act.id}",
                disabled=bool(act.undone),
                on_click=_take_back,
                args=(act.id,),
            )


@layout.guarded
def _take_back(act: int) -> None:
    with layout.opened_project() as project:
        count = bulk.take_back(project, act, layout.annotator())
        follow_up(project)
    st.toast(say_many("{n:,} answer undone.", "{n:,} answers undone.", count))
