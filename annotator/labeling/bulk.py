"""The same answer to many utterances at once: what it would do, doing it as one act, and taking that back as one.

Audit utterances are left out always: each is answered by itself, without a suggestion, or it measures nothing.
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
    """What an act would do to the utterances found."""

    ids: tuple[int, ...]  # those that would get the answer
    audit: int  # left out: they measure
    same: int  # left out: they have this very answer of yours
    kept: int  # left out: you have answered them otherwise, and wish to keep that
    replaced: int  # of `ids`, those that you had answered otherwise
    beside: int  # of `ids`, those that other people have answered otherwise: their answers stand
    adjudicated: int  # of `ids`, those that were settled in review: that counts, whatever is answered
    accepted: int  # of `ids`, those whose suggestion was accepted unseen: your answer counts from now on
    seen: int = field(default=0, compare=False)  # the last annotation that was known


def preview(project: Project, annotator: str, found: Sequence[int], said: Answer, replace: bool) -> Preview:
    """Say what giving this answer to all utterances found would do; with `replace`, also over one's own answers."""
    seen, in_audit = annotations.last_id(project.db), set(utterances.ids_in(project.db, "audit"))
    mine, others = {}, set()
    for row in annotations.answers(project.db):
        if row["kind"] not in ANSWERED or row["strategy"] in (ADJUDICATED, GIVEN):
            continue
        if same_person(row["annotator"]) == same_person(annotator):
            mine[row["utterance_id"]] = (row["kind"], row["label_id"])
        elif row["label_id"] != said.label_id:
            others.add(row["utterance_id"])
    open_ones = [i for i in found if i not in in_audit]
    target = (said.kind, said.label_id)
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
    project: Project, annotator: str, search: Search, said: Answer, ids: Sequence[int], seen: int | None = None
) -> int:
    """Give the answer to all these utterances in one act, and return its id. Raises BadInput if there are none.

    Left out is what the annotator has answered after `seen`, the last annotation that the preview knew.
    """
    one = NewAnnotation(
        utterance_id=0,  # each in turn
        annotator=annotator,
        kind=said.kind,
        label_id=said.label_id,
        strategy=BULK,
        codebook_version=codebook_of(project).version,
        comment=said.comment,
    )
    with immediate(project.db):
        left = set(ids) - (set() if seen is None else annotations.acted_on_since(project.db, annotator, seen))
        if not left:
            raise BadInput("0 utterances would get this answer.", "Search for others.")
        return bulk.answer_all(project.db, search.to_json(), one, [i for i in ids if i in left])


def take_back(project: Project, act: int, annotator: str) -> int:
    """Undo an act as a whole and return how many answers that takes back; what was answered before stands again."""
    return bulk.take_back(project.db, act, annotator)
