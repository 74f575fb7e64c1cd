"""Auto-accept: compute an offer, accept it, undo it, and withdraw it when spot checks contradict the guarantee."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import trim_mean

from annotator.codebook.definition import codebook_of
from annotator.errors import Message, RoundError
from annotator.methods.calibration import Calibrator
from annotator.methods.guarantee import (
    WITHDRAWN_AT,
    Evidence,
    Guarantee,
    NotYet,
    Target,
    accepted,
    certify,
    certify_labels,
    evidence_against,
)
from annotator.methods.metrics import Labels
from annotator.project import Project
from annotator.rounds.batch import AUDIT
from annotator.rounds.candidates import candidates
from annotator.rounds.consensus import consensus
from annotator.rounds.queueing import refill_queue
from model.finite import check_finite
from store import acceptances, annotations, queue, rounds, utterances
from store.acceptances import NewAcceptance
from store.annotations import Answer
from store.database import immediate
from store.rounds import Round

PACE = 12.0  # seconds per answer, assumed until answers have been timed


@dataclass(frozen=True)
class Offer:
    """Guarantees from the round in use, and the suggestions they allow to accept."""

    round_id: int
    target: Target
    guarantees: Mapping[int, Guarantee | NotYet]  # by label id; key 0 for one threshold for all labels
    utterance_ids: Labels  # (m,) open utterances outside the audit sample
    label_ids: Labels  # (m,) the label each would get; 0 for none
    probabilities: Mapping[int, float]  # of the likeliest label, by utterance id
    hours: float  # of annotation work saved, at the pace of the answers so far
    stale: bool = False  # the codebook has changed since the round, so nothing can be accepted until the next

    @property
    def accepts(self) -> int:
        """Number of utterances that would be accepted."""
        return int((self.label_ids > 0).sum())


def evidence_of(project: Project, row: Round, answers: Sequence[Answer] | None = None) -> tuple[Evidence, Labels]:
    """Return a round's probabilities for audit answers and open utterances, and the (m,) ids of the latter.

    The truth is -1, so that any suggestion is wrong, for an audit utterance answered with “none fits” or with a label
    that the round did not predict. Utterances without a consensus are left out. Raises NotFinite.
    """
    predictions = rounds.predictions_of(project.db, row)
    check_finite("probabilities", predictions.probabilities)
    order = {label: column for column, label in enumerate(predictions.label_ids)}
    in_audit = set(utterances.ids_in(project.db, AUDIT))
    agreed = consensus(annotations.answers(project.db) if answers is None else answers)
    truth = {i: -1 if label is None else order.get(label, -1) for i, label in agreed.items()}
    ids = predictions.utterance_ids
    audited = np.array([i in in_audit and i in truth for i in ids.tolist()], dtype=bool)
    is_open = np.isin(ids, list(candidates(project, None).pool))
    right = np.array([truth[i] for i in ids[audited].tolist()], dtype=np.int64)
    spread = Calibrator.from_dict(row.calibration).spread
    return Evidence(predictions.probabilities[audited], right, predictions.probabilities[is_open], spread), ids[is_open]


def offer(project: Project, target: Target, per_label: bool = False, answers: Sequence[Answer] | None = None) -> Offer:
    """Return the suggestions that can be accepted at the target precision. Raises RoundError before the first round."""
    row = rounds.promoted(project.db)
    if row is None:
        raise RoundError("There is no finished round with suggestions to accept.", "Retrain first.")
    evidence, ids = evidence_of(project, row, answers)
    if row.metrics.get("cross_fitted"):  # in earlier versions: not measured on the adapter that suggests
        evidence = replace(evidence, audit=evidence.audit[:0], truth=evidence.truth[:0])
    label_ids = np.array([0, *codebook_of(project).ids])
    if per_label:
        found = certify_labels(evidence, target)
        made = {column: one for column, one in found.items() if isinstance(one, Guarantee)}
        columns = accepted(evidence.pool, made)
        guarantees = {int(label_ids[column + 1]): one for column, one in found.items()}
    else:
        single = certify(evidence, target)
        columns = accepted(evidence.pool, single if isinstance(single, Guarantee) else {})
        guarantees = {0: single}
    best = dict(zip(ids.tolist(), evidence.pool_confidence.tolist(), strict=True))
    taken = label_ids[columns + 1]
    stale = not rounds.is_current(project.db, row)
    return Offer(
        row.id, target, guarantees, ids, taken, best, int((taken > 0).sum()) * pace(project, answers) / 3600, stale
    )


def pace(project: Project, answers: Sequence[Answer] | None = None) -> float:
    """Return the mean answering time in seconds, trimmed by a tenth at either end.

    Trimming removes pauses; a median would also discount the utterances that take longer to decide.
    """
    answers = annotations.answers(project.db) if answers is None else answers
    taken = [a.milliseconds for a in answers if a.milliseconds is not None]
    return float(trim_mean(taken, 0.1)) / 1000 if taken else PACE


def accept(project: Project, annotator: str, target: Target, per_label: bool = False) -> int:
    """Accept all suggestions above the certified threshold in one act, and return the id of the act.

    Raises RoundError if nothing can be certified or the codebook has changed since the round.
    """
    with immediate(project.db):
        made = offer(project, target, per_label)
        if not made.accepts:
            raise RoundError(
                Message(
                    "No suggestions can be accepted at a precision of {precision:.0%}.", precision=target.precision
                ),
                "Answer more audit utterances.",
            )
        if made.stale:
            raise RoundError("The codebook has changed since this round was made.", "Retrain first, then accept.")
        guarantee = {label: _stored(one) for label, one in made.guarantees.items() if isinstance(one, Guarantee)}
        pairs = zip(made.utterance_ids.tolist(), made.label_ids.tolist(), strict=True)
        labels = {i: (label, made.probabilities[i]) for i, label in pairs if label}
        version = codebook_of(project).version
        new = NewAcceptance(
            made.round_id, annotator, target.precision, target.confidence, json.dumps(guarantee), version
        )
        done = acceptances.accept(project.db, new, labels)
        queue.drop(project.db, labels)
        refill_queue(project, annotator)
    return done


def _stored(guarantee: Guarantee) -> dict[str, float]:
    """Return the stored form of a guarantee: the threshold and the audit answers above it."""
    return {
        "threshold": guarantee.threshold,
        "n": guarantee.n,
        "errors": guarantee.errors,
        "at_least": guarantee.at_least,
    }


def take_back(project: Project, acceptance_id: int, annotator: str) -> bool:
    """Undo an acceptance and reopen its utterances; return False if it had already ended."""
    with immediate(project.db):
        ended = acceptances.end(
            project.db, acceptance_id, "undone", Message("undone by {annotator}", annotator=annotator)
        )
        if ended:
            refill_queue(project, annotator)
    return ended


def withdraw_broken(project: Project) -> list[int]:
    """Withdraw every acceptance whose spot checks contradict its guarantee, and return their ids."""
    withdrawn = []
    for one in acceptances.history(project.db):
        if one.ended:
            continue
        odds = evidence_against(one.checks, one.errors, one.target)
        if not odds < WITHDRAWN_AT:
            reason = Message(
                "{errors} of {checks} spot checks contradicted the suggestion",
                errors=one.errors,
                checks=one.checks,
            )
            if acceptances.end(project.db, one.id, "withdrawn", reason):
                withdrawn.append(one.id)
    return withdrawn
