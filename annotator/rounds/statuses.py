"""The status of every utterance to be labeled: exactly one each, so that the counts add up to all of them."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from annotator.i18n import later
from annotator.project import Project
from annotator.rounds.consensus import Verdict, by_utterance, divided, verdict
from store import acceptances, annotations, utterances

Status = Literal["labeled", "disputed", "none_fits", "accepted", "model", "skipped", "out_of_use", "unlabeled"]

SHOWN: dict[Status, str] = {
    "labeled": later("labeled"),
    "disputed": later("disputed"),
    "none_fits": later("none fits"),
    "accepted": later("accepted unseen"),
    "model": later("labeled by the model alone"),
    "skipped": later("skipped"),
    "out_of_use": later("in a label out of use"),
    "unlabeled": later("without an answer"),
}

MEANINGS: dict[Status, str] = {
    "labeled": "people's answers, or else a label that came with the file, have a majority",
    "disputed": "people's answers are tied",
    "none_fits": "most people say that none of the labels fits",
    "accepted": "nobody has answered it; its suggestion was accepted unseen and stands",
    "model": "nobody has labeled it; the row holds the label that the model finds likeliest",
    "skipped": "people have passed it over, and nobody has answered it",
    "out_of_use": "the label that was given has been retired or split since",
    "unlabeled": "nobody has answered it",
}


@dataclass(frozen=True)
class Statuses:
    """What is known of each utterance to be labeled; those that are in none of the mappings are unlabeled."""

    to_label: int
    answers: Mapping[int, list[Mapping[str, Any]]]  # standing answers by utterance, oldest first
    accepted: Mapping[int, Mapping[str, Any]]  # accepted suggestions that stand, by utterance
    scored: Collection[int] = ()  # utterances with a prediction, where those of the model count

    @cached_property
    def verdicts(self) -> dict[int, Verdict]:
        """What the answers to each answered utterance come to."""
        return {utterance: verdict(given) for utterance, given in self.answers.items()}

    def of(self, utterance: int) -> Status:
        """Return the status of an utterance: a person's verdict first, then an acceptance, then the model's label."""
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
        """Count the utterances of each status; the sum is `to_label`."""
        known = {*self.answers, *self.accepted, *self.scored}
        counted = Counter(self.of(utterance) for utterance in known)
        counted["unlabeled"] += self.to_label - len(known)
        return {status: counted[status] for status in SHOWN}


_OF_PEOPLE: dict[str, Status] = {"label": "labeled", "disputed": "disputed", "none_fits": "none_fits"}


def statuses(project: Project, scored: Collection[int] = ()) -> Statuses:
    """Read the statuses of all utterances; those in `scored` are the model's where no person has labeled them."""
    slices = utterances.count_slices(project.db)
    given = by_utterance(annotations.answers(project.db))
    taken = {row["utterance_id"]: row for row in acceptances.standing(project.db)}
    return Statuses(slices["pool"] + slices["audit"], given, taken, scored)


def added_up(counts: Mapping[Status, int], tell: Callable[[str], str] = str) -> str:
    """Write the counts as a sum; `tell` translates the names."""
    terms = [f"{n:,} {tell(SHOWN[status])}" for status, n in counts.items() if n]
    return f"{' + '.join(terms) or 0} = {sum(counts.values()):,}"


def people_differ(project: Project) -> list[int]:
    """Return the utterances to which people have given different answers, the longest answered first."""
    found = annotations.differing_ids(project.db)
    apart = set(divided(annotations.answers_to(project.db, found)))
    return [i for i in found if i in apart]
