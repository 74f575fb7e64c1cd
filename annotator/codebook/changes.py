"""Changing the codebook: what can be done to it, and what each change touches.

A change is built from the codebook as it is, proposed with what it touches, and made in one transaction for all
annotators. Nothing that anyone has said is rewritten: answers are read through the codebook (the view `answer`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from annotator.codebook.definition import LabelDraft, codebook_of, parse_codebook
from annotator.errors import BadCodebook, BadInput
from annotator.project import Project
from store import acceptances, annotations, labels, rounds
from store.database import immediate, now
from store.faults import parsed
from store.labels import Change, Event, Fields

WRITTEN = ("name", "definition", "examples", "words", "key", "colour")  # what a person writes of a label
OUT = ("retired_at", "merged_into")  # what puts a label out of use
Rows = dict[int, dict[str, Any]]


def add(project: Project, label: Fields, look: bool = False) -> Change:
    """Add a label; `look`: what none fitted so far might fit now, and needs a new look."""
    guide = {"none_fits_since": labels.version(project.db) + 1} if look else {}
    return checked(project, Change("add", {-1: {**label, "position": len(_rows(project))}}, guide))


def revise(project: Project, label_id: int, written: Fields, look: bool = False) -> Change:
    """Change what is said of a label; `look`: its meaning has changed, and its answers need a new look.

    Raises BadInput if nothing would change.
    """
    row = _rows(project)[label_id]
    values = {name: value for name, value in written.items() if value != row[name]}
    if not values:
        raise BadInput(f"Nothing about “{row['name']}” would change.", "Change something first.")
    asked = {"look_since": labels.version(project.db) + 1} if look else {}
    return checked(project, Change("revise", {label_id: {**values, **asked}}))


def reorder(project: Project, label_ids: Sequence[int]) -> Change:
    """Put the labels in use in another order. Raises BadInput if they are not the same labels, or in that order."""
    current = codebook_of(project).ids
    if sorted(current) != sorted(label_ids) or tuple(label_ids) == current:
        raise BadInput("The labels are in this order already.", "Move one of them first.")
    rows = _rows(project)
    moved = {i: {"position": place} for place, i in enumerate(label_ids) if rows[i]["position"] != place}
    return checked(project, Change("reorder", moved))


def instruct(project: Project, instruction: str) -> Change:
    """Change what annotators and model are told. Raises BadInput if nothing would change."""
    if instruction.strip() in ("", codebook_of(project).instruction):
        raise BadInput("The instruction would stay as it is.", "Write another one.")
    return Change("instruct", guide={"instruction": instruction.strip()})


def merge(project: Project, sources: Sequence[int], into: int) -> Change:
    """Let answers in some labels count as another; the model's probabilities are added up, without a new round."""
    used = codebook_of(project).ids
    if into in sources or not sources or not {into, *sources} <= set(used):
        raise BadInput("These labels cannot be merged.", "Choose labels that are in use, and another to keep.")
    return checked(project, Change("merge", {source: {"merged_into": into} for source in sources}))


def split(project: Project, label_id: int, parts: Sequence[Fields]) -> Change:
    """Put two or more labels in the place of one; its answers need a new look."""
    if len(parts) < 2:
        raise BadInput(f"A label is split into two or more, not into {len(parts)}.", "Name one more.")
    places = sorted({row["position"] for row in _rows(project).values()})
    place = _rows(project)[label_id]["position"]
    room = min((other for other in places if other > place), default=place + 1) - place
    values = {
        -number: {**part, "split_from": label_id, "position": place + room * number / (len(parts) + 1)}
        for number, part in enumerate(parts, start=1)
    }
    return checked(project, Change("split", {**values, label_id: put_out(project)}))


def retire(project: Project, label_id: int) -> Change:
    """Put a label out of use: its answers teach no longer, and need a new look."""
    return checked(project, Change("retire", {label_id: put_out(project)}))


def restore(project: Project, label_id: int) -> Change:
    """Put a label that was merged, split or retired in use again; its answers count as they did."""
    row = _rows(project)[label_id]
    if labels.in_use(row):
        raise BadInput(f"“{row['name']}” is in use.", "Choose one that is not.")
    put_out = [event.labels[label_id] for event in labels.events(project.db) if "look_since" in _of(event, label_id)]
    before = put_out[-1]["look_since"][0] if put_out and row["retired_at"] is not None else row["look_since"]
    return checked(project, Change("restore", {label_id: {**dict.fromkeys(OUT), "look_since": before or 0}}))


def _of(event: Event, label_id: int) -> Mapping[str, tuple[Any, Any]]:
    return event.labels.get(label_id, {})


def put_out(project: Project) -> dict[str, Any]:
    """Return the values that put a label out of use, its answers to be looked at."""
    return {"retired_at": now(), "look_since": labels.version(project.db) + 1}


