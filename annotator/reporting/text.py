"""Describe the figures in sentences for experts who are not statisticians, on the Insights page and in the report.

All functions return plain text; the caller escapes it. Shares are given as so many in 100.
"""

from collections.abc import Sequence

from annotator.i18n import later, number, say, say_many
from annotator.methods.anchoring import FEW, Pull
from annotator.methods.calibration import GOOD, ROUGH
from annotator.methods.metrics import Bin, Interval, proportion_interval
from annotator.reporting.summary import Confusion, Flips, InUse, Measured, Pace, QueriedAccuracy
from annotator.rounds.consensus import Agreement

EXAMPLE = 0.9  # an example probability that people have a feeling for
MOST_CONFUSED = 10  # labels that can be read in one chart

SURE = {
    "not yet": later("It is too early to say whether its probabilities can be trusted"),
    "rough": later("Its probabilities are roughly calibrated"),
    "good": later("Its probabilities are well calibrated"),
}
STATES = (later("not yet"), later("rough"), later("good"))  # of the calibration


def calibrated() -> str:
    """Explain the calibration states."""
    return say(
        "“Not yet” below {rough} audit answers, “rough” below {good}, “good” from {good}.", rough=ROUGH, good=GOOD
    )


def figures_explained() -> str:
    """Explain the columns of the table of rounds."""
    return say(
        "Accuracy and macro-F1 with 95\u00a0% intervals (Clopper–Pearson; bootstrap). NLL: negative log-likelihood, "
        "lower is better. ECE: mean gap between confidence and accuracy, with the range that exact probabilities would "
        "show at this sample size."
    )


def in_100(share: float) -> str:
    """Format a share as a number out of 100, keeping nearly none and nearly all distinct from none and all."""
    percent = 100 * share
    if percent in (0, 100) or 0.5 <= percent < 99.5:
        return number(percent, ".0f")
    if percent < 0.1:
        return say("less than {least:.1f}", least=0.1)
    return say("more than {most:.1f}", most=99.9) if percent > 99.9 else number(percent, ".1f")


def hours(time: float) -> str:
    """Format a duration in hours as minutes or hours."""
    if time < 1.5:
        return say_many("about {n:,} minute", "about {n:,} minutes", max(1, round(60 * time)))
    return say_many("about {n:,} hour", "about {n:,} hours", round(time))


# The round in use


def accuracy(used: InUse) -> str:
    """Describe the accuracy of the round in use with its interval and n."""
    one = used.metrics
    if one is None:
        return say_many(
            "The accuracy is not known yet: round {round} has only {n:,} audit answer. Keep labeling (one utterance in "
            "five is an audit utterance), then retrain.",
            "The accuracy is not known yet: round {round} has only {n:,} audit answers. Keep labeling (one utterance "
            "in five is an audit utterance), then retrain.",
            used.row.audited_on,
            round=used.row.number,
        )
    low, high = (in_100(edge) for edge in one.accuracy_interval)
    return say(
        "Accuracy: about {right}\u00a0%, measured on {n} audit answers. The true value is probably between {low} and "
        "{high}\u00a0%.",
        right=in_100(one.accuracy),
        n=one.n,
        low=low,
        high=high,
    )


def unfitting(used: InUse) -> str:
    """Give the number of audit utterances that no label of the round fits, which its accuracy leaves out."""
    n = int((used.evidence.truth < 0).sum())
    if not n:
        return ""
    return say_many(
        "No label of this round fits {n:,} more audit utterance, so any suggestion for it is wrong. The accuracy "
        "leaves it out; auto-accept counts it as an error.",
        "No label of this round fits {n:,} more audit utterances, so any suggestion for them is wrong. The accuracy "
        "leaves them out; auto-accept counts them as errors.",
        n,
    )


