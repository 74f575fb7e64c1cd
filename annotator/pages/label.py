"""The label page: one utterance, one key a label, and the next utterance is there."""

import time
from dataclasses import replace
from html import escape

import streamlit as st

from annotator.codebook import Codebook, CodebookLabel
from annotator.errors import AnnotatorError
from annotator.pages import frame, why
from annotator.project import Project
from annotator.session import Answer, Question, Standing, answer, next_question, standing, undo
from annotator.worker import start_round_if_due
from store import jobs

ROOMY = 9  # labels that fit beside their definitions
FEW = 3  # labels that a short-list shows at least: one alone would ask for assent


def show() -> None:
    """Show the page."""
    _panel()


@st.fragment
def _panel() -> None:
    """Everything an answer changes. A fragment: answering redraws this and nothing else."""
    with frame.opened_project() as project:
        question = _current(project)
        if error := st.session_state.pop("error", None):
            frame.show_error(error)
        _progress(standing(project, frame.annotator()))
        if question is None:
            _finished(project)
            return
        codebook = project.codebook()
        _utterance(question)
        _labels(codebook, question)
        _other_answers(question)
        _notes(project, question)
        why.show(project, codebook, question)
        if jobs.active(project.db) and not st.session_state.get("job_active"):
            st.rerun()  # a round has started by itself: the sidebar must show it


def _current(project: Project) -> Question | None:
    """Keep the utterance on screen until it is answered, also when a new round arrives meanwhile."""
    owner = (project.folder, frame.annotator())
    kept = st.session_state.get("question")
    if kept is None or st.session_state.get("question_of") != owner:
        _bring_next(project)
        st.session_state["question_of"] = owner
        _start_if_due(project)
    question: Question | None = st.session_state["question"]
    return question


def _bring_next(project: Project) -> None:
    why.forget()
    st.session_state["question"] = next_question(project, frame.annotator())
    st.session_state["shown_at"] = time.monotonic()


def _start_if_due(project: Project) -> None:
    try:
        start_round_if_due(project)
    except AnnotatorError as error:
        st.session_state["error"] = error


@frame.guarded
def _say(utterance_id: int, kind: str, label_id: int | None) -> None:
    """Store an answer and bring the next utterance. A key pressed twice does not answer one unseen."""
    question: Question | None = st.session_state.get("question")
    if question is None or question.utterance["id"] != utterance_id:
        return
    said = Answer(
        kind,  # type: ignore[arg-type]
        label_id,
        unsure=st.session_state.get("unsure", False),
        comment=st.session_state.get("comment", "").strip(),
        milliseconds=round((time.monotonic() - st.session_state["shown_at"]) * 1000),
    )
    with frame.opened_project() as project:
        answer(project, question, frame.annotator(), said)
        st.session_state.update(unsure=False, comment="")
        _bring_next(project)
        _start_if_due(project)


@frame.guarded
def _take_back() -> None:
    with frame.opened_project() as project:
        if undo(project, frame.annotator()):
            _bring_next(project)
        else:
            st.toast("There is no answer of yours to take back.")


def _progress(done: Standing) -> None:
    answered = done.batch_size - done.batch_left
    bars = (("This batch", answered, done.batch_size), ("All", done.labelled, done.to_label))
    with st.container(horizontal=True):
        for name, count, whole in bars:
            with st.container(width="stretch"):
                st.progress(count / max(1, whole), text=f"{name}: {count} of {whole}")


def _utterance(question: Question) -> None:
    for turn in question.turns_before:
        frame.html("turn", turn["text"], turn["speaker"] or "")
    frame.html("utterance", question.utterance["text"], question.utterance["speaker"] or "")


