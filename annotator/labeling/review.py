"""Review: lists of utterances that need a second look, the case view, and adjudication.

A review queue is a name and a function that finds its utterances; add new ones to QUEUES. Audit utterances are never
listed because the model disagrees, and their predictions are never shown: correcting only the answers that differ
from the prediction would inflate the measured accuracy.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from annotator.codebook.history import describe
from annotator.errors import AnswerRefused, Message
from annotator.i18n import later, say
from annotator.methods.query_strategies import STRATEGIES
from annotator.project import Project
from annotator.rounds.batch import AUDIT
from annotator.rounds.candidates import candidates
from annotator.rounds.consensus import consensus
from annotator.rounds.label_errors import recent_label_errors
from annotator.rounds.statuses import people_differ
from annotator.rounds.summaries import likeliest, round_before
from store import annotations, labels, questions, rounds, utterances
from store.annotations import ADJUDICATED, Answer, Kind, NewAnnotation, OutdatedAnswer
from store.database import immediate
from store.utterances import Turn, Utterance

SUSPECT_SHARE = 0.2  # of the answers; contains four label errors in five on TREC and SNIPS (benchmarks/mistakes.py)
MOST_UNUSUAL = 20  # utterances to look through to find out whether a label is missing


@dataclass(frozen=True)
class Queue:
    """Utterances that need review for the same reason, most urgent first."""

    name: str
    shown: str
    about: str
    empty: str
    find: Callable[[Project], list[int]]
    summarize: Callable[[Project], str] = lambda _: ""  # a sentence about the queue as a whole


@dataclass(frozen=True)
class Case:
    """One utterance with its answers, its prediction and what happened to it."""

    utterance: Utterance
    turns_before: tuple[Turn, ...]
    answers: tuple[Answer, ...]  # standing ones, oldest first; includes retired labels, without skips
    suggestion: tuple[int, float] | None  # likeliest label and its probability; None if it must not be shown
    notes: tuple[str, ...]  # sentences on what has happened

    @property
    def named(self) -> frozenset[int]:
        """Ids of the labels given by people or, if it may be shown, predicted."""
        given = {answer.label_id for answer in self.answers if answer.label_id is not None}
        return frozenset(given | ({self.suggestion[0]} if self.suggestion else set()))


def disagreements(project: Project) -> list[int]:
    """Return the utterances with differing answers that have not been adjudicated."""
    adjudicated = annotations.adjudicated_ids(project.db)
    return [i for i in people_differ(project) if i not in adjudicated]


def against_model(project: Project) -> list[int]:
    """Return answered utterances for which the round in use predicts another label, highest probability first.

    The round scored them before they were answered and was not trained on them. Empty before the first trained round.
    """
    row = rounds.promoted(project.db)
    if row is None or row.trained_on == 0:
        return []
    predicted, audit = likeliest(project, row), set(utterances.ids_in(project.db, AUDIT))
    answered = (
        (predicted.keys() & annotations.answered_ids(project.db)) - audit - annotations.adjudicated_ids(project.db)
    )
    agreed = consensus(annotations.answers_to(project.db, answered))
    against = [i for i, label in agreed.items() if predicted[i][0] != label]
    return sorted(against, key=lambda i: (-predicted[i][1], i))


def flips(project: Project) -> list[int]:
    """Return open utterances whose prediction changed between trained rounds, highest probability first."""
    row = rounds.promoted(project.db)
    older = round_before(project, row) if row else None
    if row is None or older is None or older.trained_on == 0:
        return []
    was, now = likeliest(project, older), likeliest(project, row)
    changed = [i for i in candidates(project, None).pool if i in was and i in now and was[i][0] != now[i][0]]
    return sorted(changed, key=lambda i: (-now[i][1], i))


def to_label_again(project: Project) -> list[int]:
    """Return the utterances whose answers a codebook change calls into question, oldest answer first."""
    return list(dict.fromkeys(one.utterance_id for one in _in_question(project)))


def label_errors(project: Project) -> list[int]:
    """Return the utterances whose answers are least likely under a model trained without them, unless adjudicated."""
    adjudicated = annotations.adjudicated_ids(project.db)
    return [i for i in recent_label_errors(project).first(SUSPECT_SHARE) if i not in adjudicated]


def missing_labels(project: Project) -> list[int]:
    """Return open utterances with no probable label and no similar answered utterance, most unusual first."""
    row, strategy = rounds.promoted(project.db), STRATEGIES["none_fits"]
    found = candidates(project, rounds.predictions_of(project.db, row)) if row else None
    if found is None or found.view is None or not strategy.can(found.view):
        return []
    first = np.argsort(-strategy.score(found.view), kind="stable")[:MOST_UNUSUAL]
    return [found.pool[place] for place in first]


def expected_errors(project: Project) -> str:
    """Return a sentence with the expected number of label errors; empty if it is unknown."""
    found = recent_label_errors(project)
    n = len(found.probabilities)
    return (
        ""
        if found.expected_wrong is None
        else say("About {wrong:,.0f} of {n:,} answers may be wrong.", n=n, wrong=found.expected_wrong)
    )


def _in_question(project: Project, utterance_id: int | None = None) -> list[OutdatedAnswer]:
    return annotations.to_look_at(project.db, questions.read(project.db).none_fits_since, utterance_id)


QUEUES = {
    queue.name: queue
    for queue in (
        Queue(
            "disagreements",
            later("People disagree"),
            later("People gave different answers."),
            later("No disagreements yet. They can only occur where two people have answered the same utterance."),
            disagreements,
        ),
        Queue(
            "codebook",
            later("Codebook changed"),
            later("The label has been changed since the answer was given."),
            later("All answers match the current codebook."),
            to_label_again,
        ),
        Queue(
            "model",
            later("Against the model"),
            later("The model, which was not trained on this answer, predicts another label. One of the two is wrong."),
            later("The model agrees with every answer given since the last round, or has not been trained yet."),
            against_model,
        ),
        Queue(
            "slips",
            later("Label errors"),
            later(
                "A model trained without this answer gives it a low probability. It may be an error or an "
                "unusual utterance."
            ),
            later("There are too few answers to look for errors, or all suspected errors have been reviewed."),
            label_errors,
            expected_errors,
        ),
        Queue(
            "flips",
            later("Prediction changed"),
            later("The last round predicts another label than the round before. No one has answered yet."),
            later("The last round changed no prediction for an open utterance."),
            flips,
        ),
        Queue(
            "strangers",
            later("Missing label?"),
            later(
                "No label is probable here, and no similar utterance has been answered. The codebook may lack a label."
            ),
            later("This list needs a round that was trained on answers."),
            missing_labels,
        ),
    )
}


def case(project: Project, utterance_id: int) -> Case:
    """Return the case of an utterance."""
    (row,) = utterances.read(project.db, [utterance_id])
    before = utterances.turns_before(project.db, row, project.config.context_turns)
    given = [answer for answer in annotations.answers_to(project.db, [utterance_id]) if answer.kind != "skip"]
    shown = row.slice != AUDIT
    return Case(
        row,
        tuple(before),
        tuple(given),
        _prediction(project, utterance_id) if shown else None,
        (*_changes(project, utterance_id), *(() if given or not shown else _flip(project, utterance_id))),
    )


def _prediction(project: Project, utterance_id: int) -> tuple[int, float] | None:
    row = rounds.promoted(project.db)
    predictions = rounds.predictions_of(project.db, row, [utterance_id]) if row else None
    if predictions is None or not len(predictions.utterance_ids):
        return None
    best = int(np.argmax(predictions.probabilities[0]))
    return predictions.label_ids[best], float(predictions.probabilities[0, best])


def _changes(project: Project, utterance_id: int) -> list[str]:
    """Describe the codebook changes that call this utterance's answers into question."""
    since = {one.since for one in _in_question(project, utterance_id)}
    names = labels.names(project.db)
    events = [event for event in labels.events(project.db) if event.version in since]
    return [say("{change} by {author}.", change=describe(e, names), author=e.author) for e in events]


