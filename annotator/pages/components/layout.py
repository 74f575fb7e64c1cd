"""Shared layout: project and annotator in the sidebar, job status, and display of text and errors."""

import getpass
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from annotator import i18n
from annotator.errors import AnnotatorError, ProjectBusy
from annotator.exchange.samples import project_folders, workspace
from annotator.i18n import later, say, say_many, translate
from annotator.labeling.preferences import preferences
from annotator.pages.components.state import ANNOTATOR, PROJECT, Visit, Widget
from annotator.project import Project
from annotator.rounds.lifecycle import recover
from store import jobs
from store.database import fault_of, hold_open, now, why_frozen

PATIENCE = 0.5  # seconds that a page waits while another program writes
ICON = str(Path(__file__).with_name("icon.png"))  # a file, because icons by name are fetched from the network
LOG = "annotator.log"  # in the folder of all projects

STAGES = {
    "": later("Starting"),
    "load": later("Loading the language model"),
    "learn": later("Training on the answers"),
    "save": later("Saving the model"),
    "read": later("Reading new utterances"),
    "score": later("Scoring the remaining utterances"),
    "calibrate": later("Calibrating"),
    "promote": later("Choosing the next batch"),
}


def plain(text: str) -> str:
    """Escape a text so that Streamlit's Markdown shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~$:<>])", r"\\\1", text)


def distinct_names(ours: Mapping[Any, str], theirs: Mapping[Any, str]) -> dict[Any, str]:
    """Return distinct display names for a list of choices; Streamlit confuses choices with equal names.

    Names given by people are put in quotes if they equal one of ours.
    """
    taken = set(ours.values())
    named = {key: say("“{name}”", name=name) if name in taken else name for key, name in theirs.items()}
    return {key: plain(name) for key, name in named.items()} | dict(ours)


def html(kind: str, text: str, lead: str = "") -> None:
    """Show foreign text literally; nothing in it is rendered."""
    st.html(as_html(kind, lead, text))


def as_html(kind: str, speaker: str | None, text: str) -> str:
    """Return speaker and text as HTML, with both escaped."""
    head = f'<span class="speaker">{escape(speaker)}</span>' if speaker else ""
    return f'<div class="{kind}" dir="auto">{head}{escape(text)}</div>'


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show message and hint of our own errors in place of the page; `show_unexpected` handles all others."""
    try:
        yield
    except AnnotatorError as error:
        show_error(error)


def show_error(error: AnnotatorError) -> None:
    """Show an error's message and hint."""
    message, hint = f"**{plain(translate(error.message))}**", _with_commands(translate(error.hint))
    st.error(f"{message}\n\n{hint}" if hint else message)


def _with_commands(hint: str) -> str:
    """Escape a hint except for commands in backticks."""
    pieces = re.split(r"`([^`\n]+)`", hint)
    return "".join(f"`{piece}`" if place % 2 else plain(piece) for place, piece in enumerate(pieces))


def guarded(action: Callable[..., None]) -> Callable[..., None]:
    """Wrap a widget's callback so that the following run shows its error."""

    def run(*args: object) -> None:
        try:
            action(*args)
        except Exception as error:  # shown by the following run, with sidebar and page around it
            Visit.current().error = error

    return run


def show_last_error() -> None:
    """Show the error of the last action, if any. Unexpected errors are raised again."""
    visit = Visit.current()
    error, visit.error = visit.error, None
    match error:
        case AnnotatorError():
            show_error(error)
        case Exception():
            raise error


