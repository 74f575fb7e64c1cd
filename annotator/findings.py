"""What the numbers mean, in sentences for an expert who is no statistician: the same on the page and in the report.

Plain text: whoever shows it escapes it. Shares are said as so many in 100.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from annotator.acceptance import Offer
from annotator.anchoring import FEW, Pull
from annotator.calibration import GOOD, ROUGH
from annotator.consensus import Agreement
from annotator.guarantee import NotYet, Promise, needed
from annotator.insights import Confusion, Flips, InUse, Measured, Pace, QueriedAccuracy, measured
from annotator.metrics import Bin, proportion_interval

CALIBRATED = f"Not yet below {ROUGH} audit answers, rough below {GOOD}, good from {GOOD} on."
FIGURES = (
    "Accuracy and macro-F1 with 95\u00a0% intervals (Clopper and Pearson's; a bootstrap's). NLL, the negative "
    "log-likelihood: lower is better. ECE, the mean gap between confidence and accuracy, with what exact probabilities "
    "would show at this n."
)
MOST_CONFUSED = 10  # labels that can be read in one picture
HOW = "drawn at random, answered without a suggestion"


def in_100(share: float) -> str:
    """Write a share as a number in 100; nearly none and nearly all are told from none and all."""
    number = 100 * share
    if number in (0, 100) or 0.5 <= number < 99.5:
        return f"{number:.0f}"
    return "less than 0.1" if number < 0.1 else "more than 99.9" if number > 99.9 else f"{number:.1f}"


def count(number: float, one: str, many: str = "") -> str:
    """Write a number with its noun."""
    return f"{number:,.0f} {one if round(number) == 1 else many or one + 's'}"


def hours(time: float) -> str:
    """Put hours into words a person would use."""
    if time < 1.5:
        return f"about {count(max(1, round(60 * time)), 'minute')}"
    return f"about {count(round(time), 'hour')}"


# The round in use


def how_right(used: InUse) -> str:
    """Say how often the round in use is right, and how surely that is known."""
    one = measured(used.row)
    if one.accuracy is None:
        return (
            f"How often the model is right is not known yet: round {one.number} was measured on "
            f"{count(one.n, 'audit answer')}, and that is too few. Go on labelling: one utterance in five measures. "
            "Then retrain."
        )
    said = f"The model is right about {in_100(one.accuracy)} times in 100. Measured on {one.n} of your answers"
    if one.accuracy_interval is None:
        return said + "."
    low, high = (in_100(edge) for edge in one.accuracy_interval)
    return said + f", so it may be anything from {low} to {high}."


def how_believable(used: InUse) -> str:
    """Say whether the round's probabilities may be believed."""
    one, state = measured(used.row), used.state
    lead = {
        "not yet": "It is too early to say whether its probabilities can be believed",
        "rough": "Its probabilities are roughly calibrated",
        "good": "Its probabilities are well calibrated",
    }[state]
    if one.ece is None or one.ece_band is None:
        return f"{lead}: nothing has been measured. {CALIBRATED}"
    gap, most = in_100(one.ece), in_100(one.ece_band[1])
    if one.ece <= one.ece_band[1]:
        found = f"exact ones would show a gap of up to {most} on {one.n} answers"
        found += "" if state == "not yet" else ", so nothing speaks against them"
    else:
        lead = "Do not take its probabilities at their word"
        found = f"exact ones would show {most} at most on {one.n} answers, so part of the gap is real"
    return f"{lead}: what it says and how often it is right differ by {gap} in 100 on average; {found}."


def from_audit(n: int) -> str:
    """Say what a figure rests on."""
    return f"From {count(n, 'audit answer')}, {HOW}."


# Accepting


def offered(made: Offer) -> str:
    """Say what may be accepted unseen at the wished precision, or what is missing."""
    wish = made.wish
    if made.accepts:
        right, sure = in_100(wish.target), in_100(wish.confidence)
        what = "This suggestion" if made.accepts == 1 else f"These {made.accepts:,} suggestions"
        each = "" if 0 in made.promises else " for each label by itself"
        return (
            f"{what} may be accepted unseen: at least {right} in 100 of them are right{each}, "
            f"at {sure}\u00a0% confidence. That saves {hours(made.hours)}."
        )
    if any(isinstance(one, Promise) for one in made.promises.values()):
        return "Nothing to accept: no open utterance is as sure as that."
    if not len(made.utterance_ids):
        return "Nothing to accept: no utterance with a suggestion is open."
    return "" if 0 in made.promises else "Not yet for any label."


