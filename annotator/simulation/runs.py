"""The figures after each round of a simulated session, and how they are stored: one flat JSON object each."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from annotator.methods.metrics import Metrics
from annotator.simulation.curves import Point


@dataclass(frozen=True)
class Outlook:
    """Whether the advice was to stop, and the suggestions for unanswered utterances that are wrong."""

    steady: bool
    open: int = 0  # suggestions for unanswered utterances
    wrong_expected: float = 0.0
    wrong: int = 0


@dataclass(frozen=True)
class Run:
    """The figures after a round, with the metrics on the test split."""

    strategy: str
    seed: int
    round: int
    labels: int  # answers so far
    trained_on: int
    audited_on: int
    temperature: float
    raw_nll: float  # before calibration
    raw_ece: float
    outlook: Outlook
    metrics: Metrics

    @property
    def point(self) -> Point:
        """The accuracy, as a point of the learning curve."""
        return Point(self.strategy, self.seed, self.labels, self.metrics.accuracy)

    def as_dict(self) -> dict[str, object]:
        """Return all figures by name."""
        own = {name: value for name, value in vars(self).items() if name not in _PARTS}
        return {**own, **asdict(self.outlook), **asdict(self.metrics)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self | None:
        """Read what `as_dict` returned; None if a figure is missing, as in files of earlier versions."""
        own, ahead = ({one.name for one in fields(kind)} - _PARTS for kind in (cls, Outlook))
        metrics = Metrics.from_dict(stored)
        if metrics is None or not own | ahead <= stored.keys():
            return None
        outlook = Outlook(**{name: stored[name] for name in ahead})
        return cls(**{name: stored[name] for name in own}, outlook=outlook, metrics=metrics)


_PARTS = {"outlook", "metrics"}
