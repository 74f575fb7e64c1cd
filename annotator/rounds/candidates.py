"""Read the candidates for a batch, and their view for a query strategy, from the database."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from annotator.methods.query_strategies import View
from annotator.rounds.batch import AUDIT, Candidates
from annotator.rounds.snapshot import training_labels
from model.probe.heads import semantic_states
from model.probe.probe import Probe, blank
from model.types import States
from store import acceptances, annotations, rounds, states, utterances
from store.rounds import Predictions

if TYPE_CHECKING:
    from annotator.project import Project


def candidates(
    project: "Project", predictions: Predictions | None, without: frozenset[int] = frozenset()
) -> Candidates:
    """Return the utterances that may be asked, with a view of the predictions in the labels in use.

    The view is None if no open utterance of the pool has a prediction, as after a late import.
    """
    db = project.db
    predictions = rounds.in_codebook(db, predictions) if predictions else None
    accepted = acceptances.standing_ids(db)
    taken = annotations.answered_ids(db) | without
    in_audit = utterances.ids_in(db, AUDIT)
    audit = [i for i in in_audit if i not in taken]
    checks = sorted(accepted - taken)
    gone = {*in_audit, *taken, *accepted}
    # A round has scored the audit sample and part of the pool, so the whole pool need not be listed.
    read = predictions.utterance_ids.tolist() if predictions else []
    scored = np.flatnonzero(np.array([i not in gone for i in read], dtype=np.bool_))
    if predictions is not None:  # an earlier version may have stored values that are not finite
        scored = scored[np.isfinite(predictions.probabilities[scored]).all(axis=1)]
    if predictions is None or not len(scored):
        return Candidates([i for i in utterances.ids_in(db, "pool") if i not in gone], None, audit, checks)
    counts = annotations.count_by_slice(db)
    label_counts = [counts.get(("pool", label), 0) for label in predictions.label_ids]
    view = _view(project, predictions, scored, label_counts)
    is_cold, rows_of = not sum(label_counts), partial(utterances.read, db)
    return Candidates(predictions.utterance_ids[scored].tolist(), view, audit, checks, is_cold, rows_of)


def training_states(project: "Project", order: Sequence[int]) -> tuple[list[int], States, list[int]]:
    """Return the training examples that have hidden states: utterance ids, states, columns of their labels."""
    training_examples = training_labels(project, order)
    known = states.known(project.db, list(training_examples))
    ids = [i for i in training_examples if i in known]
    return ids, states.matrix(project.db, ids), [training_examples[i] for i in ids]


def probe_in_use(project: "Project", order: Sequence[int], width: int) -> Probe:
    """Return the quick classifier of the round in use for these labels, to be refitted; a blank one if it has none."""
    row = rounds.promoted(project.db)
    known = Probe.load(project.adapters / row.folder) if row else None
    if row is None or known is None or len(known.weights) != width:
        return blank(width, len(order))
    had = row.label_ids
    return known.for_labels([had.index(label) if label in had else None for label in order])


def _view(project: "Project", predictions: Predictions, scored: NDArray[np.int64], label_counts: Sequence[int]) -> View:
    ids = predictions.utterance_ids[scored]

    def states_of(rows: NDArray[np.int64]) -> States:
        return semantic_states(states.matrix(project.db, ids[rows].tolist()))

    def states_of_examples() -> States:
        return semantic_states(training_states(project, predictions.label_ids)[1])

    have_all = len(states.known(project.db, ids.tolist())) == len(ids)
    view = View(predictions.probabilities[scored], label_counts=label_counts)
    if have_all:
        view = replace(view, states=states_of, answered_states=states_of_examples if sum(label_counts) else None)
    return view
