"""The rounds page: retrain, see what the model is doing and from which answers, and what became of it."""

from dataclasses import replace
from typing import Any

import streamlit as st

from annotator.calibration import ROUGH
from annotator.config import RoundConfig
from annotator.doctor import prospect
from annotator.findings import CALIBRATED
from annotator.history import RoundSummary, summaries
from annotator.pages import frame, tour
from annotator.project import Project
from annotator.query import STRATEGIES
from annotator.worker import start_round
from model import machine
from model.catalog import CATALOG
from model.prompt import LARGE, TEMPLATES
from model.recipe import Recipe
from store import annotations, jobs, rounds


def show() -> None:
    """Show the page."""
    st.title("Rounds")
    with frame.opened_project() as project:
        project.recover()
        tour.strip(project, "rounds")
        _what_is_known(project)
        _button(project)
        _last_error(project)
        _history(project)
        _settings(project)


def _what_is_known(project: Project) -> None:
    """Say which round is in use, what it was made from, and what has come since."""
    promoted = rounds.promoted(project.db)
    new = annotations.count_new_training_labels(project.db, promoted["last_annotation"] if promoted else 0)
    if promoted is None:
        st.write("No round has been made yet. Until then utterances are asked at random.")
    elif promoted["trained_on"] == 0:
        st.write(
            f"Round {promoted['number']} is in use: {promoted['backbone']}, from the codebook alone, "
            f"before any answer. {_since(new)}"
        )
    else:
        st.write(
            f"Round {promoted['number']} is in use: {promoted['backbone']}, trained on {promoted['trained_on']} "
            f"labels, measured on {promoted['audited_on']} audit answers. {_since(new)}"
        )


def _since(new: int) -> str:
    return "No label has come since." if new == 0 else f"{new} label{'s' * (new != 1)} have come since."


def _button(project: Project) -> None:
    every = project.config.retrain_every
    active = jobs.active(project.db)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Retrain now", type="primary", disabled=active is not None, on_click=_retrain, key="retrain")
        if active:
            st.button("Cancel", on_click=_cancel, key="cancel")
            frame.html("quiet", f"Started for {active['reason']}. The round in use serves until this one is ready.")
        else:
            by_itself = f"A round also starts by itself for every {every} new labels."
            frame.html("quiet", by_itself if every else "Rounds start by the button only.")


@frame.guarded
def _retrain() -> None:
    with frame.opened_project() as project:
        start_round(project, f"{frame.annotator()}, who pressed the button")


@frame.guarded
def _cancel() -> None:
    with frame.opened_project() as project:
        jobs.request_cancel(project.db)
    st.toast("The round stops at its next step.")


def _last_error(project: Project) -> None:
    last = jobs.last(project.db)
    if last and last["state"] in ("failed", "interrupted"):
        st.error(f"{frame.plain(last['error'] or '')}\n\n{frame.plain(last['hint'] or '')}")
    elif last and last["state"] == "cancelled":
        st.info("The last round was cancelled. The round before it stays in use.")


def _history(project: Project) -> None:
    rows = summaries(project)
    if not rows:
        return
    st.header("History")
    st.dataframe([_line(row) for row in rows], hide_index=True, column_config=_COLUMNS)
    frame.html(
        "quiet",
        "Accuracy and the rest come from the audit slice alone: utterances drawn at random, answered without seeing "
        "a suggestion, judged by a model that was not trained on them. The interval holds the true accuracy 95 times "
        "in 100.",
    )


_COLUMNS = {
    "NLL": st.column_config.TextColumn(help="Negative log-likelihood: lower is better."),
    "ECE": st.column_config.TextColumn(help="Gap between confidence and accuracy: lower is better."),
    "Calibrated": st.column_config.TextColumn(help=CALIBRATED),
    "Memory": st.column_config.TextColumn(help="The most that the round has held at once."),
}


