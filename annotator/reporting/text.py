"""What the numbers mean, in sentences for an expert who is no statistician: the same on the page and in the report.

Plain text: whoever shows it escapes it. Shares are said as so many in 100.
"""

from collections.abc import Sequence
from typing import Any

from annotator.i18n import later, number, say, say_many
from annotator.methods.anchoring import FEW, Pull
from annotator.methods.calibration import GOOD, ROUGH
from annotator.methods.metrics import Bin, proportion_interval
from annotator.reporting.summary import Confusion, Flips, InUse, Measured, Pace, QueriedAccuracy, measured
from annotator.rounds.consensus import Agreement

EXAMPLE = 0.9  # a probability people know what to think of
MOST_CONFUSED = 10  # labels that can be read in one picture

SURE = {
    "not yet": later("It is too early to say whether its probabilities can be believed"),
    "rough": later("Its probabilities are roughly calibrated"),
    "good": later("Its probabilities are well calibrated"),
}
STATES = (later("not yet"), later("rough"), later("good"))  # of the calibration


def calibrated() -> str:
    """Explain the states of the calibration."""
    return say("Not yet below {rough} audit answers, rough below {good}, good from {good} on.", rough=ROUGH, good=GOOD)


def figures_explained() -> str:
    """Explain the figures of a round."""
    return say(
        "Accuracy and macro-F1 with 95\u00a0% intervals (Clopper and Pearson's; a bootstrap's). NLL, the negative "
        "log-likelihood: lower is better. ECE, the mean gap between confidence and accuracy, with what exact "
        "probabilities would show at this n."
    )


def in_100(share: float) -> str:
    """Write a share as a number in 100; nearly none and nearly all are told from none and all."""
    percent = 100 * share
    if percent in (0, 100) or 0.5 <= percent < 99.5:
        return number(percent, ".0f")
    if percent < 0.1:
        return say("less than {least:.1f}", least=0.1)
    return say("more than {most:.1f}", most=99.9) if percent > 99.9 else number(percent, ".1f")


def hours(time: float) -> str:
    """Put hours into words a person would use."""
    if time < 1.5:
        return say_many("about {n:,} minute", "about {n:,} minutes", max(1, round(60 * time)))
    return say_many("about {n:,} hour", "about {n:,} hours", round(time))


# The round in use


def how_right(used: InUse) -> str:
    """Say how often the round in use is right, and how surely that is known."""
    one = measured(used.row)
    if one.accuracy is None:
        return say_many(
            "How often the model is right is not known yet: round {round} was measured on {n:,} audit answer, and that "
            "is too few. Go on labelling: one utterance in five measures. Then retrain.",
            "How often the model is right is not known yet: round {round} was measured on {n:,} audit answers, and "
            "that is too few. Go on labelling: one utterance in five measures. Then retrain.",
            one.n,
            round=one.number,
        )
    right = in_100(one.accuracy)
    if one.accuracy_interval is None:
        return say(
            "The model is right about {right} times in 100. Measured on {n} of your answers.", right=right, n=one.n
        )
    low, high = (in_100(edge) for edge in one.accuracy_interval)
    return say(
        "The model is right about {right} times in 100. Measured on {n} of your answers, so it may be anything from "
        "{low} to {high}.",
        right=right,
        n=one.n,
        low=low,
        high=high,
    )


def unfitting(used: InUse) -> str:
    """Say on how many audit answers no label of the round is right, which its accuracy leaves out."""
    n = int((used.evidence.truth < 0).sum())
    if not n:
        return ""
    return say_many(
        "On {n:,} more audit utterance, people found that no label of this round fits. Any suggestion is wrong there; "
        "the figures of rounds leave it out, what may be accepted unseen does not.",
        "On {n:,} more audit utterances, people found that no label of this round fits. Any suggestion is wrong there; "
        "the figures of rounds leave them out, what may be accepted unseen does not.",
        n,
    )


