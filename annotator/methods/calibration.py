"""Probability from logits: temperature, label prior of a zero-shot round, and a bias per label where it pays.

What is said surely is mostly said too surely, and what is said with doubt too doubtfully, so the temperature falls with
the doubt (docs/decisions 0017). How sure a round may be on the whole its scout knows best (0018).

Fit on the audit slice only. The numbers shown are cross-fitted, so that no answer judges a calibrator that it
helped to choose. A temperature cannot change which label is likeliest; it makes 0.9 mean nine in ten.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.special import expit, log_softmax, logit, logsumexp, softmax
from scipy.stats import norm
from sklearn.model_selection import KFold

from annotator.methods.metrics import Array, Labels
from model.finite import check_finite
from model.probe.scaling import SPREAD, Scaling, fit_scaling, information, normalized_entropy, temperature_at

TRAINED_TEMPERATURE = 2.3  # what adapters alone need after 100 answers on TREC and GoEmotions, 1.6 on SNIPS
USUAL_SPREAD = 0.3  # of a trained round's log temperature around what is usual: data sets and seeds differ by no more
SURER = 0.25  # what an adapter alone may be surer than the scout, on the log temperature: together they know more
PER_EXAMPLE = 0.5  # of what a fresh answer tells: lessons judge what they teach, so together they tell less (0019)
CHOSEN_SPREAD = 0.25  # of the log temperature between answers that were chosen, hard ones mostly, and the rest
CHOSEN_HARDER = 0.5  # by so much, on the log temperature, these make too unsure of a pool in which all is clear (0021)
ZERO_SHOT_TEMPERATURE = 1.0
SLOPE = -0.4  # of the log temperature over doubt, in trained rounds
ROUGH, GOOD = 30, 100  # audit answers from which these alone tell the temperature within about 0.5 and 0.25
BIAS_ANSWERS, BIAS_EACH = 300, 10  # audit answers, and of each label, below which a bias would fit noise


@dataclass(frozen=True)
class Calibrator:
    """The map from logits to probabilities: softmax((logits - prior) / temperature of the row + bias)."""

    temperature: float  # where the doubt is the usual one
    prior: tuple[float, ...] | None = None  # log-probability that zero-shot answers give each label on the whole
    answers: int = 0  # audit answers it was fitted on
    bias: tuple[float, ...] | None = None  # nats a label
    slope: float = 0.0  # of a row's log temperature over its doubt
    usual: float = 0.0  # doubt of the pool's rows on average
    spread: float = 0.2  # of the log temperature: how far it may be off; so much, mostly less, if it was not kept

    def __post_init__(self) -> None:
        """Raise NotFinite for numbers that nothing may be promised on."""
        with np.errstate(divide="ignore", invalid="ignore"):
            of_temperature = np.log(self.temperature), np.sqrt(self.spread), self.slope, self.usual
        check_finite("calibration", *of_temperature, self.prior, self.bias)

    def __call__(self, logits: Array) -> Array:
        """Return (n, k) probabilities; rows sum to one. Raises NotFinite."""
        check_finite("logits", logits)
        said = without_prior(logits, self.prior)
        return np.asarray(
            softmax(Scaling(self.temperature, self.slope, self.bias)(said, normalized_entropy(said) - self.usual), 1)
        )

    @property
    def state(self) -> str:
        """Say how far the probabilities can be trusted: not yet, rough or good."""
        return "not yet" if self.answers < ROUGH else "rough" if self.answers < GOOD else "good"

    def within(self, probability: float) -> tuple[float, float]:
        """Return between what a probability may lie after all, 95 times in 100; all other labels taken for one."""
        odds, off = logit(probability), np.exp(norm.ppf(0.975) * self.spread)
        one, other = float(expit(odds / off)), float(expit(odds * off))
        return min(one, other), max(one, other)

    def as_dict(self) -> dict[str, Any]:
        """Return what is stored with the round."""
        return {**asdict(self), "state": self.state}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Read back what `as_dict` gave, now or when there was a temperature only."""
        prior, bias = (None if stored.get(name) is None else tuple(stored[name]) for name in ("prior", "bias"))
        later = {name: stored[name] for name in ("answers", "slope", "usual", "spread") if name in stored}
        return cls(stored["temperature"], prior, bias=bias, **later)


@dataclass(frozen=True)
class Heard:
    """What the scout in a trained round says alone, and what it was made honest by: answers that it had not seen."""

    logits: Array  # (n, k)
    training_examples: int  # so many answers
    chosen: float = 0.0  # share of them that were chosen for what they teach, not drawn at random

    @property
    def normalized_entropy(self) -> float:
        """How unsure it is of the pool on average, 0 to 1."""
        return float(normalized_entropy(self.logits).mean())

    @property
    def harder(self) -> float:
        """By how much the log temperature that it needs is overstated: chosen answers are harder than a clear pool."""
        return CHOSEN_HARDER * self.chosen * (1 - self.normalized_entropy) ** 2

    @property
    def precision(self) -> float:
        """How well it knows how sure to be: one over the variance of the log temperature that it needs."""
        told = PER_EXAMPLE * self.training_examples * information(self.logits)
        return told / (1 + told * self.chosen * CHOSEN_SPREAD**2)


