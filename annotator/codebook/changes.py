"""Change the codebook: build a change, count what it affects, and apply it.

A change is built from the current codebook, proposed with its effects, and applied in one transaction for all
annotators. No answer is rewritten: answers are read through the codebook (the view `answer`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from annotator.codebook.definition import codebook_of
from annotator.codebook.draft import LabelDraft, every_draft, parse_codebook
from annotator.errors import BadCodebook, BadInput, Message
from annotator.project import Project
from store import acceptances, annotations, labels, rounds
from store.database import immediate, now
from store.labels import Change, Event, Fields, Label
from store.questions import FIRST

WRITTEN = ("name", "definition", "examples", "words", "key", "color")  # the fields of a label that a person writes
PLACED = {"position", "parent_id", "key"}  # fields that do not change what an answer means
OUT = ("retired_at", "merged_into")  # fields that are set when a label is no longer in use
Labels = dict[int, Label]  # by id; an added one has a negative id


def add(project: Project, label: Fields, look: bool = False) -> Change:
    """Add a label; `look`: flag utterances where no label fitted, because this one may."""
    flag = {FIRST: {"none_fits_since": labels.version(project.db) + 1}} if look else {}
    return checked(project, Change("add", {-1: {**label, **_place(project, label.get("parent_id"))}}, flag))


def revise(project: Project, label_id: int, written: Fields, look: bool = False) -> Change:
    """Edit the fields of a label; `look`: flag its answers for review, because its meaning has changed.

    Raises BadInput if nothing would change.
    """
    label = _labels(project)[label_id]
    values = _differing(label, written)
    if not values:
        raise BadInput(Message("No field of “{name}” would change.", name=label.name), "Edit a field first.")
    flag = {"look_since": labels.version(project.db) + 1} if look else {}
    return checked(project, Change("revise", {label_id: {**values, **flag}}))


def reorder(project: Project, label_ids: Sequence[int], group_id: int | None = None) -> Change:
    """Reorder what a group holds, or the top. Raises BadInput if the labels differ or are in this order already."""
    current = tuple(node.id for node in codebook_of(project).held(group_id))
    if sorted(current) != sorted(label_ids) or tuple(label_ids) == current:
        raise BadInput("The labels are in this order already.", "Move one of them first.")
    known = _labels(project)
    moved = {i: {"position": place} for place, i in enumerate(label_ids) if known[i].position != place}
    return checked(project, Change("reorder", moved))


def group(project: Project, written: Fields, members: Sequence[int]) -> Change:
    """Put labels or groups into a new group, which takes the place of the first. Raises BadInput if there are none.

    What is inside one of these groups stays in it.
    """
    if not members:
        raise BadInput("A new group needs a label.", "Choose the labels that it holds.")
    book = codebook_of(project)
    outer = [i for i in members if not {one.id for one in book.above(i)} & {*members}]
    first = _labels(project)[outer[0]]
    place = {"is_group": 1, "parent_id": book.node(first.id).parent_id, "position": first.position}
    return checked(project, Change("group", {-1: {**written, **place}, **{i: {"parent_id": -1} for i in outer}}))


def move(project: Project, node_id: int, group_id: int | None) -> Change:
    """Move a label or group, with all that it holds, to the end of a group; for None, to the end of the top.

    Raises BadInput if it is there already, BadCodebook if the group is inside the one that is moved.
    """
    book = codebook_of(project)
    if book.node(node_id).parent_id == group_id:
        raise BadInput(Message("“{name}” is in this group already.", name=book.node(node_id).name), "Choose another.")
    return checked(project, Change("move", {node_id: _place(project, group_id)}))


def dissolve(project: Project, label_id: int) -> Change:
    """Retire a group and pass what it holds on to the group it is in. Raises BadInput for a label."""
    if not _labels(project)[label_id].is_group:
        raise BadInput("Only a group can be dissolved.", "Retire the label.")
    return checked(project, Change("dissolve", {label_id: {"retired_at": now()}}))


def instruct(project: Project, instruction: str) -> Change:
    """Change the instruction for annotators and model. Raises BadInput if it would stay the same."""
    if instruction.strip() in ("", codebook_of(project).instruction):
        raise BadInput("The instruction would stay the same.", "Write a different one.")
    return Change("instruct", questions={FIRST: {"instruction": instruction.strip()}})


def merge(project: Project, sources: Sequence[int], into: int) -> Change:
    """Merge labels into another: their answers count as it, and their predicted probabilities are added to it.

    Groups that are merged into another pass on to it what they hold.
    """
    book = codebook_of(project)
    groups = {one.id for one in book.groups}
    if into in sources or not sources or not any({into, *sources} <= used for used in (set(book.ids), groups)):
        raise BadInput("These labels cannot be merged.", "Choose labels that are in use, and a different one to keep.")
    kind = "join" if into in groups else "merge"
    return checked(project, Change(kind, {source: {"merged_into": into} for source in sources}))


def split(project: Project, label_id: int, parts: Sequence[Fields]) -> Change:
    """Replace a label by two or more; its answers are flagged for review."""
    if len(parts) < 2:
        raise BadInput(Message("A label is split into two or more, not into {n}.", n=len(parts)), "Add another label.")
    known = _labels(project)
    if known[label_id].is_group:
        raise BadInput("A group cannot be split.", "Move its labels into a new group.")
    places, place = sorted({label.position for label in known.values()}), known[label_id].position
    room = min((other for other in places if other > place), default=place + 1) - place
    values = {
        -number: {
            **part,
            "split_from": label_id,
            "parent_id": known[label_id].parent_id,
            "position": place + room * number / (len(parts) + 1),
        }
        for number, part in enumerate(parts, start=1)
    }
    return checked(project, Change("split", {**values, label_id: retired(project)}))


def retire(project: Project, label_id: int) -> Change:
    """Retire a label: its answers are no longer training examples and are flagged for review.

    Raises BadInput for a group.
    """
    if _labels(project)[label_id].is_group:
        raise BadInput("A group cannot be retired.", "Dissolve it.")
    return checked(project, Change("retire", {label_id: retired(project)}))


def restore(project: Project, label_id: int) -> Change:
    """Restore a label that was merged, split or retired; its answers count as before."""
    label = _labels(project)[label_id]
    if label.in_use:
        raise BadInput(Message("“{name}” is in use.", name=label.name), "Choose a label that is not.")
    retirements = [
        event.labels[label_id] for event in labels.events(project.db) if "look_since" in _of(event, label_id)
    ]
    before = retirements[-1]["look_since"][0] if retirements and label.retired_at is not None else label.look_since
    return checked(project, Change("restore", {label_id: {**dict.fromkeys(OUT), "look_since": before or 0}}))


def _of(event: Event, label_id: int) -> Mapping[str, tuple[Any, Any]]:
    return event.labels.get(label_id, {})


def retired(project: Project) -> Fields:
    """Return the values that retire a label and flag its answers for review."""
    return {"retired_at": now(), "look_since": labels.version(project.db) + 1}


def _place(project: Project, group_id: int | None) -> Fields:
    """Return the place at the end of a group, or of the top. Raises BadInput if it is not a group in use."""
    known = _labels(project)
    if group_id is not None and group_id not in {i for i, label in known.items() if label.is_group and label.in_use}:
        raise BadInput("There is no such group.", "Choose a group that is in use.")
    last = max((label.position for label in known.values()), default=0)
    return {"parent_id": group_id, "position": last + 1}


def _labels(project: Project) -> Labels:
    return {label.id: label for label in labels.every(project.db)}


def _differing(label: Label | None, values: Fields) -> dict[str, Any]:
    """Return the values that differ from a label's; all of them for a new label."""
    read = {name: tuple(value) if name == "examples" else value for name, value in values.items()}
    return {name: value for name, value in read.items() if label is None or getattr(label, name) != value}


