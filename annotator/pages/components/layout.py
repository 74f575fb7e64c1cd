"""What all pages share: which project, who annotates, what the model is doing, how text and errors are shown."""

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
from annotator.i18n import later, say, say_many, tell_stored
from annotator.labeling.preferences import preferences
from annotator.project import Project
from annotator.rounds.lifecycle import recover
from store import jobs
from store.database import fault_of, hold_open, now, why_frozen

PATIENCE = 0.5  # seconds that a page waits for another program that writes, before it says so and goes on
ICON = str(Path(__file__).with_name("icon.png"))  # a file: icons by name are fetched from the network

LOG = "annotator.log"  # in the folder of all projects

STAGES = {
    "": later("Starting"),
    "load": later("Loading the language model"),
    "check": later("Training without some of the answers, to measure on those"),
    "learn": later("Training on the answers"),
    "save": later("Saving the model"),
    "read": later("Reading new utterances"),
    "score": later("Scoring the remaining utterances"),
    "calibrate": later("Calibrating"),
    "promote": later("Choosing the next batch"),
}

_STYLE = """<style>
[data-testid="stElementContainer"]:has(.rules) { display: none; }  /* they hold all the same, and take no room */
.status { display: flex; flex-wrap: wrap; gap: .2rem 2rem; font-size: .85rem; line-height: 1.3; opacity: .85; }
.status .part { min-width: 11rem; font-variant-numeric: tabular-nums; }
.status .track { height: .2rem; margin-top: .2rem; }
.reading { height: clamp(10rem, 28vh, 22rem); overflow-y: auto; display: flex; flex-direction: column;
    max-width: 46rem; border-radius: .5rem; padding: 0 .2rem; position: relative; }
.reading > :first-child { margin-top: auto; }  /* short texts stand next to their labels, long ones can be scrolled */
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
.unsaid { height: 1.65rem; }  /* the place of a bar that does not show: nothing moves when one does */
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
    div[class*="st-key-choice-"] { row-gap: .3rem; }  /* what is said of a label is nearer to it than to the next */
    .utterance { font-size: 1.25rem; }
    .status .part { min-width: 8rem; }
    .tour { min-height: 4.2rem; font-size: .95rem; }  /* three lines, as the longest step takes */
    .st-key-tour [data-testid="stMarkdownContainer"] { position: absolute; clip-path: inset(50%); }  /* icons do */
    .definition { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
}
</style>"""


def style() -> None:
    """Add the few rules that the theme has no words for."""
    wear(_STYLE.replace("THEME_COLOUR", st.get_option("theme.primaryColor") or "currentColor"))


def wear(rules: str) -> None:
    """Add rules, and keep them: alone they would go where messages go, and one out of a fragment sweeps them away."""
    st.html(f'<span class="rules"></span>{rules}')


def plain(text: str) -> str:
    """Escape a text so that Streamlit's Markdown shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~$:<>])", r"\\\1", text)


def told_apart(ours: Mapping[Any, str], theirs: Mapping[Any, str]) -> dict[Any, str]:
    """Return what a list of choices shows for each: one choice a name, or Streamlit would take one for the other.

    What people have named goes in quotes where we use the same word ourselves.
    """
    taken = set(ours.values())
    named = {key: say("“{name}”", name=name) if name in taken else name for key, name in theirs.items()}
    return {key: plain(name) for key, name in named.items()} | dict(ours)


def html(kind: str, text: str, lead: str = "") -> None:
    """Show foreign text literally: nothing in it is ever rendered."""
    st.html(spoken(kind, lead, text))


def spoken(kind: str, speaker: str | None, text: str) -> str:
    """Write who says what as HTML in which nothing foreign is rendered."""
    head = f'<span class="speaker">{escape(speaker)}</span>' if speaker else ""
    return f'<div class="{kind}" dir="auto">{head}{escape(text)}</div>'


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show message and hint of our own errors in place of the page; `tell_unexpected` gets all others."""
    try:
        yield
    except AnnotatorError as error:
        show_error(error)


def show_error(error: AnnotatorError) -> None:
    """Say what happened and what to do."""
    message, hint = f"**{plain(tell_stored(error.message))}**", _with_commands(tell_stored(error.hint))
    st.error(f"{message}\n\n{hint}" if hint else message)


def _with_commands(hint: str) -> str:
    """Escape a hint but for the commands in it, which stand between backticks."""
    pieces = re.split(r"`([^`\n]+)`", hint)
    return "".join(f"`{piece}`" if place % 2 else plain(piece) for place, piece in enumerate(pieces))


def guarded(action: Callable[..., None]) -> Callable[..., None]:
    """Let a widget's callback fail readably: its error is shown by the run that follows."""

    def run(*args: object) -> None:
        try:
            action(*args)
        except Exception as error:  # kept for the run that follows, which has the sidebar and the page around it
            st.session_state["error"] = error

    return run


def tell_failure() -> None:
    """Show why what was last asked for has failed, if it has. What nobody foresaw is raised again."""
    match st.session_state.pop("error", None):
        case AnnotatorError() as error:
            show_error(error)
        case Exception() as error:
            raise error


