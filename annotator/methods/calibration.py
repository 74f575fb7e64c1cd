"""Turn logits into probabilities: a temperature, a label prior for zero-shot rounds, and an optional bias per label.

The temperature of a row falls with its normalized entropy: high confidences are usually too high and low ones too low
(docs/calibration.md). How confident a trained round should be overall is estimated from its quick classifier.

Calibrators are fitted on the audit sample only. Reported metrics are cross-fitted, so no answer evaluates a calibrator
that it helped to fit. A temperature never changes which label is likeliest; it makes 0.9 mean nine in ten.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.special import expit, log_softmax, logit, logsumexp, softmax
from scipy.stats import norm
from sklearn.model_selection import KFold

from annotator.methods.metrics import Array, Labels
from model.finite import check_finite
from model.probe.scaling import SPREAD, Scaling, fit_scaling, information, normalized_entropy, temperature_at

TRAINED_TEMPERATURE = 2.3  # of an adapter alone after 100 answers on TREC and GoEmotions; 1.6 on SNIPS
TRAINED_SPREAD = 0.3  # standard deviation of a trained round's log temperature across data sets and seeds
ADAPTER_OFFSET = 0.25  # log temperature by which an adapter may be more confident than its quick classifier
EXAMPLE_WEIGHT = 0.5  # information of a training example, relative to a fresh answer
SELECTION_SPREAD = 0.25  # of the log temperature, between actively selected answers, mostly hard, and the others
ZERO_SHOT_TEMPERATURE = 1.0
SLOPE = -0.4  # change of the log temperature with normalized entropy, in trained rounds
ROUGH, GOOD = 30, 100  # audit answers that alone give the log temperature to within about 0.5 and 0.25
BIAS_ANSWERS, BIAS_EACH = 300, 10  # audit answers in all and of each label, below which a bias would fit noise

_STORED_AS = {"label_prior": "prior", "mean_entropy": "usual"}  # fields that are stored under another key


@dataclass(frozen=True)
class Calibrator:
    """The map from logits to probabilities: softmax((logits - label prior) / temperature of the row + bias)."""

    temperature: float  # of a row whose normalized entropy is `mean_entropy`
    label_prior: tuple[float, ...] | None = None  # log of the mean probability of each label, in a zero-shot round
    answers: int = 0  # audit answers that it was fitted on
    bias: tuple[float, ...] | None = None  # nats per label
    slope: float = 0.0  # change of a row's log temperature with its normalized entropy
    mean_entropy: float = 0.0  # mean normalized entropy of the pool
    spread: float = 0.2  # standard deviation of the log temperature; the default, for old rounds, is an upper bound

    def __post_init__(self) -> None:
        """Raise NotFinite for values that no probability can be computed from."""
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.log(self.temperature), np.sqrt(self.spread), self.slope, self.mean_entropy
        check_finite("calibration", *scale, self.label_prior, self.bias)

    def __call__(self, logits: Array) -> Array:
        """Return (n, k) probabilities; rows sum to one. Raises NotFinite."""
        check_finite("logits", logits)
        corrected = without_prior(logits, self.label_prior)
        scaling = Scaling(self.temperature, self.slope, self.bias)
        return np.asarray(softmax(scaling(corrected, normalized_entropy(corrected) - self.mean_entropy), 1))

    @property
    def state(self) -> str:
        """Return how far the probabilities can be trusted: not yet, rough or good."""
        return "not yet" if self.answers < ROUGH else "rough" if self.answers < GOOD else "good"

    def within(self, probability: float) -> tuple[float, float]:
        """Return the 95 % interval of a probability given `spread`, with all other labels counted as one."""
        odds, factor = logit(probability), np.exp(norm.ppf(0.975) * self.spread)
        one, other = float(expit(odds / factor)), float(expit(odds * factor))
        return min(one, other), max(one, other)

    def as_dict(self) -> dict[str, object]:
        """Return what is stored with the round."""
        fields = {_STORED_AS.get(name, name): value for name, value in asdict(self).items()}
        return {**fields, "state": self.state}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `as_dict` returned; fields that an older version did not store take their defaults."""
        prior, bias = (None if stored.get(name) is None else tuple(stored[name]) for name in ("prior", "bias"))
        names = ("answers", "slope", "mean_entropy", "spread")
        later = {name: stored[key] for name in names if (key := _STORED_AS.get(name, name)) in stored}
        return cls(stored["temperature"], prior, bias=bias, **later)


@dataclass(frozen=True)
class ProbeEvidence:
    """What the quick classifier of a trained round contributes to the prior of the round's temperature.

    The quick classifier is calibrated on its own training examples, each held out once.
    """

    logits: Array  # (n, k), of the quick classifier alone
    training_examples: int
    selected_share: float = 0.0  # share of the training examples that were actively selected, not drawn at random

    @property
    def mean_entropy(self) -> float:
        """Mean normalized entropy over the pool, 0 to 1."""
        return float(normalized_entropy(self.logits).mean())

    @property
    def precision(self) -> float:
        """Inverse variance of the log temperature as the quick classifier estimates it."""
        fitted = EXAMPLE_WEIGHT * self.training_examples * information(self.logits)
        return fitted / (1 + fitted * self.selected_share * SELECTION_SPREAD**2)