def how_believable(used: InUse) -> str:
    """Say whether the round's probabilities may be believed."""
    one, state = measured(used.row), used.calibrator.state
    lead = say(SURE[state])
    if one.ece is None or one.ece_band is None:
        return say("{lead}: nothing has been measured. {calibrated}", lead=lead, calibrated=calibrated())
    found = {"gap": in_100(one.ece), "most": in_100(one.ece_band[1]), "n": one.n}
    if not one.ece <= one.ece_band[1]:
        return say(
            "Do not take its probabilities at their word: what it says and how often it is right differ by {gap} in "
            "100 on average; exact ones would show {most} at most on {n} answers, so part of the gap is real.",
            **found,
        )
    if state == "not yet":
        return say(
            "{lead}: what it says and how often it is right differ by {gap} in 100 on average; exact ones would show a "
            "gap of up to {most} on {n} answers.",
            lead=lead,
            **found,
        )
    low, high = (in_100(edge) for edge in used.calibrator.within(EXAMPLE))
    return say(
        "{lead}: what it says and how often it is right differ by {gap} in 100 on average; exact ones would show a gap "
        "of up to {most} on {n} answers, so nothing speaks against them. As far as answers tell, what it says with "
        "{example} in 100 is right between {low} and {high} times.",
        lead=lead,
        example=in_100(EXAMPLE),
        low=low,
        high=high,
        **found,
    )


def in_use(used: InUse) -> str:
    """Say which round is meant, and what its calibration is called."""
    return say("Round {round} is in use. Calibrated: {calibrated}", round=used.row["number"], calibrated=calibrated())


def from_audit(n: int) -> str:
    """Say what a figure rests on."""
    return say_many(
        "From {n:,} audit answer, drawn at random, answered without a suggestion.",
        "From {n:,} audit answers, drawn at random, answered without a suggestion.",
        n,
    )


def day(at: str) -> str:
    """Write a moment as it is stored (UTC) without its seconds."""
    return at[:16].replace("T", " ")


def figures(one: Measured) -> dict[str, Any]:
    """Put a round's figures in a row of a table."""
    return {
        say("Round"): one.number,
        say("Trained on"): one.trained_on,
        say("Audit answers"): one.n,
        say("Accuracy"): _figure(one.accuracy, one.accuracy_interval),
        say("Macro-F1"): _figure(one.macro_f1, one.macro_f1_interval),
        say("NLL"): _figure(one.nll, None),
        say("ECE"): _figure(one.ece, one.ece_band),
    }


