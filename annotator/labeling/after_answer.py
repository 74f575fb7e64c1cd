"""What follows an answer, wherever it was given: a round is started, the batch is re-ranked, or nothing happens.

Pages and scripts call `follow_up` after each answer, bulk answer, decision in review, and undo.
"""

from dataclasses import dataclass

from annotator.errors import ProjectBusy, RoundRunning
from annotator.project import Project
from annotator.rounds import reranking
from annotator.rounds.schedule import retrain_reason
from annotator.rounds.worker import start_round


@dataclass(frozen=True)
class FollowUp:
    """What is due."""

    round: str | None  # the reason to start a round
    rerank: bool


def due_now(project: Project) -> FollowUp:
    """Decide what is due, from the answers in the database. Writes nothing."""
    return FollowUp(retrain_reason(project), reranking.is_due(project))


def follow_up(project: Project) -> FollowUp:
    """Start what is due beside this process, and return what that was.

    While another program writes, or starts the same round, nothing is started: the next answer is another chance.
    """
    due = due_now(project)
    if due.round:
        try:
            start_round(project, due.round)
        except (ProjectBusy, RoundRunning):
            due = FollowUp(None, due.rerank)
    if due.rerank:
        reranking.reorder_in_background(project.folder)
    return due
