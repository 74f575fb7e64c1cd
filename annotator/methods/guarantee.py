"""Certify which suggestions can be auto-accepted at a target precision.

All suggestions above a probability threshold are accepted. The threshold is certified on audit answers, a random
sample: if the precision above it were below the target, so few errors among them would have a probability of at most
`1 - confidence`. A guarantee holds for the utterances the audit sample was drawn from and for one round, on average
over what is accepted, not for each label. It holds for one test: testing after every answer and accepting at the first
success is wrong more often.
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

from annotator.errors import BadInput, Message
from annotator.methods.metrics import Array, Labels
from model import constants
from model.probe.scaling import information

LEVELS = 40  # thresholds that are tested: those that accept 1/40, 2/40, … of the pool
SHORTFALL = 0.01  # probability that too few audit answers lie above the first threshold
WITHDRAWN_AT = 20.0  # e-value; a true guarantee is ever withdrawn with a probability of at most 1 in 20
WORST_RATIO = 5.0  # times the certified error rate; higher error rates are detected as well
LIKELY = 2 / 3  # probability of success at which more answers are worth their effort
PRIOR_ANSWERS = 20  # audit answers that the predicted error rate counts as when errors are forecast
MAX_PROBABILITY = 1 + 1e-6  # allows for rounding
LEAST = 1e-12  # probability that counts as zero
MOST_ANSWERS = 1000  # audit answers; where more would be needed, answering is not practical


@dataclass(frozen=True)
class Target:
    """The precision wanted among accepted suggestions, and the confidence that it holds."""

    precision: float = 0.95
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Raise BadInput for a precision or confidence that cannot be certified."""
        if not (0 <= self.precision < 1 and 0 < self.confidence < 1):
            raise BadInput(
                Message(
                    "A precision of {precision:g} at a confidence of {confidence:g} cannot be certified.",
                    precision=self.precision,
                    confidence=self.confidence,
                ),
                "Choose values below 1 for both, such as 0.95.",
            )


@dataclass(frozen=True)
class Guarantee:
    """A certified threshold: of `n` audit answers at or above it, the suggestion was wrong for `errors`."""

    target: Target
    threshold: float
    n: int
    errors: int
    accepts: int  # utterances of the pool at or above the threshold

    @property
    def at_least(self) -> float:
        """The one-sided lower Clopper-Pearson bound on the precision at this threshold."""
        if self.errors == self.n:
            return 0.0
        return float(beta.ppf(1 - self.target.confidence, self.n - self.errors, self.errors + 1))


@dataclass(frozen=True)
class NotYet:
    """No threshold could be certified. `missing`: estimated audit answers still needed; None if they would not help."""

    target: Target
    n: int
    missing: int | None


