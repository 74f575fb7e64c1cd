"""Determine the status of every utterance to be labeled: exactly one each, so the counts add up to the total."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from annotator.i18n import later
from annotator.project import Project
from annotator.rounds.consensus import Verdict, by_utterance, divided, verdict
from store import acceptances, annotations, utterances
from store.acceptances import Accepted
from store.annotations import Answer

Status = Literal["labeled", "disputed", "none_fits", "accepted", "model", "skipped", "out_of_use", "unlabeled"]

SHOWN: dict[Status, str] = {
    "labeled": later("labeled"),
    "disputed": later("disputed"),
    "none_fits": later("none fits"),
    "accepted": later("auto-accepted"),
    "model": later("labeled by the model only"),
    "skipped": later("skipped"),
    "out_of_use": later("with a retired label"),
    "unlabeled": later("without an answer"),
}

MEANINGS: dict[Status, str] = {
    "labeled": "people's answers, or else an imported label, have a majority",
    "disputed": "people's answers are tied",
    "none_fits": "most people answered that none of the labels fits",
    "accepted": "nobody has answered it; its suggestion was auto-accepted",
    "model": "nobody has labeled it; the row has the label with the highest predicted probability",
    "skipped": "people have skipped it, and nobody has answered it",
    "out_of_use": "the label of its answer has been retired or split",
    "unlabeled": "nobody has answered it",
}


@dataclass(frozen=True)
class Statuses:
    """The status of each utterance to be labeled; those in none of the mappings are unlabeled."""

    to_label: int
    answers: Mapping[int, list[Answer]]  # standing answers by utterance, oldest first
    accepted: Mapping[int, Accepted]  # auto-accepted suggestions in effect, by utterance
    scored: Collection[int] = ()  # utterances with a prediction, if predictions count as labels

    @cached_property
    def verdicts(self) -> dict[int, Verdict]:
        """The verdict on each answered utterance."""
        return {utterance: verdict(given) for utterance, given in self.answers.items()}

    def of(self, utterance: int) -> Status:
        """Return the status of an utterance: people's verdict first, then auto-acceptance, then the prediction."""
        found = self.verdicts.get(utterance)
        if found and found.kind in _OF_PEOPLE:
            return _OF_PEOPLE[found.kind]
        if utterance in self.accepted:
            return "accepted"
        if utterance in self.scored:
            return "model"
        if found:
            return "skipped" if found.kind == "skip" else "out_of_use"
        return "unlabeled"

    def counts(self) -> dict[Status, int]:
        """Return the number of utterances with each status; the sum is `to_label`."""
        known = {*self.answers, *self.accepted, *self.scored}
        counted = Counter(self.of(utterance) for utterance in known)
        counted["unlabeled"] += self.to_label - len(known)
        return {status: counted[status] for status in SHOWN}


_OF_PEOPLE: dict[str, Status] = {"label": "labeled", "disputed": "disputed", "none_fits": "none_fits"}


def statuses(project: Project, scored: Collection[int] = ()) -> Statuses:
    """Read the statuses of all utterances; those in `scored` have the status `model` if nobody has labeled them."""
    sizes = utterances.count_slices(project.db)
    given = by_utterance(annotations.answers(project.db))
    accepted = {one.utterance_id: one for one in acceptances.standing(project.db)}
    return Statuses(sizes["pool"] + sizes["audit"], given, accepted, scored)


def added_up(counts: Mapping[Status, int], translate: Callable[[str], str] = str) -> str:
    """Format the counts as a sum; `translate` is applied to the names."""
    terms = [f"{n:,} {translate(SHOWN[status])}" for status, n in counts.items() if n]
    return f"{' + '.join(terms) or 0} = {sum(counts.values()):,}"


def people_differ(project: Project) -> list[int]:
    """Return the utterances to which people have given different answers, the oldest first."""
    found = annotations.differing_ids(project.db)
    apart = set(divided(annotations.answers_to(project.db, found)))
    return [i for i in found if i in apart]
