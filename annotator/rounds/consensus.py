"""Combine the answers to one utterance into a verdict: the majority's label, “none fits”, or disputed.

A label that was imported with the file counts only until a person answers, so one correction replaces it. Each person
has one vote; names that differ only in case or surrounding spaces are the same person.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal

import krippendorff

from store.annotations import ADJUDICATED, ANSWERED, GIVEN, Answer, same_person

VerdictKind = Literal["label", "none_fits", "disputed", "skip", "out_of_use"]


@dataclass(frozen=True)
class Verdict:
    """The result of the standing answers to one utterance."""

    kind: VerdictKind
    label_id: int | None  # None unless the kind is `label`
    votes: tuple[Answer, ...]  # labels and “none fits”, one per person, or the imported label
    decisive: Answer  # the newest answer with this result; the oldest if disputed

    @property
    def is_agreed(self) -> bool:
        """Whether there is a consensus: a label, or “none fits”."""
        return self.kind in ANSWERED


def consensus_labels(answers: Iterable[Answer]) -> dict[int, int]:
    """Return the label of every utterance whose standing answers have a majority for one."""
    return {utterance: label for utterance, label in consensus(answers).items() if label is not None}


def consensus(answers: Iterable[Answer]) -> dict[int, int | None]:
    """Return the majority of each utterance's standing answers: a label, or None for “none fits”.

    Utterances with a tie are left out: breaking it at random would add noise to training.
    """
    verdicts = {utterance: verdict(given) for utterance, given in by_utterance(answers).items()}
    return {utterance: one.label_id for utterance, one in verdicts.items() if one.is_agreed}


def by_utterance(answers: Iterable[Answer]) -> dict[int, list[Answer]]:
    """Group answers by utterance, in their order."""
    groups: dict[int, list[Answer]] = defaultdict(list)
    for answer in answers:
        groups[answer.utterance_id].append(answer)
    return groups


def verdict(answers: Sequence[Answer]) -> Verdict:
    """Return the verdict of the standing answers to one utterance, of which there is at least one.

    Skips and retired labels have no vote. An adjudicated answer overrides all votes.
    """
    counting = answers if len(answers) == 1 else _counting(answers)
    votes = tuple(answer for answer in counting if answer.kind in ANSWERED)
    answers = [answer for answer in _decisive(counting) if answer.kind in ANSWERED]
    if not answers:
        rest = [answer for answer in counting if answer.kind == "out_of_use"] or counting
        decisive = max(rest, key=_order)
        return Verdict("skip" if decisive.kind == "skip" else "out_of_use", None, votes, decisive)
    ranked = Counter(answer.label_id for answer in answers).most_common(2)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return Verdict("disputed", None, votes, min(answers, key=_order))
    label = ranked[0][0]
    decisive = max((answer for answer in answers if answer.label_id == label), key=_order)
    return Verdict(decisive.kind, label, votes, decisive)


def divided(answers: Iterable[Answer]) -> list[int]:
    """Return the utterances to which people have given different answers, with or without a majority."""
    return [
        utterance
        for utterance, given in by_utterance(answers).items()
        if len({answer.label_id for answer in _counting(given) if answer.kind in ANSWERED}) > 1
    ]


def _counting(answers: Sequence[Answer]) -> list[Answer]:
    """Return the newest answer of each person, and the imported label only if no person has answered.

    An adjudicated answer counts in addition to the same person's own answer. An answer with a retired label still
    replaces the person's earlier answer.
    """
    newest: dict[tuple[str, bool], Answer] = {}
    for answer in sorted(answers, key=_order):
        newest[same_person(answer.annotator), answer.strategy == ADJUDICATED] = answer
    people = [answer for answer in newest.values() if answer.strategy != GIVEN]
    answered = any(answer.kind != "skip" for answer in people)
    return sorted(people if answered else newest.values(), key=_order)


def _decisive(answers: Sequence[Answer]) -> Sequence[Answer]:
    """Return the answers that decide the verdict: the last adjudicated one alone, if there is one.

    If its label has been retired since, only answers given after it count.
    """
    adjudicated = [answer for answer in answers if answer.strategy == ADJUDICATED and answer.kind != "skip"]
    if not adjudicated:
        return answers
    last = max(adjudicated, key=_order)
    return [last] if last.kind != "out_of_use" else [answer for answer in answers if answer.id > last.id]


def _order(answer: Answer) -> int:
    return answer.id


@dataclass(frozen=True)
class Agreement:
    """Inter-annotator agreement, which limits the accuracy that can be measured for a model."""

    utterances: int  # answered by at least two people
    pairs: int  # of answers to the same utterance
    share: float  # of pairs that agree
    alpha: float | None  # Krippendorff's; undefined (None) if all answers are the same


def agreement(answers: Iterable[Answer]) -> Agreement | None:
    """Return the agreement between people who answered the same utterances; None if no utterance has two answers.

    Counts standing answers, one per person and utterance: labels, and “none fits” as a value of its own. Adjudicated
    answers are not independent and imported labels belong to nobody, so both are left out. Alpha is nominal
    (Krippendorff 2004): 1 is full agreement, 0 is chance.
    """
    own = (answer for answer in answers if answer.strategy not in (ADJUDICATED, GIVEN))
    groups = by_utterance(own).values()
    counters = [Counter(a.label_id for a in _counting(group) if a.kind in ANSWERED) for group in groups]
    shared = [counter for counter in counters if counter.total() > 1]
    if not shared:
        return None
    pairs = sum(comb(counter.total(), 2) for counter in shared)
    agreeing = sum(comb(count, 2) for counter in shared for count in counter.values())
    used = sorted({value for counter in shared for value in counter}, key=lambda value: value or 0)
    table = [[counter[value] for value in used] for counter in shared]
    alpha = krippendorff.alpha(value_counts=table, level_of_measurement="nominal") if len(used) > 1 else None
    return Agreement(len(shared), pairs, agreeing / pairs, None if alpha is None else float(alpha))