def _labels(codebook: Codebook, question: Question) -> None:
    likely = dict(question.suggestion.probabilities) if question.suggestion else {}
    if len(codebook.labels) <= ROOMY:
        for label in codebook.labels:
            with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
                _button(label, question, width=230)
                with st.container(width="stretch"):
                    _beside(label, likely.get(label.id))
        return
    if question.suggestion and question.suggestion.shortlist:
        _short_list(codebook, question, likely)
    else:
        with st.container(horizontal=True):
            for label in codebook.labels:
                _button(label, question, width="content", share=likely.get(label.id))
    _search(codebook, question)


def _short_list(codebook: Codebook, question: Question, likely: dict[int, float]) -> None:
    """Offer the likeliest labels of a large codebook on the number keys, whatever keys they have otherwise."""
    assert question.suggestion
    known = {label.id: label for label in codebook.labels}
    size = min(ROOMY, max(len(question.suggestion.shortlist), FEW))
    short = [known[i] for i, _ in question.suggestion.probabilities[:size] if i in known]
    for number, label in enumerate(short, start=1):
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            _button(replace(label, key=str(number)), question, width=230)
            with st.container(width="stretch"):
                _beside(label, likely.get(label.id))
    more = len(question.suggestion.shortlist) > ROOMY
    held = f"The {ROOMY} likeliest labels." if more else "Lists like this hold the right label 95 times in 100."
    frame.html("quiet", f"{held} Any other is found below.")


def _search(codebook: Codebook, question: Question) -> None:
    """Find any label of a large codebook by typing a part of its name; choosing it answers."""
    asked = question.utterance["id"]
    names = {label.id: frame.plain(label.name) for label in codebook.labels}
    key = f"search-{asked}"
    st.selectbox(
        "Find a label",
        list(names),
        index=None,
        format_func=names.__getitem__,
        placeholder=f"Type a part of one of {len(names)} names",
        key=key,
        on_change=_say_found,
        args=(asked, key),
    )


def _say_found(utterance_id: int, key: str) -> None:
    _say(utterance_id, "label", st.session_state[key])


def _button(label: CodebookLabel, question: Question, width: int | str, share: float | None = None) -> None:
    name = frame.plain(label.name) + (f" · {share:.0%}" if share is not None else "")
    st.button(
        name,
        key=f"label-{label.id}",
        shortcut=label.key or None,
        help=frame.plain(label.definition) if share is not None and label.definition else None,
        on_click=_say,
        args=(question.utterance["id"], "label", label.id),
        width=width,  # type: ignore[arg-type]
    )


def _beside(label: CodebookLabel, share: float | None) -> None:
    bar = ""
    if share is not None:
        bar = (
            f'<div class="likely" role="img" aria-label="probability {share:.0%}"><div class="track">'
            f'<div class="bar" style="width:{share:.1%}"></div></div><div class="number">{share:.0%}</div></div>'
        )
    st.html(f'{bar}<div class="definition" dir="auto">{escape(label.definition)}</div>')


def _other_answers(question: Question) -> None:
    asked = question.utterance["id"]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("None fits", key="none-fits", shortcut="n", on_click=_say, args=(asked, "none_fits", None))
        st.button("Skip", key="skip", shortcut="s", on_click=_say, args=(asked, "skip", None))
        st.button("Undo", key="undo", shortcut="u", icon=":material/undo:", on_click=_take_back)
        st.checkbox("Unsure", key="unsure", help="Tick before answering: the answer is stored with this mark.")


def _notes(project: Project, question: Question) -> None:
    st.text_input("Comment", key="comment", placeholder="Stored with the answer", max_chars=2000)
    about = question.reason
    if question.suggestion:
        about += f" The bars are round {question.suggestion.round_number}'s probabilities."
    elif not question.is_audit and project.config.show_suggestions:
        about += " There is no suggestion before the model's first round."
    frame.html("quiet", about)


def _finished(project: Project) -> None:
    st.success("Every utterance has an answer.")
    st.write("Export the dataset, import more utterances, or take answers back.")
    st.button("Undo", key="undo", shortcut="u", icon=":material/undo:", on_click=_take_back)
