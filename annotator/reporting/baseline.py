"""What drawing at random would have given: answers that a strategy asked for against as many that were drawn.

The audit slice was drawn at random, so its answers are such as a project without a strategy would have. One scout is
fitted to the first answers that were asked for, another to as many audit answers, and both are judged on audit answers
that neither has seen: on half of the slice, again and again another half.
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
from annotator.reporting.learning_curve import Answered, answered, drawn_at_random, hits, untrained_probe
from annotator.rounds.batch import AUDIT
from annotator.rounds.cache import Cache, cache_key
from annotator.rounds.snapshot import training_labels
from model.probe.probe import Probe
from store import annotations, states, utterances
from store.annotations import GIVEN

LEAST = 40  # audit answers: half of them teach and half judge; of fewer, next to nothing could be told
FIRST, STEPS = 10, 4  # answers with which the comparison begins, or two a label; how often it is made from there on
SPLITS = 12  # of the audit answers into those that teach and those that judge: it takes under a second
SMALL = 0.05  # a difference that is worth knowing of


@dataclass(frozen=True)
class Step:
    """How often a scout is right that has learned from so many answers."""

    answers: int
    asked: float  # where a strategy asked for them
    drawn: float  # where they were drawn at random, on average
    normalized_entropy: float  # half of the 95 % interval of the difference

    @property
    def gain(self) -> float:
        """By how much choosing is better than drawing."""
        return self.asked - self.drawn

    @property
    def interval(self) -> tuple[float, float]:
        """Between what the gain may lie, 95 times in 100."""
        return self.gain - self.normalized_entropy, self.gain + self.normalized_entropy


@dataclass(frozen=True)
class Comparison:
    """What choosing has given, step by step; where it cannot be told there are no steps."""

    audit: int  # audit answers that the backbone has read
    slice: int  # audit utterances in all
    least: int  # audit answers from which on it can be tried
    steps: tuple[Step, ...] = ()
    untold: Literal["", "few", "given", "random"] = ""  # few audit answers, or nothing was chosen from scratch

    @property
    def needed(self) -> int:
        """About how many audit answers would tell a small difference: doubt shrinks with their square root."""
        return int(round(self.audit * (self.steps[-1].normalized_entropy / SMALL) ** 2, -1))


def compare(asked: Answered, drawn: Answered, untrained: Probe) -> tuple[Step, ...]:
    """Compare answers in the order in which they were asked for with the (m,) audit answers.

    Both teach a scout that knows the codebook's words for the labels and has heard no answer. The same splits at every
    step, so that steps differ by what was learned alone.
    """
    judges = len(drawn.columns)
    most, first = min(len(asked.columns), judges // 2), max(FIRST, 2 * len(untrained.bias))
    if judges < LEAST or most < first:
        return ()
    rng = np.random.default_rng(0)
    splits = [np.split(rng.permutation(judges), [judges // 2]) for _ in range(SPLITS)]
    numbers = np.unique(np.geomspace(first, most, STEPS).round()).astype(int)
    return tuple(_step(asked.first(n), drawn, untrained, splits) for n in numbers.tolist())


def _step(asked: Answered, drawn: Answered, untrained: Probe, splits: Sequence[Sequence[Rows]]) -> Step:
    n = len(asked.columns)
    by_choice = hits(asked, drawn, untrained).astype(float)
    by_draw = np.full((len(splits), len(by_choice)), np.nan)  # of answers that neither teach nor could have taught
    for heard, (teaching, judging) in zip(by_draw, splits, strict=True):
        heard[judging] = hits(drawn.at(teaching[:n]), drawn.at(judging), untrained)
    judged = ~np.isnan(by_draw).all(axis=0)
    gains = by_choice[judged] - np.nanmean(by_draw[:, judged], axis=0)
    each = np.nanmean(by_choice - by_draw, axis=1)
    chosen = float(by_choice[judged].mean())
    return Step(n, chosen, chosen - float(gains.mean()), _doubt(gains, each))


def _doubt(gains: Array, each: Array) -> float:
    """Return half the 95 % interval of the mean gain, from (m,) gains of answers and (s,) gains of splits.

    Paired over the answers that judge, to which the spread between splits adds what the draw of the lessons does; and
    one more answer for either side, as without it a slice on which nothing differs would seem to prove that nothing
    does. The corrected resampled t-test (Nadeau and Bengio 2003, Machine Learning 52) is about twice as wide.
    """
    spread = gains.var(ddof=1) / len(gains) + each.var(ddof=1) / len(each) + 1 / len(gains) ** 2
    return float(student.ppf(TAILS[1], len(gains) - 1) * np.sqrt(spread))


# Of a project


_cache: Cache[Comparison] = Cache()


def recent_comparison(project: Project) -> Comparison:
    """Compare anew for every round and every few answers: it takes a second."""
    order = codebook_of(project).ids
    asked, drawn = asked_for(project, order), drawn_at_random(project, order)
    rests_on = cache_key(project, len(drawn), min(len(asked), len(drawn) // 2))
    return _cache.get(rests_on, lambda: comparison(project, asked, drawn, order))


def comparison(
    project: Project, asked: Mapping[int, int], drawn: Mapping[int, int], order: tuple[int, ...]
) -> Comparison:
    """Compare what was asked for with what was drawn, utterance -> column, or say why that is not possible.

    Where labels came with a file, what was chosen builds on them and is not meant to teach alone.
    """
    found = Comparison(len(drawn), len(utterances.ids_in(project.db, AUDIT)), max(LEAST, 4 * len(order)))
    told = annotations.first_asked(project.db)
    if GIVEN in told.values():
        return replace(found, untold="given")
    first = dict(islice(asked.items(), len(drawn) // 2))  # more of them could not be compared
    steps: tuple[Step, ...] = ()
    if first and drawn:
        random = answered(project, drawn)
        steps = compare(answered(project, first), random, untrained_probe(project, order, random.states.shape[1]))
    if not steps:
        return replace(found, untold="few")
    return replace(found, untold="random") if all(told[i] == "random" for i in first) else replace(found, steps=steps)


def asked_for(project: Project, order: Sequence[int]) -> dict[int, int]:
    """Return what strategies have asked for, in the order in which it was first answered: utterance -> column.

    What a search found or somebody settled counts only where a strategy had asked for it before.
    """
    training_examples, told = training_labels(project, order), annotations.first_asked(project.db)
    ids = [i for i, strategy in told.items() if strategy in STRATEGIES and i in training_examples]
    known = states.known(project.db, ids)
    return {i: training_examples[i] for i in ids if i in known}


# In words


def sentence(found: Comparison) -> str:
    """Say what choosing has given, and how surely that is known."""
    if found.untold == "given":
        return say(
            "Whether choosing what to ask is better than drawing at random cannot be told here: labels came with the "
            "file, and what was chosen builds on them."
        )
    if found.untold == "random":
        return say("What choosing gives cannot be told yet: all that was asked first was drawn at random.")
    if found.untold == "few":
        return say(
            "Whether choosing what to ask is better than drawing at random can be told from {least} audit answers on, "
            "with half as many others; there are {n}.",
            least=found.least,
            n=found.audit,
        )
    return _told(found, found.steps[-1])


def _told(found: Comparison, last: Step) -> str:
    low, high = (100 * edge for edge in last.interval)
    if not (low > 0 or high < 0):
        return " ".join((_open(last), _rest(found)))
    values = {"n": last.answers, "gain": abs(100 * last.gain), "low": min(abs(low), abs(high)), "high": max(-low, high)}
    if last.gain > 0:
        return say(
            "Choosing what to ask pays: with the first {n} answers the scout is right {gain:.0f} times more in 100 "
            "than with as many drawn at random ({low:.0f} to {high:.0f}).",
            **values,
        )
    return say(
        "Choosing what to ask has not paid: with the first {n} answers the scout is right {gain:.0f} times less in 100 "
        "than with as many drawn at random ({low:.0f} to {high:.0f}).",
        **values,
    )


def _open(last: Step) -> str:
    low, high = (100 * edge for edge in last.interval)
    return say(
        "Whether choosing what to ask pays cannot be told yet: with the first {n} answers the scout is right "
        "{asked:.0f} times in 100, with as many drawn at random {drawn:.0f} times, and the difference may be anything "
        "from {low:+.0f} to {high:+.0f}.",
        n=last.answers,
        asked=100 * last.asked,
        drawn=100 * last.drawn,
        low=low,
        high=high,
    )


def _rest(found: Comparison) -> str:
    if found.needed <= found.audit:
        return say("If there is a difference, it is a small one.")
    return say(
        "To tell a difference of {small:.0f} takes about {needed:,} audit answers. There are {n}, and can be {most}.",
        small=100 * SMALL,
        needed=found.needed,
        n=found.audit,
        most=found.slice,
    )


def explained(found: Comparison) -> str:
    """Explain the picture of it."""
    return say(
        "Blue: the scout, taught the first answers that were asked for. Grey: taught as many audit answers, which were "
        "drawn at random, and where blue would lie 95 times in 100 if choosing made no difference. Both are judged on "
        "audit answers that neither has seen: {n} of them, dealt {splits} times into those that teach and those that "
        "judge.",
        n=found.audit,
        splits=SPLITS,
    )
