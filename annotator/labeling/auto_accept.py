"""Accepting suggestions unseen: the offer, the act, its undoing, and the spot checks that may withdraw it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import trim_mean

from annotator.codebook.definition import codebook_of
from annotator.errors import RoundError
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
from store.database import immediate
from store.faults import CALIBRATION, METRICS, parsed

PACE = 12.0  # seconds an answer takes, as long as nobody has given one


@dataclass(frozen=True)
class Offer:
    """What the round in use can promise, and what would be accepted on it."""

    round: Mapping[str, Any]
    target: Target
    guarantees: Mapping[int, Guarantee | NotYet]  # by label id; under 0 where one threshold serves all labels
    utterance_ids: Labels  # (m,) open utterances of the pool
    label_ids: Labels  # (m,) what each would be accepted as; 0 for none
    probabilities: Mapping[int, float]  # of the likeliest label, by utterance
    hours: float  # of an expert's work that accepting saves, at the pace of the answers so far
    stale: bool = False  # the codebook has changed since the round: nothing can be accepted before the next

    @property
    def accepts(self) -> int:
        """How many utterances would be accepted."""
        return int((self.label_ids > 0).sum())


def evidence_of(project: Project, round_row: Mapping[str, Any]) -> tuple[Evidence, Labels]:
    """Collect a round's probabilities where answers are known and where suggestions are open; (m,) ids of the latter.

    An audit utterance for which people say that none fits, or a label that the round did not know, is one where any
    suggestion is wrong: its truth is -1. One on which they are divided is left out. Raises NotFinite.
    """
    known = rounds.predictions_of(project.db, round_row)
    check_finite("probabilities", known.probabilities)
    order = {label: column for column, label in enumerate(known.label_ids)}
    in_audit = set(utterances.ids_in(project.db, AUDIT))
    agreed = consensus(annotations.answers(project.db))
    truth = {i: -1 if label is None else order.get(label, -1) for i, label in agreed.items()}
    ids = known.utterance_ids
    asked = np.array([i in in_audit and i in truth for i in ids.tolist()], dtype=bool)
    is_open = np.isin(ids, list(candidates(project, None).pool))
    answers = np.array([truth[i] for i in ids[asked].tolist()], dtype=np.int64)
    spread = Calibrator.from_dict(parsed(round_row["calibration"], CALIBRATION)).spread
    return Evidence(known.probabilities[asked], answers, known.probabilities[is_open], spread), ids[is_open]


def offer(project: Project, target: Target, per_label: bool = False) -> Offer:
    """Say what may be accepted unseen at the wished precision. Raises RoundError before the first round."""
    row = rounds.promoted(project.db)
    if row is None:
        raise RoundError("There is no finished round with suggestions to accept.", "Retrain first.")
    evidence, ids = evidence_of(project, row)
    if parsed(row["metrics"], METRICS).get("cross_fitted"):  # measured on other adapters than the one that suggests
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
    best = dict(zip(ids.tolist(), evidence.open_sure.tolist(), strict=True))
    taken = label_ids[columns + 1]
    stale = not rounds.is_current(project.db, row)
    return Offer(row, target, guarantees, ids, taken, best, int((taken > 0).sum()) * pace(project) / 3600, stale)


def pace(project: Project) -> float:
    """Return the mean seconds from seeing an utterance to answering it, the slowest and quickest tenth left out.

    Pauses are among the slowest; a median would forget the utterances that take thought.
    """
    taken = [a["milliseconds"] for a in annotations.answers(project.db) if a["milliseconds"] is not None]
    return float(trim_mean(taken, 0.1)) / 1000 if taken else PACE


def accept(project: Project, annotator: str, target: Target, per_label: bool = False) -> int:
    """Accept all that can be promised, in one act, and return its id.

    Raises RoundError where nothing can be promised, or where the codebook has changed since the round.
    """
    with immediate(project.db):
        made = offer(project, target, per_label)
        if not made.accepts:
            raise RoundError(
                f"No suggestions can be accepted at a precision of {target.target:.0%}.",
                "Answer more audit utterances.",
            )
        if made.stale:
            raise RoundError("The codebook has changed since this round was made.", "Retrain first, then accept.")
        guarantee = {label: _stored(one) for label, one in made.guarantees.items() if isinstance(one, Guarantee)}
        pairs = zip(made.utterance_ids.tolist(), made.label_ids.tolist(), strict=True)
        labels = {i: (label, made.probabilities[i]) for i, label in pairs if label}
        version = codebook_of(project).version
        new = NewAcceptance(
            made.round["id"], annotator, target.target, target.confidence, json.dumps(guarantee), version
        )
        done = acceptances.accept(project.db, new, labels)
        queue.drop(project.db, labels)
        refill_queue(project, annotator)
    return done


def _stored(guarantee: Guarantee) -> dict[str, float]:
    """Return what is stored of a promise: the threshold, and the audit answers above it."""
    return {
        "threshold": guarantee.threshold,
        "n": guarantee.n,
        "errors": guarantee.errors,
        "at_least": guarantee.at_least,
    }


def take_back(project: Project, acceptance_id: int, annotator: str) -> bool:
    """Undo an acceptance as a whole: its utterances are open again. False if it had ended before."""
    with immediate(project.db):
        ended = acceptances.end(project.db, acceptance_id, "undone", f"undone by {annotator}")
        if ended:
            refill_queue(project, annotator)
    return ended


def withdraw_broken(project: Project) -> list[int]:
    """Withdraw every acceptance whose spot checks speak against its promise, and return their ids."""
    withdrawn = []
    for one in acceptances.history(project.db):
        if one["ended"]:
            continue
        odds = evidence_against(one["checks"], one["errors"], one["target"])
        if not odds < WITHDRAWN_AT:
            reason = f"{one['errors']} of {one['checks']} spot checks contradicted the suggestion"
            if acceptances.end(project.db, one["id"], "withdrawn", reason):
                withdrawn.append(one["id"])
    return withdrawn
