"""Review: which utterances need a second look, what is laid side by side there, and how a case is settled.

A queue is a name and a function that finds its utterances; to have another, add it to QUEUES. Utterances that measure
the model never come here because the model disagrees, and nothing shows there what it says of them: to look again
only where it differs would raise the very accuracy it is measured by.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotator.codebook.history import describe
from annotator.errors import AnswerRefused
from annotator.i18n import later, say
from annotator.methods.query_strategies import STRATEGIES
from annotator.project import Project
from annotator.rounds.batch import AUDIT
from annotator.rounds.candidates import candidates
from annotator.rounds.consensus import consensus
from annotator.rounds.label_errors import recent_doubts
from annotator.rounds.statuses import people_differ
from annotator.rounds.summaries import likeliest, round_before
from store import annotations, labels, rounds, settings, utterances
from store.annotations import ADJUDICATED, Kind, NewAnnotation
from store.database import immediate

AGAIN = 0.2  # of the answers: four slips in five are among them on TREC and SNIPS (benchmarks/mistakes.py)
STRANGEST = 20  # utterances: what a person looks through to find out whether a label is missing


@dataclass(frozen=True)
class Queue:
    """Utterances that need a second look for the same reason, the most pressing first."""

    name: str
    shown: str
    about: str
    empty: str
    find: Callable[[Project], list[int]]
    tell: Callable[[Project], str] = lambda _: ""  # what is known of the queue as a whole


@dataclass(frozen=True)
class Case:
    """One utterance with all that was said of it."""

    utterance: Mapping[str, Any]
    turns_before: tuple[Mapping[str, Any], ...]
    answers: tuple[Mapping[str, Any], ...]  # standing ones, oldest first; those out of use too, without skips
    suggestion: tuple[int, float] | None  # the likeliest label and its probability; None where it must not be shown
    notes: tuple[str, ...]  # what has happened, in sentences

    @property
    def named(self) -> frozenset[int]:
        """The labels that somebody, or the model where it may, has given."""
        said = {answer["label_id"] for answer in self.answers if answer["label_id"] is not None}
        return frozenset(said | ({self.suggestion[0]} if self.suggestion else set()))


def disagreements(project: Project) -> list[int]:
    """Find the utterances of which people say different things, and which nobody has settled."""
    adjudicated = annotations.adjudicated_ids(project.db)
    return [i for i in people_differ(project) if i not in adjudicated]


def against_model(project: Project) -> list[int]:
    """Find answered utterances of the pool for which the round in use finds another label likeliest, surest first.

    It had scored them before they were answered and has not learned from them. None before it has learned anything.
    """
    row = rounds.promoted(project.db)
    if row is None or row["trained_on"] == 0:
        return []
    said, audit = likeliest(project, row), set(utterances.ids_in(project.db, AUDIT))
    asked = (said.keys() & annotations.answered_ids(project.db)) - audit - annotations.adjudicated_ids(project.db)
    agreed = consensus(annotations.answers_to(project.db, asked))
    against = [i for i, label in agreed.items() if said[i][0] != label]
    return sorted(against, key=lambda i: (-said[i][1], i))


def flips(project: Project) -> list[int]:
    """Find open utterances whose likeliest label changed from one round that had learned to the next, surest first."""
    row = rounds.promoted(project.db)
    older = round_before(project, row) if row else None
    if row is None or older is None or older["trained_on"] == 0:
        return []
    was, now = likeliest(project, older), likeliest(project, row)
    changed = [i for i in candidates(project, None).pool if i in was and i in now and was[i][0] != now[i][0]]
    return sorted(changed, key=lambda i: (-now[i][1], i))


def to_label_again(project: Project) -> list[int]:
    """Find the utterances whose answers a change of the codebook calls into question, the oldest answer first."""
    return list(dict.fromkeys(row["utterance_id"] for row in _in_question(project)))


def slips(project: Project) -> list[int]:
    """Find the answers that a model which has not seen them finds least likely, and that nobody has settled."""
    adjudicated = annotations.adjudicated_ids(project.db)
    return [i for i in recent_doubts(project).first(AGAIN) if i not in adjudicated]


def strangers(project: Project) -> list[int]:
    """Find open utterances of which no label is likely and to which nothing answered is alike, the strangest first."""
    row, strategy = rounds.promoted(project.db), STRATEGIES["none_fits"]
    found = candidates(project, rounds.predictions_of(project.db, row)) if row else None
    if found is None or found.view is None or not strategy.can(found.view):
        return []
    first = np.argsort(-strategy.score(found.view), kind="stable")[:STRANGEST]
    return [found.pool[place] for place in first]


def expected_slips(project: Project) -> str:
    """Say how many slips there may be."""
    found = recent_doubts(project)
    n = len(found.chances)
    return (
        "" if found.wrong is None else say("Of {n:,} answers about {wrong:,.0f} may be wrong.", n=n, wrong=found.wrong)
    )


def _in_question(project: Project, utterance_id: int | None = None) -> list[dict[str, Any]]:
    return annotations.to_look_at(project.db, settings.get(project.db, "none_fits_since", 0), utterance_id)


QUEUES = {
    queue.name: queue
    for queue in (
        Queue(
            "disagreements",
            later("People disagree"),
            later("Two people have answered differently."),
            later("Nobody disagrees with anybody. This needs utterances that two people have answered."),
            disagreements,
        ),
        Queue(
            "codebook",
            later("Codebook changed"),
            later("The label that was given has been changed since."),
            later("Every answer fits the codebook as it is."),
            to_label_again,
        ),
        Queue(
            "model",
            later("Against the model"),
            later(
                "The model, which has not learned from this answer, finds another label likelier. One of the two is "
                "wrong."
            ),
            later("The model agrees with every answer given since its last round, or has learned nothing yet."),
            against_model,
        ),
        Queue(
            "slips",
            later("Check again"),
            later(
                "A model that has not seen this answer finds it least likely. It may be a slip, or an odd utterance."
            ),
            later("There are too few answers to judge one another, or all of these have been looked at."),
            slips,
            expected_slips,
        ),
        Queue(
            "flips",
            later("Changed its mind"),
            later("The last round finds another label likeliest than the one before. Nobody has answered yet."),
            later("The last round has changed its mind about no open utterance."),
            flips,
        ),
        Queue(
            "strangers",
            later("No label yet?"),
            later("The model is sure of no label here, and nothing like it has been answered. Is a label missing?"),
            later("This needs a round that has learned from answers."),
            strangers,
        ),
    )
}


def case(project: Project, utterance_id: int) -> Case:
    """Lay side by side what is known of an utterance."""
    (row,) = utterances.read(project.db, [utterance_id])
    before = utterances.turns_before(project.db, row, project.config.context_turns)
    given = [answer for answer in annotations.answers_to(project.db, [utterance_id]) if answer["kind"] != "skip"]
    shown = row["slice"] != AUDIT
    return Case(
        row,
        tuple(before),
        tuple(given),
        _said_by_model(project, utterance_id) if shown else None,
        (*_changes(project, utterance_id), *(() if given or not shown else _flip(project, utterance_id))),
    )


def _said_by_model(project: Project, utterance_id: int) -> tuple[int, float] | None:
    row = rounds.promoted(project.db)
    said = rounds.predictions_of(project.db, row, [utterance_id]) if row else None
    if said is None or not len(said.utterance_ids):
        return None
    best = int(np.argmax(said.probabilities[0]))
    return said.label_ids[best], float(said.probabilities[0, best])


def _changes(project: Project, utterance_id: int) -> list[str]:
    """Tell which changes of the codebook call this utterance's answers into question."""
    since = {row["since"] for row in _in_question(project, utterance_id)}
    names = labels.names(project.db)
    events = [event for event in labels.events(project.db) if event.version in since]
    return [say("{change} by {author}.", change=describe(e, names), author=e.author) for e in events]


