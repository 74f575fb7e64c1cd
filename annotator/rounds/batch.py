"""What a labelling batch is made of: the utterances most worth asking, random ones that measure, and spot checks.

Every entry records why it is there: the strategy, its score, and the chance with which it was drawn where it
was drawn at all. Without that no unbiased estimate could be made from the answers afterwards.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.config import RoundConfig
from annotator.methods.query_strategies import DEFAULT, Rows, View, choose, strategy_named
from store.acceptances import SPOT_CHECK
from store.queue import QueueEntry

AUDIT = "audit"
ALIKE = 0.8  # cosine of character n-grams from which on two texts are near-duplicates


@dataclass(frozen=True)
class Candidates:
    """What may be asked: open utterances of the pool, of the audit slice, and those accepted unseen, to be checked."""

    pool: Sequence[int]
    view: View | None  # of the pool, in its order; None before any round: then it is drawn at random
    audit: Sequence[int] = ()
    accepted: Sequence[int] = ()
    is_cold: bool = False  # whether no answer has taught the round that the view is of
    read: Callable[[Sequence[int]], list[Mapping[str, Any]]] | None = None  # rows of utterances, to tell likes apart


def compose_batch(candidates: Candidates, config: RoundConfig, rng: np.random.Generator) -> list[QueueEntry]:
    """Choose what is asked next; empty when everything has been answered.

    Where everything else has been answered or accepted, what was accepted goes on to be checked.
    """
    size, pool, audit = config.batch_size, candidates.pool, candidates.audit
    checks = min(len(candidates.accepted), round(size * config.spot_share) if pool or audit else size)
    wanted = size - checks - round(size * config.audit_share)
    audit_count = max(0, min(len(audit), size - checks - min(len(pool), wanted)))
    count = size - checks - audit_count
    chosen = choose_from_pool(candidates, config, count, rng)
    drawn = _at_random(audit, audit_count, AUDIT, rng) + _at_random(candidates.accepted, checks, SPOT_CHECK, rng)
    return _interleave(chosen, drawn, rng)


def compose_audit(audit: Sequence[int], count: int, rng: np.random.Generator) -> list[QueueEntry]:
    """Draw so many of the open utterances of the audit slice, or all."""
    return _at_random(audit, min(count, len(audit)), AUDIT, rng) if audit else []


def choose_from_pool(
    candidates: Candidates, config: RoundConfig, count: int, rng: np.random.Generator
) -> list[QueueEntry]:
    """Choose `count` utterances of the pool by the project's strategy."""
    pool, view = candidates.pool, candidates.view
    if not pool or not count:
        return []
    if view is None:  # nothing is known of it
        return _at_random(pool, min(count, len(pool)), "random", rng, 0.0)
    is_first = candidates.is_cold and config.strategy != "random"  # which is random from the start
    strategy = strategy_named(config.cold_strategy if is_first else config.strategy)
    if strategy.name == "random":
        return _at_random(pool, min(count, len(pool)), "random", rng, 0.0)
    if not strategy.can(view):
        strategy = strategy_named(DEFAULT)
    rows, scores = choose(strategy, view, count, rng)
    taken = pick_different(rows, count, candidates, config.per_conversation)
    return [QueueEntry(int(pool[row]), strategy.name, float(scores[row]), None, len(pool)) for row in taken]


def pick_different(rows: Rows, count: int, candidates: Candidates, per_conversation: int) -> list[int]:
    """Take the first `count` candidates that are not like one another; what is left out only fills up.

    Of near-duplicates one is taken, of a conversation so many turns.
    """
    if candidates.read is None or len(rows) <= 1:
        return [int(row) for row in rows[:count]]
    read = candidates.read([candidates.pool[row] for row in rows])
    alike = _alike([str(one["text"]) for one in read])
    taken: list[int] = []
    turns: Counter[str] = Counter()
    for place, one in enumerate(read):
        conversation = one["conversation"]
        if len(taken) == count:
            break
        if alike[place, taken].any() or (conversation is not None and turns[conversation] >= per_conversation):
            continue
        taken.append(place)
        turns[conversation] += 1
    passed_over = [place for place in range(len(rows)) if place not in set(taken)]
    return [int(rows[place]) for place in (taken + passed_over)[:count]]


def _alike(texts: Sequence[str]) -> NDArray[np.bool_]:
    """Return (n, n) whether two texts are near-duplicates."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit_transform([f"{text} ." for text in texts])
    return np.asarray((grams @ grams.T).toarray() >= ALIKE)


def _at_random(
    ids: Sequence[int], count: int, strategy: str, rng: np.random.Generator, score: float | None = None
) -> list[QueueEntry]:
    drawn: NDArray[np.int64] = rng.choice(np.asarray(ids, dtype=np.int64), size=count, replace=False)
    return [QueueEntry(int(i), strategy, score, count / len(ids), len(ids)) for i in drawn]


def _interleave(chosen: list[QueueEntry], drawn: list[QueueEntry], rng: np.random.Generator) -> list[QueueEntry]:
    """Spread what was drawn over the batch at random, so that it cannot be told by its place."""
    places = rng.permutation(len(chosen) + len(drawn))[: len(drawn)]
    random, rest = iter(drawn), iter(chosen)
    return [next(random) if place in places else next(rest) for place in range(len(chosen) + len(drawn))]
