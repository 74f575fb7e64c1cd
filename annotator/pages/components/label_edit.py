"""Forms to edit a label or group of the codebook: one act at a time, each previewed before it is applied."""

import streamlit as st

from annotator.codebook import changes
from annotator.codebook.definition import Codebook, CodebookLabel, codebook_of
from annotator.codebook.draft import COLORS, read_labels
from annotator.i18n import later, say, say_many
from annotator.pages.components import layout
from annotator.pages.components.proposals import propose
from annotator.project import Project
from store.labels import Fields

ACTS = (later("Change"), later("Move"), later("Merge"), later("Split"), later("Retire"))
ACTS_ON_GROUP = (later("Change"), later("Move"), later("Merge"), later("Dissolve"))


def edit(project: Project, label: CodebookLabel, answers: int) -> None:
    """Show the form of the chosen act on a label or group, which has this many answers."""
    name = layout.plain(label.name)
    act = st.segmented_control(
        say("Action for “{label}”", label=name),
        ACTS_ON_GROUP if label.is_group else ACTS,
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
        _end(project, label)


def _end(project: Project, label: CodebookLabel) -> None:
    """Show what it means to retire a label, or to dissolve a group."""
    name = layout.plain(label.name)
    title = say("Retire “{label}”", label=name)
    about = say(
        "The label can no longer be assigned, and its answers count as no label. They are kept and "
        "return if you reinstate it."
    )
    if label.is_group:
        title = say("Dissolve “{label}”", label=name)
        about = say("What the group holds moves up into the group around it, if there is one. No answer changes.")
    st.caption(about)
    if st.button(say("Preview the change"), key="retire"):
        end = changes.dissolve if label.is_group else changes.retire
        propose(project, label.id, title, lambda: end(project, label.id))


def _change_text(project: Project, label: CodebookLabel, answers: int) -> None:
    with st.form(f"text-{label.id}", border=False):
        values = _text_fields(label, f"{label.id}-{codebook_of(project).version}")
        look = (
            answers > 0
            and not label.is_group
            and st.checkbox(
                say_many(
                    "Its meaning has changed: list its {n:,} answer for review",
                    "Its meaning has changed: list its {n:,} answers for review",
                    answers,
                ),
                key=f"look-{label.id}-{answers}",
                help=say("They remain training examples until someone has reviewed them."),
            )
        )
        if st.form_submit_button(say("Preview the change")):
            title = say("Change “{label}”", label=layout.plain(label.name))
            propose(project, label.id, title, lambda: changes.revise(project, label.id, values, look))


def _text_fields(label: CodebookLabel, at: str) -> Fields:
    name = st.text_input(say("Name"), label.name, 200, key=f"name-{at}")
    about, lines_before = say("Read by annotators and by the model."), "\n".join(label.examples)
    definition = st.text_area(say("Definition"), label.definition, help=about, key=f"definition-{at}")
    left, middle, right = st.columns(3)
    examples, words = lines_before, label.words
    if not label.is_group:
        examples = st.text_area(say("Examples, one per line"), lines_before, key=f"examples-{at}")
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
    """Offer the groups to move a label or group into, if there are any, and its places where it is."""
    book, name = codebook_of(project), layout.plain(label.name)
    order = [node.id for node in book.held(label.parent_id)]
    places = group_names(book, without=label.id)
    group = label.parent_id
    if len(places) > 1:
        group = st.selectbox(
            say("Group"),
            list(places),
            list(places).index(label.parent_id),
            format_func=places.__getitem__,
            key=f"group-{label.id}-{book.version}",
        )
    if group != label.parent_id:
        if st.button(say("Preview the change"), key="move"):
            title = say("Move “{label}” into “{group}”", label=name, group=places[group])
            propose(project, label.id, title, lambda: changes.move(project, label.id, group))
        return
    place = st.number_input(
        say("Position in the list"), 1, len(order), order.index(label.id) + 1, key=f"place-{label.id}"
    )
    if st.button(say("Preview the change"), key="move"):
        order.remove(label.id)
        order.insert(int(place) - 1, label.id)
        title = say("Move “{label}” to position {n}", label=name, n=place)
        propose(project, label.id, title, lambda: changes.reorder(project, order, label.parent_id))


def group_names(book: Codebook, without: int | None = None) -> dict[int | None, str]:
    """Return the top and all groups with their paths; `without` one and those inside it."""
    groups = [one.id for one in book.groups if without not in (one.id, *(above.id for above in book.above(one.id)))]
    return {None: say("(no group)")} | {one: layout.plain(book.path(one)) for one in groups}


def _merge(project: Project, label: CodebookLabel) -> None:
    book = codebook_of(project)
    alike = book.groups if label.is_group else book.labels
    others = {other.id: layout.plain(book.path(other.id)) for other in alike if other.id != label.id}
    name = layout.plain(label.name)
    if not others:
        st.caption(say("There is no other group."))
        return
    about = (
        say("Put what “{label}” holds into", label=name)
        if label.is_group
        else say("Count answers “{label}” as", label=name)
    )
    into = st.selectbox(about, list(others), format_func=others.__getitem__, key=f"into-{label.id}")
    if st.button(say("Preview the change"), key="merge"):
        title = say("Merge “{label}” into “{other}”", label=name, other=others[into])
        propose(project, label.id, title, lambda: changes.merge(project, [label.id], into))


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
            parts = read_labels(text)
            into = ", ".join(layout.plain(part["name"]) for part in parts)
            title = say("Split “{label}” into {parts}", label=layout.plain(label.name), parts=into)
            propose(project, label.id, title, lambda: changes.split(project, label.id, parts))
