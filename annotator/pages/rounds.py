"""The rounds page: start rounds, follow their progress, compare them and change their settings."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from annotator.config import RoundConfig
from annotator.doctor import prospect, sentence
from annotator.errors import Message
from annotator.i18n import say, say_many, translate
from annotator.methods.query_strategies import STRATEGIES
from annotator.pages.components import layout, onboarding
from annotator.pages.components.backbone import about
from annotator.project import Project
from annotator.reporting.text import calibrated
from annotator.rounds.planning import estimated
from annotator.rounds.spelling import about_spelling
from annotator.rounds.summaries import STATES, RoundSummary, about_training, about_weights, summaries
from annotator.rounds.worker import start_round
from model.backbones.catalog import CATALOG
from model.backbones.machine import machine_without_torch
from model.backbones.memory import Job
from model.backbones.plan import rank_catalog
from model.prompts.prompt import LARGE, TEMPLATES
from model.recipe import Quantization, Recipe
from store import annotations, jobs, rounds

_STEP = 500_000_000  # bytes to which free memory is rounded, so that advice is steady and seldom computed


def show() -> None:
    """Show the page."""
    st.title(say("Rounds"))
    with layout.opened_project() as project:
        layout.recover_dead_round(project)
        onboarding.strip(project, "rounds")
        _round_in_use(project)
        _button(project)
        _last_error(project)
        _history(project)
        _settings(project)


def _round_in_use(project: Project) -> None:
    """Show the round in use, its training data, and the number of labels since."""
    promoted = rounds.promoted(project.db)
    new = annotations.count_new_training_labels(project.db, promoted.last_annotation if promoted else 0)
    if promoted is None:
        st.write(say("There is no round yet. Until the first one, utterances are asked in random order."))
        _show_notes(about_spelling(project))
        return
    made = {"round": promoted.number, "backbone": promoted.backbone, "trained": promoted.trained_on}
    if promoted.trained_on == 0:
        sentence = say("Round {round} is in use: {backbone}, from the codebook alone, before any labels.", **made)
    else:
        sentence = say_many(
            "Round {round} is in use: {backbone}, trained on {trained} labels, measured on {n} audit answer.",
            "Round {round} is in use: {backbone}, trained on {trained} labels, measured on {n} audit answers.",
            promoted.audited_on,
            **made,
        )
    st.write(f"{sentence} {_since(new)}")
    refused, notes = about_weights(project)
    if refused:
        st.error(layout.plain(refused))
    _show_notes([*notes, *about_training(promoted), *about_spelling(project)])


def _show_notes(notes: Sequence[str]) -> None:
    for note in dict.fromkeys(notes):  # a round and its successor may count the same utterances
        layout.html("quiet", note)


def _since(new: int) -> str:
    if new == 0:
        return say("No new labels since then.")
    return say_many("{n} new label since then.", "{n} new labels since then.", new)


def _button(project: Project) -> None:
    every = project.config.retrain_every
    active = jobs.active(project.db)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(say("Retrain now"), type="primary", disabled=active is not None, on_click=_retrain, key="retrain")
        if active:
            st.button(say("Cancel"), on_click=_cancel, key="cancel")
            why = translate(active.reason)
            layout.html(
                "quiet", say("Reason: {reason}. The current round stays in use until this one is ready.", reason=why)
            )
            if warning := layout.stall_warning(active):
                layout.html("quiet", warning)
        elif every:
            layout.html("quiet", say("A round also starts automatically after every {n} new labels.", n=every))
        else:
            layout.html("quiet", say("Rounds start only when you press the button."))


@layout.guarded
def _retrain() -> None:
    with layout.opened_project() as project:
        start_round(project, Message("started by {annotator}", annotator=layout.annotator()))


@layout.guarded
def _cancel() -> None:
    with layout.opened_project() as project:
        jobs.request_cancel(project.db)
    seconds = round((jobs.CANCEL_GRACE + jobs.TERM_GRACE).total_seconds())
    st.toast(say("The round stops at its next step, or is ended after {n} seconds.", n=seconds))


def _last_error(project: Project) -> None:
    last = jobs.last(project.db)
    if last and last.state in ("failed", "interrupted"):
        st.error(f"{layout.plain(translate(last.error))}\n\n{layout.plain(translate(last.hint))}")
    elif last and last.state == "cancelled":
        st.info(say("The last round was canceled. The round before it stays in use."))


def _history(project: Project) -> None:
    rows = summaries(project)
    if not rows:
        return
    st.header(say("History"))
    st.dataframe([_line(row) for row in rows], hide_index=True, column_config=_columns())
    layout.html(
        "quiet",
        say(
            "All figures come from the audit sample: utterances drawn at random, answered without a "
            "suggestion, and predicted by a model that was not trained on them. The interval contains the "
            "true accuracy 95 times in 100."
        ),
    )


def _columns() -> dict[str, Any]:
    text, figure = st.column_config.TextColumn, partial(st.column_config.TextColumn, alignment="right")
    return {
        say("Accuracy"): figure(),
        say("95 % interval"): figure(),
        say("Macro-F1"): figure(),
        say("NLL"): figure(help=say("Negative log-likelihood: lower is better.")),
        say("ECE"): figure(help=say("Gap between confidence and accuracy: lower is better.")),
        say("Learner"): text(
            help=say("The quick classifier alone takes seconds; fine-tuning the language model takes minutes.")
        ),
        say("Calibrated"): text(help=calibrated()),
        say("Memory"): figure(help=say("Peak memory of the round.")),
    }


def _line(one: RoundSummary) -> dict[str, object]:
    return {
        say("Round"): one.number,
        say("State"): say(STATES.get(one.state, one.state)),
        say("Learner"): one.learner,
        say("Trained on"): one.trained_on,
        say("Audit answers"): one.audited_on,
        say("Accuracy"): one.accuracy,
        say("95 % interval"): one.interval,
        say("Macro-F1"): one.macro_f1,
        say("NLL"): one.nll,
        say("ECE"): one.ece,
        say("Calibrated"): say(one.calibrated),
        say("Memory"): one.memory,
        say("Started"): one.started,
    }


def _settings(project: Project) -> None:
    with st.expander(say("Round settings")):
        config = project.config
        backbone, weights, warning = _backbone(project)
        with st.form("settings", border=False):
            strategy = st.selectbox(
                say("Query strategy"),
                list(STRATEGIES),
                index=list(STRATEGIES).index(config.strategy),
                format_func=lambda name: say(STRATEGIES[name].shown),
                key=f"strategy-{config.strategy}",
                help="\n".join(f"- **{say(one.shown)}**: {say(one.reason)}" for one in STRATEGIES.values()),
            )
            template = st.selectbox(
                say("Prompt format"),
                list(TEMPLATES),
                index=list(TEMPLATES).index(config.template),
                format_func=lambda name: say(TEMPLATES[name].shown),
                key=f"template-{config.template}",
                help=say("With {n} or more labels, codes make a round several times faster.", n=LARGE),
            )
            numbers, ticks = _numbers(config), _ticks(config)
            st.caption(say("Takes effect with the next round. Audit utterances never show a suggestion."))
            if st.form_submit_button(say("Save"), key="save"):
                project.config = _changed(config, (backbone, weights), (strategy, template), numbers, ticks)
                st.toast(say("Saved."))
        if warning:  # below the form: above it, it would move the button during a click
            st.warning(warning)


def _numbers(config: RoundConfig) -> tuple[float, float, float]:
    """Ask for the batch size, the number of labels that start a round, and the required precision."""
    size = st.number_input(say("Utterances per batch"), 5, 500, config.batch_size, key=f"size-{config.batch_size}")
    title, only = say("New labels that start a round"), say("0: only the button starts a round.")
    every = st.number_input(title, 0, 1000, config.retrain_every, key=f"every-{config.retrain_every}", help=only)
    precision = st.number_input(
        say("Required precision of auto-accept (%)"),
        80,
        99,
        round(100 * config.precision),
        key=f"precision-{config.precision}",
        help=say(
            "The starting value on the Insights page. Later imports reserve enough audit utterances to certify it."
        ),
    )
    return size, every, precision


def _ticks(config: RoundConfig) -> tuple[bool, bool]:
    """Ask whether to show suggestions and whether to fine-tune the language model."""
    tuned = st.checkbox(
        say("Fine-tune the language model"),
        config.recipe.probe_weight < 1,
        key=f"tuned-{config.recipe.probe_weight}",
        help=say(
            "Otherwise the quick classifier works alone, on hidden states of the untrained language "
            "model: a round takes seconds and is slightly less accurate."
        ),
    )
    suggestions = st.checkbox(
        say("Show suggestions"), config.show_suggestions, key=f"suggestions-{config.show_suggestions}"
    )
    return suggestions, tuned


def _backbone(project: Project) -> tuple[str, Quantization, str]:
    """Ask for the language model and show how a round would run; return its name, quantization, and a warning.

    Outside the form, so that the warning appears before the choice is saved.
    """
    config = project.config
    backbone = st.text_input(
        say("Language model"),
        config.backbone,
        key=f"backbone-{config.backbone}",
        help=say("A name from the catalog ({names}), a hub id, or a folder.", names=", ".join(CATALOG)),
    ).strip()
    about(backbone)
    weights = _weights(config)
    asked = replace(config, backbone=backbone or config.backbone, recipe=replace(config.recipe, quantization=weights))
    job = estimated(project, asked, machine_without_torch())
    found = prospect(asked.backbone, job)
    layout.html("quiet", " ".join(filter(None, (f"{found.needs}.", found.notes, _advice(asked.backbone, job)))))
    return (
        backbone,
        weights,
        "" if found.fits else f"{say('A round will not fit into memory.')} {translate(found.hint)}",
    )


def _advice(backbone: str, job: Job | None) -> str:
    """Name the language model of the catalog that suits this machine best, if it is another one."""
    if job is None:
        return ""
    steady = replace(job.machine, free=job.machine.free // _STEP * _STEP)
    name, plan = rank_catalog(replace(job, machine=steady))[0]
    if name == backbone:
        return ""
    reason = say("the largest that fits with unchanged weights")
    if not plan.job.machine.gpu:
        reason = say("the largest that fits with unchanged weights and takes at most four times as long as the starter")
    return say("Suits this computer best: {line} ({reason}).", line=sentence(name, plan), reason=reason)


def _weights(config: RoundConfig) -> Quantization:
    """Ask whether to keep the weights in 4 bits; not available for full fine-tuning."""
    if config.recipe.method == "full":
        return "none"
    in_4bit = st.checkbox(
        say("Keep the weights in 4 bits (QLoRA)"),
        config.recipe.quantization == "nf4",
        key=f"weights-{config.recipe.quantization}",
        help=say("Takes less memory but more time; worthwhile from about a billion parameters."),
    )
    return "nf4" if in_4bit else "none"


def _changed(
    config: RoundConfig,
    model: tuple[str, Quantization],
    names: tuple[str, str],
    numbers: tuple[float, float, float],
    ticks: tuple[bool, bool],
) -> RoundConfig:
    return replace(
        config,
        backbone=model[0] or config.backbone,
        strategy=names[0],
        template=names[1],
        batch_size=int(numbers[0]),
        retrain_every=int(numbers[1]),
        precision=numbers[2] / 100,
        show_suggestions=ticks[0],
        recipe=replace(config.recipe, quantization=model[1], probe_weight=_share(config, ticks[1])),
    )


def _share(config: RoundConfig, tuned: bool) -> float:
    """Return the weight of the quick classifier: 1 without fine-tuning, else the current or default weight."""
    if not tuned:
        return 1.0
    return config.recipe.probe_weight if config.recipe.probe_weight < 1 else Recipe.probe_weight
