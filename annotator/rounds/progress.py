"""How far a round is: its stage, the share done, the seconds left. Also the place where a cancel arrives."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from model.types import Progress

Listener = Callable[[str, float, float | None], None]
"""Called with stage, share of the whole and seconds left. May raise RoundCancelled."""


def nobody(stage: str, share: float, seconds_left: float | None) -> None:
    """Tell no one."""


@dataclass
class Report:
    """Turns each stage's own progress into a share of the round, and that into time left.

    `costs` weigh the stages in a common unit: utterances read by the backbone. Learning reads each utterance
    once per epoch and costs about three times as much as scoring it: forward, backward, update.
    """

    listener: Listener = nobody
    costs: dict[str, float] = field(default_factory=dict)
    _done: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def plan(self, **costs: float) -> None:
        """Say what the stages to come will cost; the clock starts now."""
        self.costs, self._done, self._began = dict(costs), 0.0, time.monotonic()

    def stage(self, name: str) -> Progress:
        """Begin a stage and return the function that takes its progress, 0 to 1."""
        before, cost, whole = self._done, self.costs.get(name, 0.0), sum(self.costs.values()) or 1.0
        self._done += cost

        def progress(share: float) -> None:
            total = (before + share * cost) / whole
            spent = time.monotonic() - self._began
            # The first hundredth is warm-up: an estimate from it would only alarm.
            self.listener(name, total, spent * (1 - total) / total if total > 0.01 else None)

        progress(0.0)
        return progress
