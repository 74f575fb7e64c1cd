"""Several answers to one utterance become one verdict: the majority's label, that none fits, or that it is disputed.

A label that came with the file counts only while no person has answered, so one correction replaces it. Each person
has one vote: names that differ only in case or outer spaces are one person.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

import krippendorff

from store.annotations import ADJUDICATED, ANSWERED, GIVEN, same_person

Answer = Mapping[str, Any]
VerdictKind = Literal["label", "none_fits", "disputed", "skip", "out_of_use"]


@dataclass(frozen=True)
class Verdict:
    """What the standing answers to one utterance come to."""

    kind: VerdictKind
    label_id: int | None  # none for any other kind than `label`
    votes: tuple[Answer, ...]  # labels and “none fits” of people, one a person, or the label that came with the file
    decisive: Answer  # the newest answer that says so; of a dispute the first one

    @property
    def is_agreed(self) -> bool:
        """Whether there is a result: a label, or that none fits."""
        return self.kind in ANSWERED


def consensus_labels(answers: Iterable[Answer]) -> dict[int, int]:
    """Return the label of every utterance on which the standing answers have a majority for one."""
    return {utterance: label for utterance, label in consensus(answers).items() if label is not None}


def consensus(answers: Iterable[Answer]) -> dict[int, int | None]:
    """Return what most standing answers say of each utterance: a label, or None where most say that none fits.

    An utterance without a winner is left out: training on a coin toss would teach the model noise.
    """
    found = {utterance: verdict(given) for utterance, given in by_utterance(answers).items()}
    return {utterance: one.label_id for utterance, one in found.items() if one.is_agreed}


def by_utterance(answers: Iterable[Answer]) -> dict[int, list[Answer]]:
    """Group answers by the utterance they were given to, in their order."""
    groups: dict[int, list[Answer]] = defaultdict(list)
    for answer in answers:
        groups[answer["utterance_id"]].append(answer)
    return groups


def verdict(answers: Sequence[Answer]) -> Verdict:
    """Return what the standing answers to one utterance, at least one, come to.

    Skips have no vote, nor do labels that are out of use. An adjudicated answer outweighs all votes.
    """
    counting = answers if len(answers) == 1 else _counting(answers)
    votes = tuple(answer for answer in counting if answer["kind"] in ANSWERED)
    answers = [answer for answer in _heard(counting) if answer["kind"] in ANSWERED]
    if not answers:
        rest = [answer for answer in counting if answer["kind"] == "out_of_use"] or counting
        decisive = max(rest, key=_order)
        return Verdict("skip" if decisive["kind"] == "skip" else "out_of_use", None, votes, decisive)
    ranked = Counter(answer["label_id"] for answer in answers).most_common(2)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return Verdict("disputed", None, votes, min(answers, key=_order))
    label = ranked[0][0]
    decisive = max((answer for answer in answers if answer["label_id"] == label), key=_order)
    return Verdict(decisive["kind"], label, votes, decisive)


def divided(answers: Iterable[Answer]) -> list[int]:
    """Return the utterances to which people have given different answers, one of them outvoted or not."""
    return [
        utterance
        for utterance, given in by_utterance(answers).items()
        if len({answer["label_id"] for answer in _counting(given) if answer["kind"] in ANSWERED}) > 1
    ]


def _counting(answers: Sequence[Answer]) -> list[Answer]:
    """Return the newest answer of each person; what came with the file only where no person has answered.

    What somebody adjudicated stands beside their own answer. A label that is out of use was an answer all the same:
    what it replaced stays replaced.
    """
    newest: dict[tuple[str, bool], Answer] = {}
    for answer in sorted(answers, key=_order):
        newest[same_person(answer["annotator"]), answer["strategy"] == ADJUDICATED] = answer
    people = [answer for answer in newest.values() if answer["strategy"] != GIVEN]
    answered = any(answer["kind"] != "skip" for answer in people)
    return sorted(people if answered else newest.values(), key=_order)


def _heard(answers: Sequence[Answer]) -> Sequence[Answer]:
    """Return the answers that decide, of one utterance's: the last adjudicated one alone, if there is any.

    If its label has gone out of use since, what had been overruled stays overruled, and what was said since counts.
    """
    adjudicated = [answer for answer in answers if answer["strategy"] == ADJUDICATED and answer["kind"] != "skip"]
    if not adjudicated:
        return answers
    last = max(adjudicated, key=_order)
    return [last] if last["kind"] != "out_of_use" else [answer for answer in answers if answer["id"] > last["id"]]


def _order(answer: Answer) -> int:
    return int(answer["id"])


@dataclass(frozen=True)
class Agreement:
    """How far annotators agree: no model can be measured to be right more often than they are of one mind."""

    utterances: int  # with the answers of at least two people
    pairs: int  # of answers to the same utterance
    share: float  # of pairs that agree
    alpha: float | None  # Krippendorff's; None where only one answer was ever given, which chance explains too


def agreement(answers: Iterable[Answer]) -> Agreement | None:
    """Compare the answers that different people gave to the same utterance; None where no utterance has two.

    Standing answers, one a person and utterance: labels, and “none fits” as a value of its own. What was adjudicated
    was no independent answer, and what came with the file is nobody's. Alpha is for values without an order
    (Krippendorff 2004): 1 is full agreement, 0 what chance would give.
    """
    own = (answer for answer in answers if answer["strategy"] not in (ADJUDICATED, GIVEN))
    groups = by_utterance(own).values()
    counters = [Counter(a["label_id"] for a in _counting(group) if a["kind"] in ANSWERED) for group in groups]
    shared = [counter for counter in counters if counter.total() > 1]
    if not shared:
        return None
    pairs = sum(comb(counter.total(), 2) for counter in shared)
    agreeing = sum(comb(count, 2) for counter in shared for count in counter.values())
    used = sorted({value for counter in shared for value in counter}, key=lambda value: value or 0)
    table = [[counter[value] for value in used] for counter in shared]
    alpha = krippendorff.alpha(value_counts=table, level_of_measurement="nominal") if len(used) > 1 else None
    return Agreement(len(shared), pairs, agreeing / pairs, None if alpha is None else float(alpha))
