"""What a labelling batch is made of: the utterances most worth asking, random ones that measure, and spot checks.

Every entry records why it is there: the strategy, its score, and the chance with which it was drawn where it
was drawn at all. Without that no unbiased estimate could be made from the answers afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.config import RoundConfig
from annotator.query import Probabilities, rank, strategy_named
from store.acceptances import SPOT_CHECK
from store.queue import QueueEntry

AUDIT = "audit"


@dataclass(frozen=True)
class Askable:
    """What may be asked: open utterances of the pool, of the audit slice, and those accepted unseen, to be checked."""

    pool: Sequence[int]
    probabilities: Probabilities | None  # (n, k) of the pool's; None before any round: then it is drawn at random
    audit: Sequence[int] = ()
    accepted: Sequence[int] = ()


def compose_batch(askable: Askable, config: RoundConfig, rng: np.random.Generator) -> list[QueueEntry]:
    """Choose what is asked next; empty when everything has been answered.

    Where everything else has been answered or accepted, what was accepted goes on to be checked.
    """
    size, pool, audit = config.batch_size, askable.pool, askable.audit
    checks = min(len(askable.accepted), round(size * config.spot_share) if pool or audit else size)
    wanted = size - checks - round(size * config.audit_share)
    audit_count = max(0, min(len(audit), size - checks - min(len(pool), wanted)))
    count = size - checks - audit_count
    chosen = _from_pool(pool, askable.probabilities, config.strategy, count, rng)
    drawn = _at_random(audit, audit_count, AUDIT, rng) + _at_random(askable.accepted, checks, SPOT_CHECK, rng)
    return _interleave(chosen, drawn, rng)


def _from_pool(
    ids: Sequence[int], probabilities: Probabilities | None, strategy: str, count: int, rng: np.random.Generator
) -> list[QueueEntry]:
    if probabilities is None:
        strategy, probabilities = "random", np.ones((len(ids), 1))
    scores = strategy_named(strategy).score(probabilities)
    best = rank(scores, rng)[:count]
    propensity = min(1.0, count / max(1, len(ids))) if strategy == "random" else None
    return [QueueEntry(int(ids[i]), strategy, float(scores[i]), propensity, len(ids)) for i in best]


def _at_random(ids: Sequence[int], count: int, strategy: str, rng: np.random.Generator) -> list[QueueEntry]:
    drawn: NDArray[np.int64] = rng.choice(np.asarray(ids, dtype=np.int64), size=count, replace=False)
    return [QueueEntry(int(i), strategy, None, count / len(ids), len(ids)) for i in drawn]


def _interleave(chosen: list[QueueEntry], drawn: list[QueueEntry], rng: np.random.Generator) -> list[QueueEntry]:
    """Spread what was drawn over the batch at random, so that it cannot be told by its place."""
    places = rng.permutation(len(chosen) + len(drawn))[: len(drawn)]
    random, rest = iter(drawn), iter(chosen)
    return [next(random) if place in places else next(rest) for place in range(len(chosen) + len(drawn))]
