"""The versions of the codebook: what each changed, what annotators read then, and how a change is taken back.

Taking back is one more change: the history only grows. A change can be taken back as long as none that stands builds
on it, and so can taking back; so from the newest on everything can, to the first version.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from annotator.codebook.changes import OUT, WRITTEN, Proposal, checked, put_out
from annotator.codebook.definition import Codebook, CodebookLabel, codebook_of
from annotator.errors import BadInput
from annotator.i18n import later, say, say_many
from annotator.project import Project
from store import labels
from store.database import immediate
from store.faults import parsed
from store.labels import Change, Event


def undo(project: Project, version: int, author: str) -> int:
    """Take one change back for all annotators, and return the new version.

    A label that was added goes out of use; the parts of one that was split count as that one. Raises BadInput where a
    later change builds on it, BadCodebook where what would come back clashes with what has come since.
    """
    with immediate(project.db):
        history = labels.events(project.db)
        event = next(one for one in history if one.version == version)
        if event.undone or not event.author:
            if event.undone:
                raise BadInput(
                    f"Version {version} has been taken back already.", "Choose another, or make a new change."
                )
            raise BadInput(
                f"Version {version} is what the project began with.", "Choose another, or make a new change."
            )
        for later in history[history.index(event) + 1 :]:
            if _builds_on(later, event):
                done = describe(later, labels.names(project.db))
                hint = f"Take back version {later.version} first."
                raise BadInput(f"Version {later.version} builds on version {version}: {done}.", hint)
        values = {i: _before(project, i, event) for i in event.labels}
        guide = {name: before for name, (before, _) in event.guide.items()}
        change = checked(project, Change("undo", values, guide), rekey=False)
        return labels.write(project.db, change, author, undoes=version)


def _before(project: Project, label_id: int, event: Event) -> dict[str, Any]:
    """Return the values that undo what an event did to a label."""
    if label_id in event.added:
        whole = event.labels[label_id].get("split_from", (None, None))[1]
        return {"merged_into": whole} if whole else put_out(project)
    read = {"examples": json.loads}
    pairs = event.labels[label_id].items()
    return {name: read[name](before) if name in read else before for name, (before, _) in pairs}


def _builds_on(later: Event, event: Event) -> bool:
    """Say whether a later event stands and has changed the same again.

    What took back an event in between has left things as they were.
    """
    if later.undone or (later.undoes is not None and later.undoes > event.version):
        return False
    added = event.added
    before = {(i, name) for i, pairs in event.labels.items() for name in (OUT if i in added else pairs)}
    changed = {(i, name) for i, pairs in later.labels.items() for name in pairs}
    merged = {pairs["merged_into"][1] for pairs in later.labels.values() if "merged_into" in pairs}
    return bool(before & changed or merged & added or event.guide.keys() & later.guide.keys())


def codebook_at(project: Project, version: int) -> Codebook:
    """Return the codebook as it was at a version: the text that annotators had before them."""
    past: dict[int, dict[str, Any]] = {}
    first = next((e.guide["instruction"][0] for e in labels.events(project.db) if "instruction" in e.guide), None)
    instruction = codebook_of(project).instruction if first is None else str(first)
    for event in labels.events(project.db):
        if event.version > version:
            break
        for i, pairs in event.labels.items():
            blank = {"id": i, **dict.fromkeys(OUT), **labels.DEFAULTS}
            past[i] = past.get(i, blank) | {name: after for name, (_, after) in pairs.items()}
        instruction = event.guide.get("instruction", (None, instruction))[1]
    rows = sorted(filter(labels.in_use, past.values()), key=lambda row: (row["position"], row["id"]))
    return Codebook(
        instruction,
        tuple(
            CodebookLabel.of({**row, "examples": parsed(row["examples"], "the examples of a label")}) for row in rows
        ),
        version,
    )


def describe(event: Event, names: Mapping[int, str]) -> str:
    """Say in a sentence what was changed, in the names of today."""

    def list_(ids: Sequence[int]) -> str:
        return ", ".join(say("“{name}”", name=names[i]) for i in ids)

    changed = list_(list(event.labels))
    match event.kind:
        case "add":
            return say("{labels} added", labels=changed)
        case "revise":
            return f"{changed}: {_revised(event)}"
        case "merge":
            (into,) = {pairs["merged_into"][1] for pairs in event.labels.values()}
            return say("{labels} merged into {label}", labels=changed, label=list_([into]))
        case "split":
            whole = list_([i for i, pairs in event.labels.items() if "retired_at" in pairs])
            parts = list_([i for i in event.labels if i in event.added])
            return say("{label} split into {labels}", label=whole, labels=parts)
        case "retire":
            return say("{labels} put out of use", labels=changed)
        case "restore":
            return say("{labels} put in use again", labels=changed)
        case "reorder":
            return say("Labels put in another order")
        case "instruct":
            return say("Instruction changed")
        case _:
            return say("Version {n} taken back", n=event.undoes)


CHANGED = {
    "name": later("name “{before}” → “{after}”"),
    "definition": later("definition changed"),
    "examples": later("examples changed"),
    "words": later("label words changed"),
    "key": later("key “{before}” → “{after}”"),
    "colour": later("colour “{before}” → “{after}”"),
}
NEW = {"name": later("name changed"), "key": later("key changed"), "colour": later("colour changed")}  # none before


def _revised(event: Event) -> str:
    (pairs,) = event.labels.values()
    said = []
    for name in WRITTEN:
        if name in pairs:
            before, after = (say(value) if name == "colour" and value else value for value in pairs[name])
            changed = NEW.get(name, CHANGED[name]) if not before else CHANGED[name]
            said.append(say(changed, before=before, after=after))
    return ", ".join([*said, *([say("to be looked at again")] if "look_since" in pairs else [])])


def consequences(made: Proposal) -> list[str]:
    """Say what a change would bring about, and whom it touches."""
    known = say_many(
        "{n:,} round learned it as it was; the next one learns it as it will be.",
        "{n:,} rounds learned it as it was; the next one learns it as it will be.",
        made.rounds,
    )
    told = [*_brought_about(made), *([known] if made.rounds and made.answers else [])]
    return [*told, say("It can be taken back at any time.")]


def _brought_about(made: Proposal) -> list[str]:
    match made.change.kind:
        case "add":
            fresh = say("It can be given at once. The model suggests it from the next round on.")
            return [fresh, *([_unfit(made)] if made.to_look_at else [])]
        case "merge" | "split" | "retire" | "revise" if not made.answers:
            return [say("Nobody has given it yet: no answer changes.")]
        case "merge":
            counted = say("{answers} count as the other label. Nobody has to answer again.", answers=_given(made))
            follow = say_many(
                "{n:,} suggestion of the model changes with it, without a new round.",
                "{n:,} suggestions of the model change with it, without a new round.",
                made.suggestions,
            )
            return [counted, follow]
        case "split" | "retire":
            return _taken_away(made)
        case "restore":
            return [say("{answers} count again as they did.", answers=_given(made))]
        case "reorder":
            return [say("No answer changes.")]
        case "instruct":
            return [say("Annotators read it at once, the model from the next round on. No answer changes.")]
        case _:
            old = say("{answers} were given under the old text. They stay as they are.", answers=_given(made))
            return [old, *([_look(made)] if made.to_look_at else [])]


def _taken_away(made: Proposal) -> list[str]:
    lost = say("{answers} count as no label and teach no longer. {look}", answers=_given(made), look=_look(made))
    first = say_many(
        "{n:,} suggestion of the model had this label: it is asked first.",
        "{n:,} suggestions of the model had this label: those are asked first.",
        made.suggestions,
    )
    again = say_many(
        "{n:,} suggestion accepted unseen is open again.",
        "{n:,} suggestions accepted unseen are open again.",
        made.accepted,
    )
    return [lost, first, *([again] if made.accepted else [])]


def _given(made: Proposal) -> str:
    people = say_many("{n:,} person", "{n:,} people", made.annotators)
    return say_many("{n:,} answer by {people}", "{n:,} answers by {people}", made.answers, people=people)


def _look(made: Proposal) -> str:
    return say_many(
        "{n:,} utterance should be looked at again.", "{n:,} utterances should be looked at again.", made.to_look_at
    )


def _unfit(made: Proposal) -> str:
    return say_many(
        "{n:,} utterance where none fitted should be looked at again.",
        "{n:,} utterances where none fitted should be looked at again.",
        made.to_look_at,
    )
