"""The loop: what has been answered becomes the next batch to label. The product in one function.

A person answers on the label page, `oracle.simulate` answers from known labels, and `worker` runs this behind
the retrain button. All three call this one function: what the benchmarks measure is what experts use.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.config import RoundConfig
from annotator.errors import NotFinite, RoundError, TooFewAnswers
from annotator.methods.calibration import (
    CalibrationPrior,
    Calibrator,
    Heard,
    choose_prior,
    cross_fitted,
    fit_calibrator,
)
from annotator.methods.metrics import evaluate
from annotator.methods.prediction_sets import fit_limit
from annotator.methods.sampling import FOLDS, deal_folds
from annotator.project import Project
from annotator.rounds.batch import compose_batch
from annotator.rounds.candidates import candidates
from annotator.rounds.lifecycle import Finished, begin_round, drop_adapter, promote, save_adapter, unfinished_path
from annotator.rounds.progress import Report
from annotator.rounds.snapshot import Snapshot, read_texts, take_snapshot
from model.finite import check_finite
from model.types import Adapter, Classifier, Logits, Progress
from store import annotations, jobs, rounds, states, utterances
from store.rounds import Predictions

_LOG = logging.getLogger(__name__)
READ_AT_ONCE = 512  # utterances, then what has been read is on disk


@dataclass(frozen=True)
class Round:
    """A promoted round: what it knows, and how to ask it about other utterances."""

    row: Mapping[str, Any]
    adapter: Adapter
    calibrator: Calibrator
    metrics: Mapping[str, Any]


def run_round(project: Project, classifier: Classifier, config: RoundConfig, report: Report | None = None) -> Round:
    """Turn the answers given so far into the next batch to label.

    Raises TooFewAnswers if there is too little to train on, RoundError if the codebook is no longer the classifier's,
    NotFinite if a number is infinite or undefined, RoundCancelled if a person stops it.
    """
    report = report or Report()
    rng = np.random.default_rng([config.seed, len(rounds.history(project.db))])
    snapshot = trainable(project, take_snapshot(project, config, rng), config)  # consensus labels, disjoint
    check_task(classifier, snapshot)
    row = begin_round(project, config, snapshot, classifier.origin)
    asked = (*snapshot.scored, *snapshot.train)
    if states.use(project.db, classifier.reading):  # those of another backbone or instruction do not compare
        _LOG.warning("The backbone or what it is asked has changed: round %s reads anew.", row["number"])
    report.plan(**costs(snapshot, config, unread=len(asked) - len(states.known(project.db, asked))))

    read(project, classifier, config, asked, report.stage("read"))
    held_out = score_cross_fitted(project, classifier, config, snapshot, report)
    adapter = learn(project, classifier, config, snapshot.training_examples, report.stage("learn"))
    report.stage("save")
    folder = save_adapter(project, row, adapter)
    try:
        logits, heard = score(project, adapter, config, snapshot, held_out, report)
        report.stage("calibrate")
        calibrator, metrics = calibrate(logits, snapshot, expectation(snapshot, config, logits, heard))
        probabilities = calibrator(logits)  # (n, k), rows sum to one
        predictions = Predictions(np.array(snapshot.scored), probabilities, logits, snapshot.codebook.ids)
        report.stage("promote")
        batch = compose_batch(candidates(project, predictions), config, rng)  # uncertain, and a random audit share
        promote(project, row, Finished(folder, calibrator, metrics, predictions, batch))  # one transaction
    except NotFinite:
        drop_adapter(project, folder)
        raise
    return Round(row, adapter, calibrator, metrics)


def score(
    project: Project,
    adapter: Adapter,
    config: RoundConfig,
    snapshot: Snapshot,
    held_out: Mapping[int, NDArray[np.float64]],
    report: Report,
) -> tuple[Logits, Logits | None]:
    """Return the (n, k) logits of all that is scored, and what the scout says alone. Raises NotFinite."""
    texts = read_texts(project, snapshot.scored, config.context_turns)
    logits, heard = adapter.logits(texts, report.stage("score")), adapter.probe_logits(texts)
    logits = np.array([held_out.get(i, given) for i, given in zip(snapshot.scored, logits, strict=True)])
    check_finite("logits", logits, heard)
    return logits, heard


def check_task(classifier: Classifier, snapshot: Snapshot) -> None:
    """Refuse a classifier that was loaded for another codebook than the one the answers are read through."""
    if classifier.task != snapshot.codebook.task():
        raise RoundError(
            f"The codebook was changed to version {snapshot.codebook.version} while the round was starting.",
            "Retrain to start it again.",
        )


def read(project: Project, classifier: Classifier, config: RoundConfig, ids: Sequence[int], progress: Progress) -> None:
    """Let the classifier know what it makes of each utterance: what it has read before, or else reads now.

    What has been read is kept, also where the round is stopped.
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
        classifier.remember([texts[i] for i in part], states.matrix(project.db, part))  # as a later round will see them
        progress((start + len(part)) / len(new))


