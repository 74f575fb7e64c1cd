"""The versions of the codebook: what each changed, what annotators read then, and how a change is taken back.

Taking back is one more change: the history only grows. A change can be taken back as long as none that stands builds
on it, and so can taking back; so from the newest on everything can, to the first version.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from annotator.codebook import Codebook, CodebookLabel
from annotator.errors import BadInput
from annotator.project import Project
from annotator.revision import OUT, WRITTEN, Proposal, checked, put_out
from store import labels
from store.database import immediate
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
            reason = "has been taken back already" if event.undone else "is what the project began with"
            raise BadInput(f"Version {version} {reason}.", "Choose another, or make a new change.")
        for later in history[history.index(event) + 1 :]:
            if _builds_on(later, event):
                done = describe(later, labels.names(project.db))
                hint = f"Take back version {later.version} first."
                raise BadInput(f"Version {later.version} builds on version {version}: {done}.", hint)
        values = {i: _before(project, i, event) for i in event.labels}
        guide = {name: before for name, (before, _) in event.guide.items()}
        change = checked(project, Change("undo", values, guide), rekey=False)
        return labels.write(project.db, change, author, undoes=version)


def _added(event: Event) -> set[int]:
    return {i for i, pairs in event.labels.items() if "name" in pairs and pairs["name"][0] is None}


def _before(project: Project, label_id: int, event: Event) -> dict[str, Any]:
    """Return the values that undo what an event did to a label."""
    if label_id in _added(event):
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
    added = _added(event)
    before = {(i, name) for i, pairs in event.labels.items() for name in (OUT if i in added else pairs)}
    changed = {(i, name) for i, pairs in later.labels.items() for name in pairs}
    merged = {pairs["merged_into"][1] for pairs in later.labels.values() if "merged_into" in pairs}
    return bool(before & changed or merged & added or event.guide.keys() & later.guide.keys())


def codebook_at(project: Project, version: int) -> Codebook:
    """Return the codebook as it was at a version: the text that annotators had before them."""
    past: dict[int, dict[str, Any]] = {}
    first = next((e.guide["instruction"][0] for e in labels.events(project.db) if "instruction" in e.guide), None)
    instruction = project.codebook().instruction if first is None else str(first)
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
        tuple(CodebookLabel.of({**row, "examples": json.loads(row["examples"])}) for row in rows),
        version,
    )


def describe(event: Event, names: Mapping[int, str]) -> str:
    """Say in a sentence what was changed, in the names of today."""

    def list_(ids: Sequence[int]) -> str:
        return ", ".join(f"“{names[i]}”" for i in ids)

    changed = list(event.labels)
    added = [i for i, pairs in event.labels.items() if "name" in pairs and pairs["name"][0] is None]
    match event.kind:
        case "add":
            return f"{list_(changed)} added"
        case "revise":
            return f"{list_(changed)}: {_revised(event)}"
        case "merge":
            (into,) = {pairs["merged_into"][1] for pairs in event.labels.values()}
            return f"{list_(changed)} merged into {list_([into])}"
        case "split":
            whole = [i for i, pairs in event.labels.items() if "retired_at" in pairs]
            return f"{list_(whole)} split into {list_(added)}"
        case "retire":
            return f"{list_(changed)} put out of use"
        case "restore":
            return f"{list_(changed)} put in use again"
        case "reorder":
            return "Labels put in another order"
        case "instruct":
            return "Instruction changed"
        case _:
            return f"Version {event.undoes} taken back"


def _revised(event: Event) -> str:
    (pairs,) = event.labels.values()
    said = []
    for name in WRITTEN:
        if name in pairs:
            before, after = pairs[name]
            shown = name in ("name", "key", "colour") and before
            said.append(
                f"{name} “{before}” → “{after}”" if shown else f"{'label words' if name == 'words' else name} changed"
            )
    return ", ".join(said) + (", to be looked at again" if "look_since" in pairs else "")


def consequences(made: Proposal) -> list[str]:
    """Say what a change would bring about, and whom it touches."""
    answers = f"{many(made.answers, 'answer')} by {many(made.annotators, 'person', 'people')}"
    look = many(made.to_look_at, "utterance")
    match made.change.kind:
        case "add":
            lines = ["It can be given at once. The model suggests it from the next round on."]
            lines += [f"{look} where none fitted should be looked at again."] if made.to_look_at else []
        case "merge" | "split" | "retire" | "revise" if not made.answers:
            lines = ["Nobody has given it yet: no answer changes."]
        case "merge":
            lines = [f"{answers} count as the other label. Nobody has to answer again."]
            lines += [f"{many(made.suggestions, 'suggestion')} of the model change with it, without a new round."]
        case "split" | "retire":
            lines = [f"{answers} count as no label and teach no longer. {look} should be looked at again."]
            lines += [f"{many(made.suggestions, 'suggestion')} of the model had this label: those are asked first."]
            lines += [f"{many(made.accepted, 'suggestion')} accepted unseen are open again."] if made.accepted else []
        case "restore":
            lines = [f"{answers} count again as they did."]
        case "reorder":
            lines = ["No answer changes."]
        case "instruct":
            lines = ["Annotators read it at once, the model from the next round on. No answer changes."]
        case _:
            lines = [f"{answers} were given under the old text. They stay as they are."]
            lines += [f"{look} should be looked at again."] if made.to_look_at else []
    known = [f"{many(made.rounds, 'round')} learned it as it was; the next one learns it as it will be."]
    return [*lines, *(known if made.rounds and made.answers else []), "It can be taken back at any time."]


def many(count: int, one: str, more: str = "") -> str:
    """Count things in words, as in “1 answer”, “1,200 answers”."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"
