"""The labels to choose from on the label page: all of them, a short list, or one level of a tree.

In a tree, a key opens a group, and what it holds is shown in its place. Of a long codebook with a suggestion, the
likeliest labels come first; the tree is one key away.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import streamlit as st

from annotator.codebook.definition import Codebook, CodebookLabel
from annotator.codebook.draft import COLORS
from annotator.i18n import number, say
from annotator.labeling.session import Question
from annotator.methods.prediction_sets import LARGE
from annotator.pages.components import keys, label_card, layout
from annotator.pages.components.state import LabelState
from store.annotations import Kind

FEW = 3  # minimum number of labels in a short list; a single one would invite mere agreement
LIST = "list"  # the place of the short list
TREE, UP = "group-tree", "group-up"  # the buttons that open the tree, and leave a group
OnAnswer = Callable[[int, Kind, int | None, str], None]


@dataclass(frozen=True)
class Offered:
    """The labels and groups that have a button, where in the codebook they are, and further keys by button."""

    nodes: Sequence[CodebookLabel]
    place: str = ""
    ways: Mapping[str, str] = field(default_factory=dict)


def offered(codebook: Codebook, question: Question) -> Offered:
    """Return what to offer for an utterance: a short list, the level of the tree that is open, or all labels."""
    opened = LabelState.current().opened
    is_open = opened is not None and opened[0] == question.utterance.id
    short = _shortlist(codebook, question)
    if not codebook.groups:
        return Offered(short or codebook.labels)
    if short and not is_open:
        return Offered(short, LIST, {keys.TREE: TREE})
    known = {group.id for group in codebook.groups}  # the open one may have been dissolved meanwhile
    group = opened[1] if opened and is_open and opened[1] in known else None
    ways = {"backspace": UP, "escape": UP} if group is not None or short else {}
    return Offered(codebook.held(group), str(group or "top"), ways)


def _shortlist(codebook: Codebook, question: Question) -> Sequence[CodebookLabel]:
    """Return the likeliest labels of a large codebook, on the number keys; none without a suggestion."""
    suggestion = question.suggestion
    if len(codebook.labels) <= LARGE or not suggestion:
        return ()
    known = {label.id: label for label in codebook.labels}
    size = min(LARGE, max(len(suggestion.shortlist), FEW)) if suggestion.shortlist else LARGE
    return keys.numbered([known[i] for i, _ in suggestion.probabilities[:size] if i in known])


def show(codebook: Codebook, offered: Offered, question: Question, answer: OnAnswer) -> None:
    """Show a button for each label and group that is offered, and a field to find any other."""
    asked, nodes = question.utterance.id, offered.nodes
    if len(codebook.labels) > LARGE or codebook.groups:
        names = {label.id: label.name for label in codebook.labels}
        label_card.find_label(codebook, asked, lambda label: answer(asked, "label", label, names[label]))
    likely = _likely(codebook, question)
    if offered.ways:
        _ways(codebook, offered, asked)
    if len(nodes) > LARGE:
        with st.container(horizontal=True):
            for node in nodes:
                _button(node, asked, answer, share=likely.get(node.id))
        return
    for node in nodes:
        with st.container(horizontal=True, vertical_alignment="top", gap="medium", key=f"choice-{node.id}"):
            _button(node, asked, answer)
            with st.container(width="stretch"):
                _beside(node, likely.get(node.id))
    if offered.place == LIST or (not codebook.groups and len(nodes) < len(codebook.labels)):
        _about_short_list(question, len(nodes))


def _likely(codebook: Codebook, question: Question) -> dict[int, float]:
    """Return the probabilities of the suggestion by label and group: that of a group is the sum over its labels."""
    if not question.suggestion:
        return {}
    likely = dict(question.suggestion.probabilities)
    return likely | {group.id: sum(likely.get(i, 0) for i in codebook.under(group.id)) for group in codebook.groups}


def _ways(codebook: Codebook, offered: Offered, asked: int) -> None:
    """Show the button that opens the tree, or the path of the open group and the button that leaves it."""
    if offered.place == LIST:
        st.button(say("All labels (0)"), key=TREE, on_click=_open, args=(asked, None))
        return
    group = None if offered.place == "top" else codebook.node(int(offered.place))
    with st.container(horizontal=True, vertical_alignment="center"):
        back = (None,) if group is None else (asked, group.parent_id)
        st.button(say("Back"), key=UP, icon=":material/arrow_back:", on_click=_open, args=back)
        layout.html("quiet", codebook.path(group.id) if group else say("All labels"))


def _open(asked: int | None, group_id: int | None = None) -> None:
    """Show what a group holds, or the top of the tree, for an utterance; without one, the short list."""
    LabelState.current().opened = None if asked is None else (asked, group_id)


def _about_short_list(question: Question, count: int) -> None:
    """Explain the short list. Its coverage is known only after enough audit answers."""
    short = question.suggestion.shortlist if question.suggestion else ()
    held = (
        say("Lists like this include the right label 95 times in 100. Find any other label above.")
        if 0 < len(short) <= LARGE
        else say("The {n} likeliest labels. Find any other label above.", n=count)
    )
    layout.html("quiet", held)


def _button(node: CodebookLabel, asked: int, answer: OnAnswer, share: float | None = None) -> None:
    name = layout.plain(node.name) + (" …" if node.is_group else "")
    st.button(
        name + (f" ·\u00a0{number(share, '.0%')}" if share is not None else ""),
        key=keys.button_of(node, "label"),
        shortcut=node.key or None,
        help=layout.plain(node.definition) if share is not None and node.definition else None,
        on_click=_open if node.is_group else answer,
        args=(asked, node.id) if node.is_group else (asked, "label", node.id, node.name),
        width=230,
    )


def _beside(node: CodebookLabel, share: float | None) -> None:
    """Show a label's probability (or an empty space), its definition and, if requested, its examples."""
    bar = '<div class="no-bar"></div>'
    if share is not None:
        described = say("probability {share:.0%}", share=share)
        bar = (
            f'<div class="likely" role="img" aria-label="{described}"><div class="track">'
            f'<div class="bar" style="width:{share:.1%};background:{COLORS[node.color]}"></div></div>'
            f'<div class="number">{number(share, ".0%")}</div></div>'
        )
    wanted = node.examples if LabelState.current().shows_examples else ()
    examples = "".join(f'<li dir="auto">{escape(one)}</li>' for one in wanted)
    listed = f'<ul class="examples">{examples}</ul>' if examples else ""
    st.html(f'{bar}<div class="definition" dir="auto">{escape(node.definition)}</div>{listed}')