def not_yet(one: NotYet, used: InUse) -> str:
    """Say how far away a promise for all labels together is."""
    if used.metrics.get("cross_fitted"):
        missing = needed(one.wish) - len(used.evidence.truth)
        if missing <= 0:
            return "Not yet: this round was trained on audit answers, too. Retrain, then look again."
        return f"Not yet: about {_more(missing)} needed, and then a new round.{_too_few(missing, used)}"
    if one.missing is None:
        return (
            "Not yet, and more audit answers would not help: the model is not right often enough, even where it is "
            "surest. Go on labelling and retrain, or ask for less."
        )
    return f"Not yet: about {_more(one.missing)} needed.{_too_few(one.missing, used)}"


EACH_LABEL = (
    "Rests on: audit answers to suggestions of this label that are sure enough. Missing: about so many more audit "
    "answers to its suggestions; import more utterances where the audit slice is used up."
)


def of_label(name: str, one: Promise | NotYet) -> dict[str, Any]:
    """Put what is promised for one label, or what is missing, in a row of a table."""
    if isinstance(one, Promise):
        return {"Label": name, "Accepts": one.accepts, "Rests on": f"{one.n}, {one.errors} wrong", "Missing": ""}
    missing = "not right often enough" if one.missing is None else f"{one.missing}"
    return {"Label": name, "Accepts": 0, "Rests on": "", "Missing": missing}


def _more(missing: int) -> str:
    return count(missing, "more audit answer is", "more audit answers are")


def _too_few(missing: int, used: InUse) -> str:
    if missing <= used.audit_left:
        return ""
    left = f"only {used.audit_left} are" if used.audit_left > 1 else "only one is" if used.audit_left else "none is"
    return f" Of the audit slice {left} left to ask: import more utterances, or ask for less."


def rests_on(one: Promise) -> str:
    """Say from what a promise was made."""
    errors = "none of them wrong" if not one.errors else f"{one.errors} of them wrong"
    return (
        f"This rests on {count(one.n, 'audit answer')} where the model gave its label at least "
        f"{in_100(one.threshold)}\u00a0%: {errors}."
    )


def acceptance(one: Mapping[str, Any]) -> str:
    """Tell an acceptance in a line: what was accepted, what its spot checks found, and whether it stands."""
    checks = count(one["checks"], "spot check")
    found = f"{checks}, {one['errors']} answered otherwise" if one["checks"] else "no spot check yet"
    state = {None: "stands", "undone": one["reason"], "withdrawn": f"withdrawn: {one['reason']}"}[one["ended"]]
    return (
        f"{count(one['size'], 'suggestion')} of round {one['round_number']}, by {one['annotator']}, {day(one['at'])}: "
        f"at least {in_100(one['target'])} in 100 right. {found[0].upper()}{found[1:]}. {state[0].upper()}{state[1:]}."
    )


def day(at: str) -> str:
    """Write a moment as it is stored (UTC) without its seconds."""
    return at[:16].replace("T", " ")


def figures(one: Measured) -> dict[str, Any]:
    """Put a round's figures in a row of a table."""
    return {
        "Round": one.number,
        "Trained on": one.trained_on,
        "Audit answers": one.n,
        "Accuracy": _figure(one.accuracy, one.accuracy_interval),
        "Macro-F1": _figure(one.macro_f1, one.macro_f1_interval),
        "NLL": _figure(one.nll, None),
        "ECE": _figure(one.ece, one.ece_band),
    }


