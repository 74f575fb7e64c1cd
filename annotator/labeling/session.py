"""A labeling session: select the next question for an annotator and store the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from annotator.config import RoundConfig
from annotator.errors import AnswerRefused, Message
from annotator.i18n import later
from annotator.labeling.auto_accept import withdraw_broken
from annotator.labeling.preferences import Preferences
from annotator.methods.metrics import Metrics
from annotator.methods.prediction_sets import LARGE, shortlist
from annotator.methods.query_strategies import STRATEGIES
from annotator.project import Project
from annotator.rounds.batch import AUDIT
from annotator.rounds.queueing import refill_queue
from store import acceptances, annotations, labels, queue, rounds, utterances
from store.acceptances import SPOT_CHECK
from store.annotations import Annotation, Kind, NewAnnotation, Withheld
from store.database import immediate
from store.queue import Leased, QueueEntry
from store.utterances import Turn, Utterance

AHEAD = 10  # utterances reserved for an annotator, so that the next ones are loaded in advance


@dataclass(frozen=True)
class Suggestion:
    """Calibrated probabilities by label id, likeliest first."""

    probabilities: tuple[tuple[int, float], ...]
    round_number: int
    shortlist: tuple[int, ...] = ()  # prediction set (label ids) of a large codebook; else empty

    @property
    def best(self) -> tuple[int, float]:
        """The likeliest label and its probability."""
        return self.probabilities[0]


@dataclass(frozen=True)
class Answer:
    """An annotator's answer."""

    kind: Kind
    label_id: int | None = None
    unsure: bool = False
    comment: str = ""
    milliseconds: int | None = None


@dataclass(frozen=True)
class Question:
    """One utterance as it is shown to an annotator, with the queue entry that selected it."""

    utterance: Utterance
    turns_before: tuple[Turn, ...]
    entry: Leased
    suggestion: Suggestion | None  # shown with the question
    kept_back: Suggestion | None = None  # the suggestion that was withheld
    withheld: Withheld = ""
    seen: int = 0  # id of the last annotation when the question was read; later ones are unknown to the annotator
    draft: Answer | None = None  # the annotator's last answer, if it was undone

    @property
    def is_audit(self) -> bool:
        """Whether the utterance is in the audit sample. Such a question never shows a suggestion."""
        return self.utterance.slice == AUDIT

    @property
    def is_ahead(self) -> bool:
        """Whether the utterance was chosen between rounds, from the latest answers."""
        return self.entry.chosen_after is not None

    @property
    def reason(self) -> str:
        """The reason for asking, a sentence that is translated when it is shown."""
        if self.entry.strategy == SPOT_CHECK:
            return later("Spot check: drawn at random from the auto-accepted utterances. It shows no suggestion.")
        if self.is_audit:
            return later(
                "Audit utterance: drawn at random to measure the model. It shows no suggestion, so that your "
                "answer is independent."
            )
        known = STRATEGIES.get(self.entry.strategy)
        return known.reason if known else self.entry.strategy


def next_question(project: Project, annotator: str) -> Question | None:
    """Return the next question, drawing a new batch if needed; None if nothing is left to ask."""
    with immediate(project.db):
        return next(iter(questions(project, annotator, lease(project, annotator)[:1])), None)


def lease(project: Project, annotator: str) -> list[Leased]:
    """Reserve the next utterances for an annotator, drawing a new batch if needed; empty if nothing is left."""
    leased = queue.lease(project.db, annotator, AHEAD)
    if not leased and refill_queue(project, annotator):
        leased = queue.lease(project.db, annotator, AHEAD)
    return leased


