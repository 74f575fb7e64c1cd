"""State of a labeling session on screen: current question, preloaded questions, progress and working time.

An answer is one transaction, and the next question is preloaded: handling a key press neither calls a model nor counts
anything that grows with the project.
"""

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
from store.queue import Leased

PAUSE = timedelta(minutes=5)  # without an answer; counts as a break
INSTANT = timedelta(seconds=0.3)  # shorter gaps between answers come from bulk answers
RECENT = 20  # answers used for the pace


@dataclass(frozen=True)
class Sitting:
    """Times of an annotator's answers today, oldest first."""

    times: tuple[datetime, ...]

    @property
    def pace(self) -> float | None:
        """Mean seconds between the most recent answers, without breaks and bulk answers; None if there are too few."""
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
    """Prediction for the utterance that was just answered."""

    said: Answer
    thought: Suggestion

    @property
    def agrees(self) -> bool:
        """Whether the answer is the likeliest label."""
        return self.said.label_id == self.thought.best[0]


class Screen:
    """State of one annotator's open page. All of it can be read again from the database."""

    def __init__(self, project: Project, annotator: str) -> None:
        self.owner = (project.folder, annotator)
        self.annotator = annotator
        self.preferences = preferences(project, annotator)
        self.outcome: Outcome | None = None
        self._known: tuple[int | None, int] = (None, 0)  # round id and codebook version of the preloaded questions
        self._hand: dict[int, Question] = {}
        self.standing: Standing
        self.sitting: Sitting
        self.question: Question | None = None
        self._recount(project)
        self.bring_next(project)

    def refresh(self, project: Project) -> None:
        """Recount progress and apply changed preferences. The current utterance stays until it has been answered."""
        before, self.preferences = self.preferences, preferences(project, self.annotator)
        version = labels.version(project.db)
        self._hand.clear()
        if self.question is None or annotations.is_answered(project.db, self.question.utterance.id):
            self.bring_next(project)
        elif self.preferences != before or version != self._known[1]:
            self._known, seen = (self._known[0], version), self.question.seen
            (again,) = questions(project, self.annotator, [self.question.entry], self.preferences)
            self.question = replace(again, seen=seen)
        self._recount(project)

    def bring_next(self, project: Project) -> None:
        """Set the current question to the next one; None if nothing is left to ask."""
        with immediate(project.db):  # so that no answer comes between lease and read
            following = self._following(project)
        self.question = following

    def _following(self, project: Project) -> Question | None:
        entries = lease(project, self.annotator)
        known = (rounds.promoted_id(project.db), labels.version(project.db))
        if known != self._known:  # reload after a new round or a codebook change
            self._known, self._hand = known, {}
        if entries and not self._at_hand(entries[0]):
            self._hand = {q.utterance.id: q for q in questions(project, self.annotator, entries, self.preferences)}
        return self._hand[entries[0].utterance_id] if entries else None

    def answer(self, project: Project, said: Answer, asked: Question | None = None) -> None:
        """Store the answer to the current question and load the next one. The answer is on disk when this returns.

        `asked` is the question as it was shown, if the current question may have been refreshed since.
        Raises AnswerRefused if the answer must not be stored; the next question is loaded all the same. ProjectBusy
        leaves everything unchanged.
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
        counts = said.kind != "skip" and question.entry.strategy != SPOT_CHECK
        self.standing = replace(
            self.standing,
            labeled=self.standing.labeled + counts,
            batch_left=queue.count_open(project.db, self.annotator),
            batch_size=queue.size(project.db),
        )

    def take_back(self, project: Project) -> bool:
        """Undo the annotator's last answer and show its question again; return False if there is none."""
        undone = undo(project, self.annotator)
        if undone:
            self.outcome = None
            self._hand.clear()
            self.bring_next(project)
            self._recount(project)
        return undone

    def _at_hand(self, entry: Leased) -> bool:
        kept = self._hand.get(entry.utterance_id)
        return kept is not None and kept.entry == entry

    def _recount(self, project: Project) -> None:
        self.standing = standing(project, self.annotator)
        midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
        self.sitting = Sitting(tuple(annotations.times(project.db, self.annotator, midnight)))
