"""Compose a labeling batch: utterances selected by a query strategy, random audit utterances, and spot checks.

Every entry records its strategy, its acquisition score and, if it was drawn at random, its inclusion probability.
Unbiased estimates from the answers need them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.config import RoundConfig
from annotator.methods.query_strategies import DEFAULT, Rows, View, choose, strategy_named
from store.acceptances import SPOT_CHECK
from store.queue import QueueEntry
from store.utterances import Utterance

AUDIT = "audit"
DUPLICATE = 0.8  # cosine similarity of character n-grams from which two texts are near-duplicates


@dataclass(frozen=True)
class Candidates:
    """Utterances that may be asked: the open pool, the open audit sample, and auto-accepted ones for spot checks."""

    pool: Sequence[int]
    view: View | None  # of the pool, in its order; None before any round, and the pool is then sampled at random
    audit: Sequence[int] = ()
    accepted: Sequence[int] = ()
    is_cold: bool = False  # whether the view is from a round without training examples
    read: Callable[[Sequence[int]], list[Utterance]] | None = None  # to detect near-duplicates


def compose_batch(candidates: Candidates, config: RoundConfig, rng: np.random.Generator) -> list[QueueEntry]:
    """Return the next batch; empty when everything has been answered.

    When everything else has been answered or accepted, the batch consists of spot checks.
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
    """Draw `count` open utterances of the audit sample at random, or all if there are fewer."""
    return _at_random(audit, min(count, len(audit)), AUDIT, rng) if audit else []


def choose_from_pool(
    candidates: Candidates, config: RoundConfig, count: int, rng: np.random.Generator
) -> list[QueueEntry]:
    """Choose `count` utterances of the pool with the project's query strategy."""
    pool, view = candidates.pool, candidates.view
    if not pool or not count:
        return []
    if view is None:
        return _at_random(pool, min(count, len(pool)), "random", rng, 0.0)
    use_cold = candidates.is_cold and config.strategy != "random"
    strategy = strategy_named(config.cold_strategy if use_cold else config.strategy)
    if strategy.name == "random":
        return _at_random(pool, min(count, len(pool)), "random", rng, 0.0)
    if not strategy.can(view):
        strategy = strategy_named(DEFAULT)
    rows, scores = choose(strategy, view, count, rng)
    taken = pick_different(rows, count, candidates, config.per_conversation)
    return [QueueEntry(int(pool[row]), strategy.name, float(scores[row]), None, len(pool)) for row in taken]


def pick_different(rows: Rows, count: int, candidates: Candidates, per_conversation: int) -> list[int]:
    """Take the first `count` candidates, one of near-duplicates and up to `per_conversation` turns of a conversation.

    The candidates passed over fill the remaining places.
    """
    if candidates.read is None:
        return [int(row) for row in rows[:count]]
    read = candidates.read([candidates.pool[row] for row in rows])
    duplicates = _near_duplicates([one.text for one in read])
    taken: list[int] = []
    turns: Counter[str | None] = Counter()
    for place, one in enumerate(read):
        in_full = one.conversation is not None and turns[one.conversation] >= per_conversation
        if in_full or duplicates[place, taken].any():
            continue
        taken.append(place)
        turns[one.conversation] += 1
    passed_over = [place for place in range(len(rows)) if place not in set(taken)]
    return [int(rows[place]) for place in (taken + passed_over)[:count]]


def _near_duplicates(texts: Sequence[str]) -> NDArray[np.bool_]:
    """Return an (n, n) array of whether two texts are near-duplicates."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit_transform([f"{text} ." for text in texts])
    return np.asarray((grams @ grams.T).toarray() >= DUPLICATE)


def _at_random(
    ids: Sequence[int], count: int, strategy: str, rng: np.random.Generator, score: float | None = None
) -> list[QueueEntry]:
    drawn: NDArray[np.int64] = rng.choice(np.asarray(ids, dtype=np.int64), size=count, replace=False)
    return [QueueEntry(int(i), strategy, score, count / len(ids), len(ids)) for i in drawn]


def _interleave(chosen: list[QueueEntry], drawn: list[QueueEntry], rng: np.random.Generator) -> list[QueueEntry]:
    """Place the drawn entries at random positions, so that their position does not identify them."""
    places = rng.permutation(len(chosen) + len(drawn))[: len(drawn)]
    random, rest = iter(drawn), iter(chosen)
    return [next(random) if place in places else next(rest) for place in range(len(chosen) + len(drawn))]