def calibration_quality(used: InUse) -> str:
    """Describe how well calibrated the round's probabilities are."""
    one, state = used.metrics, used.calibrator.state
    lead = say(SURE[state])
    if one is None or one.ece_band is None:
        return say("{lead}: there are no measurements. {calibrated}", lead=lead, calibrated=calibrated())
    found = {"gap": in_100(one.ece), "most": in_100(one.ece_band[1]), "n": one.n}
    if not one.ece <= one.ece_band[1]:
        return say(
            "Do not rely on its probabilities: they differ from the observed accuracy by {gap} percentage points on "
            "average. On {n} answers, exact probabilities would differ by at most {most}, so chance does not explain "
            "the whole gap.",
            **found,
        )
    if state == "not yet":
        return say(
            "{lead}: they differ from the observed accuracy by {gap} percentage points on average. On {n} answers, "
            "exact probabilities would differ by up to {most}.",
            lead=lead,
            **found,
        )
    low, high = (in_100(edge) for edge in used.calibrator.within(EXAMPLE))
    return say(
        "{lead}: they differ from the observed accuracy by {gap} percentage points on average. On {n} answers, exact "
        "probabilities would differ by up to {most}, so there is no sign of a problem. Suggestions given "
        "{example}\u00a0% are probably right {low} to {high} times in 100.",
        lead=lead,
        example=in_100(EXAMPLE),
        low=low,
        high=high,
        **found,
    )


def in_use(used: InUse) -> str:
    """Name the round in use and explain the calibration states."""
    return say("Round {round} is in use. Calibration: {calibrated}", round=used.row.number, calibrated=calibrated())


def from_audit(n: int) -> str:
    """Give the number of audit answers a figure is based on."""
    return say_many(
        "Based on {n:,} audit answer, drawn at random and given without a suggestion.",
        "Based on {n:,} audit answers, drawn at random and given without a suggestion.",
        n,
    )


def day(at: str) -> str:
    """Format a stored time (UTC) without its seconds."""
    return at[:16].replace("T", " ")


def figures(one: Measured) -> dict[str, object]:
    """Return a round's figures as a table row; those that were not measured are empty."""
    found = one.metrics
    return {
        say("Round"): one.row.number,
        say("Trained on"): one.row.trained_on,
        say("Audit answers"): one.row.audited_on,
        say("Accuracy"): _figure(found.accuracy, found.accuracy_interval) if found else "",
        say("Macro-F1"): _figure(found.macro_f1, found.macro_f1_interval) if found else "",
        say("NLL"): _figure(found.nll) if found else "",
        say("ECE"): _figure(found.ece, found.ece_band) if found else "",
    }


def _figure(value: float, edges: Interval | None = None) -> str:
    if edges is None:
        return number(value, ".2f")
    return say("{value:.2f} ({low:.2f} to {high:.2f})", value=value, low=edges[0], high=edges[1])


# Captions


def curve(found: Sequence[Measured]) -> str:
    """Return the caption of the learning curve."""
    n = next((one.metrics.n for one in reversed(found) if one.metrics), 0)
    return say(
        "Each round is measured on the audit answers available at the time, {n} for the latest; they were drawn at "
        "random and given without a suggestion. Shaded: 95\u00a0% intervals.",
        n=n,
    )


def bins(found: Sequence[Bin]) -> str:
    """Return the caption of the reliability diagram."""
    explained = say(
        "Gray: where exact probabilities would lie 95 times in 100 with this many answers; a point outside it is a "
        "statistically significant gap. Blue lines: 95\u00a0% intervals."
    )
    return f"{from_audit(sum(one.n for one in found))} {explained}"


def confusion_observed(found: Confusion) -> str:
    """Return the caption of the observed confusion matrix."""
    against = say("Compares the label people agreed on with the model's prediction.")
    return f"{from_audit(round(found.total))} {against}{most(found)}"


def confusion_expected(found: Confusion) -> str:
    """Return the caption of the expected confusion matrix."""
    added = say_many(
        "Estimated by adding up the model's probabilities for {n:,} unanswered utterance, so it is only as accurate as "
        "those probabilities.",
        "Estimated by adding up the model's probabilities for {n:,} unanswered utterances, so it is only as accurate "
        "as those probabilities.",
        round(found.total),
    )
    return f"{added}{most(found)}"


def most(found: Confusion) -> str:
    """Note which labels are shown where there are more than fit in the chart."""
    labels = len(found.names)
    if labels <= MOST_CONFUSED:
        return ""
    return say(" Shows the {n} most confused of {labels} labels.", n=MOST_CONFUSED, labels=labels)


