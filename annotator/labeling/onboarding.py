"""The tour: what someone who is new to a sample project does next, up to a trained model.

How far he is, is read from what he has done, so no reload and no second window can lose it. Stored is only from which
annotation on it counts, and whether it has ended, for each annotator by himself.
"""

from dataclasses import dataclass
from typing import Any, Literal

from annotator.exchange.samples import is_sample
from annotator.i18n import later, say
from annotator.project import Project
from store import annotations, jobs, rounds, settings

FAMILIAR = 5  # acts after which nobody need be shown how to take one back
AUDIT_ANSWERS = 2  # audit answers; fewer say nothing of how good the model is
Page = Literal["label", "rounds", "insights"]


@dataclass(frozen=True)
class Step:
    """The one thing to do next, and the page on which it is done."""

    number: int
    page: Page
    text: str


ANSWER = Step(1, "label", later("Read the utterance, then click the label that fits or press its key."))
TAKE_BACK = Step(
    2, "label", later("Press U to undo your answer, then answer again. Press S to skip an utterance that is unclear.")
)
VARY = Step(
    3, "label", later("All answers so far have the same label. Keep labeling until you have used a second one.")
)
RETRAIN = Step(4, "rounds", later("You have enough labels to train a model. Press “Retrain now” on the Rounds page."))
WAIT = Step(5, "label", later("A round is running; the sidebar shows its progress. Keep labeling in the meantime."))
LOOK = Step(6, "insights", later("The model has been trained on your answers. See its accuracy on the Insights page."))
STEPS = LOOK.number
FAREWELL = later(
    "Well done, you have trained a model. It improves with every round. You can export your "
    "labels at any time on the Export page."
)


def next_step(project: Project, annotator: str) -> Step | None:
    """Return what to do next; None where there is no tour, or no longer."""
    tour = _tour(project, annotator)
    if tour["ended"] or not is_sample(project):
        return None
    since = tour["since"]
    done = annotations.acts(project.db, annotator, since)
    if not done:
        return ANSWER
    if not done.keys() & {"undo", "skip"} and sum(done.values()) < FAMILIAR:
        return TAKE_BACK
    if rounds.has_learned(project.db, since):
        return LOOK
    if jobs.is_learning(project.db):
        return WAIT
    return _towards_a_round(project)


def _towards_a_round(project: Project) -> Step:
    """Say what a round still needs."""
    wanted, given = project.config.minimum_labels, annotations.count_by_slice(project.db)
    training = {label: count for (place, label), count in given.items() if place == "pool"}
    trained_on = sum(training.values())
    audited = sum(given.values()) - trained_on
    if trained_on < wanted or audited < AUDIT_ANSWERS:
        text = say(
            "Keep labeling: {training} of {training_wanted} training and {audit} of {audit_wanted} audit answers.",
            training=trained_on,
            training_wanted=wanted,
            audit=audited,
            audit_wanted=AUDIT_ANSWERS,
        )
        return Step(3, "label", text)
    if len(training) < 2:
        return VARY
    return WAIT if jobs.active(project.db) else RETRAIN  # it may be reading the utterances for the first time


def begin(project: Project, annotator: str) -> None:
    """Start the tour from the beginning, whatever has been done before."""
    settings.put(project.db, _key(annotator), {"since": annotations.last_id(project.db), "ended": False})


def end(project: Project, annotator: str) -> None:
    """End it, for good or until it is begun again."""
    settings.put(project.db, _key(annotator), _tour(project, annotator) | {"ended": True})


def _tour(project: Project, annotator: str) -> dict[str, Any]:
    kept: dict[str, Any] = settings.get(project.db, _key(annotator), {})
    tour = {"since": 0, "ended": False} | kept
    if not isinstance(tour["since"], int):
        raise settings.unusable(_key(annotator))
    return tour


def _key(annotator: str) -> str:
    return f"tour of {annotator}"
