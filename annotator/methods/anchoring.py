"""Measure anchoring: how much more often people agree with the model when they see its suggestion."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot

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


def pull(answers: Iterable[tuple[bool, bool]]) -> Pull | None:
    """Compare answers given with a suggestion and those where it was withheld at random; None below 20 of either.

    Of each answer: whether the suggestion was shown, and whether the answer agrees with it. The two kinds are assigned
    at random, so nothing else explains a difference.
    """
    counted = Counter(answers)
    agreed, hidden_agreed = counted[True, True], counted[False, True]
    shown, hidden = agreed + counted[True, False], hidden_agreed + counted[False, False]
    return Pull(shown, agreed, hidden, hidden_agreed) if min(shown, hidden) >= FEW else None
