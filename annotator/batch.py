"""What a labelling batch is made of: the utterances most worth asking, and a random share of the audit slice.

Every entry records why it is there: the strategy, its score, and the chance with which it was drawn where it
was drawn at all. Without that no unbiased estimate could be made from the answers afterwards.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from annotator.config import RoundConfig
from annotator.query import Probabilities, rank, strategy_named
from store.queue import QueueEntry

AUDIT = "audit"


def compose_batch(
    askable: tuple[Sequence[int], Probabilities | None, Sequence[int]], config: RoundConfig, rng: np.random.Generator
) -> list[QueueEntry]:
    """Choose what is asked next; empty when everything has been answered.

    `askable`: pool ids that may be asked, their (n, k) probabilities (None before any round: then drawn at
    random), and the ids of the audit slice that are still unanswered.
    """
    pool, probabilities, audit = askable
    wanted = config.batch_size - round(config.batch_size * config.audit_share)
    audit_count = min(len(audit), config.batch_size - min(len(pool), wanted))
    chosen = _from_pool(pool, probabilities, config.strategy, config.batch_size - audit_count, rng)
    return _interleave(chosen, _from_audit(audit, audit_count, rng), rng)


def _from_pool(
    ids: Sequence[int], probabilities: Probabilities | None, strategy: str, count: int, rng: np.random.Generator
) -> list[QueueEntry]:
    if probabilities is None:
        strategy, probabilities = "random", np.ones((len(ids), 1))
    scores = strategy_named(strategy).score(probabilities)
    best = rank(scores, rng)[:count]
    propensity = min(1.0, count / max(1, len(ids))) if strategy == "random" else None
    return [QueueEntry(int(ids[i]), strategy, float(scores[i]), propensity, len(ids)) for i in best]


def _from_audit(ids: Sequence[int], count: int, rng: np.random.Generator) -> list[QueueEntry]:
    drawn: NDArray[np.int64] = rng.choice(np.asarray(ids, dtype=np.int64), size=count, replace=False)
    return [QueueEntry(int(i), AUDIT, None, count / len(ids), len(ids)) for i in drawn]


def _interleave(chosen: list[QueueEntry], drawn: list[QueueEntry], rng: np.random.Generator) -> list[QueueEntry]:
    """Spread the audit over the batch at random, so that it cannot be told by its place."""
    places = rng.permutation(len(chosen) + len(drawn))[: len(drawn)]
    audit, rest = iter(drawn), iter(chosen)
    return [next(audit) if place in places else next(rest) for place in range(len(chosen) + len(drawn))]
