"""Bulk answers: preview, apply and undo the same answer to many utterances as one act.

Audit utterances are always left out. They must be answered one at a time, without a suggestion, to remain valid
measurements.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from annotator.codebook.definition import codebook_of
from annotator.errors import BadInput
from annotator.labeling.search import Search
from annotator.labeling.session import Answer
from annotator.project import Project
from store import acceptances, annotations, bulk, utterances
from store.annotations import ADJUDICATED, ANSWERED, BULK, GIVEN, NewAnnotation, same_person
from store.database import immediate


@dataclass(frozen=True)
class Preview:
    """Effects of a bulk answer on the utterances found."""

    ids: tuple[int, ...]  # utterances that would get the answer
    audit: int  # left out: audit utterances
    same: int  # left out: the annotator has already given this answer
    kept: int  # left out: the annotator keeps another answer
    replaced: int  # of `ids`, those where another answer of the annotator is replaced
    beside: int  # of `ids`, those with a different answer from others, which is kept
    adjudicated: int  # of `ids`, those with an adjudicated answer, which still counts
    accepted: int  # of `ids`, those auto-accepted before: the new answer counts instead
    seen: int = field(default=0, compare=False)  # id of the last annotation at the time of the preview


def preview(project: Project, annotator: str, found: Sequence[int], given: Answer, replace: bool) -> Preview:
    """Return the effects of giving an answer to all utterances found; `replace` also overwrites the annotator's own."""
    seen, in_audit = annotations.last_id(project.db), set(utterances.ids_in(project.db, "audit"))
    mine, others = {}, set()
    for row in annotations.answers(project.db):
        if row.kind not in ANSWERED or row.strategy in (ADJUDICATED, GIVEN):
            continue
        if same_person(row.annotator) == same_person(annotator):
            mine[row.utterance_id] = (row.kind, row.label_id)
        elif row.label_id != given.label_id:
            others.add(row.utterance_id)
    open_ones = [i for i in found if i not in in_audit]
    target = (given.kind, given.label_id)
    same = {i for i in open_ones if mine.get(i) == target}
    differs = {i for i in open_ones if mine.get(i, target) != target}
    ids = tuple(i for i in open_ones if i not in same and (replace or i not in differs))
    return Preview(
        ids=ids,
        audit=len(found) - len(open_ones),
        same=len(same),
        kept=0 if replace else len(differs),
        replaced=len(differs) if replace else 0,
        beside=len(others.intersection(ids)),
        adjudicated=len(annotations.adjudicated_ids(project.db).intersection(ids)),
        accepted=len(acceptances.standing_ids(project.db).intersection(ids)),
        seen=seen,
    )


def answer_all(
    project: Project, annotator: str, search: Search, given: Answer, ids: Sequence[int], seen: int | None = None
) -> int:
    """Give the answer to all these utterances in one act, and return its id. Raises BadInput if there are none.

    Leaves out utterances that the annotator has answered after annotation `seen`, the last one before the preview.
    """
    one = NewAnnotation(
        utterance_id=0,  # set for each utterance
        annotator=annotator,
        kind=given.kind,
        label_id=given.label_id,
        strategy=BULK,
        codebook_version=codebook_of(project).version,
        comment=given.comment,
    )
    with immediate(project.db):
        left = set(ids) - (set() if seen is None else annotations.acted_on_since(project.db, annotator, seen))
        if not left:
            raise BadInput("No utterances would get this answer.", "Change the search.")
        return bulk.answer_all(project.db, search.to_json(), one, [i for i in ids if i in left])


def take_back(project: Project, act: int, annotator: str) -> int:
    """Undo an act as a whole, restore the answers before it, and return the number of answers undone."""
    return bulk.take_back(project.db, act, annotator)