def _line(one: RoundSummary) -> dict[str, Any]:
    return {
        "Round": one.number,
        "State": "ready" if one.state == "promoted" else one.state,
        "Trained on": one.trained_on,
        "Audit answers": one.audited_on,
        "Accuracy": one.accuracy,
        "95 % interval": one.interval,
        "Macro-F1": one.macro_f1,
        "NLL": one.nll,
        "ECE": one.ece,
        "Calibrated": one.calibrated,
        "Memory": one.memory,
        "Started": one.started,
    }


def _settings(project: Project) -> None:
    with st.expander("How rounds are made"):
        config = project.config
        backbone, warning = _backbone(config)
        with st.form("settings", border=False):
            strategy = st.selectbox(
                "What is asked next",
                list(STRATEGIES),
                index=list(STRATEGIES).index(config.strategy),
                format_func=lambda name: f"{STRATEGIES[name].shown}: {STRATEGIES[name].reason}",
            )
            template = st.selectbox(
                "How the model is asked",
                list(TEMPLATES),
                index=list(TEMPLATES).index(config.template),
                format_func=lambda name: TEMPLATES[name].shown,
                help=f"From {LARGE} labels on, codes make a round several times quicker.",
            )
            size = st.number_input("Utterances in a batch", 5, 500, config.batch_size)
            every = st.number_input(
                "New labels that start a round by themselves", 0, 1000, config.retrain_every, help="0: only the button."
            )
            teach = st.checkbox(
                f"Let the first {ROUGH} audit answers teach too",
                config.cross_fit_below > 0,
                help="Each half is then measured by a second model that was trained without it. Rounds take three "
                "times as long until there are so many, and nothing can be accepted unseen before.",
            )
            tuned = st.checkbox(
                "Fine-tune the language model",
                config.recipe.scout < 1,
                help="Without, a small classifier on what the language model makes of an utterance answers alone: "
                "a round takes seconds, and the model is a little less often right.",
            )
            suggestions = st.checkbox("Show the model's suggestion", config.show_suggestions)
            st.caption("Takes effect with the next round. Audit utterances never show a suggestion.")
            if st.form_submit_button("Save"):
                project.config = _changed(
                    config, backbone, (strategy, template), (size, every), (suggestions, teach, tuned)
                )
                st.toast("Saved.")
        if warning:  # below the form: above it, it would move the button away while it is being clicked
            st.warning(warning)


def _backbone(config: RoundConfig) -> tuple[str, str]:
    """Ask for the language model and say what it needs; return its name, and a warning if that is too much.

    Outside the form, so that it is said before the choice is saved.
    """
    backbone = st.text_input(
        "Language model",
        config.backbone,
        help=f"A name from the catalog ({', '.join(CATALOG)}), a hub id, or a folder.",
    ).strip()
    memory = machine.free_main_memory(), machine.processor_width()
    found = prospect(backbone or config.backbone, config.recipe, *memory)
    on_gpu = machine.may_have_gpu()
    st.caption(f"Memory: {found.needs}." + " A GPU has its own: see `annotator doctor`." * on_gpu)
    doubt = "may not fit while utterances are long" if found.fits else "will not fit"
    return backbone, f"This language model {doubt}. {found.hint}" if found.hint and not on_gpu else ""


def _changed(
    config: RoundConfig,
    backbone: str,
    names: tuple[str, str],
    numbers: tuple[float, float],
    ticks: tuple[bool, bool, bool],
) -> RoundConfig:
    return replace(
        config,
        backbone=backbone or config.backbone,
        strategy=names[0],
        template=names[1],
        batch_size=int(numbers[0]),
        retrain_every=int(numbers[1]),
        show_suggestions=ticks[0],
        recipe=replace(config.recipe, scout=_share(config, ticks[2])),
        cross_fit_below=(config.cross_fit_below or ROUGH) if ticks[1] else 0,
    )


def _share(config: RoundConfig, tuned: bool) -> float:
    """Return the scout's share: all, or what it was, or what it is by default."""
    if not tuned:
        return 1.0
    return config.recipe.scout if config.recipe.scout < 1 else Recipe.scout