def questions(
    project: Project, annotator: str, entries: Sequence[Leased], preferences: Preferences | None = None
) -> list[Question]:
    """Return the questions for these leased utterances. Call in the transaction that leased them."""
    config, preferences = project.config, preferences or Preferences()
    rows = utterances.read(project.db, [entry.utterance_id for entry in entries])
    asked = list(zip(rows, entries, strict=True))
    open_ones = [row.id for row, entry in asked if config.show_suggestions and not _is_blind(row, entry)]
    known = _suggestions(project, open_ones)
    drafts = annotations.taken_back(project.db, annotator, [row.id for row in rows])
    seen = annotations.last_id(project.db)
    return [
        replace(
            _question(project, annotator, (row, entry, known.get(row.id)), preferences, config),
            seen=seen,
            draft=_draft(drafts.get(row.id)),
        )
        for row, entry in asked
    ]


def _draft(undone: Annotation | None) -> Answer | None:
    if undone is None:
        return None
    return Answer(undone.kind, undone.label_id, bool(undone.unsure), undone.comment, undone.milliseconds)


def _is_blind(row: Utterance, entry: Leased) -> bool:
    return row.slice == AUDIT or entry.strategy == SPOT_CHECK


def _question(
    project: Project,
    annotator: str,
    found: tuple[Utterance, Leased, Suggestion | None],
    preferences: Preferences,
    config: RoundConfig,
) -> Question:
    row, entry, suggestion = found
    turns = config.context_turns if preferences.turns is None else preferences.turns  # default: the model's context
    before = tuple(utterances.turns_before(project.db, row, turns))
    if suggestion is None:
        return Question(row, before, entry, None)
    if not preferences.suggestions:
        return Question(row, before, entry, None, suggestion, "choice")
    if _by_chance(config, row.id, annotator):
        return Question(row, before, entry, None, suggestion, "chance")
    return Question(row, before, entry, suggestion)