def _figure(value: float | None, edges: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    if edges is None:
        return number(value, ".2f")
    return say("{value:.2f} ({low:.2f} to {high:.2f})", value=value, low=edges[0], high=edges[1])


# Captions


def curve(found: Sequence[Measured]) -> str:
    """Explain the learning curve."""
    last = next((one for one in reversed(found) if one.accuracy is not None), None)
    n = last.n if last else 0
    return say(
        "Each round from the audit answers there were then, {n} at last, drawn at random, answered without a "
        "suggestion. Shaded: 95\u00a0% intervals.",
        n=n,
    )


def bins(found: Sequence[Bin]) -> str:
    """Explain the reliability diagram."""
    explained = say(
        "Grey: where exact probabilities would lie 95 times in 100 with so many answers; outside it the gap is real. "
        "Blue lines: 95\u00a0% intervals."
    )
    return f"{from_audit(sum(one.n for one in found))} {explained}"


def confusion_observed(found: Confusion) -> str:
    """Explain the counted confusion."""
    against = say("The consensus against the label that the model finds likeliest.")
    return f"{from_audit(round(found.total))} {against}{most(found)}"


def confusion_expected(found: Confusion) -> str:
    """Explain the expected confusion."""
    added = say_many(
        "The probabilities of {n:,} open utterance of the pool, added up. Nobody has answered them: it is as good as "
        "the probabilities are.",
        "The probabilities of {n:,} open utterances of the pool, added up. Nobody has answered them: it is as good as "
        "the probabilities are.",
        round(found.total),
    )
    return f"{added}{most(found)}"


def most(found: Confusion) -> str:
    """Say what is left out where there are more labels than can be drawn."""
    labels = len(found.names)
    if labels <= MOST_CONFUSED:
        return ""
    return say(" The {n} labels confused most, of {labels}.", n=MOST_CONFUSED, labels=labels)


def counted(used: InUse | None) -> str:
    """Explain the label counts."""
    said = say("Answered counts utterances on which people's answers have a majority.")
    if used is None:
        return said
    expected = say_many(
        "Expected is the sum of its probabilities over {n:,} open utterance.",
        "Expected is the sum of its probabilities over {n:,} open utterances.",
        len(used.open_ids),
    )
    return f"{said} {expected}"


def paced(found: Pace) -> str:
    """Say how long an answer takes and how much is left."""
    if found.seconds is None:
        return say("No answer has been timed yet.")
    half = say(
        "Half of the answers took less than {seconds:.0f} seconds (median of {n:,} timed answers).",
        seconds=found.seconds,
        n=found.timed,
    )
    rest = say_many(
        "Counting the slow ones too, the {n:,} utterance left takes {time}.",
        "Counting the slow ones too, the {n:,} utterances left take {time}.",
        found.left,
        time=hours(found.hours_left),
    )
    return f"{half} {rest if found.left else say('None is left.')}"


def agreed(found: Agreement | None) -> str:
    """Say how far people agree, and why that matters."""
    if found is None:
        return say("How far people agree is not known: no utterance has been answered by two of them.")
    on = say_many("{n:,} utterance", "{n:,} utterances", found.utterances)
    said = say_many(
        "Two people chose the same label in {share} of 100 pairs ({n:,} pair on {utterances}).",
        "Two people chose the same label in {share} of 100 pairs ({n:,} pairs on {utterances}).",
        found.pairs,
        share=in_100(found.share),
        utterances=on,
    )
    said += " " + say("“None fits” counts as a label of its own.")
    if found.alpha is not None:
        said += " " + say("Beyond chance, that is a Krippendorff's alpha of {alpha:.2f}.", alpha=found.alpha)
    return f"{said} {say('No model can be seen to be right much more often than people are of one mind.')}"


def pulled(found: Pull | None) -> str:
    """Say what seeing a suggestion does to answers."""
    if found is None:
        return say(
            "What suggestions do to answers can be told from {n} answers on where they are hidden by chance.", n=FEW
        )
    low, high = (round(100 * edge) for edge in found.interval)
    said = say(
        "People agree with the model {shown} times in 100 where they see its suggestion (n = {n_shown}), {hidden} "
        "times where it is hidden by chance (n = {n_hidden}).",
        shown=in_100(found.agreed_shown / found.shown),
        n_shown=found.shown,
        hidden=in_100(found.agreed_hidden / found.hidden),
        n_hidden=found.hidden,
    )
    edges = {"low": low, "high": high}
    if not (low > 0 or high < 0):
        seen = say(
            "Seeing it may change anything from {low:+d} to {high:+d} answers in 100, so nothing speaks for it.",
            **edges,
        )
    else:
        seen = say("Seeing it may change anything from {low:+d} to {high:+d} answers in 100, so it is real.", **edges)
    return f"{said} {seen}"


def queried(found: list[QueriedAccuracy]) -> str:
    """Say how the newest round with such answers did on what it chose to ask."""
    if not found:
        return say("None of the utterances that the model chose to ask has been answered yet.")
    last = found[-1]
    low, high = proportion_interval(last.right, last.n)
    return say(
        "On the utterances that round {round} chose to ask it was right {right} times in {n} ({low} to {high} in 100). "
        "Not representative: it asks what it finds hard.",
        round=last.number,
        right=last.right,
        n=last.n,
        low=in_100(low),
        high=in_100(high),
    )


def flipped(found: Flips | None) -> str:
    """Say how much has changed since the round before."""
    if found is None:
        return say("There is no round before this one to compare it with.")
    return say_many(
        "Round {now} finds another label likeliest than round {before} on {n:,} utterance of {both:,} that both have "
        "read.",
        "Round {now} finds another label likeliest than round {before} on {n:,} utterances of {both:,} that both have "
        "read.",
        found.changed,
        now=found.now,
        before=found.before,
        both=found.compared,
    )
