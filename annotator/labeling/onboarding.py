"""Onboarding: the next step for someone new to a sample project, up to a trained model.

Progress is derived from the annotator's annotations, so neither a reload nor a second window can lose it. Only two
things are stored for each annotator: the annotation from which progress counts, and whether onboarding has ended.
"""

from dataclasses import asdict, dataclass, replace
from typing import Literal

from annotator.exchange.samples import is_sample
from annotator.i18n import later, say
from annotator.project import Project
from store import annotations, jobs, rounds, settings

FAMILIAR = 5  # annotations after which undo need not be explained
AUDIT_ANSWERS = 2  # minimum for a first accuracy estimate
Page = Literal["label", "rounds", "insights"]


@dataclass(frozen=True)
class Step:
    """The next step and the page for it."""

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
    """Return the next step; None if there is no tour or it has ended."""
    tour = _tour(project, annotator)
    if tour.ended or not is_sample(project):
        return None
    done = annotations.acts(project.db, annotator, tour.since)
    if not done:
        return ANSWER
    if not done.keys() & {"undo", "skip"} and sum(done.values()) < FAMILIAR:
        return TAKE_BACK
    if rounds.has_learned(project.db, tour.since):
        return LOOK
    if jobs.is_learning(project.db):
        return WAIT
    return _towards_a_round(project)


def _towards_a_round(project: Project) -> Step:
    """Return the step that leads to a trained round."""
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
    return WAIT if jobs.active(project.db) else RETRAIN  # the initial pass may be running


def begin(project: Project, annotator: str) -> None:
    """Restart the tour from the first step."""
    settings.put(project.db, _key(annotator), asdict(_Tour(annotations.last_id(project.db))))


def end(project: Project, annotator: str) -> None:
    """End the tour until it is restarted."""
    settings.put(project.db, _key(annotator), asdict(replace(_tour(project, annotator), ended=True)))


@dataclass(frozen=True)
class _Tour:
    since: int = 0  # the annotation from which progress counts
    ended: bool = False


def _tour(project: Project, annotator: str) -> _Tour:
    kept = settings.get(project.db, _key(annotator), {})
    tour = _Tour(kept.get("since", 0), kept.get("ended", False))
    if not isinstance(tour.since, int):
        raise settings.unusable(_key(annotator))
    return tour


def _key(annotator: str) -> str:
    return f"tour of {annotator}"
