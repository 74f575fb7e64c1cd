"""The insights page: model quality, auto-accept, and changes in the last round."""

from typing import Any

import streamlit as st

from annotator import i18n
from annotator.i18n import say, say_many
from annotator.labeling.auto_accept import Offer, accept, offer, take_back
from annotator.methods.guarantee import Guarantee, NotYet, Target
from annotator.pages.components import layout, onboarding
from annotator.project import Project
from annotator.reporting import guarantees, stopping, summary, text
from annotator.reporting.summary import Answers, InUse
from annotator.rounds.lifecycle import roll_back
from annotator.rounds.queueing import queue_audit
from store import acceptances, annotations, rounds
from store.rounds import Round

MOST_FLIPS = 200


def show() -> None:
    """Show the page."""
    st.title(say("Insights"))
    with layout.opened_project() as project:
        onboarding.strip(project, "insights")
        answers = annotations.answers(project.db)  # read once per run and passed on
        used = summary.in_use(project, answers)
        if used is None:
            st.info(say("There is no round yet. Label a few utterances, then press “Retrain now” on the Rounds page."))
            if annotations.count_answered(project.db):
                _labels_and_time(project, None, answers)
            return
        _verdict(used)
        place, advice = st.empty(), stopping.advise(project)
        place.write(layout.plain(stopping.sentence(stopping.with_gain(project, advice, wait=False, answers=answers))))
        _accept(project, used, answers)
        _quality(project, used, answers)
        _confusion(used)
        _labels_and_time(project, used, answers)
        _changes(project, used)
        _report(project)
        with_gain = stopping.with_gain(project, advice, answers=answers)  # can take seconds, so it comes last
        place.write(layout.plain(stopping.sentence(with_gain)))


def _verdict(used: InUse) -> None:
    """Show accuracy and calibration in a sentence or two."""
    layout.html("lead", text.accuracy(used))
    if unfitting := text.unfitting(used):
        layout.html("quiet", unfitting)
    if used.metrics:
        st.write(layout.plain(text.calibration_quality(used)))
        layout.html("quiet", text.in_use(used))


# Auto-accept


def _accept(project: Project, used: InUse, answers: Answers) -> None:
    st.header(say("Auto-accept suggestions"))
    left, right = st.columns(2, gap="large")
    with left:
        target, per_label = _target(project.config.precision)
        made = offer(project, target, per_label, answers)
        _offered(made, used)
    with right:
        if curve := summary.coverage_curve(used):
            from annotator.reporting import charts

            st.altair_chart(charts.risk_coverage(curve, target.precision), key="risk-coverage")
            shaded = say("Shaded: 95 % interval.")
            layout.html("quiet", f"{text.from_audit(len(curve))} {shaded}")
        else:
            st.info(
                say(
                    "There are no audit answers yet. Auto-accept needs them: about one utterance in five on the "
                    "Label page is an audit utterance."
                )
            )
    _acceptances(project)


def _target(precision: float) -> tuple[Target, bool]:
    target = st.slider(say("Required precision (%)"), 80, 99, round(100 * precision), key="target")
    per_label = st.checkbox(
        say("For each label separately"),
        key="per-label",
        help=say(
            "Otherwise the precision holds on average over all accepted suggestions. Requiring it for "
            "each label takes far more audit answers."
        ),
    )
    return Target(target / 100), per_label


def _offered(made: Offer, used: InUse) -> None:
    """Show what can be accepted, the evidence for it, and the button."""
    sentence = guarantees.offered(made)
    if sentence:
        st.write(layout.plain(sentence))
    if 0 in made.guarantees:
        one = made.guarantees[0]
        if isinstance(one, Guarantee):
            layout.html("quiet", guarantees.rests_on(one))
        elif not sentence:
            st.write(layout.plain(guarantees.not_yet(one, used)))
            _measure_next(one, used)
    else:
        names = dict(zip(used.label_ids, used.names, strict=True))
        st.dataframe([guarantees.of_label(names[i], one) for i, one in made.guarantees.items()], hide_index=True)
        layout.html("quiet", guarantees.each_label())
    if made.accepts:
        target = made.target
        args = (target.precision, 0 not in made.guarantees)
        name = say_many("Accept {n:,} suggestion", "Accept {n:,} suggestions", made.accepts)
        st.button(name, type="primary", key="accept", disabled=made.stale, on_click=_do_accept, args=args)
        if made.stale:
            layout.html("quiet", say("The codebook has changed since this round. Retrain first, then accept."))
        layout.html(
            "quiet",
            say(
                "Accepted suggestions are marked as such in exports, and some are asked again without a "
                "suggestion as spot checks. Set the precision before you look at the result: trying several "
                "values weakens the guarantee."
            ),
        )


def _measure_next(one: NotYet, used: InUse) -> None:
    """Offer to queue the missing audit answers first; normally only one answer in five is an audit answer."""
    count = min(one.missing or 0, used.audit_left)
    if count:
        name = say_many("Queue {n:,} audit utterance next", "Queue {n:,} audit utterances next", count)
        st.button(name, key="measure", on_click=_do_measure_next, args=(count,))
        layout.html(
            "quiet",
            say(
                "They are drawn at random and shown without a suggestion. They measure the model and are not "
                "training examples."
            ),
        )


@layout.guarded
def _do_measure_next(count: int) -> None:
    with layout.opened_project() as project:
        queue_audit(project, count, layout.annotator())
    st.toast(say("They come next on the Label page."))