@dataclass(frozen=True)
class CalibrationPrior:
    """The prior of a round's calibrator, before any audit answer is used."""

    temperature: float = TRAINED_TEMPERATURE  # the median: the log temperature is normal
    spread: float = SPREAD  # standard deviation of the log temperature
    label_prior: tuple[float, ...] | None = None  # for a zero-shot round only
    with_bias: bool = False  # whether a bias per label is fitted
    slope: float = 0.0  # mean change of the log temperature with normalized entropy
    mean_entropy: float = 0.0  # mean normalized entropy of the pool

    @classmethod
    def untrained(cls, pool: Array) -> Self:
        """Return the prior for a zero-shot round: one temperature, and the label prior of the (n, k) pool logits."""
        check_finite("logits", pool)
        prior = estimate_label_prior(pool)
        entropy = float(normalized_entropy(without_prior(pool, prior)).mean())
        return cls(ZERO_SHOT_TEMPERATURE, label_prior=prior, mean_entropy=entropy)

    @classmethod
    def trained(cls, probe_weight: float, pool: Array, probe: ProbeEvidence | None = None) -> Self:
        """Return the prior for a trained round: the pool's mean entropy should be that of its quick classifier.

        `pool` holds the round's (n, k) logits of the utterances in `probe.logits`. The estimate from the quick
        classifier is averaged, weighted by precision, with the usual temperature at this `probe_weight`.
        """
        check_finite("logits", pool, probe and probe.logits)
        estimates, precisions = [(1 - probe_weight) * np.log(TRAINED_TEMPERATURE)], [TRAINED_SPREAD**-2]
        if probe:
            matching = temperature_at(probe.mean_entropy, pool)
            estimates.append(np.log(matching) - ADAPTER_OFFSET * (1 - probe_weight))
            precisions.append(probe.precision)
        temperature, spread = np.exp(np.average(estimates, weights=precisions)), sum(precisions) ** -0.5
        return cls(float(temperature), spread, slope=SLOPE, mean_entropy=float(normalized_entropy(pool).mean()))


def estimate_label_prior(logits: Array) -> tuple[float, ...]:
    """Return the log of each label's mean probability over (n, k) logits.

    Subtracting it is batch calibration (Zhou et al. 2024, arXiv 2309.17249). It assumes labels of similar frequency, so
    it is used only before there are answers to train on.
    """
    log_probabilities = log_softmax(logits, axis=1)
    return tuple(float(value) for value in logsumexp(log_probabilities, axis=0) - np.log(len(logits)))


def without_prior(logits: Array, prior: tuple[float, ...] | None) -> Array:
    """Return (n, k) log-probabilities less the label prior."""
    return np.asarray(log_softmax(logits, axis=1) - (0.0 if prior is None else np.asarray(prior)))


def fit_calibrator(logits: Array, labels: Labels, calibration_prior: CalibrationPrior) -> Calibrator:
    """Fit on the (n, k) logits and (n,) labels of audit answers. Raises NotFinite."""
    given = calibration_prior
    check_finite("logits", logits, given.temperature, given.spread, given.slope, given.mean_entropy)
    corrected = without_prior(logits, given.label_prior)
    entropies = normalized_entropy(corrected) - given.mean_entropy
    start = Scaling(given.temperature, given.slope)
    found = fit_scaling(corrected, labels, entropies, start, given.spread, given.with_bias)
    learned = len(labels) * information(found(corrected, entropies)) if len(labels) else 0.0
    spread = (given.spread**-2 + learned) ** -0.5
    return Calibrator(
        found.temperature, given.label_prior, len(labels), found.bias, found.slope, given.mean_entropy, spread
    )


def cross_fitted(logits: Array, labels: Labels, calibration_prior: CalibrationPrior) -> Array:
    """Return (n, k) probabilities of the audit answers, each from a calibrator fitted on the other folds."""
    probabilities = np.empty_like(logits)
    folds = KFold(min(5, len(labels)), shuffle=True, random_state=0)
    for others, fold in folds.split(logits):
        probabilities[fold] = fit_calibrator(logits[others], labels[others], calibration_prior)(logits[fold])
    return probabilities


def choose_prior(logits: Array, labels: Labels, calibration_prior: CalibrationPrior) -> CalibrationPrior:
    """Return the prior with a bias per label if there are enough answers and it lowers the cross-fitted log-loss.

    The loss must fall by more than the standard error of the difference.
    """
    each = np.bincount(labels, minlength=logits.shape[1])
    if calibration_prior.label_prior is not None or len(labels) < BIAS_ANSWERS or each.min() < BIAS_EACH:
        return calibration_prior
    biased = replace(calibration_prior, with_bias=True)
    rows = np.arange(len(labels))
    losses = [-np.log(cross_fitted(logits, labels, one)[rows, labels]) for one in (calibration_prior, biased)]
    gain = losses[0] - losses[1]
    check_finite("log-loss", gain)
    return biased if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)) else calibration_prior
