"""Pool and audit slice: assigned once, at random, at import. What may be trained on, what only measures.

Utterances chosen for their uncertainty are a biased sample: accuracy or calibration on them describes the
queue, not the pool. The audit slice is drawn before anything is known about an utterance, and its answers are
given without seeing a suggestion. No model is ever measured on an answer that it was trained on: audit answers are
kept from training, or, while they are few, each half is measured by a model that was trained without it.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping

import numpy as np

from annotator.methods.guarantee import Target, needed

SHARE = 0.2
ERRORS = 3  # among the audit answers a promise rests on; with fewer allowed, most models could never be promised for
FOLDS = 2


def audit_size(utterances: int, target: Target) -> int:
    """Say how many of freshly imported utterances go to the audit slice: a fifth, and no more than are of use.

    Of use are as many as it takes to promise the wished precision for the surer half of all utterances, with three
    errors among its audit answers: 306 for 95 %. An accuracy is then known within about 0.05; more effort is better
    spent on training.
    """
    return min(2 * needed(target, ERRORS), round(SHARE * utterances))


def draw_audit(groups: Mapping[int, Hashable], size: int, rng: np.random.Generator) -> set[int]:
    """Draw whole groups at random until `size` utterances are drawn, passing over groups that no longer fit.

    `groups` gives the group of each utterance id: copies of one text share a group, so that no text is both
    trained on and measured on; and all turns of a conversation do, if asked. Passing over what is too large makes
    long conversations a little rarer than their share.
    """
    members = defaultdict(list)
    for utterance, group in groups.items():
        members[group].append(utterance)
    drawn: set[int] = set()
    in_order = list(members.values())
    for index in rng.permutation(len(in_order)):
        if len(drawn) + len(in_order[index]) <= size:
            drawn.update(in_order[index])
    return drawn


def deal_folds(ids: Iterable[int], rng: np.random.Generator) -> list[list[int]]:
    """Deal audit answers at random into folds of like size, none of them empty: no fold for no answer.

    Each fold is measured by a model that was trained on everything else. Two folds are the cheapest, and all but
    half of the audit answers teach each of these models.
    """
    order = rng.permutation(sorted(ids))
    return [fold.tolist() for fold in np.array_split(order, min(FOLDS, len(order)))] if len(order) else []
