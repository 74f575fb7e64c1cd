"""The history of the codebook: describe its changes, reconstruct versions, and undo changes.

Undoing is itself a change, so the history only grows. A change can be undone as long as no later change in effect
builds on it, and an undo can be undone as well; from the newest on, every change can be undone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from annotator.codebook.changes import OUT, WRITTEN, Proposal, checked, retired
from annotator.codebook.definition import Codebook, codebook_of
from annotator.errors import BadInput, Message
from annotator.i18n import later, say, say_many
from annotator.project import Project
from store import labels
from store.database import immediate
from store.labels import Change, Event, Fields, Label
from store.questions import FIRST


def undo(project: Project, version: int, author: str) -> int:
    """Undo a change for all annotators and return the new version.

    A label that was added is retired; the parts of a split label count as that label. Raises BadInput if a later change
    builds on it, BadCodebook if the restored values conflict with later ones.
    """
    with immediate(project.db):
        history = labels.events(project.db)
        event = next(one for one in history if one.version == version)
        if event.undone or not event.author:
            if event.undone:
                raise BadInput(
                    Message("Version {version} is already undone.", version=version),
                    "Choose another, or make a new change.",
                )
            raise BadInput(
                Message("Version {version} is the initial codebook and cannot be undone.", version=version),
                "Choose another, or make a new change.",
            )
        for later in history[history.index(event) + 1 :]:
            if _builds_on(later, event):
                done = describe(later, labels.names(project.db))
                hint = f"Undo version {later.version} first."
                raise BadInput(
                    Message(
                        "Version {version} builds on version {version2}: {done}.",
                        version=later.version,
                        version2=version,
                        done=done,
                    ),
                    hint,
                )
        values = {i: _before(project, i, event) for i in event.labels}
        asked = {i: {name: before for name, (before, _) in pairs.items()} for i, pairs in event.questions.items()}
        change = checked(project, Change("undo", values, asked))
        return labels.write(project.db, change, author, undoes=version)


def _before(project: Project, label_id: int, event: Event) -> Fields:
    """Return the values of a label before an event."""
    if label_id in event.added:
        whole = event.labels[label_id].get("split_from", (None, None))[1]
        return {"merged_into": whole} if whole else retired(project)
    return _read({name: before for name, (before, _) in event.labels[label_id].items()})


def _read(stored: Fields) -> Fields:
    """Return the values of a label as its row has them, with its examples parsed."""
    return {name: labels.parse_examples(value) if name == "examples" else value for name, value in stored.items()}


def _builds_on(later: Event, event: Event) -> bool:
    """Return whether a later event is in effect and has changed the same fields or labels.

    An undo of an event in between does not count, because it restored the earlier values.
    """
    if later.undone or (later.undoes is not None and later.undoes > event.version):
        return False
    added = event.added
    before = {(i, name) for i, pairs in event.labels.items() for name in (OUT if i in added else pairs)}
    changed = {(i, name) for i, pairs in later.labels.items() for name in pairs}
    merged = {pairs["merged_into"][1] for pairs in later.labels.values() if "merged_into" in pairs}
    return bool(before & changed or merged & added or _asked(event) & _asked(later))


def _asked(event: Event) -> set[tuple[int, str]]:
    return {(i, name) for i, pairs in event.questions.items() for name in pairs}


def codebook_at(project: Project, version: int) -> Codebook:
    """Return the codebook at a version, as annotators saw it."""
    past: dict[int, Label] = {}
    events = labels.events(project.db)
    instructions = [event.questions.get(FIRST, {}).get("instruction") for event in events]
    first = next((pair[0] for pair in instructions if pair), None)
    instruction = codebook_of(project).instruction if first is None else str(first)
    for event, instructed in zip(events, instructions, strict=True):
        if event.version > version:
            break
        for i, pairs in event.labels.items():
            past[i] = replace(past.get(i, Label(i)), **_read({name: after for name, (_, after) in pairs.items()}))
        instruction = instructed[1] if instructed else instruction
    return Codebook.of(instruction, past.values(), version)


def describe(event: Event, names: Mapping[int, str]) -> str:
    """Describe a change in one sentence, with the current names of labels."""

    def list_(ids: Sequence[int]) -> str:
        return ", ".join(say("“{name}”", name=names[i]) for i in ids)

    marks = MARKS.get(event.kind)  # others may have got another key
    shown = [i for i, pairs in event.labels.items() if marks is None or marks & pairs.keys()]
    changed = list_([i for i in shown if event.kind != "group" or i not in event.added])
    match event.kind:
        case "add":
            return say("{labels} added", labels=changed)
        case "revise":
            return f"{changed}: {_revised(event)}"
        case "merge":
            return say("{labels} merged into {label}", labels=changed, label=list_([_into(event)]))
        case "join":
            return say("group {labels} merged into {label}", labels=changed, label=list_([_into(event)]))
        case "move" if (group := _placed_in(event)) is not None:
            return say("{labels} moved into the group {group}", labels=changed, group=list_([group]))
        case "move":
            return say("{labels} moved out of all groups", labels=changed)
        case "group":
            return say("{labels} put into the new group {group}", labels=changed, group=list_([*event.added]))
        case "dissolve":
            return say("group {labels} dissolved", labels=changed)
        case "split":
            whole = list_([i for i, pairs in event.labels.items() if "retired_at" in pairs])
            parts = list_([i for i in event.labels if i in event.added])
            return say("{label} split into {labels}", label=whole, labels=parts)
        case "retire":
            return say("{labels} retired", labels=changed)
        case "restore":
            return say("{labels} restored", labels=changed)
        case "reorder":
            return say("Labels reordered")
        case "instruct":
            return say("Instruction changed")
        case _:
            return say("Version {n} undone", n=event.undoes)


_AWAY = frozenset({"parent_id"})
MARKS = {  # the fields that show which labels a change is about
    "merge": frozenset({"merged_into"}),
    "join": frozenset({"merged_into"}),
    "dissolve": frozenset({"retired_at"}),
    "restore": frozenset(OUT),
    "group": _AWAY,
    "move": _AWAY,
}


def _into(event: Event) -> int:
    (into,) = {pairs["merged_into"][1] for pairs in event.labels.values() if "merged_into" in pairs}
    return int(into)


def _placed_in(event: Event) -> int | None:
    return next(pairs["parent_id"][1] for pairs in event.labels.values() if "parent_id" in pairs)  # type: ignore[no-any-return]


CHANGED = {
    "name": later("name “{before}” → “{after}”"),
    "definition": later("definition changed"),
    "examples": later("examples changed"),
    "words": later("label words changed"),
    "key": later("key “{before}” → “{after}”"),
    "color": later("color “{before}” → “{after}”"),
}
NEW = {"name": later("name changed"), "key": later("key changed"), "color": later("color changed")}  # none before


def _revised(event: Event) -> str:
    (pairs,) = event.labels.values()
    parts = []
    for name in WRITTEN:
        if name in pairs:
            before, after = (say(value) if name == "color" and value else value for value in pairs[name])
            changed = NEW.get(name, CHANGED[name]) if not before else CHANGED[name]
            parts.append(say(changed, before=before, after=after))
    return ", ".join([*parts, *([say("answers flagged for review")] if "look_since" in pairs else [])])


def consequences(made: Proposal) -> list[str]:
    """Describe the effects of a proposed change, in sentences."""
    trained = say_many(
        "{n:,} round was trained with the old version; the next one uses the new version.",
        "{n:,} rounds were trained with the old version; the next one uses the new version.",
        made.rounds,
    )
    effects = [*_effects(made), *([trained] if made.rounds and made.answers else [])]
    return [*effects, say("It can be undone at any time.")]


def _effects(made: Proposal) -> list[str]:
    match made.change.kind:
        case "add":
            fresh = say("It can be used immediately. The model suggests it from the next round on.")
            return [fresh, *([_unfit(made)] if made.to_look_at else [])]
        case "merge" | "split" | "retire" | "revise" if not made.answers:
            return [say("No answer uses it yet, so no answer changes.")]
        case "merge":
            counted = say("{answers} count as the other label. Nobody needs to answer again.", answers=_given(made))
            follow = say_many(
                "{n:,} suggestion changes accordingly, without a new round.",
                "{n:,} suggestions change accordingly, without a new round.",
                made.suggestions,
            )
            return [counted, follow]
        case "split" | "retire":
            return _removed(made)
        case "restore":
            return [say("{answers} count again as before.", answers=_given(made))]
        case "reorder":
            return [say("No answer changes.")]
        case "move" | "group" | "dissolve" | "join":
            return [say("No answer changes. The model reads the new tree from the next round on.")]
        case "instruct":
            return [say("Annotators see it immediately, the model from the next round on. No answer changes.")]
        case _:
            old = say("{answers} were given with the old text. They stay unchanged.", answers=_given(made))
            return [old, *([_look(made)] if made.to_look_at else [])]


def _removed(made: Proposal) -> list[str]:
    lost = say(
        "{answers} no longer count as a label and are not used for training. {look}",
        answers=_given(made),
        look=_look(made),
    )
    first = say_many(
        "{n:,} open utterance had this label as its suggestion and is asked first.",
        "{n:,} open utterances had this label as their suggestion and are asked first.",
        made.suggestions,
    )
    again = say_many(
        "{n:,} auto-accepted utterance is open again.",
        "{n:,} auto-accepted utterances are open again.",
        made.accepted,
    )
    return [lost, first, *([again] if made.accepted else [])]


def _given(made: Proposal) -> str:
    people = say_many("{n:,} person", "{n:,} people", made.annotators)
    return say_many("{n:,} answer by {people}", "{n:,} answers by {people}", made.answers, people=people)


def _look(made: Proposal) -> str:
    return say_many("{n:,} utterance should be reviewed.", "{n:,} utterances should be reviewed.", made.to_look_at)


def _unfit(made: Proposal) -> str:
    return say_many(
        "{n:,} utterance where no label fitted should be reviewed.",
        "{n:,} utterances where no label fitted should be reviewed.",
        made.to_look_at,
    )