def costs(snapshot: Snapshot, config: RoundConfig, unread: int) -> dict[str, float]:
    """Weigh the stages in utterances scored: to read one takes half as long, to learn from one three times."""
    folds = min(FOLDS, len(snapshot.audit)) if snapshot.cross_fitted else 0
    without = folds * len(snapshot.training_examples) - len(snapshot.audit) * bool(folds)
    per_example = 3 * config.recipe.epochs if config.recipe.probe_weight < 1 else 0
    learn = per_example * len(snapshot.training_examples)
    return {"read": unread / 2, "check": per_example * without, "learn": learn, "score": len(snapshot.scored)}


def score_cross_fitted(
    project: Project, classifier: Classifier, config: RoundConfig, snapshot: Snapshot, report: Report
) -> dict[int, NDArray[np.float64]]:
    """Score the audit answers that are trained on too, each fold by an adapter that was trained without it.

    Returns the (k,) logits of each, none where audit answers are kept from training. The folds depend on the seed
    alone, so that a round which is started again after a stop deals the same.
    """
    held_out: dict[int, NDArray[np.float64]] = {}
    if not snapshot.cross_fitted:
        return held_out
    folds, progress = deal_folds(snapshot.audit, np.random.default_rng(config.seed)), report.stage("check")
    for number, fold in enumerate(folds):
        rest = {i: label for i, label in snapshot.training_examples.items() if i not in fold}
        part = partial(_part_of, progress, number, len(folds))
        adapter = learn(project, classifier, config, rest, part, f"without-{number}")
        held_out |= dict(zip(fold, adapter.logits(read_texts(project, fold, config.context_turns)), strict=True))
    return held_out


def _part_of(progress: Progress, number: int, parts: int, share: float) -> None:
    progress((number + share) / parts)


def learn(
    project: Project,
    classifier: Classifier,
    config: RoundConfig,
    training_examples: Mapping[int, int],
    progress: Progress,
    part: str = "whole",
) -> Adapter:
    """Train on consensus labels, utterance -> column; without any, answer from the instruction alone."""
    if not training_examples:
        return classifier.zero_shot()
    texts = read_texts(project, list(training_examples), config.context_turns)
    return classifier.fit(texts, list(training_examples.values()), progress, unfinished_path(project, part))