def checked(project: Project, change: Change) -> Change:
    """Validate the codebook that a change would leave, and return the change without values that stay the same.

    A label that comes into use or into a group gets a free key if its own is taken there. Raises BadCodebook.
    """
    before, after = _labels(project), _labels(project)
    for i, values in change.labels.items():
        after[i] = replace(after.get(i, Label(i)), **values)
    _refuse_circles(after)
    entering = _entering(before, after)
    drafts = _drafts(after, _without_key(after, entering))
    kept: dict[int, dict[str, Any]] = {}
    for i in dict.fromkeys([*change.labels, *entering]):
        written = drafts[i].model_dump() if i in drafts else {}
        wanted = {**change.labels.get(i, {}), **({"key": ""} if i in entering else {})}
        kept[i] = _differing(before.get(i), {name: written.get(name, value) for name, value in wanted.items()})
        if "examples" in kept[i]:
            kept[i]["examples"] = json.dumps(list(kept[i]["examples"]), ensure_ascii=False)
    return replace(change, labels={i: values for i, values in kept.items() if values})


def _entering(before: Labels, after: Labels) -> list[int]:
    """Return the labels and groups that come into use or into another group."""
    places = {i: labels.group_of(before, label) for i, label in before.items() if label.in_use}
    return [
        i
        for i, label in after.items()
        if label.in_use and (i not in places or places[i] != labels.group_of(after, label))
    ]


