"""Report the progress of a round: stage, share done, seconds left. A cancellation also arrives here."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from model.types import Progress

Listener = Callable[[str, float, float | None], None]
"""Called with the stage, the share of the round that is done, and the seconds left. May raise RoundCancelled."""


def discard(stage: str, share: float, seconds_left: float | None) -> None:
    """Discard progress."""


@dataclass
class Report:
    """Convert each stage's own progress into the share of the round that is done and the time left.

    `costs` are the costs of the stages in one unit, scored utterances. Training reads each example once per epoch and
    costs about three times as much as scoring it: forward, backward, update.
    """

    listener: Listener = discard
    costs: dict[str, float] = field(default_factory=dict)
    _done: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def plan(self, **costs: float) -> None:
        """Set the costs of the stages to come, and start the clock."""
        self.costs, self._done, self._began = dict(costs), 0.0, time.monotonic()

    def stage(self, name: str) -> Progress:
        """Begin a stage and return the function that takes its progress, 0 to 1."""
        before, cost, whole = self._done, self.costs.get(name, 0.0), sum(self.costs.values()) or 1.0
        self._done += cost

        def progress(share: float) -> None:
            total = (before + share * cost) / whole
            spent = time.monotonic() - self._began
            # The first hundredth is warm-up, and an estimate from it would be far too long.
            self.listener(name, total, spent * (1 - total) / total if total > 0.01 else None)

        progress(0.0)
        return progress
