"""The export page: choose, preview and download an export."""

import shutil
import tempfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import streamlit as st

from annotator.exchange.columns import ExportRow
from annotator.exchange.export import ExportContext, ExportPlan, Rows, default_filename, export_project, export_rows
from annotator.i18n import later, say, say_many
from annotator.pages.components import layout, onboarding
from annotator.project import Project
from annotator.rounds.statuses import Status, added_up
from store.files.exporters import FORMATS

PREVIEW = 50
ROWS: dict[Rows, str] = {"utterances": later("utterance"), "answers": later("answer")}


def show() -> None:
    """Show the page."""
    st.title(say("Export"))
    with layout.opened_project() as project:
        onboarding.strip(project, "export")
        plan = _choose()
        known = ExportContext(project, plan)
        rows = list(islice(export_rows(project, plan, known), PREVIEW))
        if not rows:
            st.info(say("There is nothing to export yet: label a few utterances first."))
            return
        _show_counts(known.statuses.counts(), plan)
        _offer(project, plan)
        st.dataframe([_readable(row, known) for row in rows], hide_index=True)
        card = say("The export includes a data card with the codebook, counts, rounds and every column.")
        st.caption(f"{say_many('The first row.', 'The first {n} rows.', len(rows))} {card}")


def _choose() -> ExportPlan:
    left, right = st.columns(2)
    chosen = left.selectbox(
        say("Format"), list(FORMATS), format_func=lambda name: say(FORMATS[name].shown), key="export-format"
    )
    per: Rows = right.selectbox(
        say("One row for each"), list(ROWS), format_func=lambda rows: say(ROWS[rows]), key="export-rows"
    )
    with_model = st.checkbox(
        say("Include utterances labeled only by the model"),
        key="export-model",
        help=say("Marked source = model; not reviewed by anyone."),
    )
    return ExportPlan(chosen, per, with_model)


def _show_counts(counts: Mapping[Status, int], plan: ExportPlan) -> None:
    """Show the number of utterances by status and how many are left out."""
    sentences = [say("Utterances: {sum}.", sum=added_up(counts, say))]
    if plan.rows == "answers":
        sentences.append(say("A row is one answer; an utterance may have several."))
    if out := counts["unlabeled"]:
        sentences.append(
            say_many(
                "{n:,} utterance is left out because it has no answer.",
                "{n:,} utterances are left out because they have no answer.",
                out,
            )
        )
    layout.html("quiet", " ".join(sentences))


def _offer(project: Project, plan: ExportPlan) -> None:
    if st.button(say("Create export"), type="primary", key="prepare"):
        with st.spinner(say("Writing")):
            st.session_state["prepared"] = (project.folder, plan, _zipped(project, plan))
    prepared = st.session_state.get("prepared")
    if prepared and prepared[:2] == (project.folder, plan):
        name = f"{project.folder.name}.zip"
        st.download_button(say("Download"), prepared[2], name, "application/zip", icon=":material/download:")


def _zipped(project: Project, plan: ExportPlan) -> bytes:
    """Write the dataset and its data card as one ZIP archive."""
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / project.folder.name
        inside.mkdir()
        export_project(project, inside / default_filename(project, plan), plan)
        return Path(shutil.make_archive(folder, "zip", folder, inside.name)).read_bytes()


def _readable(row: ExportRow, known: ExportContext) -> dict[str, object]:
    """Return a row in the column order of the file, with one column per probability."""
    cells, spread = row.cells(), {f"p({name})": value for name, value in (row.probabilities or {}).items()}
    return {field.name: cells[field.name] for field in known.fields if field.kind != "probabilities"} | spread
