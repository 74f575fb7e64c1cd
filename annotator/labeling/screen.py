"""What lies before one annotator: the question, the next ones read already, how far he is, how long he has worked.

An answer is one transaction, and what it brings next is at hand: the path of a key asks no model and counts nothing
that grows with the project.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from annotator.errors import AnswerRefused
from annotator.labeling.preferences import preferences
from annotator.labeling.session import Answer, Question, Standing, Suggestion, answer, lease, questions, standing, undo
from annotator.project import Project
from store import annotations, labels, queue, rounds
from store.acceptances import SPOT_CHECK
from store.database import immediate

PAUSE = timedelta(minutes=5)  # without an answer: long enough to have been a break
INSTANT = timedelta(seconds=0.3)  # from answer to answer in less: one was given to many utterances at once
RECENT = 20  # answers that the pace is taken from


@dataclass(frozen=True)
class Sitting:
    """When an annotator answered today, oldest first."""

    times: tuple[datetime, ...]

    @property
    def pace(self) -> float | None:
        """Mean seconds from answer to answer over the last ones read by themselves; None before there are a few."""
        latest = self.times[-RECENT - 1 :]
        gaps = [gap for before, after in pairwise(latest) if INSTANT < (gap := after - before) < PAUSE]
        return sum(gaps, timedelta()).total_seconds() / len(gaps) if len(gaps) >= RECENT // 4 else None

    def minutes_without_pause(self, now: datetime) -> int:
        """Minutes since the last pause, or since the first answer; 0 during one."""
        began = now
        for moment in reversed(self.times):
            if began - moment >= PAUSE:
                break
            began = moment
        return int((now - began).total_seconds() // 60)


@dataclass(frozen=True)
class Outcome:
    """What the model had thought of the utterance that was just answered."""

    said: Answer
    thought: Suggestion

    @property
    def agrees(self) -> bool:
        """Whether the answer is the model's likeliest label."""
        return self.said.label_id == self.thought.best[0]


class Screen:
    """One annotator's place at a project, as long as his page is open. All it knows can be read again from the rows."""

    def __init__(self, project: Project, annotator: str) -> None:
        self.owner = (project.folder, annotator)
        self.annotator = annotator
        self.preferences = preferences(project, annotator)
        self.outcome: Outcome | None = None
        self._known: tuple[int | None, int] = (None, 0)  # the round and the codebook of what is at hand
        self._hand: dict[int, Question] = {}
        self.standing: Standing
        self.sitting: Sitting
        self.question: Question | None = None
        self._recount(project)
        self.bring_next(project)

    def refresh(self, project: Project) -> None:
        """Count anew and follow changed wishes. The utterance on screen stays until someone has answered it."""
        before, self.preferences = self.preferences, preferences(project, self.annotator)
        version = labels.version(project.db)
        self._hand.clear()
        if self.question is None or annotations.is_answered(project.db, self.question.utterance["id"]):
            self.bring_next(project)
        elif self.preferences != before or version != self._known[1]:
            self._known, seen = (self._known[0], version), self.question.seen
            (again,) = questions(project, self.annotator, [self.question.entry], self.preferences)
            self.question = replace(again, seen=seen)
        self._recount(project)

    def bring_next(self, project: Project) -> None:
        """Put the next question on the desk; None where nothing is left to ask."""
        with immediate(project.db):  # so that nobody answers between the lease and the reading
            following = self._following(project)
        self.question = following

    def _following(self, project: Project) -> Question | None:
        entries = lease(project, self.annotator)
        known = (rounds.promoted_id(project.db), labels.version(project.db))
        if known != self._known:  # what follows a new round comes from it, in the labels there are by then
            self._known, self._hand = known, {}
        if entries and not self._at_hand(entries[:1]):
            self._hand = {q.utterance["id"]: q for q in questions(project, self.annotator, entries, self.preferences)}
        return self._hand[entries[0]["utterance_id"]] if entries else None

    def answer(self, project: Project, said: Answer, asked: Question | None = None) -> None:
        """Store the answer to the question on the desk and bring the next one. On disk when this returns.

        `asked` is the question as it was shown, where the desk may have been looked over since.
        Raises AnswerRefused where it must not be stored; the next one is there all the same. ProjectBusy leaves
        everything as it was.
        """
        question = asked or self.question
        assert question
        try:
            with immediate(project.db):
                answer(project, question, self.annotator, said)
                following = self._following(project)
        except AnswerRefused:
            self.outcome = None
            self._hand.clear()
            self.bring_next(project)
            self._recount(project)
            raise
        self.question = following
        thought = question.suggestion or (question.kept_back if question.withheld == "choice" else None)
        self.outcome = Outcome(said, thought) if thought else None
        if said.kind != "skip":
            self.sitting = Sitting((*self.sitting.times, datetime.now(UTC)))
        counts = said.kind != "skip" and question.entry["strategy"] != SPOT_CHECK
        self.standing = replace(
            self.standing,
            labeled=self.standing.labeled + counts,
            batch_left=queue.count_open(project.db, self.annotator),
            batch_size=queue.size(project.db),
        )

    def take_back(self, project: Project) -> bool:
        """Undo the annotator's last answer and put its question on the desk again; False if there is none."""
        undone = undo(project, self.annotator)
        if undone:
            self.outcome = None
            self._hand.clear()
            self.bring_next(project)
            self._recount(project)
        return undone

    def _at_hand(self, entries: Sequence[dict[str, object]]) -> bool:
        kept = (self._hand.get(int(str(entry["utterance_id"]))) for entry in entries)
        same = ("rank", "round_id", "strategy", "chosen_after")
        return all(
            one and all(one.entry[key] == entry[key] for key in same) for one, entry in zip(kept, entries, strict=True)
        )

    def _recount(self, project: Project) -> None:
        self.standing = standing(project, self.annotator)
        midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
        self.sitting = Sitting(tuple(annotations.times(project.db, self.annotator, midnight)))
