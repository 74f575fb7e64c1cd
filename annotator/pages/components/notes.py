"""Notes on the label page: reason for the utterance, meaning of the bars, prediction for the previous utterance."""

from annotator.codebook.definition import Codebook
from annotator.i18n import say
from annotator.labeling.screen import Screen
from annotator.labeling.session import Question
from annotator.project import Project


def reasons(project: Project, question: Question) -> str:
    """Return why this utterance is asked, and what its bars show."""
    sentences = (say(question.reason), _when_chosen(question), _about_bars(project, question))
    return " ".join(filter(None, sentences))


def _when_chosen(question: Question) -> str:
    """Return a note if the utterance was chosen between rounds: the bars do not reflect the answers that chose it."""
    return say("Chosen from the latest answers, before the next round.") if question.is_ahead else ""


def _about_bars(project: Project, question: Question) -> str:
    """Return what the bars show, or why there are none."""
    if question.suggestion:
        return say("Bars: probabilities from round {n}.", n=question.suggestion.round_number)
    if question.withheld == "chance":
        return say("Its suggestion is hidden at random, to measure how suggestions influence answers.")
    if question.withheld == "choice":
        return say("You have turned off suggestions.")
    none_yet = not question.is_audit and project.config.show_suggestions
    return say("Suggestions appear after the first round.") if none_yet else ""


def outcome(codebook: Codebook, screen: Screen) -> str:
    """Return the prediction for the previous utterance, if the annotator wants to see it."""
    if not screen.preferences.outcome or screen.outcome is None:
        return ""
    label_id, share = screen.outcome.prediction.best
    names = dict(zip(codebook.ids, codebook.names, strict=True))
    name = names.get(label_id) or say("a retired label")
    if screen.outcome.agrees:
        return say(
            "Previous utterance: the model predicted {label} ({share:.0%}), as you answered.", share=share, label=name
        )
    return say(
        "Previous utterance: the model predicted {label} ({share:.0%}). You answered differently.",
        share=share,
        label=name,
    )
