"""The codebook page: task instruction, labels and history. Every change is previewed before it is applied."""

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from annotator.codebook import changes, history
from annotator.codebook.definition import CodebookLabel, codebook_of
from annotator.codebook.draft import COLORS
from annotator.errors import BadInput
from annotator.i18n import later, say, say_many
from annotator.labeling.review import to_label_again
from annotator.pages import review
from annotator.pages.components import codebook_history, label_card, layout
from annotator.pages.components.state import CodebookState, PendingChange
from annotator.project import Project
from store import annotations, labels
from store.labels import Change, Fields

ACTS = (later("Change"), later("Move"), later("Merge"), later("Split"), later("Retire"))


def show() -> None:
    """Show the page."""
    st.title(say("Codebook"))
    with layout.opened_project() as project:
        _review_notice(project)
        _instruction(project)
        _labels(project)
        _add(project)
        _retired(project)
        codebook_history.show(project)


def _review_notice(project: Project) -> None:
    """Show how many utterances need review after a change, with a link to them."""
    count = len(to_label_again(project))
    if not count:
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(
            say_many(
                "**{n:,} utterance** needs review because the codebook has changed.",
                "**{n:,} utterances** need review because the codebook has changed.",
                count,
            )
        )
        if st.button(say("Review them"), key="worklist"):
            review.enter("codebook")


def _instruction(project: Project) -> None:
    st.header(say("Task instruction"))
    layout.html("guideline", codebook_of(project).instruction)
    if _pending(project, "instruction"):
        return
    title, now = say("Change the instruction"), codebook_of(project).instruction
    with st.expander(title), st.form("instruction", border=False):
        text = st.text_area(say("Instruction"), now, key=f"instruction-{now}")
        if st.form_submit_button(say("Preview the change")):
            _propose(project, "instruction", title, lambda: changes.instruct(project, text))


# The labels


def _labels(project: Project) -> None:
    st.header(say("Labels"))
    counts = annotations.count_labels(project.db)
    for label in codebook_of(project).labels:
        chosen, name = CodebookState.current().chosen_label == label.id, layout.plain(label.name)
        with st.container(border=True):
            with st.container(horizontal=True, vertical_alignment="center"):
                with st.container(width="stretch"):
                    st.html(label_card.heading(label, _answers(counts.get(label.id, 0))))
                st.button(
                    say("Close") if chosen else say("Edit"),
                    key=f"choose-{label.id}",
                    help=say("Close {label}", label=name) if chosen else say("Edit {label}", label=name),
                    on_click=_choose,
                    args=(None if chosen else label.id,),
                )
            st.html(label_card.definition(label))
            if chosen and not _pending(project, label.id):
                _edit(project, label, counts.get(label.id, 0))


def _answers(count: int) -> str:
    return say_many("{n:,} answer", "{n:,} answers", count)


def _choose(label_id: int | None) -> None:
    page = CodebookState.current()
    page.chosen_label, page.pending = label_id, None


def _edit(project: Project, label: CodebookLabel, answers: int) -> None:
    name = layout.plain(label.name)
    act = st.segmented_control(
        say("Action for “{label}”", label=name),
        ACTS,
        default=ACTS[0],
        format_func=say,
        key=f"act-{label.id}",
        required=True,
        width="stretch",
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
            say(
                "The label can no longer be assigned, and its answers count as no label. They are kept and "
                "return if you reinstate it."
            )
        )
        if st.button(say("Preview the change"), key="retire"):
            _propose(
                project,
                label.id,
                say("Retire “{label}”", label=name),
                lambda: changes.retire(project, label.id),
            )


def _change_text(project: Project, label: CodebookLabel, answers: int) -> None:
    with st.form(f"text-{label.id}", border=False):
        values = _text_fields(label, f"{label.id}-{codebook_of(project).version}")
        look = answers > 0 and st.checkbox(
            say_many(
                "Its meaning has changed: list its {n:,} answer for review",
                "Its meaning has changed: list its {n:,} answers for review",
                answers,
            ),
            key=f"look-{label.id}-{answers}",
            help=say("They remain training examples until someone has reviewed them."),
        )
        if st.form_submit_button(say("Preview the change")):
            title = say("Change “{label}”", label=layout.plain(label.name))
            _propose(project, label.id, title, lambda: changes.revise(project, label.id, values, look))


def _text_fields(label: CodebookLabel, at: str) -> Fields:
    name = st.text_input(say("Name"), label.name, 200, key=f"name-{at}")
    about, lines_before = say("Read by annotators and by the model."), "\n".join(label.examples)
    definition = st.text_area(say("Definition"), label.definition, help=about, key=f"definition-{at}")
    examples = st.text_area(say("Examples, one per line"), lines_before, key=f"examples-{at}")
    left, middle, right = st.columns(3)
    about = say("The words the model predicts for this label, if not its name.")
    words = left.text_input(say("Label words"), label.words, help=about, key=f"words-{at}")
    key = middle.text_input(say("Key"), label.key, max_chars=1, key=f"key-{at}")
    colors = list(COLORS)
    color = right.selectbox(say("Color"), colors, colors.index(label.color), format_func=say, key=f"color-{at}")
    written = {"name": name, "definition": definition, "words": words, "key": key.lower()}
    changed = {field: value.strip() for field, value in written.items() if value.strip() != getattr(label, field)}
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    more = {"examples": (lines, list(label.examples)), "color": (color, label.color)}
    return changed | {field: value for field, (value, before) in more.items() if value != before}


