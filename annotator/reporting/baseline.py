"""Compare active learning with random sampling: answers to queried utterances against equally many random ones.

The audit sample is drawn at random, so its answers are what a project without a query strategy would have. One probe is
fitted to the first queried answers and another to equally many audit answers. Both are evaluated on audit answers that
neither was fitted to, over repeated random splits of the audit sample into halves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np
from scipy.stats import t as student

from annotator.codebook.definition import codebook_of
from annotator.i18n import say
from annotator.methods.metrics import TAILS, Array
from annotator.methods.query_strategies import STRATEGIES, Rows
from annotator.project import Project
from annotator.reporting.learning_curve import Answered, Answers, answered, drawn_at_random, hits, untrained_probe
from annotator.rounds.batch import AUDIT
from annotator.rounds.cache import Cache, cache_key
from annotator.rounds.snapshot import training_labels
from model.probe.probe import Probe
from store import annotations, states, utterances
from store.annotations import GIVEN

MINIMUM = 40  # audit answers: half are for training and half for testing; fewer show next to nothing
FIRST, STEPS = 10, 4  # answers at the first comparison, or two per label; number of comparisons from there on
SPLITS = 12  # of the audit answers into training and test halves; all of them take under a second
SMALL = 0.05  # the smallest difference in accuracy that matters


@dataclass(frozen=True)
class Step:
    """Accuracy of a probe fitted to a given number of answers."""

    answers: int
    queried: float  # fitted to answers to queried utterances
    random: float  # fitted to answers to random utterances; mean over splits
    half_width: float  # of the 95 % interval of the difference

    @property
    def gain(self) -> float:
        """Difference in accuracy, queried minus random."""
        return self.queried - self.random

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the gain."""
        return self.gain - self.half_width, self.gain + self.half_width


@dataclass(frozen=True)
class Comparison:
    """Gain of active learning over random sampling by number of answers; no steps where it cannot be estimated."""

    audit: int  # audit answers with hidden states
    audit_size: int  # audit utterances in all
    minimum: int  # audit answers that the comparison takes
    steps: tuple[Step, ...] = ()
    unavailable: Literal["", "few", "given", "random"] = ""  # why there are no steps

    @property
    def needed(self) -> int:
        """Audit answers that would detect a small difference: the interval shrinks with their square root."""
        return int(round(self.audit * (self.steps[-1].half_width / SMALL) ** 2, -1))


