"""Turn logits into probabilities: a temperature, a bias per label, and a label prior for zero-shot rounds.

The temperature of a row falls with its normalized entropy: high confidences are usually too high and low ones too low
(docs/calibration.md). How confident a trained round should be overall is estimated from its quick classifier.

Calibrators are fitted on the audit sample only. Reported metrics are cross-fitted, so no answer evaluates a calibrator
that it helped to fit. A temperature never changes which label is likeliest; it makes 0.9 mean nine in ten.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.special import expit, log_softmax, logit, logsumexp, softmax
from scipy.stats import norm
from sklearn.model_selection import KFold

from annotator.methods.metrics import Array, Labels
from model import constants
from model.finite import check_finite
from model.probe.scaling import fit_pool, information, normalized_entropy, temperature_at

ROUGH, GOOD = 30, 100  # audit answers that alone give the log temperature to within about 0.5 and 0.25

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
        scaled = sloped(without_prior(logits, self.label_prior), self.slope, self.mean_entropy) / self.temperature
        return np.asarray(softmax(scaled if self.bias is None else scaled + np.asarray(self.bias), axis=1))

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
class CalibrationPrior:
    """The prior of a round's calibrator, before any audit answer is used."""

    temperature: float = 1.0  # the median: the log temperature is normal
    spread: float = 1.0  # standard deviation of the log temperature
    label_prior: tuple[float, ...] | None = None  # for a zero-shot round only
    slope: float = 0.0  # change of a row's log temperature with its normalized entropy
    mean_entropy: float = 0.0  # mean normalized entropy of the pool

    @classmethod
    def untrained(cls, pool: Array) -> Self:
        """Return the prior for a zero-shot round: one temperature, and the label prior of the (n, k) pool logits."""
        check_finite("logits", pool)
        prior = estimate_label_prior(pool)
        entropy = float(normalized_entropy(without_prior(pool, prior)).mean())
        return cls(label_prior=prior, mean_entropy=entropy)

    @classmethod
    def trained(
        cls, pool: Array, probe_logits: Array | None = None, examples: int = 0, adapter_weight: float = 0.0
    ) -> Self:
        """Return the prior for a trained round with (n, k) pool logits.

        At the expected temperature the pool's mean normalized entropy is that of the quick classifier alone. Its own
        temperature is known as well as out-of-fold predictions of its training examples tell it. Without a quick
        classifier nothing is known.
        """
        check_finite("logits", pool, probe_logits)
        mean_entropy = float(normalized_entropy(pool).mean())
        if probe_logits is None:
            return cls(slope=constants.SLOPE, mean_entropy=mean_entropy)
        temperature = temperature_at(float(normalized_entropy(probe_logits).mean()), pool)
        of_probe = (constants.ROUND_SPREAD**-2 + examples * information(probe_logits)) ** -0.5
        spread = float(np.hypot(of_probe, adapter_weight * constants.ADAPTER_SPREAD))
        return cls(temperature, spread, slope=constants.SLOPE, mean_entropy=mean_entropy)


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


def sloped(logits: Array, slope: float, mean_entropy: float) -> Array:
    """Divide (n, k) logits by the part of their temperature that depends on their normalized entropy."""
    return np.asarray(logits * np.exp(-slope * (normalized_entropy(logits) - mean_entropy))[:, None])


def fit_calibrator(logits: Array, labels: Labels, calibration_prior: CalibrationPrior) -> Calibrator:
    """Fit temperature and biases on the (n, k) logits and (n,) labels of audit answers. Raises NotFinite."""
    given = calibration_prior
    corrected = sloped(without_prior(logits, given.label_prior), given.slope, given.mean_entropy)
    (share,), bias = fit_pool(corrected[None], labels, 1 / np.float64(given.temperature), given.spread)
    learned = len(labels) * information(corrected * share + bias) if len(labels) else 0.0
    spread = float((given.spread**-2 + learned) ** -0.5)
    temperature, biases = float(1 / share), tuple(bias.tolist())
    return Calibrator(temperature, given.label_prior, len(labels), biases, given.slope, given.mean_entropy, spread)


def cross_fitted(logits: Array, labels: Labels, calibration_prior: CalibrationPrior) -> Array:
    """Return (n, k) probabilities of the audit answers, each from a calibrator fitted on the other folds."""
    probabilities = np.empty_like(logits)
    folds = KFold(min(5, len(labels)), shuffle=True, random_state=0)
    for others, fold in folds.split(logits):
        probabilities[fold] = fit_calibrator(logits[others], labels[others], calibration_prior)(logits[fold])
    return probabilities
