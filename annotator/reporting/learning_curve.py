"""Probes fitted to some answers and tested on others: the basis of comparisons and learning curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from annotator.methods.metrics import Labels
from annotator.methods.query_strategies import Rows
from annotator.project import Project
from annotator.rounds.batch import AUDIT
from annotator.rounds.candidates import probe_in_use
from annotator.rounds.consensus import consensus_labels
from model.probe.probe import Probe, blank
from model.types import States
from store import annotations, states
from store.annotations import Answer

Answers = Sequence[Answer]  # those of `annotations.answers`, which a run reads once and passes on


@dataclass(frozen=True)
class Answered:
    """Hidden states of answered utterances with their labels."""

    states: States  # (n, width)
    columns: Labels  # (n,)

    def __len__(self) -> int:
        """Count the answers."""
        return len(self.columns)

    def first(self, n: int) -> "Answered":
        """Return the first n of them."""
        return self.at(np.arange(n))

    def at(self, rows: Rows) -> "Answered":
        """Return those in these rows."""
        return Answered(self.states[rows], self.columns[rows])


def hits(training_examples: Answered, tested: Answered, probe: Probe) -> NDArray[np.bool_]:
    """Refit a probe to the training examples and return (n,) whether it predicts each tested answer.

    The probe is not calibrated: that takes five times as long and seldom changes which label is likeliest.
    """
    fitted = probe.refitted(training_examples.states, training_examples.columns.tolist())
    return np.asarray(fitted.loglik(tested.states).argmax(axis=1) == tested.columns)


# Of a project


def untrained_probe(project: Project, order: tuple[int, ...], width: int) -> Probe:
    """Return a probe with the label descriptions of the round in use and no training examples."""
    return replace(blank(width, len(order)), label_states=probe_in_use(project, order, width).label_states)


def drawn_at_random(project: Project, order: Sequence[int], answers: Answers | None = None) -> dict[int, int]:
    """Return the audit answers of utterances with hidden states as utterance id -> column."""
    answers = annotations.answers(project.db) if answers is None else answers
    agreed = consensus_labels(one for one in answers if one.slice == AUDIT)
    known = states.known(project.db, list(agreed))
    return {i: order.index(label) for i, label in sorted(agreed.items()) if label in order and i in known}


def answered(project: Project, columns: Mapping[int, int]) -> Answered:
    """Look up the hidden states of answered utterances, utterance id -> column."""
    return Answered(states.matrix(project.db, list(columns)), np.array(list(columns.values()), dtype=np.int64))
