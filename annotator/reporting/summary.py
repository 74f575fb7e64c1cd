"""Compute the figures of the Insights page and the report, each with its n.

Figures of the model come from audit answers alone, which are a random sample. The one exception is
`queried_accuracy`, which describes the utterances a strategy chose and not the data.

`answers` are the rows of `annotations.answers`. Whoever needs several figures reads them once and passes them on;
without them each function reads its own.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import beta

from annotator.codebook.definition import codebook_of
from annotator.labeling.auto_accept import evidence_of, pace
from annotator.methods.anchoring import Pull, pull
from annotator.methods.calibration import Calibrator
from annotator.methods.guarantee import Evidence
from annotator.methods.metrics import TAILS, Array, Labels, Metrics, risk_coverage
from annotator.methods.query_strategies import CHOSEN
from annotator.project import Project
from annotator.rounds.batch import AUDIT
from annotator.rounds.consensus import Agreement, agreement, consensus, consensus_labels
from annotator.rounds.summaries import likeliest, round_before
from store import acceptances, annotations, labels, rounds, utterances
from store.annotations import ANSWERED, Answer
from store.rounds import Round

STEP = 25  # answers whose median time is taken together: about a batch
Answers = Sequence[Answer]  # those of `annotations.answers`, which a run reads once and passes on


@dataclass(frozen=True)
class InUse:
    """The round in use with its metrics and evidence, read once for all figures computed from it."""

    row: Round
    metrics: Metrics | None  # None with fewer than two audit answers
    label_ids: tuple[int, ...]  # columns of the arrays
    names: tuple[str, ...]
    evidence: Evidence
    open_ids: Labels  # (m,) utterances of the pool that are open and that the round has scored
    audit_left: int  # audit utterances without an answer

    @property
    def calibrator(self) -> Calibrator:
        """The calibrator fitted to the round's log-likelihoods."""
        return Calibrator.from_dict(self.row.calibration)


def in_use(project: Project, answers: Answers | None = None) -> InUse | None:
    """Read the round in use; None before the first."""
    row = rounds.promoted(project.db)
    if row is None:
        return None
    evidence, open_ids = evidence_of(project, row, answers)
    codebook = codebook_of(project)
    left = len(set(utterances.ids_in(project.db, AUDIT)) - annotations.answered_ids(project.db))
    return InUse(row, Metrics.from_dict(row.metrics), codebook.ids, codebook.names, evidence, open_ids, left)


# Quality of the rounds


@dataclass(frozen=True)
class Measured:
    """A promoted round and its metrics, None with fewer than two audit answers."""

    row: Round
    metrics: Metrics | None


def learning_curve(project: Project) -> list[Measured]:
    """Return every promoted round, oldest first."""
    return [Measured(row, Metrics.from_dict(row.metrics)) for row in reversed(rounds.finished(project.db))]


@dataclass(frozen=True)
class Coverage:
    """The `n` most confident predictions of audit answers: their share of all, and the share of them that is wrong."""

    coverage: float
    error: float
    low: float  # 95 % interval of the error, Clopper and Pearson
    high: float
    n: int