@dataclass(frozen=True)
class CalibrationPrior:
    """What is known of a round's calibrator before an audit answer is looked at."""

    expected: float = TRAINED_TEMPERATURE
    spread: float = SPREAD  # of the log temperature around it
    prior: tuple[float, ...] | None = None  # for a zero-shot round only
    with_bias: bool = False
    slope: float = 0.0  # that is expected of the log temperature over doubt
    usual: float = 0.0  # doubt of the pool's rows on average

    @classmethod
    def untrained(cls, pool: Array) -> Self:
        """Expect of a zero-shot round that it is scaled evenly, less what it gives each label in the (n, k) pool."""
        check_finite("logits", pool)
        prior = label_prior(pool)
        return cls(
            ZERO_SHOT_TEMPERATURE, prior=prior, usual=float(normalized_entropy(without_prior(pool, prior)).mean())
        )

    @classmethod
    def trained(cls, share: float, pool: Array, heard: Heard | None = None) -> Self:
        """Expect of a trained round that it is about as unsure of the pool as its scout, which was made honest.

        `pool` is (n, k): what the round says of the utterances of which its scout has been heard. That counts as much
        as the scout knows, beside what is usual for a scout of that share.
        """
        check_finite("logits", pool, heard and heard.logits)
        told, precision = [(1 - share) * np.log(TRAINED_TEMPERATURE)], [USUAL_SPREAD**-2]
        if heard:
            as_unsure = temperature_at(heard.normalized_entropy, pool)
            told.append(np.log(as_unsure) - SURER * (1 - share) - heard.harder)
            precision.append(heard.precision)
        expected, spread = np.exp(np.average(told, weights=precision)), sum(precision) ** -0.5
        return cls(float(expected), spread, slope=SLOPE, usual=float(normalized_entropy(pool).mean()))


def label_prior(logits: Array) -> tuple[float, ...]:
    """Estimate the log-probability a zero-shot model gives each label whatever it reads, as its mean on a pool.

    Subtracting it is batch calibration (Zhou et al. 2024, arXiv 2309.17249). It assumes labels of like
    frequency, so it serves only before there are answers to learn from.
    """
    log_probabilities = log_softmax(logits, axis=1)
    return tuple(float(value) for value in logsumexp(log_probabilities, axis=0) - np.log(len(logits)))


def without_prior(logits: Array, prior: tuple[float, ...] | None) -> Array:
    """Return log-probabilities over the labels, less what the model gives each label whatever it reads."""
    return np.asarray(log_softmax(logits, axis=1) - (0.0 if prior is None else np.asarray(prior)))


def fit_calibrator(logits: Array, labels: Labels, calibration_prior: CalibrationPrior) -> Calibrator:
    """Fit on audit answers: (n, k) logits and (n,) labels. Raises NotFinite."""
    check_finite(
        "logits",
        logits,
        calibration_prior.expected,
        calibration_prior.spread,
        calibration_prior.slope,
        calibration_prior.usual,
    )
    said = without_prior(logits, calibration_prior.prior)
    expected, entropies = (
        Scaling(calibration_prior.expected, calibration_prior.slope),
        normalized_entropy(said) - calibration_prior.usual,
    )
    found = fit_scaling(said, labels, entropies, expected, calibration_prior.spread, calibration_prior.with_bias)
    told = len(labels) * information(found(said, entropies)) if len(labels) else 0.0
    spread = (calibration_prior.spread**-2 + told) ** -0.5
    return Calibrator(
        found.temperature,
        calibration_prior.prior,
        len(labels),
        found.bias,
        found.slope,
        calibration_prior.usual,
        spread,
    )


def cross_fitted(logits: Array, labels: Labels, calibration_prior: CalibrationPrior) -> Array:
    """Return (n, k) probabilities of the audit answers, each from a calibrator fitted on the other folds."""
    probabilities = np.empty_like(logits)
    folds = KFold(min(5, len(labels)), shuffle=True, random_state=0)
    for others, fold in folds.split(logits):
        probabilities[fold] = fit_calibrator(logits[others], labels[others], calibration_prior)(logits[fold])
    return probabilities


def choose_prior(logits: Array, labels: Labels, calibration_prior: CalibrationPrior) -> CalibrationPrior:
    """Say whether a bias per label is worth it: with answers enough, and if it lowers the cross-fitted log-loss.

    By more than the standard error of the difference: a bias that does not clearly help is one more way to be wrong.
    """
    each = np.bincount(labels, minlength=logits.shape[1])
    if calibration_prior.prior is not None or len(labels) < BIAS_ANSWERS or each.min() < BIAS_EACH:
        return calibration_prior
    biased = replace(calibration_prior, with_bias=True)
    rows = np.arange(len(labels))
    losses = [-np.log(cross_fitted(logits, labels, one)[rows, labels]) for one in (calibration_prior, biased)]
    gain = losses[0] - losses[1]
    check_finite("log-loss", gain)
    return biased if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)) else calibration_prior