def _by_chance(config: RoundConfig, utterance_id: int, annotator: str) -> bool:
    """Draw whether a suggestion is withheld. The draw is deterministic, so that no reload reveals the suggestion."""
    digest = blake2b(f"{config.seed} {utterance_id} {annotator}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < config.withheld_share * 2**64


def _suggestions(project: Project, ids: Sequence[int]) -> dict[int, Suggestion]:
    """Return the suggestions of the round in use, by utterance id; utterances without one are left out."""
    promoted = rounds.promoted(project.db)
    if promoted is None or not ids:
        return {}
    known = rounds.predictions_of(project.db, promoted, ids)
    if len(known.unknown) == len(known.label_ids):
        return {}
    metrics = Metrics.from_dict(promoted.metrics)
    limit = metrics.shortlist_limit if metrics else None
    found = {}
    for utterance_id, row in zip(known.utterance_ids.tolist(), known.probabilities, strict=True):
        if not np.isfinite(row).all():  # stored by an earlier version
            continue
        pairs = [pair for pair in zip(known.label_ids, row.tolist(), strict=True) if pair[0] not in known.unknown]
        columns = shortlist(row, limit) if limit is not None and len(row) > LARGE else []
        short = tuple(known.label_ids[column] for column in columns)
        likeliest = tuple(sorted(pairs, key=lambda pair: -pair[1]))
        found[utterance_id] = Suggestion(likeliest, promoted.number, short)
    return found


def answer(project: Project, question: Question, annotator: str, said: Answer) -> int:
    """Store an answer with the reason for asking and return its id. It is on disk when this returns.

    Raises AnswerRefused if the utterance has been answered since it was shown, or is now reserved for someone else.
    """
    entry, shown, kept = question.entry, question.suggestion, question.kept_back
    new = NewAnnotation(
        utterance_id=question.utterance.id,
        annotator=annotator,
        kind=said.kind,
        label_id=said.label_id,
        strategy=entry.strategy,
        codebook_version=labels.version(project.db),
        unsure=said.unsure,
        comment=said.comment,
        round_id=entry.round_id,
        propensity=entry.propensity,
        pool_size=entry.pool_size,
        suggested_label_id=shown.best[0] if shown else None,
        suggested_probability=shown.best[1] if shown else None,
        withheld=question.withheld,
        withheld_label_id=kept.best[0] if kept else None,
        withheld_probability=kept.best[1] if kept else None,
        milliseconds=said.milliseconds,
        chosen_after=entry.chosen_after,
    )
    with immediate(project.db):
        _check_unchanged(project, question, annotator)
        given = annotations.record(project.db, new)
        if entry.strategy == SPOT_CHECK:
            withdraw_broken(project)
    return given


def _check_unchanged(project: Project, question: Question, annotator: str) -> None:
    """Raise AnswerRefused if the utterance was answered since it was shown, or is reserved for someone else."""
    asked = question.utterance.id
    since = annotations.answered_since(project.db, asked, annotator, question.seen)
    if since is None:
        holder = queue.holder(project.db, asked)
        if holder is not None and holder != annotator:
            raise AnswerRefused(
                Message(
                    "“{holder}” now has this utterance on screen because it was not answered for ten minutes.",
                    holder=holder,
                ),
                "Your answer was not stored. Continue with the next utterance.",
            )
        return
    if since.annotator != annotator:
        raise AnswerRefused(
            Message("“{annotator}” has answered this utterance in the meantime.", annotator=since.annotator),
            "Your answer was not stored. Continue with the next utterance.",
        )
    if since.kind == "skip":
        raise AnswerRefused("You already skipped this utterance in another window.", "Undo there to change it.")
    if since.said_label_id is None:
        raise AnswerRefused(
            "You already answered this utterance in another window: none fits.", "Undo there to change it."
        )
    name = labels.names(project.db)[since.said_label_id]
    raise AnswerRefused(
        Message("You already answered this utterance in another window as “{name}”.", name=name),
        "Undo there to change it.",
    )


def undo(project: Project, annotator: str) -> bool:
    """Undo the annotator's last answer and queue its utterance first; return False if there is none."""
    with immediate(project.db):
        last = annotations.undo(project.db, annotator)
        if last is None:
            return False
        why = last.strategy, None, last.propensity, last.pool_size or 0, last.chosen_after
        entry = QueueEntry(last.utterance_id, *why)
        queue.put_first(project.db, last.round_id, entry, annotator)
    return True


def ask_skipped_again(project: Project, annotator: str) -> int:
    """Undo the annotator's skips of unanswered utterances; return their number."""
    return annotations.undo_skips(project.db, annotator)


@dataclass(frozen=True)
class Rest:
    """Counts of utterances with neither an answer nor an accepted suggestion, for one annotator."""

    skipped: int  # by the annotator, who is not asked again
    with_others: int  # reserved for others, and not skipped by the annotator
    to_ask: int  # available to the annotator


def rest(project: Project, annotator: str) -> Rest:
    """Count the open utterances. If all three counts are 0, every utterance has an answer."""
    slices = [utterances.ids_in(project.db, name) for name in ("pool", AUDIT)]
    done = annotations.answered_ids(project.db) | acceptances.standing_ids(project.db)
    left = {i for ids in slices for i in ids} - done
    skipped = left & annotations.skipped_ids(project.db, annotator)
    others = (left - skipped) & queue.leased_ids(project.db, but=annotator)
    return Rest(len(skipped), len(others), len(left) - len(skipped) - len(others))


@dataclass(frozen=True)
class Standing:
    """Progress of a project."""

    labeled: int  # utterances with an answer or an accepted suggestion
    to_label: int  # utterances to label in total
    batch_left: int
    batch_size: int
    kinds: Mapping[str, int]  # this annotator's answers by kind


def standing(project: Project, annotator: str) -> Standing:
    """Return the progress of the project and of an annotator's batch."""
    slices = utterances.count_slices(project.db)
    return Standing(
        labeled=annotations.count_answered(project.db) + acceptances.count_standing(project.db),
        to_label=slices["pool"] + slices[AUDIT],
        batch_left=queue.count_open(project.db, annotator),
        batch_size=queue.size(project.db),
        kinds=annotations.counts(project.db, annotator),
    )
