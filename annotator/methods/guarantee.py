"""Which suggestions may be accepted unseen, and at what proven precision.

Above a threshold of probability all suggestions are accepted. The threshold is certified on audit answers, a random
sample: if the precision above it were below the target, so few errors would be seen among them less often than
`1 - confidence`. A promise holds for the utterances the audit slice was drawn from, for one round, on average over
what is accepted and not for each label, and for one look: who looks after every answer and accepts at the first yes
is wrong more often.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import count

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln
from scipy.stats import beta, binom, hypergeom

from annotator.errors import BadInput
from annotator.methods.metrics import Array, Labels

DOUBT = 3.0  # spreads: answers that were kind enough for a promise have made the temperature too low as well
LEVELS = 40  # thresholds that are tried: those which accept 1/40, 2/40, … of the pool
SHORT = 0.01  # chance that too few audit answers lie above the first threshold: how many do is random
WITHDRAWN_AT = 20.0  # evidence against a promise; one that holds is ever withdrawn at most once in 20 times
WORST = 5.0  # times the promised error rate: worse than that is noticed all the same
LIKELY = 2 / 3  # chance of a promise at which answers are enough: at an even one, too few lie above as often as not
LIKE = 20  # audit answers that the probabilities count as when errors are foreseen
MOST = 1 + 1e-6  # of a probability, rounding counted
MOST_ANSWERS = 1000  # audit answers: what would need more is not to be had by answering


@dataclass(frozen=True)
class Target:
    """What is asked for: so high a precision among what is accepted, so surely."""

    target: float = 0.95
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Raise BadInput for a wish that cannot be kept, or that is none."""
        if not (0 <= self.target < 1 and 0 < self.confidence < 1):
            raise BadInput(
                f"A precision of {self.target:g} at a confidence of {self.confidence:g} cannot be promised.",
                "Ask for less than 1 of both, such as 0.95.",
            )


@dataclass(frozen=True)
class Guarantee:
    """Suggestions at least this probable may be accepted. `n` audit answers lie there, `errors` of them wrong."""

    target: Target
    threshold: float
    n: int
    errors: int
    accepts: int  # utterances of the pool

    @property
    def at_least(self) -> float:
        """The precision that is certified by this threshold alone: the one-sided lower Clopper-Pearson bound."""
        if self.errors == self.n:
            return 0.0
        return float(beta.ppf(1 - self.target.confidence, self.n - self.errors, self.errors + 1))


@dataclass(frozen=True)
class NotYet:
    """No threshold could be certified. `missing`: about so many more audit answers; None where they would not help."""

    target: Target
    n: int
    missing: int | None


@dataclass(frozen=True)
class Evidence:
    """What a promise is made from: (n, k) probabilities and (n,) answers of the audit slice, (m, k) of the pool.

    An answer is a column, or -1 where no label of the round is right. `spread` is that of the log temperature, by which
    the probabilities may be too sure or too unsure.
    """

    audit: Array
    truth: Labels
    pool: Array
    spread: float

    def of_label(self, label: int) -> "Evidence":
        """Keep what the model takes for one label."""
        asked, open_ = self.audit.argmax(axis=1) == label, self.pool.argmax(axis=1) == label
        return Evidence(self.audit[asked], self.truth[asked], self.pool[open_], self.spread)

    @cached_property
    def sure(self) -> Array:
        """How probable the likeliest label is of each audit utterance."""
        return np.asarray(self.audit.max(axis=1))

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether it is the answer."""
        return np.asarray(self.audit.argmax(axis=1) == self.truth)

    @cached_property
    def open_sure(self) -> Array:
        """How probable the likeliest label is of each utterance of the pool."""
        return np.asarray(self.pool.max(axis=1))

    @cached_property
    def is_sound(self) -> bool:
        """Whether all its numbers are probabilities, and the spread is one: else nothing may be promised on it."""
        given = np.concatenate([self.audit.ravel(), self.pool.ravel()])
        return bool(((given >= 0) & (given <= MOST)).all()) and 0 <= self.spread < np.inf

    def above(self, threshold: float) -> tuple[int, int]:
        """Count the audit answers where the model is at least so sure, and the errors among them."""
        surest = self.sure >= threshold
        return int(surest.sum()), int((surest & ~self.right).sum())

    @property
    def doubted(self) -> Array:
        """The pool's probabilities at a temperature that is higher by DOUBT spreads."""
        flatter = self.pool ** np.exp(-DOUBT * self.spread)
        return np.asarray(flatter / flatter.sum(axis=1, keepdims=True))


def certify(evidence: Evidence, target: Target) -> Guarantee | NotYet:
    """Find the lowest threshold above which suggestions are right as often as wished, as surely as wished.

    Learn-then-Test with fixed-sequence testing (Angelopoulos et al. 2021, arXiv 2110.01052): thresholds are tested
    from the strictest on, each by an exact tail, until the first that fails. They are quantiles of the
    pool, so that no audit answer has a say in which are tried. The first is the strictest with a chance to pass.
    Where the probabilities, taken for as unsure as they may be after all, do not say so much themselves, nothing is
    promised however well the audit answers went: of promises for models that are not good enough, most are luck that a
    second witness gives away. Nothing is promised either on numbers that are no probabilities.
    """
    if not evidence.is_sound:
        return NotYet(target, len(evidence.truth), None)
    doubted = evidence.doubted.max(axis=1)
    passed: Guarantee | NotYet = NotYet(target, len(evidence.truth), None)
    for threshold in _thresholds(evidence, target):
        n, errors = evidence.above(threshold)
        taken = doubted[evidence.open_sure >= threshold]
        if not (passes(n, errors, target, len(taken)) and taken.mean() >= target.target):
            break
        passed = Guarantee(target, float(threshold), n, errors, len(taken))
    return replace(passed, missing=missing_answers(evidence, target)) if isinstance(passed, NotYet) else passed


