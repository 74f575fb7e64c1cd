"""Run one round of active learning: train on the answers given so far and compose the next batch to label.

`run_round` is the product in one function. The worker process (`rounds/worker.py`) runs it on people's answers, and
the simulation (`simulation/oracle.py`) runs it on answers from a labeled file, so the benchmarks measure what experts
use.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotator.config import RoundConfig
from annotator.errors import Message, NotFinite, RoundError, TooFewAnswers
from annotator.methods.calibration import (
    CalibrationPrior,
    Calibrator,
    cross_fitted,
    fit_calibrator,
)
from annotator.methods.metrics import Metrics, Uncalibrated, evaluate
from annotator.methods.prediction_sets import fit_limit
from annotator.project import Project
from annotator.rounds.batch import compose_batch
from annotator.rounds.candidates import candidates
from annotator.rounds.lifecycle import Finished, begin_round, drop_adapter, promote, save_adapter, unfinished_path
from annotator.rounds.progress import Report
from annotator.rounds.snapshot import Snapshot, read_texts, take_snapshot
from model import constants
from model.finite import check_finite
from model.types import Adapter, Classifier, Logits, Progress
from store import rounds, states
from store.rounds import Predictions, Round

_LOG = logging.getLogger(__name__)
READ_AT_ONCE = 512  # utterances between two writes of hidden states to the database


@dataclass(frozen=True)
class Promoted:
    """A promoted round, as it was begun, with its metrics and the adapter and calibrator that score further utterances.

    The metrics are None with fewer than two audit answers.
    """

    row: Round
    adapter: Adapter
    calibrator: Calibrator
    metrics: Metrics | None


def run_round(project: Project, classifier: Classifier, config: RoundConfig, report: Report | None = None) -> Promoted:
    """Train on the answers given so far, score the open utterances, and promote the round with its next batch.

    Raises TooFewAnswers if there is too little to train on, RoundError if the codebook has changed since the classifier
    was loaded, NotFinite if a result is infinite or undefined, and RoundCancelled if a person cancels the round.
    """
    report = report or Report()
    rng = np.random.default_rng([config.seed, len(rounds.history(project.db))])
    snapshot = trainable(project, take_snapshot(project, config, rng), config)  # one read transaction
    check_task(classifier, snapshot)
    row = begin_round(project, config, snapshot, classifier.origin)
    to_read = (*snapshot.scored, *snapshot.train)
    if states.use(project.db, classifier.reading):  # hidden states of another backbone or prompt are not comparable
        _LOG.warning("The backbone or the prompt has changed: round %s recomputes all hidden states.", row.number)
    report.plan(**stage_costs(snapshot, config, unread=len(to_read) - len(states.known(project.db, to_read))))

    read(project, classifier, config, to_read, report.stage("read"))
    adapter = train(project, classifier, config, snapshot.training_examples, report.stage("learn"))
    report.stage("save")
    folder = save_adapter(project, row, adapter)
    try:
        logits, probe_logits = score(project, adapter, config, snapshot, report)
        report.stage("calibrate")
        prior = CalibrationPrior.untrained(logits)
        if snapshot.train:  # the last round's temperature is not used: it was fitted to the same audit answers
            examples, weight = len(snapshot.training_examples), 1 - config.recipe.probe_weight
            prior = CalibrationPrior.trained(logits, probe_logits, examples, weight)
        calibrator, metrics = calibrate(logits, snapshot, prior)
        probabilities = calibrator(logits)  # (n, k), rows sum to one
        predictions = Predictions(np.array(snapshot.scored), probabilities, logits, snapshot.codebook.ids)
        extent = adapter.extent(read_texts(project, snapshot.scored, config.context_turns))
        report.stage("promote")
        batch = compose_batch(candidates(project, predictions), config, rng)
        promote(project, row, Finished(folder, calibrator, metrics, extent, predictions, batch))
    except NotFinite:
        drop_adapter(project, folder)
        raise
    return Promoted(row, adapter, calibrator, metrics)


def score(
    project: Project, adapter: Adapter, config: RoundConfig, snapshot: Snapshot, report: Report
) -> tuple[Logits, Logits | None]:
    """Return (n, k) logits of the scored utterances, and those of the quick classifier alone if there is one.

    Raises NotFinite.
    """
    texts = read_texts(project, snapshot.scored, config.context_turns)
    logits, probe_logits = adapter.logits(texts, report.stage("score")), adapter.probe_logits(texts)
    check_finite("logits", logits, probe_logits)
    return logits, probe_logits


def check_task(classifier: Classifier, snapshot: Snapshot) -> None:
    """Raise RoundError if the classifier was loaded for another version of the codebook than the snapshot's."""
    if classifier.task != snapshot.codebook.task():
        raise RoundError(
            Message(
                "The codebook was changed to version {version} while the round was starting.",
                version=snapshot.codebook.version,
            ),
            "Retrain to start it again.",
        )