@layout.guarded
def _do_accept(target: float, per_label: bool) -> None:
    with layout.opened_project() as project:
        accept(project, layout.annotator(), Target(target), per_label)
    st.toast(say("Accepted."))


def _acceptances(project: Project) -> None:
    """List acceptances, newest first, each with an undo button."""
    made = acceptances.history(project.db)
    if not made:
        return
    st.markdown(f"**{say('Accepted so far')}**")
    for one in made:
        with st.container(horizontal=True, vertical_alignment="center", key=f"acceptance-{one.id}"):
            with st.container(width="stretch"):
                layout.html("quiet", guarantees.acceptance(one))
            if not one.ended:
                st.button(say("Undo"), key=f"take-back-{one.id}", on_click=_do_take_back, args=(one.id,))


@layout.guarded
def _do_take_back(acceptance_id: int) -> None:
    with layout.opened_project() as project:
        taken = take_back(project, acceptance_id, layout.annotator())
    st.toast(say("Undone. These utterances are open again.") if taken else say("It had already ended."))


# Model quality


def _quality(project: Project, used: InUse, answers: Answers) -> None:
    from annotator.reporting import charts

    st.header(say("Model quality"))
    curve = summary.learning_curve(project)
    if not any(one.metrics for one in curve):
        st.info(say("There are no measurements yet. Answer a few audit utterances on the Label page, then retrain."))
        return
    left, right = st.columns(2, gap="large")
    with left:
        st.altair_chart(charts.learning_curve(curve), key="learning-curve")
        layout.html("quiet", text.curve(curve))
    with right:
        if used.metrics and (bins := used.metrics.reliability):
            st.altair_chart(charts.reliability(bins), key="reliability")
            layout.html("quiet", text.bins(bins))
    with st.expander(say("All figures")):
        st.dataframe([text.figures(one) for one in reversed(curve)], hide_index=True)
        layout.html("quiet", text.figures_explained())
        layout.html("quiet", text.queried(summary.queried_accuracy(project, answers)))


def _confusion(used: InUse) -> None:
    from annotator.reporting import charts

    observed, expected = summary.observed_confusion(used), summary.expected_confusion(used)
    if not observed.total and not expected.total:
        return
    st.header(say("Confusions"))
    dark = st.context.theme.type == "dark"
    left, right = st.columns(2, gap="large")
    if observed.total:
        with left:
            st.altair_chart(charts.confusion(observed, say("Observed on audit answers"), dark), key="observed")
            layout.html("quiet", text.confusion_observed(observed))
    if expected.total:
        with right:
            st.altair_chart(charts.confusion(expected, say("Expected in open utterances"), dark), key="expected")
            layout.html("quiet", text.confusion_expected(expected))


# Labels and answering time


def _labels_and_time(project: Project, used: InUse | None, answers: Answers) -> None:
    from annotator.reporting import charts

    st.header(say("Labels and answering time"))
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
        layout.html("quiet", text.suggestion_effect(summary.suggestion_pull(answers)))


# Changes in the last round, and older rounds


def _changes(project: Project, used: InUse) -> None:
    st.header(say("Changes in the last round"))
    found = summary.flips(project, used, MOST_FLIPS)
    st.write(layout.plain(text.flipped(found)))
    if found and found.flips:
        st.dataframe([_flip(one) for one in found.flips], hide_index=True, column_config=_flip_columns(found))
        if found.changed > MOST_FLIPS:
            layout.html("quiet", say("The {n} with the highest probability now.", n=MOST_FLIPS))
    _go_back(project, used.row)


def _flip(one: summary.Flip) -> dict[str, object]:
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
        "before": say("Round {n}", n=found.before),
        "before_sure": number(say("Probability"), format="%.0f %%"),
        "now": say("Round {n}", n=found.now),
        "now_sure": number(say("Probability"), format="%.0f %%"),
    }


def _go_back(project: Project, used: Round) -> None:
    """Let the user switch to another promoted round."""
    others = [one for one in rounds.finished(project.db) if one.id != used.id]
    if not others:
        return
    numbers = {one.id: one.number for one in others}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            say("Use another round"),
            list(numbers),
            format_func=lambda i: say("Round {n}", n=numbers[i]),
            width=220,
            key="back",
        )
        back = say("Use round {n}", n=numbers[chosen])
        st.button(back, key="roll-back", on_click=_do_roll_back, args=(chosen,))
    layout.html("quiet", say("No answer is lost. The choice holds until the next round is ready."))


@layout.guarded
def _do_roll_back(round_id: int) -> None:
    with layout.opened_project() as project:
        roll_back(project, round_id, layout.annotator())
    st.toast(say("This round is now in use."))


# The report


def _report(project: Project) -> None:
    st.header(say("Report"))
    about = say("Everything above in one file, with the method behind each figure, to print or share.")
    layout.html("quiet", about)
    state = (
        project.folder,
        annotations.last_id(project.db),
        rounds.promoted(project.db),
        acceptances.history(project.db),
        i18n.now(),
    )
    if st.button(say("Create report"), key="prepare-report"):
        from annotator.reporting.html import report

        with st.spinner(say("Creating the report")):
            st.session_state["report"] = (state, report(project))
    prepared = st.session_state.get("report")
    if prepared and prepared[0] == state:
        name = f"{project.folder.name}-report.html"
        st.download_button(
            say("Download"), prepared[1], name, "text/html", icon=":material/download:", on_click="ignore"
        )
