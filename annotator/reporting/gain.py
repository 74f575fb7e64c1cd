"""Estimate how much another batch will improve the model, by extrapolating the learning curve of the probe.

The probe is fitted to a quarter, half, three quarters and all of the training examples and tested on the audit answers,
which were drawn at random and are not trained on. The error rate is modeled as a power of the number of answers
(Figueroa et al. 2012, BMC Medical Informatics and Decision Making 12:8). `python -m benchmarks.gain` compares the
estimates with what simulations then measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.codebook.definition import codebook_of
from annotator.methods.metrics import Labels
from annotator.methods.query_strategies import Rows
from annotator.project import Project
from annotator.reporting.summary import Answers
from annotator.rounds.batch import AUDIT
from annotator.rounds.cache import Cache, cache_key
from annotator.rounds.candidates import probe_in_use
from annotator.rounds.consensus import consensus_labels
from annotator.rounds.snapshot import training_labels
from model.finite import check_finite
from model.probe.probe import Probe
from model.types import States
from store import annotations, states

EXAMPLES, TESTS = 40, 20  # fewest training examples and audit answers that give a usable estimate
MOST = 200  # training examples used: the curve is extrapolated from there, because a page waits for it
QUARTERS = (1, 2, 3, 4)
DRAWS = 3  # of each part of the training examples, because a single draw varies too much


@dataclass(frozen=True)
class Answered:
    """Hidden states of answered utterances with their labels."""

    states: States  # (n, width)
    columns: Labels  # (n,)

    def __len__(self) -> int:
        """Count the answers."""
        return len(self.columns)

    def at(self, rows: Rows) -> "Answered":
        """Return those in these rows."""
        return Answered(self.states[rows], self.columns[rows])


def hits(training_examples: Answered, tested: Answered, probe: Probe) -> NDArray[np.bool_]:
    """Refit a probe to the training examples and return (n,) whether it predicts each tested answer.

    The probe is not calibrated: that takes five times as long and seldom changes which label is likeliest.
    """
    fitted = probe.refitted(training_examples.states, training_examples.columns.tolist())
    return np.asarray(fitted.loglik(tested.states).argmax(axis=1) == tested.columns)


def expected_gain(training_examples: Answered, tested: Answered, probe: Probe, more: int) -> float | None:
    """Return the expected drop in the error rate after `more` answers; None with too few answers.

    `probe` is refitted; it brings the label descriptions and the weights of its heads.
    """
    if len(training_examples) < EXAMPLES or len(tested) < TESTS:
        return None
    most, rng = min(len(training_examples), MOST), np.random.default_rng(0)
    sizes = [most * quarter // QUARTERS[-1] for quarter in QUARTERS]
    errors = [1 - _accuracy(training_examples, tested, probe, size, rng) for size in sizes]
    least = 1 / (2 * len(tested))  # no errors in a small sample do not prove an error rate of zero
    slope, start = np.polyfit(np.log(sizes), np.log(np.maximum(errors, least)), 1)
    now, then = np.exp(start + min(slope, 0.0) * np.log([len(training_examples), len(training_examples) + more]))
    check_finite("errors of the quick classifier", now - then)
    return float(now - then)


def _accuracy(
    training_examples: Answered, tested: Answered, probe: Probe, size: int, rng: np.random.Generator
) -> float:
    draws = DRAWS if size < len(training_examples) else 1  # all of them can be drawn in one way only
    drawn = (rng.permutation(len(training_examples))[:size] for _ in range(draws))
    return float(np.mean([hits(training_examples.at(rows), tested, probe).mean() for rows in drawn]))


# Of a project


_cache: Cache[float | None] = Cache()


def recent_gain(project: Project, wait: bool = True, answers: Answers | None = None) -> float | None:
    """Return the share of utterances another batch is expected to correct; computed again after every ten answers.

    Without `wait`, return only a cached estimate.
    """
    order, more = codebook_of(project).ids, project.config.batch_size
    answers = annotations.answers(project.db) if answers is None else answers
    drawn, training_examples = drawn_at_random(project, order, answers), training_labels(project, order, answers)
    known = states.known(project.db, list(training_examples))
    columns = {i: column for i, column in training_examples.items() if i in known and i not in drawn}
    if len(columns) < EXAMPLES or len(drawn) < TESTS:
        return None

    def find() -> float | None:
        training, testing = answered(project, columns), answered(project, drawn)
        return expected_gain(training, testing, probe_in_use(project, order, training.states.shape[1]), more)

    rests_on = cache_key(project, len(columns), len(drawn)), more
    return _cache.get(rests_on, find) if wait or _cache.has(rests_on) else None


def drawn_at_random(project: Project, order: Sequence[int], answers: Answers | None = None) -> dict[int, int]:
    """Return the audit answers of utterances with hidden states as utterance id -> column."""
    answers = annotations.answers(project.db) if answers is None else answers
    agreed = consensus_labels(one for one in answers if one.slice == AUDIT)
    known = states.known(project.db, list(agreed))
    return {i: order.index(label) for i, label in sorted(agreed.items()) if label in order and i in known}


def answered(project: Project, columns: Mapping[int, int]) -> Answered:
    """Look up the hidden states of answered utterances, utterance id -> column."""
    return Answered(states.matrix(project.db, list(columns)), np.array(list(columns.values()), dtype=np.int64))