def counted(used: InUse | None) -> str:
    """Return the caption of the label counts."""
    answered = say("“Answered” counts utterances with a majority answer.")
    if used is None:
        return answered
    expected = say_many(
        "“Expected” adds up the model's probabilities for {n:,} unanswered utterance.",
        "“Expected” adds up the model's probabilities for {n:,} unanswered utterances.",
        len(used.open_ids),
    )
    return f"{answered} {expected}"


def paced(found: Pace) -> str:
    """Describe the time per answer and the work left."""
    if found.seconds is None:
        return say("No answer has been timed yet.")
    if found.seconds < 1:
        half = say("Half of the answers took under a second (median of {n:,} timed answers).", n=found.timed)
    else:
        half = say_many(
            "Half of the answers took up to {n:,} second (median of {timed:,} timed answers).",
            "Half of the answers took up to {n:,} seconds (median of {timed:,} timed answers).",
            round(found.seconds),
            timed=found.timed,
        )
    rest = say_many(
        "Including slow ones, the {n:,} remaining utterance will take {time}.",
        "Including slow ones, the {n:,} remaining utterances will take {time}.",
        found.left,
        time=hours(found.hours_left),
    )
    return f"{half} {rest if found.left else say('No utterances are left.')}"


def agreed(found: Agreement | None) -> str:
    """Describe how far people agree."""
    if found is None:
        return say("Agreement between people is not known: no utterance has been answered by two people.")
    on = say_many("{n:,} utterance", "{n:,} utterances", found.utterances)
    parts = say_many(
        "Two people chose the same label in {share} of 100 cases ({n:,} pair of answers to {utterances}).",
        "Two people chose the same label in {share} of 100 cases ({n:,} pairs of answers to {utterances}).",
        found.pairs,
        share=in_100(found.share),
        utterances=on,
    )
    parts += " " + say("“None fits” counts as a label of its own.")
    if found.alpha is not None:
        parts += " " + say("Corrected for chance: Krippendorff's alpha of {alpha:.2f}.", alpha=found.alpha)
    return f"{parts} {say('The measured accuracy of a model can hardly exceed the agreement between people.')}"


def suggestion_effect(found: Pull | None) -> str:
    """Describe how suggestions affect answers."""
    if found is None:
        return say(
            "How suggestions affect answers is not known yet: that takes {n} answers with the suggestion hidden at "
            "random.",
            n=FEW,
        )
    low, high = (round(100 * edge) for edge in found.interval)
    rates = say(
        "People agree with the model {shown} times in 100 when they see its suggestion (n = {n_shown}), and {hidden} "
        "times when it is hidden at random (n = {n_hidden}).",
        shown=in_100(found.agreed_shown / found.shown),
        n_shown=found.shown,
        hidden=in_100(found.agreed_hidden / found.hidden),
        n_hidden=found.hidden,
    )
    edges = {"low": low, "high": high}
    if not (low > 0 or high < 0):
        effect = say(
            "The effect of seeing it is between {low:+d} and {high:+d} answers in 100: not statistically significant.",
            **edges,
        )
    else:
        effect = say(
            "The effect of seeing it is between {low:+d} and {high:+d} answers in 100: statistically significant.",
            **edges,
        )
    return f"{rates} {effect}"


def queried(found: list[QueriedAccuracy]) -> str:
    """Describe the accuracy of the newest round with such answers on the utterances it chose."""
    if not found:
        return say("No utterance chosen by the model has been answered yet.")
    last = found[-1]
    low, high = proportion_interval(last.right, last.n)
    return say(
        "On the utterances that round {round} chose, it was right {right} times out of {n} ({low} to {high} in 100). "
        "This is not representative: it chooses difficult utterances.",
        round=last.number,
        right=last.right,
        n=last.n,
        low=in_100(low),
        high=in_100(high),
    )


def flipped(found: Flips | None) -> str:
    """Describe how many predictions have changed since the round before."""
    if found is None:
        return say("There is no earlier round to compare this one with.")
    return say_many(
        "Round {now} predicts a different label than round {before} for {n:,} of {both:,} utterances scored by both.",
        "Round {now} predicts different labels than round {before} for {n:,} of {both:,} utterances scored by both.",
        found.changed,
        now=found.now,
        before=found.before,
        both=found.compared,
    )
