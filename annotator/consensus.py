"""Several annotations of one utterance become one label: the majority's; where it is tied, none yet."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any


def consensus_labels(answers: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """Return the label of every utterance on which the standing answers have a majority for one."""
    return {utterance: label for utterance, label in consensus(answers).items() if label is not None}


def consensus(answers: Iterable[Mapping[str, Any]]) -> dict[int, int | None]:
    """Return what most standing answers say of each utterance: a label, or None where most say that none fits.

    Skips do not vote. An utterance without a winner is left out: training on a coin toss would teach the model
    noise.
    """
    votes: dict[int, Counter[int | None]] = defaultdict(Counter)
    for answer in answers:
        if answer["kind"] in ("label", "none_fits"):
            votes[answer["utterance_id"]][answer["label_id"]] += 1
    ranked = {utterance: counter.most_common(2) for utterance, counter in votes.items()}
    return {utterance: top[0][0] for utterance, top in ranked.items() if len(top) == 1 or top[0][1] > top[1][1]}