def certify_labels(evidence: Evidence, target: Target) -> dict[int, Guarantee | NotYet]:
    """Certify a threshold for each label, all promises together as sure as wished (Bonferroni).

    Precision is then promised for every label by itself, which takes far more audit answers.
    """
    labels = evidence.pool.shape[1]
    each = replace(target, confidence=1 - (1 - target.confidence) / labels)
    return {label: certify(evidence.of_label(label), each) for label in range(labels)}


def passes(n: int, errors: int, target: Target, left: int | None = None) -> bool:
    """Say whether so few errors are too good to be chance, were the precision below the target.

    The precision of the `left` utterances themselves, the `n` answered ones being a random sample of both together
    (hypergeometric tail, at the fewest errors that break the promise); without `left`, of ever so many like them
    (binomial tail).
    """
    if not (0 <= errors <= n and n > 0) or left == 0:
        return False
    if left is None:
        return bool(binom.cdf(errors, n, 1 - target.target) <= 1 - target.confidence)
    broken = errors + int((1 - target.target) * left + 1e-9) + 1
    return bool(hypergeom.cdf(errors, n + left, broken, n) <= 1 - target.confidence)


@cache
def needed(target: Target, errors: int = 0) -> int:
    """Return how many audit answers with so many errors among them it takes: 59 without any for 95 % at 95 %."""
    return next(n for n in count(errors + 1) if passes(n, errors, target))


def _thresholds(evidence: Evidence, target: Target) -> Array:
    """Return the thresholds to test, strictest first; none where there are too few answers for any."""
    tried = _shares(len(evidence.truth), target) if len(evidence.pool) else np.empty(0)
    return np.asarray(np.quantile(evidence.open_sure, 1 - tried, method="lower")) if len(tried) else tried


def _shares(answers: int, target: Target) -> Array:
    """Return the shares of the pool to try, smallest first: above each, enough of so many audit answers surely lie."""
    shares = np.arange(1, LEVELS + 1) / LEVELS
    return shares[binom.cdf(needed(target) - 1, answers, shares) <= SHORT]


def missing_answers(evidence: Evidence, target: Target) -> int | None:
    """Estimate how many more audit answers it takes until a promise is likely.

    None where the model is not clearly right often enough even where it is surest: a thousand would not do; 0 where
    nothing is open that could be accepted. Before the first answer, the fewest that can do.
    """
    if not evidence.is_sound:
        return None
    if not len(evidence.pool):
        return 0
    if not len(evidence.truth):
        return needed(target)
    found = bisect_left(range(1, MOST_ANSWERS + 1), True, key=lambda more: _chance(evidence, target, more) > LIKELY)
    return None if found == MOST_ANSWERS else found + 1


def _chance(evidence: Evidence, target: Target, more: int) -> float:
    """Return how likely the strictest threshold passes with so many more audit answers; the rest hangs on it.

    Errors are expected as the probabilities say, and as they were, the former counting as much as LIKE answers.
    """
    answers = len(evidence.truth)
    shares = _shares(answers + more, target)
    if not len(shares):
        return 0.0
    threshold = float(np.quantile(evidence.open_sure, 1 - shares[0], method="lower"))
    taken, (n, errors) = evidence.open_sure >= threshold, evidence.above(threshold)
    fresh = round(more * float(taken.mean()))
    rate = (errors + LIKE * (1 - evidence.open_sure[taken].mean())) / (n + LIKE)
    most = binom.ppf(1 - target.confidence, n + fresh, 1 - target.target) - 1
    likely = float(binom.cdf(most - errors, fresh, rate))
    known = replace(evidence, pool=evidence.pool[taken], spread=evidence.spread * np.sqrt(answers / (answers + more)))
    return likely if known.doubted.max(axis=1).mean() >= target.target else 0.0


def evidence_against(n: int, errors: int, target: float) -> float:
    """Weigh spot checks against a promise: an e-value, the odds that a bet against it would have won by now.

    The likelihood of error rates up to five times the promised one, averaged, over that of the promised one. While
    the promise holds it ever reaches 20 at most once in 20 times, however often one looks (Ville's inequality).
    """
    rate = 1 - target
    worst = min(1.0, WORST * rate)
    share = beta.cdf(worst, errors + 1, n - errors + 1) - beta.cdf(rate, errors + 1, n - errors + 1)
    if not share > 0:  # too little for a float: there are far more errors than promised, or far fewer
        return 0.0 if errors <= rate * n else np.inf
    likelihood = betaln(errors + 1, n - errors + 1) + np.log(share) - np.log(worst - rate)
    return float(np.exp(likelihood - errors * np.log(rate) - (n - errors) * np.log(target)))


def accepted(probabilities: Array, guarantees: Mapping[int, Guarantee] | Guarantee) -> Labels:
    """Return (m,) the label each row is accepted with, -1 where it is not: one threshold for all, or one a label."""
    best, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    if isinstance(guarantees, Guarantee):
        limits = np.full(probabilities.shape[1], guarantees.threshold)
    else:
        limits = np.full(probabilities.shape[1], np.inf)
        limits[list(guarantees)] = [guarantee.threshold for guarantee in guarantees.values()]
    sure = (confidence >= limits[best]) & (confidence <= MOST)
    return np.asarray(np.where(sure, best, -1), dtype=np.int64)