def tell_unexpected(error: Exception) -> bool:
    """Show that something failed that nobody foresaw, in place of Streamlit's own box, and write it down."""
    log = workspace() / LOG
    try:
        with os.fdopen(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a", encoding="utf-8") as file:
            file.write(f"{now()}\n{''.join(traceback.format_exception(error))}\n")
        where = say("in {log}", log=plain(str(log)))
    except OSError:  # the disk may be what failed
        where = say("in the terminal where the app was started")
    happened = say("An unexpected error occurred. Your last action may not have been saved.")
    hint = say("All earlier answers are saved. Reload the page and try again. Details are {where}.", where=where)
    st.error(f"{happened}\n\n{hint}")
    return True


def folder() -> Path | None:
    """Return the chosen project's folder, or None if there is no project yet."""
    name = st.session_state.get("project")
    return workspace() / name if name else None


def speak() -> None:
    """Settle the language of this visit: what the annotator has chosen, else what his browser asks for."""
    chosen = ""
    if path := folder():
        with suppress(AnnotatorError), Project.open(path) as project:
            chosen = preferences(project, annotator()).language
    st.session_state["language"] = i18n.best(chosen or st.context.locale)


def _spoken() -> str:
    """Return the language of the visit that is being served; English where nobody is, as in a thread of ours."""
    visit = get_script_run_ctx(suppress_warning=True)
    return str(st.session_state.get("language", i18n.ENGLISH)) if visit else i18n.ENGLISH


i18n.follow(_spoken)


def annotator() -> str:
    """Name whoever sits before the screen, without spaces around the name."""
    return str(st.session_state.get("annotator") or "").strip() or getpass.getuser()


@contextmanager
def opened_project(patience: float | None = None) -> Iterator[Project]:
    """Open the chosen project for this run; without one, say where to make it and end the page.

    `patience` says how many seconds to wait for another program that writes.
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


def settle() -> list[str]:
    """Settle project, annotator and language for this run; return the names of all projects."""
    names = [path.name for path in _folders()]
    _remember("project", names)
    _remember("annotator", None)
    speak()
    return names


def _folders() -> list[Path]:
    try:
        return project_folders(workspace())
    except AnnotatorError as error:
        st.session_state["error"] = error
        return []


def _shown(name: str) -> str:
    """Return a project's name as the list shows it."""
    return say("{name} (cannot be opened)", name=name) if fault_of(workspace() / name) else name


def sidebar(names: list[str]) -> None:
    """Choose the project and the name answers are stored under; show what the model is doing."""
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
    """Keep a choice over reloads, in the address, and over pages, in the session."""
    entered = st.session_state.pop("enter", None) if key == "project" else None
    kept = entered or st.session_state.get(key) or st.query_params.get(key)
    if kept and (among is None or kept in among):
        st.session_state[key] = kept
    else:
        st.session_state[key] = getpass.getuser() if among is None else _first_sound(among)


def _first_sound(names: list[str]) -> str | None:
    """Return the first project that can be opened; the first of all if none can."""
    return next((name for name in names if not fault_of(workspace() / name)), names[0] if names else None)


def job_status() -> None:
    """Show the job under way, refreshing itself only while there is one."""
    path = folder()
    if path is None:
        return
    active = False
    with suppress(AnnotatorError), Project.open(path, PATIENCE) as project:  # the page says why it cannot be opened
        tidy(project)
        active = jobs.active(project.db) is not None
    st.session_state["job_active"] = active
    _live_status(path) if active else None


@st.fragment(run_every="1.5s")
def _live_status(path: Path) -> None:
    with Project.open(path, PATIENCE) as project:
        tidy(project)
        job = jobs.active(project.db)
    if job is None:
        st.rerun()  # the whole app: the new round is in use
    else:
        st.progress(min(1.0, job["share"]), text=describe_job(job))
        if normalized_entropy := doubt_of(job):
            html("quiet", normalized_entropy)


def tidy(project: Project) -> None:
    """Tidy up after a round that died, unless another program is writing: then there will be another time."""
    with suppress(ProjectBusy):
        recover(project)


def doubt_of(job: Mapping[str, Any]) -> str:
    """Say that a job seems to hang, and what to do; nothing where it does not."""
    if job["cancel"]:
        return ""
    if silent := jobs.silence(job):
        said = say("It has not responded for {time}.", time=duration(silent.total_seconds()))
    elif stands := jobs.standstill(job):
        said = say("It is running but has made no progress for {time}.", time=duration(stands.total_seconds()))
    else:
        return ""
    return f"{said} {say('If it hangs, cancel it on the Rounds page and start another.')}"


def describe_job(job: Mapping[str, Any]) -> str:
    """Say in a line what a job is doing and how long it will take."""
    if job["cancel"]:
        return say("Stopping the round")
    left = job["seconds_left"]
    stage = say(STAGES.get(str(job["stage"]), str(job["stage"])))
    return stage if left is None else say("{stage}, {time} left", stage=stage, time=duration(float(str(left))))


def duration(seconds: float) -> str:
    """Put seconds into words a person would use."""
    if seconds < 90:
        return say("about {n} seconds", n=max(5, round(seconds / 5) * 5))
    return say_many("about {n} minute", "about {n} minutes", round(seconds / 60))