def _flip(project: Project, utterance_id: int) -> list[str]:
    row = rounds.promoted(project.db)
    older = round_before(project, row) if row else None
    if older is None:
        return []
    predictions = rounds.predictions_of(project.db, older, [utterance_id])
    if not len(predictions.utterance_ids):
        return []
    best, names = int(np.argmax(predictions.probabilities[0])), labels.names(project.db)
    share, label = float(predictions.probabilities[0, best]), names[predictions.label_ids[best]]
    return [say("Round {n} predicted “{label}” ({share:.0%}).", n=older.number, label=label, share=share)]


def adjudicate(project: Project, shown: Case, annotator: str, kind: Kind, label_id: int | None = None) -> int:
    """Store the adjudicated answer to a case and return its id. It outweighs all other answers.

    Raises AnswerRefused if someone has adjudicated the case since it was shown.
    """
    suggested = shown.suggestion or (None, None)
    new = NewAnnotation(
        utterance_id=shown.utterance.id,
        annotator=annotator,
        kind=kind,
        label_id=label_id,
        strategy=ADJUDICATED,
        codebook_version=labels.version(project.db),
        suggested_label_id=suggested[0],
        suggested_probability=suggested[1],
    )
    with immediate(project.db):
        _check_undecided(project, shown)
        return annotations.record(project.db, new)


def _check_undecided(project: Project, shown: Case) -> None:
    known = {answer.id for answer in shown.answers}
    for answer in annotations.answers_to(project.db, [shown.utterance.id]):
        if answer.strategy == ADJUDICATED and answer.kind != "out_of_use" and answer.id not in known:
            raise AnswerRefused(
                Message("“{annotator}” has already decided this case.", annotator=answer.annotator),
                "Your decision was not stored.",
            )


def take_back(project: Project, annotator: str) -> int | None:
    """Undo the annotator's last adjudication; return the id of its utterance, or None if there is none."""
    last = annotations.undo(project.db, annotator, adjudicated=True)
    return last.utterance_id if last else None
