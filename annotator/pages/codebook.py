"""The codebook page: the labels, what becomes of them, and what was changed before. Each change is shown first."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import streamlit as st

from annotator import presort, revision, versions
from annotator.codebook import COLOURS, CodebookLabel
from annotator.errors import BadInput
from annotator.pages import frame, marks, review
from annotator.project import Project
from annotator.review import to_label_again
from annotator.revision import Proposal
from annotator.versions import many
from store import annotations, labels
from store.labels import Change, Event

LATEST = 20  # changes that the history shows at first
ACTS = ("Change", "Move", "Merge", "Split", "Put out of use")


@dataclass(frozen=True)
class Pending:
    """A change that waits for a yes."""

    owner: tuple[Any, ...]  # project and place on the page
    title: str
    proposal: Proposal


def show() -> None:
    """Show the page."""
    st.title("Codebook")
    st.html(marks.STYLE)
    with frame.opened_project() as project:
        if error := st.session_state.pop("error", None):
            frame.show_error(error)
        _worklist(project)
        _instruction(project)
        _labels(project)
        _add(project)
        _out_of_use(project)
        _history(project)


def _worklist(project: Project) -> None:
    """Say what a change has left to do, and lead there."""
    count = len(to_label_again(project))
    if not count:
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(f"**{many(count, 'utterance')}** should be looked at again since the codebook has changed.")
        if st.button("Look at them", key="worklist"):
            review.enter("codebook")


def _instruction(project: Project) -> None:
    st.header("What is to be decided")
    frame.html("guideline", project.codebook().instruction)
    if _pending(project, "instruction"):
        return
    with st.expander("Change the instruction"), st.form("instruction", border=False):
        text = st.text_area("Instruction", project.codebook().instruction)
        if st.form_submit_button("See what this changes"):
            _offer(project, "instruction", "Change the instruction", lambda: revision.instruct(project, text))


# The labels


def _labels(project: Project) -> None:
    st.header("Labels")
    counts = annotations.count_labels(project.db)
    for label in project.codebook().labels:
        chosen = st.session_state.get("chosen_label") == label.id
        with st.container(border=True):
            with st.container(horizontal=True, vertical_alignment="center"):
                with st.container(width="stretch"):
                    _row(label, many(counts.get(label.id, 0), "answer"))
                st.button(
                    "Close" if chosen else "Change",
                    key=f"choose-{label.id}",
                    help=f"{'Close' if chosen else 'Change'} {frame.plain(label.name)}",
                    on_click=_choose,
                    args=(None if chosen else label.id,),
                )
            if chosen and not _pending(project, label.id):
                _edit(project, label, counts.get(label.id, 0))


def _row(label: CodebookLabel, count: str) -> None:
    definition = escape(label.definition) or "<em>no definition yet</em>"
    st.html(
        f'<div class="row-of-label">{marks.mark(label)}<span class="count">{count}</span>'
        f'<div class="guideline" dir="auto">{definition}</div></div>'
    )


def _choose(label_id: int | None) -> None:
    st.session_state["chosen_label"] = label_id
    st.session_state.pop("pending", None)


def _edit(project: Project, label: CodebookLabel, answers: int) -> None:
    name = frame.plain(label.name)
    act = st.segmented_control(
        f"What to do with “{name}”", ACTS, default=ACTS[0], key=f"act-{label.id}", required=True, width="stretch"
    )
    if act == "Change":
        _change_text(project, label, answers)
    elif act == "Move":
        _move(project, label)
    elif act == "Merge":
        _merge(project, label)
    elif act == "Split":
        _split(project, label)
    else:
        st.caption(
            "Nobody can give it any more, and its answers count as no label. They are kept, and come back with it."
        )
        if st.button("See what this changes", key="retire"):
            _offer(project, label.id, f"Put “{name}” out of use", lambda: revision.retire(project, label.id))


def _change_text(project: Project, label: CodebookLabel, answers: int) -> None:
    with st.form(f"text-{label.id}", border=False):
        values = _text_fields(label)
        look = answers > 0 and st.checkbox(
            f"Its meaning has changed: look at its {many(answers, 'answer')} again",
            help="They go on teaching the model until somebody has looked.",
        )
        if st.form_submit_button("See what this changes"):
            title = f"Change “{frame.plain(label.name)}”"
            _offer(project, label.id, title, lambda: revision.revise(project, label.id, values, look))


def _text_fields(label: CodebookLabel) -> dict[str, Any]:
    name = st.text_input("Name", label.name, max_chars=200)
    definition = st.text_area("Definition", label.definition, help="Annotators and the model both read it.")
    examples = st.text_area("Examples, one a line", "\n".join(label.examples))
    left, middle, right = st.columns(3)
    words = left.text_input("Label words", label.words, help="What the model says for it, if not its name.")
    key = middle.text_input("Key", label.key, max_chars=1)
    colours = list(COLOURS)
    colour = right.selectbox("Colour", colours, colours.index(label.colour))
    written = {"name": name, "definition": definition, "words": words, "key": key.lower()}
    changed = {field: value.strip() for field, value in written.items() if value.strip() != getattr(label, field)}
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    more = {"examples": (lines, list(label.examples)), "colour": (colour, label.colour)}
    return changed | {field: value for field, (value, before) in more.items() if value != before}


def _move(project: Project, label: CodebookLabel) -> None:
    order = list(project.codebook().ids)
    place = st.number_input("Its place in the list", 1, len(order), order.index(label.id) + 1, key=f"place-{label.id}")
    if st.button("See what this changes", key="move"):
        order.remove(label.id)
        order.insert(int(place) - 1, label.id)
        title = f"Move “{frame.plain(label.name)}” to place {place}"
        _offer(project, label.id, title, lambda: revision.reorder(project, order))


def _merge(project: Project, label: CodebookLabel) -> None:
    others = {other.id: frame.plain(other.name) for other in project.codebook().labels if other.id != label.id}
    name = frame.plain(label.name)
    into = st.selectbox(
        f"Answers “{name}” count as", list(others), format_func=others.__getitem__, key=f"into-{label.id}"
    )
    if st.button("See what this changes", key="merge"):
        title = f"Merge “{name}” into “{others[into]}”"
        _offer(project, label.id, title, lambda: revision.merge(project, [label.id], into))


def _split(project: Project, label: CodebookLabel) -> None:
    with st.form(f"split-{label.id}", border=False):
        text = st.text_area(
            "New labels, one a line",
            placeholder="Name: its definition\nAnother name: its definition",
            key=f"parts-{label.id}",
        )
        st.caption("They take its place. Its answers are kept, and shown beside each utterance as you label it again.")
        if st.form_submit_button("See what this changes"):
            lines = [line.partition(":") for line in text.splitlines() if line.strip()]
            parts = [{"name": name.strip(), "definition": definition.strip()} for name, _, definition in lines]
            title = f"Split “{frame.plain(label.name)}” into {', '.join(frame.plain(part['name']) for part in parts)}"
            _offer(project, label.id, title, lambda: revision.split(project, label.id, parts))


def _add(project: Project) -> None:
    if _pending(project, "add"):
        return
    unfit = annotations.counts(project.db)["none_fits"]
    with st.expander("Add a label"), st.form("add", border=False):
        name = st.text_input("Name of the new label", max_chars=200)
        definition = st.text_area("Its definition", help="Annotators and the model both read it.")
        look = unfit > 0 and st.checkbox(f"Look again at the {many(unfit, 'answer')} “none fits”", value=True)
        if st.form_submit_button("See what this changes"):
            draft = {"name": name.strip(), "definition": definition.strip()}
            _offer(project, "add", f"Add “{frame.plain(name)}”", lambda: revision.add(project, draft, look))


def _out_of_use(project: Project) -> None:
    gone = [row for row in labels.every(project.db) if not labels.in_use(row)]
    if not gone:
        return
    names = labels.names(project.db)
    with st.expander(f"Out of use ({len(gone)})"):
        for row in gone:
            count = many(annotations.count_said(project.db, [row["id"]])[0], "answer")
            became = f"counts as “{names[row['counts_as']]}”" if row["merged_into"] else "counts as no label"
            with st.container(horizontal=True, vertical_alignment="center"):
                with st.container(width="stretch"):
                    frame.html("event", f"{count}, {became}", row["name"])
                if st.button("Use again", key=f"restore-{row['id']}", help=f"Use {frame.plain(row['name'])} again"):
                    title = f"Put “{frame.plain(row['name'])}” in use again"
                    _offer(project, ("gone", row["id"]), title, partial(revision.restore, project, row["id"]))
            _pending(project, ("gone", row["id"]))


# Look first, then do


def _offer(project: Project, place: Any, title: str, build: Callable[[], Change]) -> None:
    """Prepare a change and show it in its place; say why where it is refused."""
    try:
        proposal = revision.propose(project, build())
    except BadInput as refused:
        frame.show_error(refused)
        return
    st.session_state["pending"] = Pending((project.folder, place), title, proposal)
    st.rerun()


def _pending(project: Project, place: Any) -> bool:
    """Show the change that waits at this place for a yes, if there is one."""
    waiting: Pending | None = st.session_state.get("pending")
    if waiting is None or waiting.owner != (project.folder, place):
        return False
    with st.container(border=True):
        st.markdown(f"**{waiting.title}?**")
        st.markdown("\n".join(f"- {line}" for line in versions.consequences(waiting.proposal)))
        with st.container(horizontal=True):
            st.button("Do it", type="primary", key="do-it", on_click=_do_it)
            st.button("Leave it", key="leave-it", on_click=_choose, args=(st.session_state.get("chosen_label"),))
    return True


@frame.guarded
def _do_it() -> None:
    waiting: Pending = st.session_state.pop("pending")
    with frame.opened_project() as project:
        version = revision.make(project, waiting.proposal, frame.annotator())
        if waiting.proposal.change.kind == "split":
            presort.start(project, version)
    st.session_state["chosen_label"] = None
    st.toast(f"Done for everybody. The codebook is at version {version}.")


# What was changed before


def _history(project: Project) -> None:
    st.header("What was changed")
    made = [event for event in reversed(labels.events(project.db)) if event.author]
    if not made:
        st.caption("Nothing yet. Every change will stand here and can be taken back.")
        return
    names = labels.names(project.db)
    for event in made if st.session_state.get("all_changes") else made[:LATEST]:
        with st.container(horizontal=True, vertical_alignment="center"):
            with st.container(width="stretch"):
                _told(event, versions.describe(event, names))
            if not event.undone:
                shown = "Take back" if event.undoes is None else "Do again"
                st.button(shown, key=f"undo-{event.version}", on_click=_take_back, args=(event.version,))
    if len(made) > LATEST:
        st.toggle(f"All {len(made)} changes", key="all_changes")
    _past(project)


def _told(event: Event, said: str) -> None:
    kind = "event undone" if event.undone else "event"
    when = f"version {event.version}, {escape(event.author)}, {event.at[:16].replace('T', ' ')} UTC"
    st.html(
        f'<div class="{kind}" dir="auto"><span class="what">{escape(said)}</span><div class="when">{when}</div></div>'
    )


@frame.guarded
def _take_back(version: int) -> None:
    st.session_state.pop("pending", None)
    with frame.opened_project() as project:
        versions.undo(project, version, frame.annotator())


def _past(project: Project) -> None:
    """Show the text of any version: what annotators had before them when they answered."""
    first = min(event.version for event in labels.events(project.db) if event.author) - 1
    with st.expander("Read an earlier version"):
        choices = list(range(labels.version(project.db), first - 1, -1))
        chosen = st.selectbox("Version", choices, index=min(1, len(choices) - 1))
        past = versions.codebook_at(project, chosen)
        frame.html("guideline", past.instruction)
        for label in past.labels:
            _row(label, "")
