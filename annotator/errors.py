"""What a person is told when something fails: one tree, each error with a message and a hint.

    AnnotatorError
    ├── BadInput            a file, a column, a value or a setting that cannot be used
    │   ├── BadFile         the file as a whole cannot be read
    │   ├── BadCodebook     labels that clash, are missing or cannot be told apart
    │   ├── UnknownName     a name that is not registered; the hint lists those that are
    │   └── AddressRefused  an address that would open the app to other machines
    ├── ProjectError        the project folder or its database
    │   ├── NoProject       there is none at this path
    │   ├── ProjectExists   there is one already
    │   ├── ProjectTooNew   written by a later version of this program
    │   ├── ProjectBusy     another program is writing to it
    │   ├── ImportRunning   another import into it is under way
    │   ├── ProjectDamaged  its database cannot be read, or belongs to another program
    │   ├── ProjectUnreadable  its files may not be opened
    │   ├── ProjectReadOnly it can be read, but not changed
    │   ├── DiskFull        nothing more can be written
    │   └── BadSetting      a stored setting cannot be used; it can be reset
    ├── AnswerRefused       an answer that would silently take the place of another, or of another person's work
    ├── RoundError          a round that cannot start or go on
    │   ├── TooFewAnswers   not enough to train on
    │   ├── PoolExhausted   nothing is left to ask about
    │   ├── RoundRunning    one is running already
    │   ├── NotFinite       infinite or undefined numbers, which nothing may be concluded from
    │   └── RoundCancelled  a person stopped it
    └── BackboneError       the language model
        ├── BackboneMissing weights that are not on this machine and cannot be fetched
        ├── BackboneRefused a combination that this machine or this backbone cannot do
        ├── BackboneChanged other weights than those a round was trained with
        └── UtteranceTooLong more tokens than the backbone can read

`message` says what happened and quotes the numbers; `hint` says what to do next. Pages and the command
line catch `AnnotatorError` alone and show both. Everything else is a fault of ours and is allowed to be
loud. This module imports nothing of ours, so `store` and `model` may raise these errors without knowing the domain.
"""

from typing import Self


class AnnotatorError(Exception):
    """Root of every error that a person is meant to read."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadInput(AnnotatorError):
    """Something given cannot be used."""


class BadFile(BadInput):
    """A file as a whole cannot be read."""


class BadCodebook(BadInput):
    """Labels clash, are missing, or cannot be told apart by the language model."""


class UnknownName(BadInput):
    """A name that no registry holds."""

    @classmethod
    def among(cls, kind: str, name: str, known: list[str]) -> Self:
        """Say that there is no such `kind`, and list those there are."""
        return cls(f"There is no {kind} called “{name}”.", f"Choose one of: {', '.join(known)}.")


class AddressRefused(BadInput):
    """The app would be open to other machines."""


class ProjectError(AnnotatorError):
    """The project folder or its database."""


class NoProject(ProjectError):
    """There is no project at this path."""


class ProjectExists(ProjectError):
    """There is a project at this path already."""


class ProjectTooNew(ProjectError):
    """The database was written by a later version of this program."""


class ProjectBusy(ProjectError):
    """Another program is writing to the database, and has been for longer than we wait."""


class ImportRunning(ProjectError):
    """Another import into the project is under way."""


class ProjectDamaged(ProjectError):
    """The database cannot be read, or belongs to another program."""


class ProjectUnreadable(ProjectError):
    """The project's files may not be opened."""


class ProjectReadOnly(ProjectError):
    """The project can be read, but not changed."""


class DiskFull(ProjectError):
    """Nothing more can be written."""


class BadSetting(ProjectError):
    """A stored setting cannot be used."""


class AnswerRefused(AnnotatorError):
    """Something has happened to the utterance since it was shown, so that the answer is not stored."""


class RoundError(AnnotatorError):
    """A round that cannot start or go on."""


class TooFewAnswers(RoundError):
    """Not enough answers to train on."""


class PoolExhausted(RoundError):
    """Nothing is left to ask about."""


class RoundRunning(RoundError):
    """A round is running already."""


class NotFinite(RoundError):
    """Numbers are infinite or undefined, so that nothing may be concluded from them."""


class RoundCancelled(RoundError):
    """A person stopped the round."""


class BackboneError(AnnotatorError):
    """The language model."""


class BackboneMissing(BackboneError):
    """The weights are not on this machine and cannot be fetched."""


class BackboneRefused(BackboneError):
    """What was asked is more than this machine or this backbone can do."""


class BackboneChanged(BackboneError):
    """The weights of a backbone are others than those a round was trained with."""


class UtteranceTooLong(BackboneError):
    """An utterance has more tokens than the backbone can read."""