def coverage_curve(used: InUse) -> list[Coverage]:
    """Return the risk-coverage curve of the round in use, from the most confident prediction to all of them.

    Where several are equally confident, each counts with their mean error, so the number of errors need not be whole.
    """
    answers = len(used.evidence.truth)
    if not answers:
        return []
    risk = risk_coverage(used.evidence.audit, used.evidence.truth)
    taken = np.arange(1, answers + 1)
    wrong = risk * taken
    low = np.where(wrong > 0, beta.ppf(TAILS[0], np.maximum(wrong, 1e-9), taken - wrong + 1), 0.0)
    high = np.where(wrong < taken, beta.ppf(TAILS[1], wrong + 1, np.maximum(taken - wrong, 1e-9)), 1.0)
    columns = (taken / answers, risk, low, high, taken)
    return [
        Coverage(float(share), float(error), float(down), float(up), int(n))
        for share, error, down, up, n in zip(*columns, strict=True)
    ]


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix: rows are predicted labels, columns are true labels."""

    names: tuple[str, ...]
    counts: Array  # (k, k)

    @property
    def total(self) -> float:
        """Number of utterances counted."""
        return float(self.counts.sum())

    def worst(self, most: int) -> "Confusion":
        """Keep the `most` labels with the most confusions, in codebook order."""
        off = self.counts - np.diag(np.diag(self.counts))
        kept = np.sort(np.argsort(-(off.sum(axis=0) + off.sum(axis=1)), kind="stable")[:most])
        return Confusion(tuple(self.names[i] for i in kept), self.counts[np.ix_(kept, kept)])


def observed_confusion(used: InUse) -> Confusion:
    """Count predicted against consensus labels on the audit utterances that a label of the round fits."""
    size, truth = len(used.names), used.evidence.truth
    cells = used.evidence.audit.argmax(axis=1)[truth >= 0] * size + truth[truth >= 0]
    return Confusion(used.names, np.bincount(cells, minlength=size * size).reshape(size, size).astype(float))


def expected_confusion(used: InUse) -> Confusion:
    """Sum the probabilities of each label over the open pool, by predicted label.

    Unbiased where the probabilities are calibrated: of the utterances with 0.2 for a label, one in five has it.
    """
    best, size = used.evidence.pool.argmax(axis=1), len(used.names)
    return Confusion(used.names, np.eye(size)[best].T @ used.evidence.pool)


# Labeled and unlabeled utterances


@dataclass(frozen=True)
class LabelCount:
    """How often a label was given by people, auto-accepted, and is expected among open utterances."""

    name: str
    pool: int  # utterances with this consensus label
    audit: int
    accepted: int
    expected: float  # sum of its probabilities over the open pool

    @property
    def total(self) -> float:
        """Answered, accepted and expected together."""
        return self.pool + self.audit + self.accepted + self.expected


def label_counts(project: Project, used: InUse | None, answers: Answers | None = None) -> list[LabelCount]:
    """Count the labels of the codebook, in its order; without a round in use the expected counts are 0."""
    in_audit = set(utterances.ids_in(project.db, AUDIT))
    agreed = consensus_labels(annotations.answers(project.db) if answers is None else answers)
    counted = Counter((label, i in in_audit) for i, label in agreed.items())
    accepted = Counter(one.label_id for one in acceptances.standing(project.db))
    sums = dict(zip(used.label_ids, used.evidence.pool.sum(axis=0).tolist(), strict=True)) if used else {}
    return [
        LabelCount(one.name, counted[one.id, False], counted[one.id, True], accepted[one.id], sums.get(one.id, 0.0))
        for one in codebook_of(project).labels
    ]


@dataclass(frozen=True)
class Flip:
    """An utterance whose predicted label has changed from one round to the next."""

    utterance_id: int
    text: str
    before: str
    before_probability: float
    now: str
    now_probability: float


@dataclass(frozen=True)
class Flips:
    """Predictions that changed between two rounds, most confident first."""

    before: int  # round numbers
    now: int
    compared: int  # utterances that both have scored
    changed: int
    flips: tuple[Flip, ...]  # the most confident of them


def flips(project: Project, used: InUse, most: int) -> Flips | None:
    """Compare the round in use with the promoted one before it and read up to `most` flips; None for the first."""
    older = round_before(project, used.row)
    if older is None:
        return None
    known = labels.names(project.db)
    was, is_ = likeliest(project, older), likeliest(project, used.row)
    both = was.keys() & is_.keys()
    changed = sorted((i for i in both if was[i][0] != is_[i][0]), key=lambda i: (-is_[i][1], i))
    found = []
    for row in utterances.read(project.db, changed[:most]):
        (before, sure_before), (now, sure_now) = was[row.id], is_[row.id]
        found.append(Flip(row.id, row.text, known[before], sure_before, known[now], sure_now))
    return Flips(older.number, used.row.number, len(both), len(changed), tuple(found))


# The work


@dataclass(frozen=True)
class PaceStep:
    """Consecutive answers and their median time."""

    first: int  # counted from 1
    last: int
    seconds: float


@dataclass(frozen=True)
class Pace:
    """Time per answer, and the time left at that pace."""

    timed: int  # answers with a time
    seconds: float | None  # median of all; None if no answer has a time
    steps: tuple[PaceStep, ...]
    left: int  # utterances neither answered nor auto-accepted
    hours_left: float


def time_per_answer(project: Project, answers: Answers | None = None) -> Pace:
    """Return the median time from seeing an utterance to answering it, over 25 answers each."""
    answers = annotations.answers(project.db) if answers is None else answers
    seconds = [a.milliseconds / 1000 for a in answers if a.milliseconds is not None]
    edges = [*range(0, len(seconds), STEP), len(seconds)]
    steps = [PaceStep(a + 1, b, float(np.median(seconds[a:b]))) for a, b in pairwise(edges) if b > a]
    slices = utterances.count_slices(project.db)
    done = annotations.count_answered(project.db) + acceptances.count_standing(project.db)
    left = slices["pool"] + slices["audit"] - done
    median = float(np.median(seconds)) if seconds else None
    return Pace(len(seconds), median, tuple(steps), left, left * pace(project, answers) / 3600)


def people_agree(project: Project, answers: Answers | None = None) -> Agreement | None:
    """Return the agreement between people, “none fits” included; imported labels do not count as anybody's."""
    return agreement(annotations.answers(project.db) if answers is None else answers)


def suggestion_pull(answers: Answers) -> Pull | None:
    """Return how much suggestions influence answers; those of annotators who hide all suggestions are not counted."""
    given = [one for one in answers if one.kind in ANSWERED]
    shown = [(True, one.label_id == one.suggested_label_id) for one in given if one.suggested_label_id is not None]
    hidden = [(False, one.label_id == one.withheld_label_id) for one in given if one.withheld == "chance"]
    return pull([*shown, *hidden])


@dataclass(frozen=True)
class QueriedAccuracy:
    """Accuracy of a round on the utterances its strategy chose: hard ones, so not representative."""

    number: int
    right: int
    n: int


def queried_accuracy(project: Project, answers: Answers | None = None) -> list[QueriedAccuracy]:
    """Compare consensus with the prediction of the round that queued the utterance, oldest round first.

    Where people agree that no label fits, the prediction counts as wrong.
    """
    answers = annotations.answers(project.db) if answers is None else answers
    agreed, queried = consensus(answers), defaultdict(set)
    for one in answers:
        chosen = one.strategy in CHOSEN and one.slice == "pool"
        if chosen and one.utterance_id in agreed:
            queried[one.round_id].add(one.utterance_id)
    found = []
    for row in reversed(rounds.history(project.db)):
        if queried[row.id]:
            predicted = likeliest(project, row)
            hits = [predicted[i][0] == agreed[i] for i in queried[row.id] if i in predicted]
            found.append(QueriedAccuracy(row.number, sum(hits), len(hits)))
    return found
