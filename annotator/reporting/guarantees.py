"""What may be accepted unseen and what has been, in sentences: the same on the page and in the report.

Plain text: whoever shows it escapes it.
"""

from collections.abc import Mapping
from typing import Any

from annotator.i18n import say, say_many, tell_stored
from annotator.labeling.auto_accept import Offer
from annotator.methods.guarantee import Guarantee, NotYet, needed
from annotator.reporting.summary import InUse
from annotator.reporting.text import day, hours, in_100


def offered(made: Offer) -> str:
    """Say what may be accepted unseen at the wished precision, or what is missing."""
    target = made.target
    if made.accepts:
        what = say_many(
            "This suggestion may be accepted unseen", "These {n:,} suggestions may be accepted unseen", made.accepts
        )
        known = {
            "what": what,
            "right": in_100(target.precision),
            "sure": in_100(target.confidence),
            "time": hours(made.hours),
        }
        if 0 in made.guarantees:
            return say(
                "{what}: at least {right} in 100 of them are right, at {sure}\u00a0% confidence. That saves {time}.",
                **known,
            )
        return say(
            "{what}: at least {right} in 100 of them are right for each label by itself, at {sure}\u00a0% confidence. "
            "That saves {time}.",
            **known,
        )
    if any(isinstance(one, Guarantee) for one in made.guarantees.values()):
        return say("Nothing to accept: no open utterance is as sure as that.")
    if not len(made.utterance_ids):
        return say("Nothing to accept: no utterance with a suggestion is open.")
    return "" if 0 in made.guarantees else say("Not yet for any label.")


def not_yet(one: NotYet, used: InUse) -> str:
    """Say how far away a promise for all labels together is."""
    if used.metrics.get("cross_fitted"):
        missing = needed(one.target) - len(used.evidence.truth)
        if missing <= 0:
            return say("Not yet: this round was trained on audit answers, too. Retrain, then look again.")
        needs = say_many(
            "Not yet: about {n:,} more audit answer is needed, and then a new round.",
            "Not yet: about {n:,} more audit answers are needed, and then a new round.",
            missing,
        )
        return f"{needs}{_too_few(missing, used)}"
    if one.missing is None:
        return say(
            "Not yet, and more audit answers would hardly help: even where the model is surest, it is not clearly "
            "right often enough. Go on labelling and retrain, or ask for less."
        )
    needs = say_many(
        "Not yet: about {n:,} more audit answer is needed.",
        "Not yet: about {n:,} more audit answers are needed.",
        one.missing,
    )
    return f"{needs}{_too_few(one.missing, used)}"


def each_label() -> str:
    """Explain the table of what is promised for each label."""
    return say(
        "Rests on: audit answers to suggestions of this label that are sure enough. Missing: about so many more audit "
        "answers to its suggestions; import more utterances where the audit slice is used up."
    )


def of_label(name: str, one: Guarantee | NotYet) -> dict[str, Any]:
    """Put what is promised for one label, or what is missing, in a row of a table."""
    accepts, rests, missing = 0, "", ""
    if isinstance(one, Guarantee):
        accepts, rests = one.accepts, say("{n}, {errors} wrong", n=one.n, errors=one.errors)
    else:
        missing = say("not clearly right often enough") if one.missing is None else f"{one.missing}"
    return {say("Label"): name, say("Accepts"): accepts, say("Rests on"): rests, say("Missing"): missing}


def _too_few(missing: int, used: InUse) -> str:
    if missing <= used.audit_left:
        return ""
    if not used.audit_left:
        return say(" Of the audit slice none is left to ask: import more utterances, or ask for less.")
    return say_many(
        " Of the audit slice only one is left to ask: import more utterances, or ask for less.",
        " Of the audit slice only {n} are left to ask: import more utterances, or ask for less.",
        used.audit_left,
    )


def rests_on(one: Guarantee) -> str:
    """Say from what a promise was made."""
    errors = say("{n} of them wrong", n=one.errors) if one.errors else say("none of them wrong")
    return say_many(
        "This rests on {n:,} audit answer where the model gave its label at least {sure}\u00a0%: {errors}.",
        "This rests on {n:,} audit answers where the model gave its label at least {sure}\u00a0%: {errors}.",
        one.n,
        sure=in_100(one.threshold),
        errors=errors,
    )


def acceptance(one: Mapping[str, Any]) -> str:
    """Tell an acceptance in a line: what was accepted, what its spot checks found, and whether it stands."""
    made = say_many(
        "{n:,} suggestion of round {round}, by {annotator}, {day}: at least {right} in 100 right.",
        "{n:,} suggestions of round {round}, by {annotator}, {day}: at least {right} in 100 right.",
        one["size"],
        round=one["round_number"],
        annotator=one["annotator"],
        day=day(one["at"]),
        right=in_100(one["target"]),
    )
    found = say_many(
        "{n:,} spot check, {errors} answered otherwise.",
        "{n:,} spot checks, {errors} answered otherwise.",
        one["checks"],
        errors=one["errors"],
    )
    return f"{made} {found if one['checks'] else say('No spot check yet.')} {_stands(one)}"


def _stands(one: Mapping[str, Any]) -> str:
    if one["ended"] is None:
        return say("Stands.")
    why = tell_stored(one["reason"])
    return f"{why[0].upper()}{why[1:]}." if one["ended"] == "undone" else say("Withdrawn: {why}.", why=why)