def _figure(value: float | None, edges: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" + (f" ({edges[0]:.2f} to {edges[1]:.2f})" if edges else "")


# Captions


def curve(found: Sequence[Measured]) -> str:
    """Explain the learning curve."""
    last = next((one for one in reversed(found) if one.accuracy is not None), None)
    n = last.n if last else 0
    return f"Each round from the audit answers there were then, {n} at last, {HOW}. Shaded: 95\u00a0% intervals."


def bins(found: Sequence[Bin]) -> str:
    """Explain the reliability diagram."""
    return (
        f"{from_audit(sum(one.n for one in found))} Grey: where exact probabilities would lie 95 times in 100 with so "
        "many answers; outside it the gap is real. Blue lines: 95\u00a0% intervals."
    )


def confusion_observed(found: Confusion) -> str:
    """Explain the counted confusion."""
    return (
        f"{from_audit(round(found.total))} The consensus against the label that the model finds likeliest.{most(found)}"
    )


def confusion_expected(found: Confusion) -> str:
    """Explain the expected confusion."""
    return (
        f"The probabilities of {count(found.total, 'open utterance')} of the pool, added up. Nobody has answered them: "
        f"it is as good as the probabilities are.{most(found)}"
    )


def most(found: Confusion) -> str:
    """Say what is left out where there are more labels than can be drawn."""
    labels = len(found.names)
    return f" The {MOST_CONFUSED} labels confused most, of {labels}." if labels > MOST_CONFUSED else ""


def counted(used: InUse | None) -> str:
    """Explain the label counts."""
    said = "Answered counts utterances on which people's answers have a majority."
    if used is None:
        return said
    return f"{said} Expected is the sum of its probabilities over {count(len(used.open_ids), 'open utterance')}."


def paced(found: Pace) -> str:
    """Say how long an answer takes and how much is left."""
    if found.seconds is None:
        return "No answer has been timed yet."
    rest = f"Counting the slow ones too, the {count(found.left, 'utterance')} left take {hours(found.hours_left)}."
    return (
        f"Half of the answers took less than {found.seconds:.0f} seconds (median of {found.timed:,} timed answers). "
        + (rest if found.left else "None is left.")
    )


def agreed(found: Agreement | None) -> str:
    """Say how far people agree, and why that matters."""
    if found is None:
        return "How far people agree is not known: no utterance has been labelled by two of them."
    said = (
        f"Two people chose the same label in {in_100(found.share)} of 100 pairs ({count(found.pairs, 'pair')} on "
        f"{count(found.utterances, 'utterance')})"
    )
    alpha = "" if found.alpha is None else f"; beyond chance, that is a Krippendorff's alpha of {found.alpha:.2f}"
    return f"{said}{alpha}. No model can be seen to be right much more often than people are of one mind."


def pulled(found: Pull | None) -> str:
    """Say what seeing a suggestion does to answers."""
    if found is None:
        return f"What suggestions do to answers can be told from {FEW} answers on where they are hidden by chance."
    shown, hidden = found.agreed_shown / found.shown, found.agreed_hidden / found.hidden
    low, high = (round(100 * edge) for edge in found.interval)
    seen = "so nothing speaks for it" if low <= 0 <= high else "so it is real"
    return (
        f"People agree with the model {in_100(shown)} times in 100 where they see its suggestion (n = {found.shown}), "
        f"{in_100(hidden)} times where it is hidden by chance (n = {found.hidden}). Seeing it may change anything from "
        f"{low:+d} to {high:+d} answers in 100, {seen}."
    )


def queried(found: list[QueriedAccuracy]) -> str:
    """Say how the newest round with such answers did on what it chose to ask."""
    if not found:
        return "None of the utterances that the model chose to ask has been answered yet."
    last = found[-1]
    low, high = proportion_interval(last.right, last.n)
    return (
        f"On the utterances that round {last.number} chose to ask it was right {last.right} times in {last.n} "
        f"({in_100(low)} to {in_100(high)} in 100). Not representative: it asks what it finds hard."
    )


def flipped(found: Flips | None) -> str:
    """Say how much has changed since the round before."""
    if found is None:
        return "There is no round before this one to compare it with."
    return (
        f"Round {found.now} finds another label likeliest than round {found.before} on "
        f"{count(found.changed, 'utterance')} of {found.compared:,} that both have read."
    )