def read(project: Project, classifier: Classifier, config: RoundConfig, ids: Sequence[int], progress: Progress) -> None:
    """Give the classifier the hidden states of these utterances, and compute and store those that are missing.

    What is stored remains if the round is canceled.
    """
    known = states.known(project.db, ids)
    texts = dict(zip(ids, read_texts(project, ids, config.context_turns), strict=True))
    old = [i for i in ids if i in known]
    if old:
        classifier.remember([texts[i] for i in old], states.matrix(project.db, old))
    new = [i for i in ids if i not in known]
    for start in range(0, len(new), READ_AT_ONCE):
        part = new[start : start + READ_AT_ONCE]
        states.save(project.db, part, classifier.states([texts[i] for i in part]))
        classifier.remember([texts[i] for i in part], states.matrix(project.db, part))  # as later rounds read them
        progress((start + len(part)) / len(new))


def stage_costs(snapshot: Snapshot, config: RoundConfig, unread: int) -> dict[str, float]:
    """Return the cost of each stage: scoring an utterance costs 1, reading it 0.5, training on it 3 per epoch.

    If only upper layers are adapted, training and scoring cost less by the share of the layers below.
    """
    share = 1 - constants.ADAPTED_FROM if config.recipe.depth == "upper" else 1
    per_example = 3 * config.recipe.epochs if config.recipe.probe_weight < 1 else 0
    learning = share * per_example * len(snapshot.training_examples)
    return {"read": unread / 2, "learn": learning, "score": share * len(snapshot.scored)}


def train(
    project: Project,
    classifier: Classifier,
    config: RoundConfig,
    training_examples: Mapping[int, int],
    progress: Progress,
) -> Adapter:
    """Return an adapter trained on these examples, utterance -> column of its label; zero-shot if there are none."""
    if not training_examples:
        return classifier.zero_shot()
    texts = read_texts(project, list(training_examples), config.context_turns)
    return classifier.fit(texts, list(training_examples.values()), progress, unfinished_path(project))


def calibrate(
    logits: Logits, snapshot: Snapshot, calibration_prior: CalibrationPrior
) -> tuple[Calibrator, Metrics | None]:
    """Return the calibrator fitted on the audit answers, and cross-fitted metrics; None below two answers."""
    order = snapshot.codebook.ids
    rows = [i for i, utterance in enumerate(snapshot.scored) if utterance in snapshot.audit]
    truth = np.array([order.index(snapshot.audit[snapshot.scored[i]]) for i in rows], dtype=np.int64)
    calibrator = fit_calibrator(logits[rows], truth, calibration_prior)
    if len(rows) < 2:
        return calibrator, None
    raw = evaluate(Calibrator(1.0)(logits[rows]), truth)
    probabilities = cross_fitted(logits[rows], truth, calibration_prior)
    metrics = replace(
        evaluate(probabilities, truth),
        raw=Uncalibrated(raw.nll, raw.brier, raw.ece),
        shortlist_limit=fit_limit(probabilities, truth),
    )
    return calibrator, metrics


def trainable(project: Project, snapshot: Snapshot, config: RoundConfig) -> Snapshot:
    """Return the snapshot, without its training examples if it is for a first round with too few of them.

    Raises TooFewAnswers in later rounds, or if nothing is left to label. The first round starts when a project is
    opened, and the first labels arrive while the backbone is loading.
    """
    try:
        check_trainable(snapshot, config)
    except TooFewAnswers:
        if rounds.promoted(project.db) or not snapshot.scored:
            raise
        return replace(snapshot, train={})
    return snapshot


def check_trainable(snapshot: Snapshot, config: RoundConfig) -> None:
    """Raise TooFewAnswers if there are training examples but too few; without any, the round is zero-shot."""
    given = len(snapshot.train)
    if not snapshot.scored:
        raise TooFewAnswers(
            Message("0 utterances are left to label, {given} have a label.", given=given), "Import more utterances."
        )
    if 0 < given < config.minimum_labels:
        raise TooFewAnswers(
            Message(
                "{given} labels can be trained on, {minimum_labels} are needed.",
                given=given,
                minimum_labels=config.minimum_labels,
            ),
            Message("Label {n} more. Audit answers are used for evaluation only.", n=config.minimum_labels - given),
        )
    if given and len(set(snapshot.train.values())) < 2:
        raise TooFewAnswers(
            Message("All {given} labels to train on are the same.", given=given),
            "Keep labeling until a second label has been used.",
        )
