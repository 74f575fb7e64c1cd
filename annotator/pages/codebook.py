"""The codebook page: task instruction, labels and history. Every change is previewed before it is applied."""

from functools import partial

import streamlit as st

from annotator.codebook import changes
from annotator.codebook.definition import Codebook, CodebookLabel, codebook_of
from annotator.i18n import say, say_many
from annotator.labeling.review import to_label_again
from annotator.pages import review
from annotator.pages.components import browser, codebook_history, label_card, label_edit, layout, proposals
from annotator.pages.components.state import CodebookState
from annotator.project import Project
from store import annotations, labels


def show() -> None:
    """Show the page."""
    st.title(say("Codebook"))
    with layout.opened_project() as project:
        _review_notice(project)
        _instruction(project)
        _labels(project)
        _add(project)
        _add_group(project)
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
    if proposals.pending(project, "instruction"):
        return
    title, now = say("Change the instruction"), codebook_of(project).instruction
    with st.expander(title), st.form("instruction", border=False):
        text = st.text_area(say("Instruction"), now, key=f"instruction-{now}")
        if st.form_submit_button(say("Preview the change")):
            proposals.propose(project, "instruction", title, lambda: changes.instruct(project, text))


# The labels


def _labels(project: Project) -> None:
    st.header(say("Labels"))
    counts, book = annotations.count_labels(project.db), codebook_of(project)
    browser.indent({f"node-{node.id}": len(book.above(node.id)) for node in book.nodes})
    for node in book.nodes:
        count = sum(counts.get(i, 0) for i in (book.under(node.id) if node.is_group else (node.id,)))
        with st.container(border=True, key=f"node-{node.id}"):
            _node(project, node, count)


def _node(project: Project, node: CodebookLabel, count: int) -> None:
    """Show a label or group, and its form if it is chosen."""
    chosen, name = CodebookState.current().chosen_label == node.id, layout.plain(node.name)
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.container(width="stretch"):
            answers = _answers(count)
            st.html(label_card.heading(node, say("group, {answers}", answers=answers) if node.is_group else answers))
        st.button(
            say("Close") if chosen else say("Edit"),
            key=f"choose-{node.id}",
            help=say("Close {label}", label=name) if chosen else say("Edit {label}", label=name),
            on_click=proposals.choose,
            args=(None if chosen else node.id,),
        )
    st.html(label_card.definition(node))
    if chosen and not proposals.pending(project, node.id):
        label_edit.edit(project, node, count)


def _answers(count: int) -> str:
    return say_many("{n:,} answer", "{n:,} answers", count)


def _add(project: Project) -> None:
    if proposals.pending(project, "add"):
        return
    unfit, book = annotations.counts(project.db)["none_fits"], codebook_of(project)
    with st.expander(say("Add a label")), st.form("add", border=False):
        name = st.text_input(say("Name of the new label"), max_chars=200, key="new-label")
        about = say("Read by annotators and by the model.")
        definition = st.text_area(say("Its definition"), help=about, key="new-definition")
        group = _group_of_new(book) if book.groups else None
        look = unfit > 0 and st.checkbox(
            say_many(
                "List the {n:,} answer “none fits” for review", "List the {n:,} answers “none fits” for review", unfit
            ),
            value=True,
            key=f"look-unfit-{unfit}",
        )
        if st.form_submit_button(say("Preview the change")):
            draft = {"name": name.strip(), "definition": definition.strip(), "parent_id": group}
            title = say("Add “{label}”", label=layout.plain(name))
            proposals.propose(project, "add", title, lambda: changes.add(project, draft, look))


def _group_of_new(book: Codebook) -> int | None:
    places = label_edit.group_names(book)
    return st.selectbox(say("Group"), list(places), format_func=places.__getitem__, key=f"new-in-{book.version}")


def _add_group(project: Project) -> None:
    if proposals.pending(project, "group"):
        return
    book = codebook_of(project)
    names = {node.id: layout.plain(book.path(node.id)) for node in book.nodes}
    with st.expander(say("Add a group")), st.form("new-group", border=False):
        name = st.text_input(say("Name of the new group"), max_chars=200, key="group-name")
        about = say("Read by annotators and by the model.")
        definition = st.text_area(say("Its definition"), help=about, key="group-definition")
        members = st.multiselect(
            say("Labels and groups that it holds"), list(names), format_func=names.__getitem__, key="group-members"
        )
        if st.form_submit_button(say("Preview the change")):
            draft = {"name": name.strip(), "definition": definition.strip()}
            title = say("Add the group “{group}”", group=layout.plain(name))
            proposals.propose(project, "group", title, lambda: changes.group(project, draft, members))


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
                    proposals.propose(project, ("gone", gone.id), title, partial(changes.restore, project, gone.id))
            proposals.pending(project, ("gone", gone.id))