def calibrate(
    logits: Logits, snapshot: Snapshot, calibration_prior: CalibrationPrior
) -> tuple[Calibrator, dict[str, Any]]:
    """Fit probabilities on the audit answers and judge them there, cross-fitted; no metrics without answers."""
    order = snapshot.codebook.ids
    rows = [i for i, utterance in enumerate(snapshot.scored) if utterance in snapshot.audit]
    truth = np.array([order.index(snapshot.audit[snapshot.scored[i]]) for i in rows], dtype=np.int64)
    calibration_prior = choose_prior(logits[rows], truth, calibration_prior)
    calibrator = fit_calibrator(logits[rows], truth, calibration_prior)
    if len(rows) < 2:
        return calibrator, {"n": len(rows)}
    raw = evaluate(Calibrator(1.0)(logits[rows]), truth)
    probabilities = cross_fitted(logits[rows], truth, calibration_prior)
    return calibrator, {
        **evaluate(probabilities, truth),
        "raw": {name: raw[name] for name in ("nll", "brier", "ece")},
        "cross_fitted": snapshot.cross_fitted,
        "shortlist_limit": fit_limit(probabilities, truth),
    }


def expectation(snapshot: Snapshot, config: RoundConfig, logits: Logits, heard: Logits | None) -> CalibrationPrior:
    """Say what to expect of the calibrator before an audit answer is looked at, from what the scout says alone.

    The last round's temperature tells nothing new: it was fitted to the same audit answers (docs/decisions 0017).
    """
    if not snapshot.train:
        return CalibrationPrior.untrained(logits)
    known = None if heard is None else Heard(heard, len(snapshot.training_examples), snapshot.chosen)
    return CalibrationPrior.trained(config.recipe.probe_weight, logits, known)


def due(project: Project) -> list[RoundConfig]:
    """Return how the rounds are to be made that are due now, one after the other.

    As soon as there is something to learn from, the scout learns it alone: what comes of that is there in seconds, and
    with few answers about as often right (decision 0012). Then, as ever after, the language model is fine-tuned too.
    """
    config, row = project.config, rounds.promoted(project.db)
    untrained = row is not None and row["trained_on"] == 0
    if not untrained or config.recipe.probe_weight in (0.0, 1.0):
        return [config]
    return [replace(config, recipe=replace(config.recipe, probe_weight=1.0)), config]


def trainable(project: Project, snapshot: Snapshot, config: RoundConfig) -> Snapshot:
    """Refuse a snapshot with too little to train on; the first round then answers from the instruction alone.

    It starts as the project is opened, and the first labels are given while the backbone is still loading.
    """
    try:
        check_trainable(snapshot, config)
    except TooFewAnswers:
        if rounds.promoted(project.db) or not snapshot.scored:
            raise
        return replace(snapshot, train={}, cross_fitted=False)
    return snapshot


def check_trainable(snapshot: Snapshot, config: RoundConfig) -> None:
    """Refuse to train on next to nothing; nothing at all is fine, that round is zero-shot."""
    given = len(snapshot.train)
    if not snapshot.scored:
        raise TooFewAnswers(f"0 utterances are left to ask about, {given} have a label.", "Import more utterances.")
    if 0 < given < config.minimum_labels:
        raise TooFewAnswers(
            f"{given} labels can be trained on, {config.minimum_labels} are needed.",
            f"Label {config.minimum_labels - given} more. Audit utterances, a share of each batch, only measure.",
        )
    if given and len(set(snapshot.train.values())) < 2:
        raise TooFewAnswers(
            f"All {given} labels to train on are the same.", "Go on until a second label has been used."
        )


def retrain_reason(project: Project) -> str | None:
    """Say why a round is due now, or None. Read from the database, so that asking twice starts nothing twice.

    Due are the zero-shot round of a new project, and a round for every `retrain_every` labels that no job has
    seen yet. A job that failed has seen its labels too: it is not started again by itself.
    """
    config = project.config
    if not config.retrain_every or jobs.active(project.db):
        return None
    if not utterances.any_to_label(project.db):
        return None
    if jobs.last(project.db) is None and rounds.promoted(project.db) is None:
        return "a first look, before any label"
    new = annotations.count_new_training_labels(project.db, jobs.last_watermark(project.db))
    due = new >= config.retrain_every and (
        new >= config.minimum_labels or annotations.count_new_training_labels(project.db, 0) >= config.minimum_labels
    )
    return f"{new} new labels" if due else None
