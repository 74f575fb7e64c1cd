"""The data page: what is in the project, import more, or start a new project from a file or a sample."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.uploaded_file_manager import UploadedFile

from annotator.codebook import CodebookDraft, codebook_yaml, parse_codebook, parse_codebook_text
from annotator.errors import BadInput
from annotator.language import number, retell, say, say_many
from annotator.pages import frame
from annotator.project import Project
from annotator.samples import SAMPLES, create_sample, workspace
from store import annotations, utterances
from store.importers import Columns, ImportPlan, ImportReport, detect_columns, labels_in, preview
from store.readers import Rejected, read_header

TYPES = ["csv", "tsv", "jsonl", "parquet", "xlsx"]


def show() -> None:
    """Show the page."""
    st.title(say("Data"))
    if report := st.session_state.pop("import_report", None):
        _tell(report)
    path = frame.folder()
    if path:
        with frame.errors_shown(), Project.open(path) as project:  # a new project can be started all the same
            _overview(project)
            with st.expander(say("Import more utterances into this project")):
                _import_more(project)
    with st.expander(say("Start a new project"), expanded=path is None):
        from_file, from_sample = st.tabs([say("From a file"), say("From a sample")])
        with from_file:
            _new_from_file()
        with from_sample:
            _new_from_sample()


def _overview(project: Project) -> None:
    counts, answered = utterances.count_slices(project.db), annotations.count_answered(project.db)
    figures = {
        say("Answered"): answered,
        say("To label in all"): counts["pool"] + counts["audit"],
        say("of them for measuring"): counts["audit"],
        say("Read as context"): counts["context"],
    }
    for column, (name, value) in zip(st.columns(4), figures.items(), strict=True):
        column.metric(name, number(value, ","))
    codebook = project.codebook()
    st.header(say("Codebook"))
    frame.html("definition", codebook.instruction)
    rows = [
        {say("Key"): label.key, say("Label"): label.name, say("Definition"): label.definition}
        | {say("Examples"): "\n".join(label.examples)}
        for label in codebook.labels
    ]
    st.dataframe(rows, hide_index=True, row_height=72)


def _tell(report: ImportReport) -> None:
    st.success(frame.plain(_summary(report)))
    if report.rejected:
        rows = [{say("Row"): one.row, say("Not taken because"): retell(one.reason)} for one in report.rejected]
        st.dataframe(rows, hide_index=True)


def _summary(report: ImportReport) -> str:
    return say(
        "Added {to_label}{labelled} and {context:,} as context; {there:,} were there already, {problems} reported.",
        to_label=say_many("{n:,} utterance to label", "{n:,} utterances to label", report.to_label),
        labelled=say(" ({n:,} of them with a label)", n=report.with_label) if report.with_label else "",
        context=report.context,
        there=report.already_there,
        problems=say_many("{n:,} problem", "{n:,} problems", len(report.rejected)),
    )


# From a file


def _upload(key: str) -> Path | None:
    """Take a file and keep it under its own name for this session: ids of rows without one come from it."""
    uploaded: UploadedFile | None = st.file_uploader(say("A file of utterances"), type=TYPES, key=key)
    if uploaded is None:
        st.caption(say("CSV, TSV, JSONL, Parquet or Excel, with a column of texts. Nothing leaves this machine."))
        return None
    kept = st.session_state.setdefault("uploads", TemporaryDirectory(prefix="annotator-"))  # goes with the session
    path = Path(kept.name) / uploaded.file_id / Path(uploaded.name).name
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_bytes(uploaded.getbuffer())
    return path


def _plan(path: Path, key: str) -> ImportPlan:
    """Let the columns be named; those that can be told by their names are chosen already."""
    header = read_header(path)
    try:
        found = detect_columns(header)
    except BadInput:
        found = Columns(header[0])
    left, middle, right = st.columns(3)
    text = left.selectbox(say("Text"), header, index=header.index(found.text), key=f"{key}-text")

    def pick(place: DeltaGenerator, field: str, shown: str, name: str | None) -> str | None:
        chosen: str | None = place.selectbox(
            shown,
            options,
            index=options.index(name),
            format_func=lambda column: column or say("none"),
            key=f"{key}-{field}",
        )
        return chosen

    options: list[str | None] = [None, *header]
    columns = Columns(
        text=text,
        id=pick(middle, "id", say("Id"), found.id),
        label=pick(right, "label", say("Known labels"), found.label),
        conversation=pick(left, "conversation", say("Conversation"), found.conversation),
        turn=pick(middle, "turn", say("Turn"), found.turn),
        speaker=pick(right, "speaker", say("Speaker"), found.speaker),
        split=found.split,
    )
    wanted = ""
    if columns.speaker:
        wanted = st.text_input(
            say("Whose turns are to be labelled"), key=f"{key}-whose", placeholder=say("everybody's, or as in: client")
        )
    with_labels = bool(columns.label) and st.checkbox(say("Take over the known labels as answers"), key=f"{key}-labels")
    only = (columns.speaker or "", wanted.strip()) if wanted.strip() else None
    return ImportPlan(columns, label_only=only, with_labels=with_labels)


def _show_preview(path: Path, plan: ImportPlan) -> None:
    st.caption(say("The first rows as they would be taken"))
    st.dataframe([_preview_line(one) for one in preview(path, plan, 8)], hide_index=True)


def _preview_line(one: Any) -> dict[str, Any]:
    if isinstance(one, Rejected):
        refused = say("row {row} is not taken: {reason}", row=one.row, reason=retell(one.reason))
        return {say("Text"): "", say("Role"): refused}
    role = say("context") if one.context_only else say("to label")
    known = {say("Speaker"): one.speaker, say("Known label"): one.given_label}
    return {say("Text"): one.text, say("Role"): role, **known}


def _whole_conversations(plan: ImportPlan, key: str) -> bool:
    """Ask how the audit slice is drawn, where there are conversations."""
    return bool(plan.columns.conversation) and st.checkbox(
        say("Measure on whole conversations"),
        key=f"{key}-whole",
        help=say(
            "The utterances that measure the model are drawn by conversations, so that it has never learned from "
            "another turn of the same one. The figures then tell how it does on people it has not met."
        ),
    )


def _import_more(project: Project) -> None:
    path = _upload("more")
    if path is None:
        return
    plan = _plan(path, "more")
    whole = _whole_conversations(plan, "more")
    _show_preview(path, plan)
    if st.button(say("Import"), type="primary", key="import"):
        with st.spinner(say("Importing")):
            st.session_state["import_report"] = project.import_file(path, plan, whole)
        st.rerun()


def _new_from_file() -> None:
    path = _upload("new")
    if path is None:
        return
    plan = _plan(path, "new")
    whole = _whole_conversations(plan, "new")
    _show_preview(path, plan)
    draft = _codebook(path, plan)
    name = st.text_input(say("Name of the project"), path.stem.replace("_", " "), key="new-name")
    if st.button(say("Create the project"), type="primary", key="create", disabled=draft is None) and draft:
        target = workspace() / _slug(name)
        with st.spinner(say("Importing")), Project.create(target, draft.model_copy(update={"name": name})) as project:
            st.session_state["import_report"] = project.import_file(path, plan, whole)
        _enter(target)


def _codebook(path: Path, plan: ImportPlan) -> CodebookDraft | None:
    """Load a codebook, or write one, starting from the labels in the file."""
    st.header(say("Codebook"))
    loaded = st.file_uploader(say("A codebook file, if there is one"), type=["yaml", "yml"], key="codebook")
    if loaded:
        draft = parse_codebook_text(loaded.getvalue().decode("utf-8"))
        st.code(codebook_yaml(draft), language="yaml")
        return draft
    instruction = st.text_input(
        say("What is to be decided"), "Choose the label that fits the utterance.", key="instruction"
    )
    known = sorted(labels_in(path, plan.columns)) if plan.columns.label else []
    start = [{"name": name, "definition": ""} for name in known or ["", ""]]
    named = {"name": say("name"), "definition": say("definition")}
    rows = st.data_editor(
        start, num_rows="dynamic", key=f"labels-{path.name}-{len(known)}", hide_index=True, column_config=named
    )
    filled = [{"name": r["name"], "definition": r.get("definition") or ""} for r in rows if r.get("name")]
    if len(filled) < 2:
        st.caption(say("Write at least two labels. A definition of each helps the annotators and the model."))
        return None
    return parse_codebook({"instruction": instruction, "labels": filled})


def _new_from_sample() -> None:
    for sample in SAMPLES.values():
        with st.container(horizontal=True, vertical_alignment="center"):
            taken = (workspace() / _slug(sample.shown)).exists()
            if st.button(sample.shown, key=f"sample-{sample.name}", disabled=taken, width=220):
                target = workspace() / _slug(sample.shown)
                create_sample(sample.name, target).close()
                _enter(target)
            about = say(sample.about)
            frame.html("quiet", f"{about} {say('You have it already.')}" if taken else about)


def _enter(folder: Path) -> None:
    st.session_state["enter"] = folder.name  # the project's widget exists already in this run; the next sets it
    st.rerun()


def _slug(name: str) -> str:
    slug = re.sub(r"[^\w]+", "-", name.strip().lower()).strip("-_")
    if not slug:
        raise BadInput(f"“{name}” gives no folder name.", "Use letters or digits in the project's name.")
    return slug
