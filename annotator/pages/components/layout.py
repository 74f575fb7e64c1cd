"""Shared layout: project and annotator in the sidebar, job status, styles, and display of text and errors."""

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

_STYLE = """<style>
[data-testid="stElementContainer"]:has(.rules) { display: none; }  /* the rules apply but take no space */
.status { display: flex; flex-wrap: wrap; gap: .2rem 2rem; font-size: .85rem; line-height: 1.3; opacity: .85; }
.status .part { min-width: 11rem; font-variant-numeric: tabular-nums; }
.status .track { height: .2rem; margin-top: .2rem; }
.reading { height: clamp(10rem, 28vh, 22rem); overflow-y: auto; display: flex; flex-direction: column;
    max-width: 46rem; border-radius: .5rem; padding: 0 .2rem; position: relative; }
.reading > :first-child { margin-top: auto; }  /* short texts sit next to the labels, long ones scroll */
.reading[data-above] { mask-image: linear-gradient(transparent, black 1rem); }  /* there is more to read */
.reading[data-below] { mask-image: linear-gradient(to top, transparent, black 2.2rem); }
.reading[data-above][data-below] {
    mask-image: linear-gradient(transparent, black 1rem, black calc(100% - 2.2rem), transparent); }
.reading:focus-visible { mask-image: none; outline: 2px solid THEME_COLOUR; outline-offset: 2px; }
.utterance { font-size: 1.45rem; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere;
    unicode-bidi: plaintext; padding: .6rem 0 .4rem; }
.turn { line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext;
    opacity: .72; margin: .25rem 0; }
.found { line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; max-width: 46rem; }
.turn.here { opacity: 1; font-weight: 600;
    border-inline-start: .25rem solid THEME_COLOUR; padding-inline-start: .6rem; }
.speaker { font-weight: 600; margin-inline-end: .5em; }
.definition { font-size: .95rem; line-height: 1.4; opacity: .9; max-width: 46rem; padding-top: .1rem; }
.likely { display: flex; align-items: center; gap: .6rem; font-size: .9rem; margin-bottom: .2rem; max-width: 30rem; }
.track { flex: 1; height: .5rem; border-radius: .25rem; background: rgba(128, 128, 128, .25); }
.bar { height: 100%; border-radius: .25rem; background: THEME_COLOUR; }
.unsaid { height: 1.65rem; }  /* space of a hidden bar, so that nothing moves when one appears */
.examples { font-size: .9rem; line-height: 1.4; opacity: .85; margin: .2rem 0 0; padding-inline-start: 1.2rem; }
.keys th { text-align: start; padding: .25rem 1.2rem .25rem 0; font-weight: 600; vertical-align: top; }
.keys td { padding: .25rem 0; }
.likely .number { width: 3.2rem; text-align: right; font-variant-numeric: tabular-nums; }
.quiet { font-size: .9rem; opacity: .8; max-width: 46rem; }
.tour { display: flex; align-items: center; min-height: 2.8rem; line-height: 1.4;
    border-inline-start: .25rem solid THEME_COLOUR; padding-inline-start: .8rem; }
.lead { font-size: 1.25rem; font-weight: 600; line-height: 1.4; max-width: 46rem; }
[data-testid="stCaptionContainer"], [data-testid="stSliderThumbValue"] { color: inherit; }  /* for contrast */
[data-testid="stCaptionContainer"] { opacity: .8; }
.notes { white-space: pre-line; min-height: 1.5em; }
.stMainBlockContainer { padding-top: 3.2rem; max-width: 72rem; }
.stMainBlockContainer h1 { font-size: 2rem; }
div[class*="st-key-label-"] button { min-height: 2.9rem; line-height: 1.3; }
div[class*="st-key-label-"] button :is(div, span, p) { white-space: normal; overflow-wrap: anywhere; }  /* never cut */
@media (max-width: 640px) {
    .stMainBlockContainer { padding-top: 4.2rem; }
    .reading { height: clamp(9rem, 26vh, 16rem); }
    div[class*="st-key-label-"], div[class*="st-key-label-"] button {
        width: 100% !important; flex: 1 1 100% !important; }
    div[class*="st-key-choice-"] { row-gap: .3rem; }  /* a definition is nearer to its label than to the next */
    .utterance { font-size: 1.25rem; }
    .status .part { min-width: 8rem; }
    .tour { min-height: 4.2rem; font-size: .95rem; }  /* three lines, for the longest step */
    .st-key-tour [data-testid="stMarkdownContainer"] { position: absolute; clip-path: inset(50%); }  /* icons suffice */
    .definition { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
}
</style>"""


