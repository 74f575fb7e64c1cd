"""Split imported utterances at random into the pool, for training, and the audit sample, for evaluation.

Utterances selected for their uncertainty are a biased sample: accuracy or calibration on them describes the queue, not
the pool. The audit sample is drawn at import, and its answers are given without a suggestion. Audit answers
are never trained on.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping

import numpy as np

from annotator.methods.guarantee import Target, needed

SHARE = 0.2
ERRORS = 3  # allowed among the audit answers of a guarantee; with fewer, most models could not be certified


def audit_size(utterances: int, target: Target) -> int:
    """Return how many newly imported utterances go to the audit sample: a fifth, up to the number that is useful.

    That number suffices to certify the target precision for the more confident half of all utterances, with three
    errors among its audit answers: 306 for 95 %. It also gives the accuracy to within about 0.05; more effort is better
    spent on training.
    """
    return min(2 * needed(target, ERRORS), round(SHARE * utterances))


def draw_audit(groups: Mapping[int, Hashable], size: int, rng: np.random.Generator) -> set[int]:
    """Draw whole groups at random until `size` utterances are drawn, skipping groups that no longer fit.

    `groups` maps utterance ids to groups. Copies of one text share a group, so no text is used for both training and
    evaluation; optionally all turns of a conversation do. Because large groups are skipped, long conversations are
    slightly underrepresented.
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
