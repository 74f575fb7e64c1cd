"""Scouts that are taught some answers and asked about others: what comparisons and learning curves are made of."""

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


@dataclass(frozen=True)
class Answered:
    """What the backbone makes of answered utterances, and what was answered."""

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


def hits(training_examples: Answered, judged: Answered, probe: Probe) -> NDArray[np.bool_]:
    """Teach a scout these lessons and no other, and say which of the judged answers it foresees.

    It is not made honest: that takes five times as long and changes little in which label is likeliest.
    """
    taught = probe.refitted(training_examples.states, training_examples.columns.tolist())
    return np.asarray(taught.loglik(judged.states).argmax(axis=1) == judged.columns)


# Of a project


def untrained_probe(project: Project, order: tuple[int, ...], width: int) -> Probe:
    """Return a scout that has the codebook's words from the round in use, and nothing that answers have taught it."""
    return replace(blank(width, len(order)), label_states=probe_in_use(project, order, width).label_states)


def drawn_at_random(project: Project, order: Sequence[int]) -> dict[int, int]:
    """Return the audit answers of utterances that the backbone has read: utterance -> column."""
    agreed = consensus_labels(one for one in annotations.answers(project.db) if one["slice"] == AUDIT)
    known = states.known(project.db, list(agreed))
    return {i: order.index(label) for i, label in sorted(agreed.items()) if label in order and i in known}


def answered(project: Project, given: Mapping[int, int]) -> Answered:
    """Look up the states of answered utterances, utterance -> column, which the backbone has read."""
    return Answered(states.matrix(project.db, list(given)), np.array(list(given.values()), dtype=np.int64))
