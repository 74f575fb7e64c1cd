"""The data page: project overview, imports, and new projects from a file or a sample."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.uploaded_file_manager import UploadedFile

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import codebook_yaml, parse_codebook, parse_codebook_text, read_labels
from annotator.errors import BadInput, Message
from annotator.exchange.imports import import_file
from annotator.exchange.samples import SAMPLES, create_sample, workspace
from annotator.i18n import number, say, say_many, translate
from annotator.pages.components import label_card, layout
from annotator.pages.components.state import TYPED_LABELS, DataState, Visit
from annotator.project import Project
from store import annotations, utterances
from store.files.import_report import KINDS, ImportReport
from store.files.importers import Columns, ImportPlan, detect_columns, labels_in, preview
from store.files.readers import Rejected, read_header
from store.utterances import NewUtterance

SHOWN = 1_000  # rows of an import report on screen
NAMED = 20  # labels listed next to the button that adds them
TYPES = ["csv", "tsv", "jsonl", "parquet", "xlsx"]


def show() -> None:
    """Show the page."""
    st.title(say("Data"))
    page = DataState.current()
    report, page.report = page.report, None
    if report:
        _show_report(report)
    path = layout.folder()
    if path:
        with layout.errors_shown(), Project.open(path) as project:  # an error must not prevent starting a new project
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
        say("To label in total"): counts["pool"] + counts["audit"],
        say("In the audit sample"): counts["audit"],
        say("Context only"): counts["context"],
    }
    with st.container(horizontal=True):
        for name, value in figures.items():
            st.metric(name, number(value, ","), width=160)
    codebook = codebook_of(project)
    st.header(say("Codebook"))
    layout.html("guideline", codebook.instruction)
    for label in codebook.labels:
        label_card.row(label)


def _show_report(report: ImportReport) -> None:
    show = st.warning if report.rejected else st.success
    show(layout.plain(_summary(report)))
    if report.rejected:
        shown = report.rejected[:SHOWN]
        rows = [{say("Row"): one.row, say("Reason"): translate(one.reason)} for one in shown]
        st.dataframe(rows, hide_index=True)
    if len(report.rejected) > SHOWN:
        st.caption(say("Showing the first {n:,} of {all:,}.", n=SHOWN, all=len(report.rejected)))
        st.download_button(say("Download the full list"), report.table(), "not-taken.csv", on_click="ignore")


def _summary(report: ImportReport) -> str:
    added = say(
        "Added {to_label}{labeled} and {context:,} as context. Skipped {unchanged:,} already in the "
        "project and {changed:,} with changes that were not applied; {problems} reported.",
        to_label=say_many("{n:,} utterance to label", "{n:,} utterances to label", report.to_label),
        labeled=say(" ({n:,} of them with a label)", n=report.with_label) if report.with_label else "",
        context=report.context,
        unchanged=report.unchanged,
        changed=report.not_applied,
        problems=say_many("{n:,} problem", "{n:,} problems", len(report.rejected)),
    )
    return " ".join([added, *_completed(report), *_problems(report)])


def _completed(report: ImportReport) -> Iterator[str]:
    if report.labels_added:
        yield say_many(
            "{n:,} label was added to a previously imported utterance.",
            "{n:,} labels were added to previously imported utterances.",
            report.labels_added,
        )
    if report.now_to_label:
        yield say_many(
            "{n:,} utterance previously imported as context is now to be labeled.",
            "{n:,} utterances previously imported as context are now to be labeled.",
            report.now_to_label,
        )


def _problems(report: ImportReport) -> Iterator[str]:
    kinds = report.kinds()
    counted = {
        "row": say_many("{n:,} row", "{n:,} rows", kinds.get("row", 0)),
        "label": say_many("{n:,} label", "{n:,} labels", kinds.get("label", 0)),
        "change": say_many("{n:,} change", "{n:,} changes", kinds.get("change", 0)),
    }
    if kinds:
        yield say("Not imported: {counts}.", counts=", ".join(counted[kind] for kind in KINDS if kind in kinds))


# From a file


def _upload(key: str) -> Path | None:
    """Store an uploaded file under its own name for this session; ids of rows without one are derived from it."""
    uploaded: UploadedFile | None = st.file_uploader(say("File with utterances"), type=TYPES, key=key)
    if uploaded is None:
        st.caption(say("CSV, TSV, JSONL, Parquet or Excel, with a column of texts. Nothing leaves this computer."))
        return None
    path = Path(DataState.current().uploads.name) / uploaded.file_id / Path(uploaded.name).name
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_bytes(uploaded.getbuffer())
    return path


def _plan(path: Path, key: str) -> ImportPlan:
    """Let the user choose columns; those recognized by name are preselected."""
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
            format_func=lambda column: say("none") if column is None else quoted.get(column, column),
            key=f"{key}-{field}",
        )
        return chosen

    quoted = {say("none"): say("“{name}”", name=say("none"))}  # a column of that name, not no column
    options: list[str | None] = [None, *header]
    columns = Columns(
        text=text,
        id=pick(middle, "id", say("Id"), found.id),
        label=pick(right, "label", say("Existing labels"), found.label),
        conversation=pick(left, "conversation", say("Conversation"), found.conversation),
        turn=pick(middle, "turn", say("Turn"), found.turn),
        speaker=pick(right, "speaker", say("Speaker"), found.speaker),
        split=found.split,
    )
    wanted = ""
    if columns.speaker:
        wanted = st.text_input(
            say("Speakers to label"), key=f"{key}-whose", placeholder=say("all, or a name such as: client")
        )
    with_labels = bool(columns.label) and st.checkbox(say("Import existing labels as answers"), key=f"{key}-labels")
    only = (columns.speaker or "", wanted.strip()) if wanted.strip() else None
    return ImportPlan(columns, label_only=only, with_labels=with_labels)


def _show_preview(path: Path, plan: ImportPlan) -> None:
    st.caption(say("Preview"))
    st.dataframe([_preview_line(one) for one in preview(path, plan, 8)], hide_index=True)


def _preview_line(one: NewUtterance | Rejected) -> dict[str, str | None]:
    if isinstance(one, Rejected):
        refused = say("row {row} is skipped: {reason}", row=one.row, reason=translate(one.reason))
        return {say("Text"): "", say("Role"): refused}
    role = say("context") if one.context_only else say("to label")
    known = {say("Speaker"): one.speaker, say("Existing label"): one.given_label}
    return {say("Text"): one.text, say("Role"): role, **known}


def _whole_conversations(plan: ImportPlan, key: str) -> bool:
    """Ask how the audit sample is drawn, if there are conversations."""
    return bool(plan.columns.conversation) and st.checkbox(
        say("Draw the audit sample by whole conversations"),
        key=f"{key}-whole",
        help=say(
            "The model is then never trained on other turns of an audited conversation, and the figures "
            "describe its accuracy on people it has not seen."
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
            DataState.current().report = import_file(project, path, plan, whole)
        st.rerun()


def _new_from_file() -> None:
    path = _upload("new")
    if path is None:
        return
    plan = _plan(path, "new")
    whole = _whole_conversations(plan, "new")
    _show_preview(path, plan)
    draft, is_typed = _codebook(path, plan)
    name = st.text_input(say("Project name"), path.stem.replace("_", " "), key="new-name")
    # Never disabled: the click itself submits what has just been typed.
    if not st.button(say("Create project"), type="primary", key="create"):
        return
    if is_typed and len(draft["labels"]) < 2:
        st.warning(say("Enter at least two labels."))
        return
    checked = parse_codebook(draft | {"name": name}, paths=is_typed)
    target = workspace() / _slug(name)
    with st.spinner(say("Importing")), create_project(target, checked) as project:
        DataState.current().report = import_file(project, path, plan, whole)
    _forget_typed()
    _enter(target)


def _codebook(path: Path, plan: ImportPlan) -> tuple[dict[str, Any], bool]:
    """Return the content of a codebook, and whether it was typed, starting from the labels in the data file."""
    st.header(say("Codebook"))
    loaded = st.file_uploader(say("Codebook file (optional)"), type=["yaml", "yml"], key="codebook")
    if loaded:
        draft = parse_codebook_text(loaded.getvalue().decode("utf-8"))
        st.code(codebook_yaml(draft), language="yaml")
        return draft.model_dump(), False
    instruction = st.text_input(say("Task instruction"), "Choose the label that fits the utterance.", key="instruction")
    known = sorted(labels_in(path, plan))
    _offer(known)
    st.text_area(
        say("Labels, one per line"),
        key=TYPED_LABELS.key,
        height=240,
        placeholder=say("label: definition"),
        help=say("Enter at least two labels. Definitions help annotators and the model."),
        on_change=_keep_typed,
    )
    labels = read_labels(TYPED_LABELS.get(), known)
    missing = [name for name in known if name not in {label["name"] for label in labels}]
    if missing:
        added = st.button(say_many("Add {n:,} label from the file", "Add {n:,} labels from the file", len(missing)))
        st.caption(layout.plain(", ".join(missing[:NAMED]) + (", …" if len(missing) > NAMED else "")))
        if added:
            DataState.current().labels_to_add = tuple(missing)
            st.rerun()
    return {"instruction": instruction, "labels": labels}, True


def _offer(known: Sequence[str]) -> None:
    """Fill the field with the labels from the file unless something has been typed.

    The field's state is set only when it changes: setting it can drop characters while someone is typing.
    """
    page, found = DataState.current(), "\n".join(known)
    if not TYPED_LABELS.has_value:  # the first time, or after the field was hidden
        TYPED_LABELS.set(page.labels_typed)
    if found != page.labels_offered and TYPED_LABELS.get().strip() in ("", page.labels_offered):
        TYPED_LABELS.set(found)
    page.labels_offered = found
    if page.labels_to_add:
        TYPED_LABELS.set("\n".join([*TYPED_LABELS.get().rstrip().splitlines(), *page.labels_to_add]))
        page.labels_to_add = ()
    _keep_typed()


def _keep_typed() -> None:
    DataState.current().labels_typed = TYPED_LABELS.get()


def _forget_typed() -> None:
    page = DataState.current()
    page.labels_typed = page.labels_offered = ""


def _new_from_sample() -> None:
    for sample in SAMPLES.values():
        with st.container(horizontal=True, vertical_alignment="center"):
            exists = (workspace() / _slug(sample.shown)).exists()
            if st.button(sample.shown, key=f"sample-{sample.name}", disabled=exists, width=220):
                target = workspace() / _slug(sample.shown)
                create_sample(sample.name, target).close()
                _enter(target)
            about = say(sample.about)
            layout.html("quiet", f"{about} {say('Already created.')}" if exists else about)


def _enter(folder: Path) -> None:
    Visit.current().created = folder.name  # the project's widget exists already; the next run sets it
    st.rerun()


def _slug(name: str) -> str:
    slug = re.sub(r"[^\w]+", "-", name.strip().lower()).strip("-_")
    if not slug:
        raise BadInput(
            Message("“{name}” cannot be turned into a folder name.", name=name),
            "Use letters or digits in the project's name.",
        )
    return slug