@dataclass(frozen=True)
class Evidence:
    """What a guarantee is certified on: (n, k) probabilities and (n,) answers of the audit sample, (m, k) of the pool.

    An answer is a column, or -1 where no label of the round is correct. `spread` is the standard deviation of the log
    temperature.
    """

    audit: Array
    truth: Labels
    pool: Array
    spread: float

    def for_label(self, label: int) -> "Evidence":
        """Return the evidence on the utterances that are predicted to have this label."""
        audit, pool = self.audit.argmax(axis=1) == label, self.pool.argmax(axis=1) == label
        return Evidence(self.audit[audit], self.truth[audit], self.pool[pool], self.spread)

    @cached_property
    def confidence(self) -> Array:
        """(n,) probabilities of the likeliest label in the audit sample."""
        return np.asarray(self.audit.max(axis=1))

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) whether the likeliest label is the answer."""
        return np.asarray(self.audit.argmax(axis=1) == self.truth)

    @cached_property
    def pool_confidence(self) -> Array:
        """(m,) probabilities of the likeliest label in the pool."""
        return np.asarray(self.pool.max(axis=1))

    @cached_property
    def is_valid(self) -> bool:
        """Whether all values are probabilities and the spread is finite and not negative."""
        values = np.concatenate([self.audit.ravel(), self.pool.ravel()])
        return bool(((values >= 0) & (values <= MAX_PROBABILITY)).all()) and 0 <= self.spread < np.inf

    def above(self, threshold: float) -> tuple[int, int]:
        """Count the audit answers at or above a threshold, and the errors among them."""
        above = self.confidence >= threshold
        return int(above.sum()), int((above & ~self.correct).sum())

    @property
    def conservative(self) -> Array:
        """(m, k) probabilities of the pool at a temperature that is higher by `SAFETY_SPREADS` spreads."""
        flatter = self.pool ** np.exp(-constants.SAFETY_SPREADS * self.spread)
        return np.asarray(flatter / flatter.sum(axis=1, keepdims=True))


def certify(evidence: Evidence, target: Target) -> Guarantee | NotYet:
    """Return the lowest threshold above which suggestions reach the target precision at the target confidence.

    Learn-then-Test with fixed-sequence testing (Angelopoulos et al. 2021, arXiv 2110.01052): thresholds are tested
    from the strictest on, each by an exact tail, until the first that fails. They are quantiles of the pool, so their
    choice does not depend on audit answers. The first is the strictest that can pass.

    As a second condition the conservative probabilities must reach the target precision themselves: most guarantees for
    models that are not good enough come from a lucky sample, and this detects them. Evidence with invalid numbers is
    never certified.
    """
    if not evidence.is_valid:
        return NotYet(target, len(evidence.truth), None)
    conservative = evidence.conservative.max(axis=1)
    passed: Guarantee | NotYet = NotYet(target, len(evidence.truth), None)
    for threshold in _thresholds(evidence, target):
        n, errors = evidence.above(threshold)
        above = conservative[evidence.pool_confidence >= threshold]
        if not (passes(n, errors, target, len(above)) and above.mean() >= target.precision):
            break
        passed = Guarantee(target, float(threshold), n, errors, len(above))
    return replace(passed, missing=missing_answers(evidence, target)) if isinstance(passed, NotYet) else passed


def certify_labels(evidence: Evidence, target: Target) -> dict[int, Guarantee | NotYet]:
    """Certify a threshold for each label, so that all hold together at the target confidence (Bonferroni).

    The precision is then certified for every label by itself, which takes far more audit answers.
    """
    labels = evidence.pool.shape[1]
    each = replace(target, confidence=1 - (1 - target.confidence) / labels)
    return {label: certify(evidence.for_label(label), each) for label in range(labels)}


def passes(n: int, errors: int, target: Target, left: int | None = None) -> bool:
    """Return whether so few errors reject, at the target confidence, a precision below the target.

    With `left`, the precision of these unanswered utterances, of which the `n` answered ones are a random sample
    (hypergeometric tail, at the fewest errors that violate the target). Without it, the precision of an infinite
    population (binomial tail).
    """
    if not 0 <= errors < n or left == 0:  # NaN passes nothing
        return False
    if left is None:
        return bool(binom.cdf(errors, n, 1 - target.precision) <= 1 - target.confidence)
    violating = errors + int((1 - target.precision) * left + 1e-9) + 1
    return bool(hypergeom.cdf(errors, n + left, violating, n) <= 1 - target.confidence)


@cache
def needed(target: Target, errors: int = 0) -> int:
    """Return the audit answers needed to pass with this many errors: 59 with none for 95 % precision at 95 %."""
    return next(n for n in count(errors + 1) if passes(n, errors, target))


def _thresholds(evidence: Evidence, target: Target) -> Array:
    """Return the thresholds to test, strictest first; none if there are too few answers for any."""
    shares = _shares(len(evidence.truth), target) if len(evidence.pool) else np.empty(0)
    return np.asarray(np.quantile(evidence.pool_confidence, 1 - shares, method="lower")) if len(shares) else shares


def _shares(answers: int, target: Target) -> Array:
    """Return the accepted shares of the pool to test, smallest first: those that `answers` are very likely to cover."""
    shares = np.arange(1, LEVELS + 1) / LEVELS
    return shares[binom.cdf(needed(target) - 1, answers, shares) <= SHORTFALL]


def missing_answers(evidence: Evidence, target: Target) -> int | None:
    """Estimate how many more audit answers make a guarantee likely.

    None if a thousand would not be enough, because the model is too often wrong even where it is most confident; 0 if
    nothing is left to accept. Before the first answer, the smallest number that can be enough.
    """
    if not evidence.is_valid:
        return None
    if not len(evidence.pool):
        return 0
    if not len(evidence.truth):
        return needed(target)
    found = bisect_left(range(1, MOST_ANSWERS + 1), True, key=lambda more: _chance(evidence, target, more) > LIKELY)
    return None if found == MOST_ANSWERS else found + 1


def _chance(evidence: Evidence, target: Target, more: int) -> float:
    """Return the probability that the strictest threshold passes with this many more audit answers.

    The error rate is forecast from the errors so far and from the probabilities, weighted as PRIOR_ANSWERS answers.
    """
    answers = len(evidence.truth)
    shares = _shares(answers + more, target)
    if not len(shares):
        return 0.0
    threshold = float(np.quantile(evidence.pool_confidence, 1 - shares[0], method="lower"))
    accepts, (n, errors) = evidence.pool_confidence >= threshold, evidence.above(threshold)
    fresh = round(more * float(accepts.mean()))
    rate = (errors + PRIOR_ANSWERS * (1 - evidence.pool_confidence[accepts].mean())) / (n + PRIOR_ANSWERS)
    most = binom.ppf(1 - target.confidence, n + fresh, 1 - target.precision) - 1
    likely = float(binom.cdf(most - errors, fresh, rate))
    learned = more * information(np.log(np.maximum(evidence.pool, LEAST)))  # where all is certain, next to nothing
    spread = float(evidence.spread / np.sqrt(1 + learned * evidence.spread**2))
    later = replace(evidence, pool=evidence.pool[accepts], spread=spread)
    return likely if later.conservative.max(axis=1).mean() >= target.precision else 0.0


def evidence_against(n: int, errors: int, precision: float) -> float:
    """Return the e-value of `errors` in `n` spot checks against a guarantee of this precision.

    The mean likelihood of error rates up to five times the certified one, over the likelihood of the certified one. If
    the guarantee holds, the probability that it ever reaches 20 is at most 1 in 20, however often it is computed
    (Ville's inequality).
    """
    rate = 1 - precision
    worst = min(1.0, WORST_RATIO * rate)
    share = beta.cdf(worst, errors + 1, n - errors + 1) - beta.cdf(rate, errors + 1, n - errors + 1)
    if not share > 0:  # underflow: far more errors than certified, or far fewer
        return 0.0 if errors <= rate * n else np.inf
    likelihood = betaln(errors + 1, n - errors + 1) + np.log(share) - np.log(worst - rate)
    return float(np.exp(likelihood - errors * np.log(rate) - (n - errors) * np.log(precision)))


def accepted(probabilities: Array, guarantees: Mapping[int, Guarantee] | Guarantee) -> Labels:
    """Return (m,) the label each row is accepted with, -1 where it is not; one guarantee for all labels or one each."""
    best, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    if isinstance(guarantees, Guarantee):
        limits = np.full(probabilities.shape[1], guarantees.threshold)
    else:
        limits = np.full(probabilities.shape[1], np.inf)
        limits[list(guarantees)] = [guarantee.threshold for guarantee in guarantees.values()]
    accept = (confidence >= limits[best]) & (confidence <= MAX_PROBABILITY)
    return np.asarray(np.where(accept, best, -1), dtype=np.int64)