def _move(project: Project, label: CodebookLabel) -> None:
    order = list(codebook_of(project).ids)
    place = st.number_input(
        say("Position in the list"), 1, len(order), order.index(label.id) + 1, key=f"place-{label.id}"
    )
    if st.button(say("Preview the change"), key="move"):
        order.remove(label.id)
        order.insert(int(place) - 1, label.id)
        title = say("Move “{label}” to position {n}", label=layout.plain(label.name), n=place)
        _propose(project, label.id, title, lambda: changes.reorder(project, order))


def _merge(project: Project, label: CodebookLabel) -> None:
    others = {other.id: layout.plain(other.name) for other in codebook_of(project).labels if other.id != label.id}
    name = layout.plain(label.name)
    into = st.selectbox(
        say("Count answers “{label}” as", label=name),
        list(others),
        format_func=others.__getitem__,
        key=f"into-{label.id}",
    )
    if st.button(say("Preview the change"), key="merge"):
        title = say("Merge “{label}” into “{other}”", label=name, other=others[into])
        _propose(project, label.id, title, lambda: changes.merge(project, [label.id], into))


def _split(project: Project, label: CodebookLabel) -> None:
    with st.form(f"split-{label.id}", border=False):
        text = st.text_area(
            say("New labels, one per line"),
            placeholder=say("Name: its definition\nAnother name: its definition"),
            key=f"parts-{label.id}",
        )
        st.caption(
            say("They replace this label. Its answers are kept and shown next to each utterance while you review it.")
        )
        if st.form_submit_button(say("Preview the change")):
            lines = [line.partition(":") for line in text.splitlines() if line.strip()]
            parts = [{"name": name.strip(), "definition": definition.strip()} for name, _, definition in lines]
            into = ", ".join(layout.plain(part["name"]) for part in parts)
            title = say("Split “{label}” into {parts}", label=layout.plain(label.name), parts=into)
            _propose(project, label.id, title, lambda: changes.split(project, label.id, parts))


def _add(project: Project) -> None:
    if _pending(project, "add"):
        return
    unfit = annotations.counts(project.db)["none_fits"]
    with st.expander(say("Add a label")), st.form("add", border=False):
        name = st.text_input(say("Name of the new label"), max_chars=200, key="new-label")
        about = say("Read by annotators and by the model.")
        definition = st.text_area(say("Its definition"), help=about, key="new-definition")
        look = unfit > 0 and st.checkbox(
            say_many(
                "List the {n:,} answer “none fits” for review", "List the {n:,} answers “none fits” for review", unfit
            ),
            value=True,
            key=f"look-unfit-{unfit}",
        )
        if st.form_submit_button(say("Preview the change")):
            draft = {"name": name.strip(), "definition": definition.strip()}
            _propose(
                project,
                "add",
                say("Add “{label}”", label=layout.plain(name)),
                lambda: changes.add(project, draft, look),
            )


def _retired(project: Project) -> None:
    retired = [label for label in labels.every(project.db) if not label.in_use]
    if not retired:
        return
    names = labels.names(project.db)
    with st.expander(say("Retired ({n})", n=len(retired))):
        for gone in retired:
            count = _answers(annotations.count_given(project.db, [gone.id])[0])
            other = say("counts as “{label}”", label=names[gone.counts_as]) if gone.merged_into else ""
            with st.container(horizontal=True, vertical_alignment="center"):
                with st.container(width="stretch"):
                    layout.html("event", f"{count}, {other or say('counts as no label')}", gone.name)
                name = layout.plain(gone.name)
                about = say("Reinstate {label}", label=name)
                if st.button(say("Reinstate"), key=f"restore-{gone.id}", help=about):
                    title = say("Reinstate “{label}”", label=name)
                    _propose(project, ("gone", gone.id), title, partial(changes.restore, project, gone.id))
            _pending(project, ("gone", gone.id))


# Preview, then apply


def _propose(project: Project, place: Any, title: str, build: Callable[[], Change]) -> None:
    """Prepare a change and preview it in its place; show the error if it is refused."""
    try:
        proposal = changes.propose(project, build())
    except BadInput as refused:
        layout.show_error(refused)
        return
    CodebookState.current().pending = PendingChange((project.folder, place), title, proposal)
    st.rerun()


def _pending(project: Project, place: Any) -> bool:
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
            st.button(say("Cancel"), key="leave-it", on_click=_choose, args=(page.chosen_label,))
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