def compare(queried: Answered, audit: Answered, untrained: Probe) -> tuple[Step, ...]:
    """Compare queried answers, in the order of asking, with the (m,) audit answers.

    Both probes start from `untrained`, which uses the label descriptions but no answers. All steps share the same
    splits, so they differ only in the number of training examples.
    """
    size = len(audit.columns)
    most, first = min(len(queried.columns), size // 2), max(FIRST, 2 * len(untrained.bias))
    if size < MINIMUM or most < first:
        return ()
    rng = np.random.default_rng(0)
    splits = [np.split(rng.permutation(size), [size // 2]) for _ in range(SPLITS)]
    numbers = np.unique(np.geomspace(first, most, STEPS).round()).astype(int)
    return tuple(_step(queried.first(n), audit, untrained, splits) for n in numbers.tolist())


def _step(queried: Answered, audit: Answered, untrained: Probe, splits: Sequence[Sequence[Rows]]) -> Step:
    n = len(queried.columns)
    by_query = hits(queried, audit, untrained).astype(float)
    at_random = np.full((len(splits), len(by_query)), np.nan)  # hits on the test half of each split
    for row, (train, test) in zip(at_random, splits, strict=True):
        row[test] = hits(audit.at(train[:n]), audit.at(test), untrained)
    tested = ~np.isnan(at_random).all(axis=0)
    gains = by_query[tested] - np.nanmean(at_random[:, tested], axis=0)
    gains_of_splits = np.nanmean(by_query - at_random, axis=1)
    accuracy = float(by_query[tested].mean())
    return Step(n, accuracy, accuracy - float(gains.mean()), _half_width(gains, gains_of_splits))


def _half_width(gains: Array, gains_of_splits: Array) -> float:
    """Return half the 95 % interval of the mean gain, from (m,) gains of answers and (s,) gains of splits.

    Paired over the test answers. The variance between splits is added for the draw of the training examples, and the
    variance of one more answer on either side, without which a sample with no differences would seem to prove that
    there are none. The corrected resampled t-test (Nadeau and Bengio 2003, Machine Learning 52) is about twice as wide.
    """
    variance = gains.var(ddof=1) / len(gains) + gains_of_splits.var(ddof=1) / len(gains_of_splits) + 1 / len(gains) ** 2
    return float(student.ppf(TAILS[1], len(gains) - 1) * np.sqrt(variance))


# Of a project


_cache: Cache[Comparison] = Cache()


def recent_comparison(project: Project, answers: Answers | None = None) -> Comparison:
    """Return the comparison for this round and these answers; computed again, in a second, after every ten answers."""
    order = codebook_of(project).ids
    answers = annotations.answers(project.db) if answers is None else answers
    queried, drawn = queried_answers(project, order, answers), drawn_at_random(project, order, answers)
    rests_on = cache_key(project, len(drawn), min(len(queried), len(drawn) // 2))
    return _cache.get(rests_on, lambda: comparison(project, queried, drawn, order))


def comparison(
    project: Project, queried: Mapping[int, int], drawn: Mapping[int, int], order: tuple[int, ...]
) -> Comparison:
    """Compare queried with randomly drawn answers, each utterance id -> column, or give the reason it is unavailable.

    Unavailable where labels were imported: the queries built on them, so they are not a training set of their own.
    """
    found = Comparison(len(drawn), len(utterances.ids_in(project.db, AUDIT)), max(MINIMUM, 4 * len(order)))
    strategies = annotations.first_asked(project.db)
    if GIVEN in strategies.values():
        return replace(found, unavailable="given")
    first = dict(islice(queried.items(), len(drawn) // 2))  # there are no more random ones to compare with
    steps: tuple[Step, ...] = ()
    if first and drawn:
        audit = answered(project, drawn)
        steps = compare(answered(project, first), audit, untrained_probe(project, order, audit.states.shape[1]))
    if not steps:
        return replace(found, unavailable="few")
    if all(strategies[i] == "random" for i in first):
        return replace(found, unavailable="random")
    return replace(found, steps=steps)


def queried_answers(project: Project, order: Sequence[int], answers: Answers | None = None) -> dict[int, int]:
    """Return answers to queried utterances as utterance id -> column, in the order of their first answer.

    Answers found by search or adjudicated later count only where a strategy had queried the utterance before.
    """
    training_examples = training_labels(project, order, answers)
    strategies = annotations.first_asked(project.db)
    ids = [i for i, strategy in strategies.items() if strategy in STRATEGIES and i in training_examples]
    known = states.known(project.db, ids)
    return {i: training_examples[i] for i in ids if i in known}


# In words


def sentence(found: Comparison) -> str:
    """Describe the gain of active learning with its interval, or why it is unavailable."""
    if found.unavailable == "given":
        return say(
            "Active learning cannot be compared with random sampling here: the file came with labels, and the queries "
            "built on them."
        )
    if found.unavailable == "random":
        return say(
            "Active learning cannot be compared with random sampling yet: all utterances asked first were drawn at "
            "random."
        )
    if found.unavailable == "few":
        return say(
            "Comparing active learning with random sampling takes at least {least} audit answers and half as many "
            "others. There are {n} audit answers.",
            least=found.minimum,
            n=found.audit,
        )
    return _gain(found, found.steps[-1])


def _gain(found: Comparison, last: Step) -> str:
    low, high = (100 * edge for edge in last.interval)
    if not (low > 0 or high < 0):
        return " ".join((_undecided(last), _outlook(found)))
    values = {"n": last.answers, "gain": abs(100 * last.gain), "low": min(abs(low), abs(high)), "high": max(-low, high)}
    if last.gain > 0:
        return say(
            "Active learning helps: after the first {n} answers, the quick classifier is right {gain:.0f} more times "
            "in 100 than after as many random answers ({low:.0f} to {high:.0f}).",
            **values,
        )
    return say(
        "Active learning has not helped: after the first {n} answers, the quick classifier is right {gain:.0f} fewer "
        "times in 100 than after as many random answers ({low:.0f} to {high:.0f}).",
        **values,
    )


def _undecided(last: Step) -> str:
    low, high = (100 * edge for edge in last.interval)
    return say(
        "It is not clear yet whether active learning helps: after the first {n} answers, the quick classifier is right "
        "{asked:.0f} times in 100, and {drawn:.0f} times after as many random answers. The true difference may be "
        "anywhere from {low:+.0f} to {high:+.0f}.",
        n=last.answers,
        asked=100 * last.queried,
        drawn=100 * last.random,
        low=low,
        high=high,
    )


def _outlook(found: Comparison) -> str:
    if found.needed <= found.audit:
        return say("If there is a difference, it is small.")
    return say(
        "Detecting a difference of {small:.0f} in 100 takes about {needed:,} audit answers. There are {n}, out of a "
        "possible {most}.",
        small=100 * SMALL,
        needed=found.needed,
        n=found.audit,
        most=found.audit_size,
    )


def explained(found: Comparison) -> str:
    """Return the caption of the chart."""
    return say(
        "Blue: the quick classifier after the first answers to utterances that the strategy chose. Gray: after as many "
        "randomly drawn audit answers, with the range in which blue would lie 95 times in 100 if choosing made no "
        "difference. Both are tested on audit answers that were not used for training: {n} of them, split {splits} "
        "times into training and test halves.",
        n=found.audit,
        splits=SPLITS,
    )
