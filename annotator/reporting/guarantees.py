"""Describe guarantees and past auto-accepts in sentences, for the Insights page and the report.

All functions return plain text; the caller escapes it.
"""

from annotator.i18n import say, say_many, translate
from annotator.labeling.auto_accept import Offer
from annotator.methods.guarantee import Guarantee, NotYet, needed
from annotator.reporting.summary import InUse
from annotator.reporting.text import day, hours, in_100
from store.acceptances import Acceptance


def offered(made: Offer) -> str:
    """Describe what can be auto-accepted at the target precision, or what is missing."""
    target = made.target
    if made.accepts:
        what = say_many(
            "This suggestion can be auto-accepted", "These {n:,} suggestions can be auto-accepted", made.accepts
        )
        values = {
            "what": what,
            "right": in_100(target.precision),
            "sure": in_100(target.confidence),
            "time": hours(made.hours),
        }
        if 0 in made.guarantees:
            return say(
                "{what}: at least {right} in 100 are right, with {sure}\u00a0% confidence. This saves {time} of work.",
                **values,
            )
        return say(
            "{what}: at least {right} in 100 are right for each label separately, with {sure}\u00a0% confidence. This "
            "saves {time} of work.",
            **values,
        )
    if any(isinstance(one, Guarantee) for one in made.guarantees.values()):
        return say("Nothing to accept: no open utterance reaches the required confidence.")
    if not len(made.utterance_ids):
        return say("Nothing to accept: there is no open utterance with a suggestion.")
    return "" if 0 in made.guarantees else say("Not yet for any label.")


def not_yet(one: NotYet, used: InUse) -> str:
    """Describe what is missing for a guarantee over all labels together."""
    if used.row.metrics.get("cross_fitted"):  # in earlier versions
        missing = needed(one.target) - len(used.evidence.truth)
        if missing <= 0:
            return say("Not yet: this round was also trained on audit answers. Retrain, then check again.")
        needs = say_many(
            "Not yet: about {n:,} more audit answer is needed, followed by a new round.",
            "Not yet: about {n:,} more audit answers are needed, followed by a new round.",
            missing,
        )
        return f"{needs}{_shortage(missing, used)}"
    if one.missing is None:
        return say(
            "Not yet, and more audit answers would hardly help: even the most confident suggestions are too "
            "uncertain. Keep labeling and retrain, or lower the target precision."
        )
    needs = say_many(
        "Not yet: about {n:,} more audit answer is needed.",
        "Not yet: about {n:,} more audit answers are needed.",
        one.missing,
    )
    return f"{needs}{_shortage(one.missing, used)}"


def each_label() -> str:
    """Explain the table of guarantees by label."""
    return say(
        "Based on: audit answers to sufficiently confident suggestions of this label. Missing: roughly how many more "
        "are needed. If the audit sample is exhausted, import more utterances."
    )


def of_label(name: str, one: Guarantee | NotYet) -> dict[str, object]:
    """Return a label's guarantee, or what is missing for it, as a table row."""
    accepts, evidence, missing = 0, "", ""
    if isinstance(one, Guarantee):
        accepts, evidence = one.accepts, say("{n}, {errors} wrong", n=one.n, errors=one.errors)
    else:
        missing = say("too uncertain") if one.missing is None else f"{one.missing}"
    return {say("Label"): name, say("Accepts"): accepts, say("Based on"): evidence, say("Missing"): missing}


def _shortage(missing: int, used: InUse) -> str:
    if missing <= used.audit_left:
        return ""
    if not used.audit_left:
        return say(" The audit sample is exhausted: import more utterances, or lower the target precision.")
    return say_many(
        " Only one audit utterance is left: import more utterances, or lower the target precision.",
        " Only {n} audit utterances are left: import more utterances, or lower the target precision.",
        used.audit_left,
    )


def rests_on(one: Guarantee) -> str:
    """Describe the audit answers a guarantee is based on."""
    errors = say("{n} of them wrong", n=one.errors) if one.errors else say("none of them wrong")
    return say_many(
        "Based on {n:,} audit answer where the suggestion had a probability of at least {sure}\u00a0%: {errors}.",
        "Based on {n:,} audit answers where the suggestion had a probability of at least {sure}\u00a0%: {errors}.",
        one.n,
        sure=in_100(one.threshold),
        errors=errors,
    )


def acceptance(one: Acceptance) -> str:
    """Describe an auto-accept in a line: what was accepted, what its spot checks found, and whether it is in effect."""
    made = say_many(
        "{n:,} suggestion of round {round}, accepted by {annotator}, {day}: at least {right} in 100 right.",
        "{n:,} suggestions of round {round}, accepted by {annotator}, {day}: at least {right} in 100 right.",
        one.size,
        round=one.round_number,
        annotator=one.annotator,
        day=day(one.at),
        right=in_100(one.target),
    )
    found = say_many(
        "{n:,} spot check, {errors} answered differently.",
        "{n:,} spot checks, {errors} answered differently.",
        one.checks,
        errors=one.errors,
    )
    return f"{made} {found if one.checks else say('No spot checks yet.')} {_status(one)}"


def _status(one: Acceptance) -> str:
    if one.ended is None:
        return say("In effect.")
    why = translate(one.reason)
    return f"{why[0].upper()}{why[1:]}." if one.ended == "undone" else say("Withdrawn: {why}.", why=why)
