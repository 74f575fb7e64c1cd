"""A labelling session: what an annotator is asked next, and what happens to his answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annotator.acceptance import withdraw_broken
from annotator.batch import AUDIT
from annotator.project import Project
from annotator.query import STRATEGIES
from annotator.shortlist import LARGE, shortlist
from store import acceptances, annotations, queue, rounds, utterances
from store.acceptances import SPOT_CHECK
from store.annotations import Kind, NewAnnotation
from store.queue import QueueEntry

AHEAD = 10  # utterances reserved for an annotator: the next one is at hand while he reads this one


@dataclass(frozen=True)
class Suggestion:
    """What the model says: calibrated probabilities by label id, likeliest first."""

    probabilities: tuple[tuple[int, float], ...]
    round_number: int
    shortlist: tuple[int, ...] = ()  # of a large codebook, the label ids likely to hold the right one; else empty

    @property
    def best(self) -> tuple[int, float]:
        """The likeliest label and its probability."""
        return self.probabilities[0]


@dataclass(frozen=True)
class Question:
    """One utterance as it is put to an annotator, with the reason it is."""

    utterance: Mapping[str, Any]
    turns_before: tuple[Mapping[str, Any], ...]
    entry: Mapping[str, Any]
    suggestion: Suggestion | None

    @property
    def is_audit(self) -> bool:
        """Whether the answer only measures. Such a question never shows a suggestion."""
        return bool(self.utterance["slice"] == "audit")

    @property
    def reason(self) -> str:
        """Why this one, in a sentence."""
        if self.entry["strategy"] == SPOT_CHECK:
            return "Drawn at random from what was accepted unseen, to check it. It shows no suggestion."
        if self.is_audit:
            return "Drawn at random to measure the model. It shows no suggestion, so that your answer is your own."
        known = STRATEGIES.get(self.entry["strategy"])
        return known.reason if known else self.entry["strategy"]


@dataclass(frozen=True)
class Answer:
    """What an annotator said."""

    kind: Kind
    label_id: int | None = None
    unsure: bool = False
    comment: str = ""
    milliseconds: int | None = None


def next_question(project: Project, annotator: str) -> Question | None:
    """Return what to ask now, drawing a new batch if this one is used up; None when everything is answered."""
    leased = queue.lease(project.db, annotator, AHEAD)
    if not leased and project.refill(annotator):
        leased = queue.lease(project.db, annotator, AHEAD)
    return _question(project, leased[0]) if leased else None


def _question(project: Project, entry: Mapping[str, Any]) -> Question:
    config = project.config
    (row,) = utterances.read(project.db, [entry["utterance_id"]])
    before = utterances.turns_before(project.db, row, config.context_turns)  # what the model reads too
    shown = config.show_suggestions and row["slice"] != AUDIT and entry["strategy"] != SPOT_CHECK
    return Question(row, tuple(before), entry, _suggestion(project, row["id"]) if shown else None)


def _suggestion(project: Project, utterance_id: int) -> Suggestion | None:
    promoted = rounds.promoted(project.db)
    if promoted is None:
        return None
    known = rounds.predictions_of(project.db, promoted, [utterance_id])
    if not len(known.utterance_ids) or len(known.unknown) == len(known.label_ids):
        return None
    row = known.probabilities[0]
    pairs = [pair for pair in zip(known.label_ids, row.tolist(), strict=True) if pair[0] not in known.unknown]
    limit = json.loads(promoted["metrics"]).get("shortlist_limit")
    columns = shortlist(row, limit) if limit is not None and len(row) > LARGE else []
    short = tuple(known.label_ids[column] for column in columns)
    return Suggestion(tuple(sorted(pairs, key=lambda pair: -pair[1])), promoted["number"], short)


def answer(project: Project, question: Question, annotator: str, said: Answer) -> int:
    """Record an answer with the reason it was asked for, and return its id. It is on disk when this returns."""
    entry, shown = question.entry, question.suggestion
    given = annotations.record(
        project.db,
        NewAnnotation(
            utterance_id=question.utterance["id"],
            annotator=annotator,
            kind=said.kind,
            label_id=said.label_id,
            strategy=entry["strategy"],
            codebook_version=project.codebook().version,
            unsure=said.unsure,
            comment=said.comment,
            round_id=entry["round_id"],
            propensity=entry["propensity"],
            pool_size=entry["pool_size"],
            suggested_label_id=shown.best[0] if shown else None,
            suggested_probability=shown.best[1] if shown else None,
            milliseconds=said.milliseconds,
        ),
    )
    if entry["strategy"] == SPOT_CHECK:
        withdraw_broken(project)
    return given


def undo(project: Project, annotator: str) -> bool:
    """Take back the annotator's last answer and ask it again next; False if there is none."""
    last = annotations.undo(project.db, annotator)
    if last is None:
        return False
    entry = QueueEntry(last["utterance_id"], last["strategy"], None, last["propensity"], last["pool_size"] or 0)
    queue.put_first(project.db, last["round_id"], entry, annotator)
    return True


@dataclass(frozen=True)
class Standing:
    """How far a project is."""

    labelled: int  # utterances with an answer, or with a suggestion that was accepted
    to_label: int  # utterances to be labelled in all
    batch_left: int
    batch_size: int
    kinds: Mapping[str, int]  # this annotator's answers by kind


def standing(project: Project, annotator: str) -> Standing:
    """Count what has been done and what is left, for an annotator."""
    slices = utterances.count_slices(project.db)
    return Standing(
        labelled=annotations.count_answered(project.db) + acceptances.count_standing(project.db),
        to_label=slices["pool"] + slices[AUDIT],
        batch_left=queue.count_open(project.db, annotator),
        batch_size=queue.size(project.db),
        kinds=annotations.counts(project.db, annotator),
    )