def _without_key(after: Labels, entering: Sequence[int]) -> set[int]:
    """Return which of the labels that enter a group find their key taken there."""
    used = {i: (labels.group_of(after, label), label.key) for i, label in after.items() if label.in_use}
    taken = {place for i, place in used.items() if i not in entering}
    refused = set()
    for i in entering:
        if used[i] in taken:
            refused.add(i)
        taken.add(used[i])
    return refused


def _drafts(after: Labels, without_key: set[int]) -> dict[int, LabelDraft]:
    """Parse the labels and groups that would be in use as a written codebook."""
    used = [label for label in labels.in_order(after) if label.in_use]
    if not all(label.name.strip() for label in used):
        raise BadCodebook("A label has no name.", "Give every label a name.")
    if (left := sum(not label.is_group for label in used)) < 2:
        raise BadCodebook(Message("{n} label would remain; a codebook needs two.", n=left), "Add another label first.")

    def written(group: int | None) -> list[Any]:
        held = [label for label in used if labels.group_of(after, label) == group]
        return [
            {name: value for name in WRITTEN if (value := getattr(label, name))}
            | ({"key": ""} if label.id in without_key else {})
            | ({"labels": written(label.id)} if label.is_group else {})
            for label in held
        ]

    parsed = every_draft(parse_codebook({"labels": written(None)}).labels)
    return dict(zip((label.id for label in used), parsed, strict=True))


def _refuse_circles(known: Labels) -> None:
    """Raise BadCodebook if a label would be merged into itself, or a group be inside itself."""
    for label in known.values():
        path, into = {label.id}, _passed_to(label)
        while into is not None:
            if into in path:
                raise _circle(known[into])
            path.add(into)
            into = _passed_to(known[into])


def _passed_to(label: Label) -> int | None:
    return label.parent_id if label.merged_into is None else label.merged_into


def _circle(label: Label) -> BadCodebook:
    if label.is_group:
        inside = Message("The group “{name}” would be inside itself.", name=label.name)
        return BadCodebook(inside, "Move the other group first.")
    into = Message("“{name}” would be merged into itself.", name=label.name)
    return BadCodebook(into, "Undo the other merge first.")


# Effects of a change


@dataclass(frozen=True)
class Proposal:
    """A change that has not been applied, with its effects. It is valid for one version of the codebook."""

    change: Change
    version: int
    answers: int  # standing answers, of all annotators
    annotators: int
    suggestions: int  # open utterances whose suggestion is an affected label
    accepted: int  # auto-accepted utterances
    rounds: int  # that were trained with an affected label
    to_look_at: int  # utterances that will be flagged for review


def propose(project: Project, change: Change) -> Proposal:
    """Count the effects of a change."""
    known, promoted = _labels(project), rounds.promoted(project.db)
    changed = {i for i, values in change.labels.items() if i > 0 and (change.kind == "revise" or set(values) - PLACED)}
    touched = [i for i in known if changed & _path(known, i)]
    answers, annotators, answered = annotations.count_given(project.db, touched)
    suggested = 0
    if promoted:
        predictions = rounds.predictions_of(project.db, promoted)
        likeliest = np.array(predictions.label_ids)[predictions.probabilities.argmax(axis=1)]
        suggested = int(np.isin(likeliest, touched).sum())
    trained = sum(not set(touched).isdisjoint(one.label_ids) for one in rounds.finished(project.db))
    flags = any("look_since" in values for values in change.labels.values()) and change.kind != "restore"
    unfit = any(values.get("none_fits_since") for values in change.questions.values())
    flagged = answered if flags else annotations.counts(project.db)["none_fits"] if unfit else 0
    accepted, version = acceptances.count_given(project.db, touched), labels.version(project.db)
    return Proposal(change, version, answers, annotators, suggested, accepted, trained, flagged)


def _path(known: Labels, label_id: int) -> set[int]:
    """Return a label and the labels that it counts as through merges."""
    path, into = {label_id}, known[label_id].merged_into
    while into is not None:
        path.add(into)
        into = known[into].merged_into
    return path


def make(project: Project, proposal: Proposal, author: str) -> int:
    """Apply a proposed change for all annotators; return the new version. Raises BadInput if another came first."""
    with immediate(project.db):
        version = labels.version(project.db)
        if version != proposal.version:
            raise BadInput(
                Message(
                    "The codebook is now at version {version}; this change was prepared for {version2}.",
                    version=version,
                    version2=proposal.version,
                ),
                "Somebody else has changed it. Review the change again.",
            )
        return labels.write(project.db, proposal.change, author)
