"""Change the codebook: build a change, count what it affects, and apply it.

A change is built from the current codebook, proposed with its effects, and applied in one transaction for all
annotators. No answer is rewritten: answers are read through the codebook (the view `answer`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from annotator.codebook.definition import LabelDraft, codebook_of, parse_codebook
from annotator.errors import BadCodebook, BadInput, Message
from annotator.project import Project
from store import acceptances, annotations, labels, rounds
from store.database import immediate, now
from store.labels import Change, Event, Fields, Label
from store.questions import FIRST

WRITTEN = ("name", "definition", "examples", "words", "key", "color")  # the fields of a label that a person writes
OUT = ("retired_at", "merged_into")  # fields that are set when a label is no longer in use
Labels = dict[int, Label]  # by id; an added one has a negative id


def add(project: Project, label: Fields, look: bool = False) -> Change:
    """Add a label; `look`: flag utterances where no label fitted, because this one may."""
    flag = {FIRST: {"none_fits_since": labels.version(project.db) + 1}} if look else {}
    return checked(project, Change("add", {-1: {**label, "position": len(_labels(project))}}, flag))


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


def reorder(project: Project, label_ids: Sequence[int]) -> Change:
    """Reorder the labels in use. Raises BadInput if the labels differ or are in this order already."""
    current = codebook_of(project).ids
    if sorted(current) != sorted(label_ids) or tuple(label_ids) == current:
        raise BadInput("The labels are in this order already.", "Move one of them first.")
    known = _labels(project)
    moved = {i: {"position": place} for place, i in enumerate(label_ids) if known[i].position != place}
    return checked(project, Change("reorder", moved))


def instruct(project: Project, instruction: str) -> Change:
    """Change the instruction for annotators and model. Raises BadInput if it would stay the same."""
    if instruction.strip() in ("", codebook_of(project).instruction):
        raise BadInput("The instruction would stay the same.", "Write a different one.")
    return Change("instruct", questions={FIRST: {"instruction": instruction.strip()}})


def merge(project: Project, sources: Sequence[int], into: int) -> Change:
    """Merge labels into another: their answers count as it, and their predicted probabilities are added to it."""
    used = codebook_of(project).ids
    if into in sources or not sources or not {into, *sources} <= set(used):
        raise BadInput("These labels cannot be merged.", "Choose labels that are in use, and a different one to keep.")
    return checked(project, Change("merge", {source: {"merged_into": into} for source in sources}))


def split(project: Project, label_id: int, parts: Sequence[Fields]) -> Change:
    """Replace a label by two or more; its answers are flagged for review."""
    if len(parts) < 2:
        raise BadInput(Message("A label is split into two or more, not into {n}.", n=len(parts)), "Add another label.")
    known = _labels(project)
    places, place = sorted({label.position for label in known.values()}), known[label_id].position
    room = min((other for other in places if other > place), default=place + 1) - place
    values = {
        -number: {**part, "split_from": label_id, "position": place + room * number / (len(parts) + 1)}
        for number, part in enumerate(parts, start=1)
    }
    return checked(project, Change("split", {**values, label_id: retired(project)}))


def retire(project: Project, label_id: int) -> Change:
    """Retire a label: its answers are no longer training examples and are flagged for review."""
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


def _labels(project: Project) -> Labels:
    return {label.id: label for label in labels.every(project.db)}


def _differing(label: Label | None, values: Fields) -> dict[str, Any]:
    """Return the values that differ from a label's; all of them for a new label."""
    read = {name: tuple(value) if name == "examples" else value for name, value in values.items()}
    return {name: value for name, value in read.items() if label is None or getattr(label, name) != value}


def checked(project: Project, change: Change, rekey: bool = True) -> Change:
    """Validate the codebook that a change would leave, and return the change without values that stay the same.

    `rekey`: a label that comes into use gets a free key if its own is taken. Raises BadCodebook.
    """
    before, after = _labels(project), _labels(project)
    for i, values in change.labels.items():
        after[i] = replace(after.get(i, Label(i)), **values)
    _refuse_circles(after)
    used = {i: label for i, label in after.items() if label.in_use}
    entering = {i for i in used if i not in before or not before[i].in_use} if rekey else set()
    taken = {label.key for i, label in used.items() if i not in entering}
    drafts = _drafts(used, {i for i in entering if used[i].key in taken})
    kept: dict[int, dict[str, Any]] = {}
    for i, values in change.labels.items():
        written = drafts[i].model_dump() if i in drafts else {}
        wanted = {**values, **({"key": ""} if i in entering else {})}
        kept[i] = _differing(before.get(i), {name: written.get(name, value) for name, value in wanted.items()})
        if "examples" in kept[i]:
            kept[i]["examples"] = json.dumps(list(kept[i]["examples"]), ensure_ascii=False)
    return replace(change, labels={i: values for i, values in kept.items() if values})


def _drafts(used: Labels, without_key: set[int]) -> dict[int, LabelDraft]:
    """Parse the labels that would be in use as a written codebook."""
    if not all(label.name.strip() for label in used.values()):
        raise BadCodebook("A label has no name.", "Give every label a name.")
    written = [{name: value for name in WRITTEN if (value := getattr(label, name))} for label in used.values()]
    for i, one in zip(used, written, strict=True):
        one.update({"key": ""} if i in without_key else {})
    if len(written) < 2:
        raise BadCodebook(
            Message("{n} label would remain; a codebook needs two.", n=len(written)), "Add another label first."
        )
    return dict(zip(used, parse_codebook({"labels": written}).labels, strict=True))


def _refuse_circles(known: Labels) -> None:
    for label in known.values():
        path, into = {label.id}, label.merged_into
        while into is not None:
            if into in path:
                raise BadCodebook(
                    Message("“{name}” would be merged into itself.", name=known[into].name),
                    "Undo the other merge first.",
                )
            path.add(into)
            into = known[into].merged_into


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
    changed = {i for i, values in change.labels.items() if i > 0 and set(values) != {"position"}}
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
