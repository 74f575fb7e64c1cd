"""Measure anchoring: how much more often people agree with the model when they see its suggestion."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import hypot
from typing import Any

from annotator.methods.metrics import proportion_interval

FEW = 20  # answers with a suggestion, and without; with fewer the interval is too wide to be of use


@dataclass(frozen=True)
class Pull:
    """How often people agree with the model when its suggestion is shown and when it is withheld at random."""

    shown: int
    agreed_shown: int
    hidden: int
    agreed_hidden: int

    @property
    def size(self) -> float:
        """Difference of the two shares of agreement, -1 to 1."""
        return self.agreed_shown / self.shown - self.agreed_hidden / self.hidden

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference, combined from those of the two shares (Newcombe 1998)."""
        one, two = self.agreed_shown / self.shown, self.agreed_hidden / self.hidden
        (low_one, high_one), (low_two, high_two) = (
            proportion_interval(self.agreed_shown, self.shown),
            proportion_interval(self.agreed_hidden, self.hidden),
        )
        return self.size - hypot(one - low_one, high_two - two), self.size + hypot(high_one - one, two - low_two)


def pull(answers: Iterable[Mapping[str, Any]]) -> Pull | None:
    """Compare answers given with a suggestion and those where it was withheld at random; None below 20 of either.

    The two kinds are assigned at random, so nothing else explains a difference. Answers of annotators who hide all
    suggestions are not counted.
    """
    counts = {"shown": [0, 0], "hidden": [0, 0]}
    for one in answers:
        if one["kind"] not in ("label", "none_fits"):
            continue
        if one["suggested_label_id"] is not None:
            kind, suggested = "shown", one["suggested_label_id"]
        elif one["withheld"] == "chance":
            kind, suggested = "hidden", one["withheld_label_id"]
        else:
            continue
        counts[kind][0] += 1
        counts[kind][1] += one["label_id"] == suggested
    (shown, agreed_shown), (hidden, agreed_hidden) = counts["shown"], counts["hidden"]
    return Pull(shown, agreed_shown, hidden, agreed_hidden) if min(shown, hidden) >= FEW else None
