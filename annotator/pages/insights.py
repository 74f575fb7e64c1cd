"""The insights page: how good the model is, what may be accepted unseen, and what has changed."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from annotator import i18n
from annotator.i18n import say, say_many
from annotator.labeling.auto_accept import Offer, accept, offer, take_back
from annotator.methods.anchoring import pull
from annotator.methods.guarantee import Guarantee, NotYet, Target
from annotator.pages.components import layout, onboarding
from annotator.project import Project
from annotator.reporting import baseline, guarantees, stopping, summary, text
from annotator.reporting.learning_curve import Answers
from annotator.reporting.summary import InUse
from annotator.rounds.lifecycle import roll_back
from annotator.rounds.queueing import queue_audit
from store import acceptances, annotations, rounds

MOST_FLIPS = 200


def show() -> None:
    """Show the page."""
    st.title(say("Insights"))
    with layout.opened_project() as project:
        onboarding.strip(project, "insights")
        answers = annotations.answers(project.db)  # read once per run and passed on
        used = summary.in_use(project, answers)
        if used is None:
            st.info(
                say("No round has been made yet. Label a few utterances, then press “Retrain now” on the Rounds page.")
            )
            if annotations.count_answered(project.db):
                _work(project, None, answers)
            return
        _verdict(used)
        place, advice = st.empty(), stopping.advise(project)
        place.write(layout.plain(stopping.sentence(stopping.with_gain(project, advice, wait=False, answers=answers))))
        _accept(project, used, answers)
        _quality(project, used, answers)
        _confusion(used)
        _work(project, used, answers)
        _changes(project, used)
        _report(project)
        with_gain = stopping.with_gain(project, advice, answers=answers)  # may take seconds
        place.write(layout.plain(stopping.sentence(with_gain)))


def _verdict(used: InUse) -> None:
    """Say first what everybody wants to know."""
    layout.html("lead", text.accuracy(used))
    if unfitting := text.unfitting(used):
        layout.html("quiet", unfitting)
    if summary.measured(used.row).accuracy is not None:
        st.write(layout.plain(text.calibration_quality(used)))
        layout.html("quiet", text.in_use(used))


# Accepting


def _accept(project: Project, used: InUse, answers: Answers) -> None:
    st.header(say("Accept suggestions unseen"))
    left, right = st.columns(2, gap="large")
    with left:
        target, per_label = _target(project.config.precision)
        made = offer(project, target, per_label, answers)
        _offered(made, used)
    with right:
        if curve := summary.coverage_curve(used):
            from annotator.reporting import charts

            st.altair_chart(charts.risk_coverage(curve, target.target), key="risk-coverage")
            shaded = say("Shaded: where the truth lies 95 times in 100.")
            layout.html("quiet", f"{text.from_audit(len(curve))} {shaded}")
        else:
            st.info(
                say("No audit answer yet. One utterance in five on the Label page is one: they make this possible.")
            )
    _acceptances(project)


def _target(precision: float) -> tuple[Target, bool]:
    target = st.slider(say("How many in 100 must be right"), 80, 99, round(100 * precision), key="target")
    per_label = st.checkbox(
        say("For each label by itself"),
        key="per-label",
        help=say("Else on average over all that is accepted. For each label it takes far more audit answers."),
    )
    return Target(target / 100), per_label


def _offered(made: Offer, used: InUse) -> None:
    """Say what may be accepted, on what it rests, and offer the button."""
    said = guarantees.offered(made)
    if said:
        st.write(layout.plain(said))
    if 0 in made.guarantees:
        one = made.guarantees[0]
        if isinstance(one, Guarantee):
            layout.html("quiet", guarantees.rests_on(one))
        elif not said:
            st.write(layout.plain(guarantees.not_yet(one, used)))
            _measure_next(one, used)
    else:
        names = dict(zip(used.label_ids, used.names, strict=True))
        st.dataframe([guarantees.of_label(names[i], one) for i, one in made.guarantees.items()], hide_index=True)
        layout.html("quiet", guarantees.each_label())
    if made.accepts:
        target = made.target
        args = (target.target, 0 not in made.guarantees)
        name = say_many("Accept {n:,} suggestion", "Accept {n:,} suggestions", made.accepts)
        st.button(name, type="primary", key="accept", disabled=made.stale, on_click=_do_accept, args=args)
        if made.stale:
            layout.html("quiet", say("The codebook has changed since this round was made. Retrain, then accept."))
        layout.html(
            "quiet",
            say(
                "They are marked as the model's, and some are asked again, without a suggestion, to check them. Choose "
                "how many must be right before you look at what it gives: the promise holds for one look."
            ),
        )


def _measure_next(one: NotYet, used: InUse) -> None:
    """Offer to ask at once what a promise lacks: one answer in five measures otherwise, so it would take long."""
    count = min(one.missing or 0, used.audit_left)
    if count:
        name = say_many("Ask me {n:,} audit utterance next", "Ask me {n:,} audit utterances next", count)
        st.button(name, key="measure", on_click=_do_measure_next, args=(count,))
        layout.html(
            "quiet", say("Drawn at random, asked without a suggestion: they measure the model and do not teach it.")
        )


@layout.guarded
def _do_measure_next(count: int) -> None:
    with layout.opened_project() as project:
        queue_audit(project, count, layout.annotator())
    st.toast(say("They come first on the Label page."))


@layout.guarded
def _do_accept(target: float, per_label: bool) -> None:
    with layout.opened_project() as project:
        accept(project, layout.annotator(), Target(target), per_label)
    st.toast(say("Accepted."))


def _acceptances(project: Project) -> None:
    """List what was accepted, newest first, each with its way back."""
    made = acceptances.history(project.db)
    if not made:
        return
    st.markdown(f"**{say('What has been accepted')}**")
    for one in made:
        with st.container(horizontal=True, vertical_alignment="center", key=f"acceptance-{one['id']}"):
            with st.container(width="stretch"):
                layout.html("quiet", guarantees.acceptance(one))
            if not one["ended"]:
                st.button(say("Take back"), key=f"take-back-{one['id']}", on_click=_do_take_back, args=(one["id"],))


@layout.guarded
def _do_take_back(acceptance_id: int) -> None:
    with layout.opened_project() as project:
        taken = take_back(project, acceptance_id, layout.annotator())
    st.toast(say("Taken back: these utterances are open again.") if taken else say("It had ended before."))


# How good it is


def _quality(project: Project, used: InUse, answers: Answers) -> None:
    from annotator.reporting import charts

    st.header(say("How good the model is"))
    curve = summary.learning_curve(project)
    bins = summary.reliability_bins(used)
    if not any(one.accuracy is not None for one in curve):
        st.info(say("Nothing has been measured yet. Answer a few audit utterances on the Label page, then retrain."))
        return
    left, right = st.columns(2, gap="large")
    with left:
        st.altair_chart(charts.learning_curve(curve), key="learning-curve")
        layout.html("quiet", text.curve(curve))
    with right:
        if bins:
            st.altair_chart(charts.reliability(bins), key="reliability")
            layout.html("quiet", text.bins(bins))
    _choosing(project, answers)
    with st.expander(say("All figures")):
        st.dataframe([text.figures(one) for one in reversed(curve)], hide_index=True)
        layout.html("quiet", text.figures_explained())
        layout.html("quiet", text.queried(summary.queried_accuracy(project, answers)))


def _choosing(project: Project, answers: Answers) -> None:
    from annotator.reporting import charts

    found = baseline.recent_comparison(project, answers)
    st.space("small")
    left, right = st.columns(2, gap="large")
    with left:
        st.write(layout.plain(baseline.sentence(found)))
        if found.steps:
            layout.html("quiet", baseline.explained(found))
    if found.steps:
        with right:
            st.altair_chart(charts.active_learning(found.steps), key="choosing")


def _confusion(used: InUse) -> None:
    from annotator.reporting import charts

    observed, expected = summary.observed_confusion(used), summary.expected_confusion(used)
    if not observed.total and not expected.total:
        return
    st.header(say("What it confuses"))
    dark = st.context.theme.type == "dark"
    left, right = st.columns(2, gap="large")
    if observed.total:
        with left:
            st.altair_chart(charts.confusion(observed, say("Seen on audit answers"), dark), key="observed")
            layout.html("quiet", text.confusion_observed(observed))
    if expected.total:
        with right:
            st.altair_chart(charts.confusion(expected, say("Expected in what is left"), dark), key="expected")
            layout.html("quiet", text.confusion_expected(expected))


# The work


def _work(project: Project, used: InUse | None, answers: Answers) -> None:
    from annotator.reporting import charts

    st.header(say("Labels and work"))
    counts, pace = summary.label_counts(project, used, answers), summary.time_per_answer(project, answers)
    left, right = st.columns(2, gap="large")
    with left:
        st.altair_chart(charts.label_counts(counts), key="label-counts")
        layout.html("quiet", text.counted(used))
    with right:
        if pace.steps:
            st.altair_chart(charts.time_per_answer(pace), key="time-per-answer")
        layout.html("quiet", text.paced(pace))
        layout.html("quiet", text.agreed(summary.people_agree(project, answers)))
        layout.html("quiet", text.suggestion_effect(pull(answers)))


# What has changed, and the way back


def _changes(project: Project, used: InUse) -> None:
    st.header(say("What the last round changed"))
    found = summary.flips(project, used, MOST_FLIPS)
    st.write(layout.plain(text.flipped(found)))
    if found and found.flips:
        st.dataframe([_flip(one) for one in found.flips], hide_index=True, column_config=_flip_columns(found))
        if found.changed > MOST_FLIPS:
            layout.html("quiet", say("The {n} of which it is surest now.", n=MOST_FLIPS))
    _go_back(project, used.row)


def _flip(one: summary.Flip) -> dict[str, Any]:
    return {
        "utterance": one.text,
        "before": one.before,
        "before_sure": 100 * one.before_probability,
        "now": one.now,
        "now_sure": 100 * one.now_probability,
    }


def _flip_columns(found: summary.Flips) -> dict[str, Any]:
    number = st.column_config.NumberColumn
    return {
        "utterance": st.column_config.TextColumn(say("Utterance"), width="large"),
        "before": say("Round {n} said", n=found.before),
        "before_sure": number(say("how sure"), format="%.0f %%"),
        "now": say("Round {n} says", n=found.now),
        "now_sure": number(say("how sure"), format="%.0f %%"),
    }


def _go_back(project: Project, used: Mapping[str, Any]) -> None:
    """Let an older round be put in use again, or the newest after that."""
    others = [r for r in rounds.history(project.db) if r["state"] == "promoted" and r["id"] != used["id"]]
    if not others:
        return
    numbers = {row["id"]: row["number"] for row in others}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            say("Put another round in use"),
            list(numbers),
            format_func=lambda i: say("Round {n}", n=numbers[i]),
            width=220,
            key="back",
        )
        back = say("Go back to round {n}", n=numbers[chosen])
        st.button(back, key="roll-back", on_click=_do_roll_back, args=(chosen,))
    layout.html("quiet", say("No answer is lost. It holds until the next round is ready."))


@layout.guarded
def _do_roll_back(round_id: int) -> None:
    with layout.opened_project() as project:
        roll_back(project, round_id, layout.annotator())
    st.toast(say("That round is in use now."))


# The report


def _report(project: Project) -> None:
    st.header(say("Report"))
    about = say("Everything above on one page, with how each figure was estimated: to print, or to send.")
    layout.html("quiet", about)
    state = (
        project.folder,
        annotations.last_id(project.db),
        rounds.promoted(project.db),
        acceptances.history(project.db),
        i18n.now(),
    )
    if st.button(say("Prepare the report"), key="prepare-report"):
        from annotator.reporting.html import report

        with st.spinner(say("Drawing")):
            st.session_state["report"] = (state, report(project))
    prepared = st.session_state.get("report")
    if prepared and prepared[0] == state:
        name = f"{project.folder.name}-report.html"
        st.download_button(
            say("Download"), prepared[1], name, "text/html", icon=":material/download:", on_click="ignore"
        )