def _rows(project: Project) -> Rows:
    return {row["id"]: row for row in labels.every(project.db)}


def checked(project: Project, change: Change, rekey: bool = True) -> Change:
    """Refuse a change that leaves a codebook that cannot be used, and leave out of it what is so already.

    `rekey`: a label that comes into use, and whose key has been taken meanwhile, gets a free one. Raises BadCodebook.
    """
    before, after = _rows(project), _rows(project)
    for i, values in change.labels.items():
        after[i] = {**after.get(i, {**dict.fromkeys(OUT), "name": ""}), **values}
    _refuse_circles(after)
    used = {i: row for i, row in after.items() if labels.in_use(row)}
    entering = {i for i in used if i not in before or not labels.in_use(before[i])} if rekey else set()
    taken = {row["key"] for i, row in used.items() if i not in entering}
    drafts = _drafts(used, {i for i in entering if used[i].get("key") in taken})
    kept: dict[int, dict[str, Any]] = {}
    for i, values in change.labels.items():
        written = drafts[i].model_dump() if i in drafts else {}
        asked = {**values, **({"key": ""} if i in entering else {})}
        given = {name: written.get(name, value) for name, value in asked.items()}
        kept[i] = {name: value for name, value in given.items() if i not in before or before[i][name] != value}
        if "examples" in kept[i]:
            kept[i]["examples"] = json.dumps(list(kept[i]["examples"]), ensure_ascii=False)
    return replace(change, labels={i: values for i, values in kept.items() if values})


def _drafts(used: Rows, without_key: set[int]) -> dict[int, LabelDraft]:
    """Read the labels that would be in use as a person writes a codebook."""
    if not all(str(row["name"]).strip() for row in used.values()):
        raise BadCodebook("A label has no name.", "Write a name for each.")
    written = [{name: row[name] for name in WRITTEN if row.get(name)} for row in used.values()]
    for i, one in zip(used, written, strict=True):
        one.update({"key": ""} if i in without_key else {})
    if len(written) < 2:
        raise BadCodebook(f"{len(written)} label would be left, a codebook needs two.", "Add another label first.")
    return dict(zip(used, parse_codebook({"labels": written}).labels, strict=True))


def _refuse_circles(rows: Rows) -> None:
    for row in rows.values():
        path, into = {row.get("id")}, row["merged_into"]
        while into is not None:
            if into in path:
                raise BadCodebook(f"“{rows[into]['name']}” would count as itself.", "Take back the merge first.")
            path.add(into)
            into = rows[into]["merged_into"]


# What a change touches


@dataclass(frozen=True)
class Proposal:
    """A change, not made yet, with what it touches. It is for one version of the codebook."""

    change: Change
    version: int
    answers: int  # standing answers, of all annotators
    annotators: int
    suggestions: int  # open utterances for which the round in use finds such a label likeliest
    accepted: int  # utterances accepted unseen
    rounds: int  # that have learned it
    to_look_at: int  # utterances that will need a new look


def propose(project: Project, change: Change) -> Proposal:
    """Count what a change would touch."""
    rows, promoted = _rows(project), rounds.promoted(project.db)
    changed = {i for i, values in change.labels.items() if i > 0 and set(values) != {"position"}}
    touched = [i for i in rows if changed & _path(rows, i)]
    answers, annotators, asked = annotations.count_given(project.db, touched)
    suggested = 0
    if promoted:
        said = rounds.predictions_of(project.db, promoted)
        likeliest = np.array(said.label_ids)[said.probabilities.argmax(axis=1)]
        suggested = int(np.isin(likeliest, touched).sum())
    made = [row for row in rounds.history(project.db) if row["state"] == "promoted"]
    knowing = sum(bool(set(touched) & set(parsed(row["label_ids"], "the labels of a round"))) for row in made)
    looks = any("look_since" in values for values in change.labels.values()) and change.kind != "restore"
    looked = (
        asked if looks else annotations.counts(project.db)["none_fits"] if change.guide.get("none_fits_since") else 0
    )
    accepted, version = acceptances.count_given(project.db, touched), labels.version(project.db)
    return Proposal(change, version, answers, annotators, suggested, accepted, knowing, looked)


def _path(rows: Rows, label_id: int) -> set[int]:
    """Return a label and all that its merges lead to."""
    path, into = {label_id}, rows[label_id]["merged_into"]
    while into is not None:
        path.add(into)
        into = rows[into]["merged_into"]
    return path


def make(project: Project, proposal: Proposal, author: str) -> int:
    """Make a proposed change for all annotators and return the new version. Raises BadInput if another came first."""
    with immediate(project.db):
        version = labels.version(project.db)
        if version != proposal.version:
            raise BadInput(
                f"The codebook is at version {version} by now, this was prepared for {proposal.version}.",
                "Look at it again: somebody has changed it meanwhile.",
            )
        return labels.write(project.db, proposal.change, author)