def style() -> None:
    """Add the style rules that the theme cannot express."""
    wear(_STYLE.replace("THEME_COLOUR", st.get_option("theme.primaryColor") or "currentColor"))


def wear(rules: str) -> None:
    """Add style rules with a hidden element, so that a rerun of a fragment does not remove them."""
    st.html(f'<span class="rules"></span>{rules}')


def plain(text: str) -> str:
    """Escape a text so that Streamlit's Markdown shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~$:<>])", r"\\\1", text)


def told_apart(ours: Mapping[Any, str], theirs: Mapping[Any, str]) -> dict[Any, str]:
    """Return distinct display names for a list of choices; Streamlit confuses choices with equal names.

    Names given by people are put in quotes if they equal one of ours.
    """
    taken = set(ours.values())
    named = {key: say("“{name}”", name=name) if name in taken else name for key, name in theirs.items()}
    return {key: plain(name) for key, name in named.items()} | dict(ours)


def html(kind: str, text: str, lead: str = "") -> None:
    """Show foreign text literally; nothing in it is rendered."""
    st.html(spoken(kind, lead, text))


def spoken(kind: str, speaker: str | None, text: str) -> str:
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
            st.session_state["error"] = error

    return run


def tell_failure() -> None:
    """Show the error of the last action, if any. Unexpected errors are raised again."""
    match st.session_state.pop("error", None):
        case AnnotatorError() as error:
            show_error(error)
        case Exception() as error:
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
    name = st.session_state.get("project")
    return workspace() / name if name else None


def set_language() -> None:
    """Set the language of this visit: the annotator's choice, else the browser's."""
    chosen = ""
    if path := folder():
        with suppress(AnnotatorError), Project.open(path) as project:
            chosen = preferences(project, annotator()).language
    st.session_state["language"] = i18n.best(chosen or st.context.locale)


def _spoken() -> str:
    """Return the language of the current visit; English outside a visit, as in a background thread."""
    visit = get_script_run_ctx(suppress_warning=True)
    return str(st.session_state.get("language", i18n.ENGLISH)) if visit else i18n.ENGLISH


i18n.follow(_spoken)


def annotator() -> str:
    """Return the annotator's name, stripped."""
    return str(st.session_state.get("annotator") or "").strip() or getpass.getuser()


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
    _remember("project", names)
    _remember("annotator", None)
    set_language()
    return names


def _folders() -> list[Path]:
    try:
        return project_folders(workspace())
    except AnnotatorError as error:
        st.session_state["error"] = error
        return []


def _shown(name: str) -> str:
    """Return a project's name as shown in the list."""
    return say("{name} (cannot be opened)", name=name) if fault_of(workspace() / name) else name


def sidebar(names: list[str]) -> None:
    """Show the fields for project and annotator, and the job status."""
    with st.sidebar:
        if names:
            st.selectbox(say("Project"), names, key="project", format_func=_shown)
        about = say("Stored with every answer; no sign-in.")
        st.text_input(say("Your name"), key="annotator", help=about)
        if names:
            st.query_params["project"] = st.session_state["project"]
            job_status()
        st.query_params["annotator"] = annotator()


def _remember(key: str, among: list[str] | None) -> None:
    """Keep a choice across reloads, in the address, and across pages, in the session."""
    entered = st.session_state.pop("enter", None) if key == "project" else None
    kept = entered or st.session_state.get(key) or st.query_params.get(key)
    if kept and (among is None or kept in among):
        st.session_state[key] = kept
    else:
        st.session_state[key] = getpass.getuser() if among is None else _first_usable(among)


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
    st.session_state["job_active"] = active
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
