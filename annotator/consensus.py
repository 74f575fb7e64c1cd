"""Several annotations of one utterance become one label: the majority's; where it is tied, none yet."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

import krippendorff

from store.annotations import ADJUDICATED


def consensus_labels(answers: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """Return the label of every utterance on which the standing answers have a majority for one."""
    return {utterance: label for utterance, label in consensus(answers).items() if label is not None}


def consensus(answers: Iterable[Mapping[str, Any]]) -> dict[int, int | None]:
    """Return what most standing answers say of each utterance: a label, or None where most say that none fits.

    Skips do not vote, nor do labels that are out of use. An utterance without a winner is left out: training on a
    coin toss would teach the model noise. What was adjudicated wins over all votes.
    """
    said: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for answer in answers:
        said[answer["utterance_id"]].append(answer)
    votes: dict[int, Counter[int | None]] = defaultdict(Counter)
    for utterance, voices in said.items():
        for answer in _heard(voices):
            if answer["kind"] in ("label", "none_fits"):
                votes[utterance][answer["label_id"]] += 1
    ranked = {utterance: counter.most_common() for utterance, counter in votes.items()}
    return {utterance: top[0][0] for utterance, top in ranked.items() if len(top) == 1 or top[0][1] > top[1][1]}


def _heard(voices: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the answers that count, of one utterance's: the last adjudicated one alone, if there is any.

    If its label has gone out of use since, what had been overruled stays overruled, and what was said since counts.
    """
    settled = [answer for answer in voices if answer["strategy"] == ADJUDICATED and answer["kind"] != "skip"]
    if not settled:
        return voices
    last = max(settled, key=lambda answer: int(answer["id"]))
    return [last] if last["kind"] != "out_of_use" else [answer for answer in voices if answer["id"] > last["id"]]


@dataclass(frozen=True)
class Agreement:
    """How far annotators agree: no model can be measured to be right more often than they are of one mind."""

    utterances: int  # with at least two people's labels
    pairs: int  # of labels on the same utterance
    share: float  # of pairs that agree
    alpha: float | None  # Krippendorff's; None where only one label was ever used, which chance explains too


def agreement(answers: Iterable[Mapping[str, Any]]) -> Agreement | None:
    """Compare the labels that different people gave the same utterance; None where no utterance has two.

    Standing answers, one a person and utterance; what was adjudicated was no answer of one's own. Alpha is for
    labels without an order (Krippendorff 2004): 1 is full agreement, 0 what chance would give.
    """
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    for answer in answers:
        if answer["kind"] == "label" and answer["strategy"] != ADJUDICATED:
            votes[answer["utterance_id"]][answer["label_id"]] += 1
    shared = [counter for counter in votes.values() if counter.total() > 1]
    if not shared:
        return None
    pairs = sum(comb(counter.total(), 2) for counter in shared)
    agreeing = sum(comb(count, 2) for counter in shared for count in counter.values())
    used = sorted({label for counter in shared for label in counter})
    table = [[counter[label] for label in used] for counter in shared]
    alpha = krippendorff.alpha(value_counts=table, level_of_measurement="nominal") if len(used) > 1 else None
    return Agreement(len(shared), pairs, agreeing / pairs, None if alpha is None else float(alpha))