def _flip(project: Project, utterance_id: int) -> list[str]:
    row = rounds.promoted(project.db)
    older = round_before(project, row) if row else None
    if older is None:
        return []
    said = rounds.predictions_of(project.db, older, [utterance_id])
    if not len(said.utterance_ids):
        return []
    best, names = int(np.argmax(said.probabilities[0])), labels.names(project.db)
    share, label = float(said.probabilities[0, best]), names[said.label_ids[best]]
    return [say("Round {n} said “{label}”, {share:.0%}.", n=older["number"], label=label, share=share)]


def settle(project: Project, adjudicated: Case, annotator: str, kind: Kind, label_id: int | None = None) -> int:
    """Store what a person decides who has seen the case, and return its id. It wins over all votes.

    Raises AnswerRefused if somebody has settled it since it was shown.
    """
    shown = adjudicated.suggestion or (None, None)
    new = NewAnnotation(
        utterance_id=adjudicated.utterance["id"],
        annotator=annotator,
        kind=kind,
        label_id=label_id,
        strategy=ADJUDICATED,
        codebook_version=labels.version(project.db),
        suggested_label_id=shown[0],
        suggested_probability=shown[1],
    )
    with immediate(project.db):
        _check_unsettled(project, adjudicated)
        return annotations.record(project.db, new)


def _check_unsettled(project: Project, shown: Case) -> None:
    known = {answer["id"] for answer in shown.answers}
    for answer in annotations.answers_to(project.db, [shown.utterance["id"]]):
        if answer["strategy"] == ADJUDICATED and answer["kind"] != "out_of_use" and answer["id"] not in known:
            raise AnswerRefused(f"“{answer['annotator']}” has settled this meanwhile.", "Your decision was not stored.")


def take_back(project: Project, annotator: str) -> int | None:
    """Take back the last case this person settled; return its utterance, None if there is none."""
    last = annotations.undo(project.db, annotator, adjudicated=True)
    return last["utterance_id"] if last else None