def show_unexpected(error: Exception) -> bool:
    """Show and log an unexpected error, in place of Streamlit's own message."""
    log = workspace() / LOG
    try:
        with os.fdopen(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a", encoding="utf-8") as file:
            file.write(f"{now()}\n{''.join(traceback.format_exception(error))}\n")
        where = say("in {log}", log=plain(str(log)))
    except OSError:  # the disk may have failed
        where = say("in the terminal where the app was started")
    happened = say("An unexpected error occurred. Your last action may not have been saved.")
    hint = say("All earlier answers are saved. Reload the page and try again. Details are {where}.", where=where)
    st.error(f"{happened}\n\n{hint}")
    return True


def folder() -> Path | None:
    """Return the chosen project's folder, or None if there is no project yet."""
    name = PROJECT.get()
    return workspace() / name if name else None


def set_language() -> None:
    """Set the language of this visit: the annotator's choice, else the browser's."""
    chosen = ""
    if path := folder():
        with suppress(AnnotatorError), Project.open(path) as project:
            chosen = preferences(project, annotator()).language
    Visit.current().language = i18n.best(chosen or st.context.locale)


def _language() -> str:
    """Return the language of the current visit; English outside a visit, as in a background thread."""
    visit = get_script_run_ctx(suppress_warning=True)
    return Visit.current().language if visit else i18n.ENGLISH


i18n.follow(_language)


def annotator() -> str:
    """Return the annotator's name, stripped."""
    return str(ANNOTATOR.get() or "").strip() or getpass.getuser()


@contextmanager
def opened_project(patience: float | None = None) -> Iterator[Project]:
    """Open the chosen project for this run; without one, show where to create it and stop the page.

    `patience` is the number of seconds to wait while another program writes.
    """
    path = folder()
    if path is None:
        st.info(say("There is no project yet. Start one on the Data page, from a file or from a sample."))
        st.stop()
    with Project.open(path, patience) as project:
        if not why_frozen(project.db):
            _keep_open(path)
        yield project


@st.cache_resource(max_entries=4, show_spinner=False, on_release=lambda held: held.close())
def _keep_open(path: Path) -> Any:
    return hold_open(path)


def prepare_visit() -> list[str]:
    """Set project, annotator and language for this run; return the names of all projects."""
    names = [path.name for path in _folders()]
    visit = Visit.current()
    _remember(PROJECT, names, visit.created)
    _remember(ANNOTATOR)
    visit.created = ""
    set_language()
    return names


def _folders() -> list[Path]:
    try:
        return project_folders(workspace())
    except AnnotatorError as error:
        Visit.current().error = error
        return []


def sidebar(names: list[str]) -> None:
    """Show the fields for project and annotator, and the job status."""
    with st.sidebar:
        if names:
            unusable = {name for name in names if fault_of(workspace() / name)}
            shown = {name: say("{name} (cannot be opened)", name=name) if name in unusable else name for name in names}
            st.selectbox(say("Project"), names, key=PROJECT.key, format_func=shown.__getitem__)
        about = say("Stored with every answer; no sign-in.")
        st.text_input(say("Your name"), key=ANNOTATOR.key, help=about)
        if names:
            st.query_params["project"] = PROJECT.get() or names[0]
            job_status()
        st.query_params["annotator"] = annotator()


def _remember(widget: Widget[Any], among: list[str] | None = None, new: str = "") -> None:
    """Keep a choice across reloads, in the address, and across pages, in the session; `new` replaces it."""
    kept = new or widget.get() or st.query_params.get(widget.key)
    if kept and (among is None or kept in among):
        widget.set(kept)
    else:
        widget.set(getpass.getuser() if among is None else _first_usable(among))


def _first_usable(names: list[str]) -> str | None:
    """Return the first project that can be opened, or the first of all if none can."""
    return next((name for name in names if not fault_of(workspace() / name)), names[0] if names else None)


def job_status() -> None:
    """Show the running job; refreshes itself only while there is one."""
    path = folder()
    if path is None:
        return
    active = False
    with suppress(AnnotatorError), Project.open(path, PATIENCE) as project:  # the page shows why it cannot be opened
        recover_dead_round(project)
        active = jobs.active(project.db) is not None
    Visit.current().job_is_active = active
    _live_status(path) if active else None


@st.fragment(run_every="1.5s")
def _live_status(path: Path) -> None:
    with Project.open(path, PATIENCE) as project:
        recover_dead_round(project)
        job = jobs.active(project.db)
    if job is None:
        st.rerun()  # the whole app, because the new round is in use
    else:
        st.progress(min(1.0, job["share"]), text=describe_job(job))
        if warning := stall_warning(job):
            html("quiet", warning)


def recover_dead_round(project: Project) -> None:
    """Clean up after a round whose process died, unless another program is writing; the next run tries again."""
    with suppress(ProjectBusy):
        recover(project)


def stall_warning(job: Mapping[str, Any]) -> str:
    """Return a warning if a job seems to hang, else an empty text."""
    if job["cancel"]:
        return ""
    if silent := jobs.silence(job):
        warning = say("It has not responded for {time}.", time=duration(silent.total_seconds()))
    elif stands := jobs.standstill(job):
        warning = say("It is running but has made no progress for {time}.", time=duration(stands.total_seconds()))
    else:
        return ""
    return f"{warning} {say('If it hangs, cancel it on the Rounds page and start another.')}"


def describe_job(job: Mapping[str, Any]) -> str:
    """Return one line with the stage of a job and the time left."""
    if job["cancel"]:
        return say("Stopping the round")
    left = job["seconds_left"]
    stage = say(STAGES.get(str(job["stage"]), str(job["stage"])))
    return stage if left is None else say("{stage}, {time} left", stage=stage, time=duration(float(str(left))))


def duration(seconds: float) -> str:
    """Return a rounded duration in words."""
    if seconds < 90:
        return say("about {n} seconds", n=max(5, round(seconds / 5) * 5))
    return say_many("about {n} minute", "about {n} minutes", round(seconds / 60))
