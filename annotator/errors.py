"""Errors shown to users: one tree of classes, each error with a message and a hint.

    AnnotatorError
    ├── BadInput            a file, a column, a value or a setting that cannot be used
    │   ├── BadFile         the file as a whole cannot be read
    │   ├── BadCodebook     labels that clash, are missing or cannot be distinguished
    │   ├── UnknownName     a name that is not registered; the hint lists the registered ones
    │   └── AddressRefused  an address that would open the app to other machines
    ├── ProjectError        the project folder or its database
    │   ├── NoProject       no project at this path
    │   ├── ProjectExists   a project at this path already
    │   ├── ProjectTooNew   written by a later version of this program
    │   ├── ProjectBusy     another program is writing to it
    │   ├── ImportRunning   another import into it is running
    │   ├── ProjectDamaged  the database cannot be read, or belongs to another program
    │   ├── ProjectUnreadable  no permission to open its files
    │   ├── ProjectReadOnly it can be read but not changed
    │   ├── DiskFull        no space is left on the disk
    │   └── BadSetting      a stored setting cannot be used; it can be reset
    ├── AnswerRefused       an answer that would silently replace another, or another person's work
    ├── RoundError          a round that cannot start or continue
    │   ├── TooFewAnswers   not enough answers to train on
    │   ├── PoolExhausted   no utterances left to ask about
    │   ├── RoundRunning    a round is already running
    │   ├── NotFinite       infinite or undefined numbers
    │   └── RoundCancelled  canceled by a person
    └── BackboneError       the language model
        ├── BackboneMissing weights that are not on this machine and cannot be downloaded
        ├── LicenseNotAccepted  the license has to be accepted before they are fetched
        ├── BackboneRefused a combination that this machine or this backbone does not support
        ├── BackboneChanged other weights than those a round was trained with
        └── UtteranceTooLong more tokens than the backbone can read

`message` describes what happened, with numbers; `hint` describes what to do next. Pages and the command line catch only
`AnnotatorError` and show both. All other exceptions are bugs and are not caught. This module imports nothing from this
project, so that `store` and `model` can raise these errors without depending on `annotator`.
"""

import json
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Self


class Message(str):
    """A sentence with named places: an English template, which is its id in catalogs of translations, and values.

    It reads as the English sentence wherever a string is needed.
    """

    id: str
    values: Mapping[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> Self:
        """Write the values into the template, such as “There is no file {path}.”."""
        self = super().__new__(cls, template.format(**values) if values else template)
        self.id, self.values = template, values
        return self

    def dump(self) -> str:
        """Return what is stored in a row, for `load`: the text itself where there are no values."""
        if not self.values:
            return self.id
        plain = {name: _plain(value) for name, value in self.values.items()}
        return json.dumps({"message": self.id, "values": plain}, ensure_ascii=False)

    @classmethod
    def load(cls, stored: str) -> Self:
        """Read what `dump` returned; any other text, as in rows of earlier versions, is a message without values."""
        try:
            content = json.loads(stored)
            return cls(content["message"], **content["values"])
        except (ValueError, KeyError, TypeError, IndexError):
            return cls(stored)

    @classmethod
    def of(cls, text: str) -> Self:
        """Return a message as it is, and a plain text as one without values."""
        return text if isinstance(text, cls) else cls(text)


def _plain(value: Any) -> int | float | str | None:
    """Return what JSON holds for a value, numbers of numpy included: a template may give a number its form."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    return None if value is None else str(value)


class AnnotatorError(Exception):
    """Root of every error that a person is meant to read. `message` and `hint` can be translated."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = Message.of(message)
        self.hint = Message.of(hint)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadInput(AnnotatorError):
    """An input cannot be used."""


class BadFile(BadInput):
    """A file as a whole cannot be read."""


class BadCodebook(BadInput):
    """Labels clash, are missing, or cannot be distinguished by the language model."""


class UnknownName(BadInput):
    """A name is not registered."""

    @classmethod
    def among(cls, kind: str, name: str, known: list[str]) -> Self:
        """Return the error for an unknown `kind`, whose hint lists the known names."""
        return cls(
            Message("There is no {kind} called “{name}”.", kind=kind, name=name),
            Message("Choose one of: {known}.", known=", ".join(known)),
        )


class AddressRefused(BadInput):
    """The app would be open to other machines."""


class ProjectError(AnnotatorError):
    """A problem with the project folder or its database."""


class NoProject(ProjectError):
    """There is no project at this path."""


class ProjectExists(ProjectError):
    """There is already a project at this path."""


class ProjectTooNew(ProjectError):
    """The database was written by a later version of this program."""


class ProjectBusy(ProjectError):
    """Another program has been writing to the database for longer than the timeout."""


class ImportRunning(ProjectError):
    """Another import into the project is running."""


class ProjectDamaged(ProjectError):
    """The database cannot be read, or belongs to another program."""


class ProjectUnreadable(ProjectError):
    """There is no permission to open the project's files."""


class ProjectReadOnly(ProjectError):
    """The project can be read but not changed."""


class DiskFull(ProjectError):
    """No space is left on the disk."""


class BadSetting(ProjectError):
    """A stored setting cannot be used."""


class AnswerRefused(AnnotatorError):
    """The answer is not stored because the utterance has changed since it was shown."""


class RoundError(AnnotatorError):
    """A round cannot start or continue."""


class TooFewAnswers(RoundError):
    """There are not enough answers to train on."""


class PoolExhausted(RoundError):
    """No utterances are left to ask about."""


class RoundRunning(RoundError):
    """A round is already running."""


class NotFinite(RoundError):
    """Numbers are infinite or undefined."""


class RoundCancelled(RoundError):
    """The round was canceled by a person."""


class BackboneError(AnnotatorError):
    """A problem with the language model."""


class BackboneMissing(BackboneError):
    """The weights are not on this machine and cannot be downloaded."""


class LicenseNotAccepted(BackboneError):
    """The license of a backbone has to be accepted before its weights are fetched."""


class BackboneRefused(BackboneError):
    """The machine or the backbone does not support the combination."""


class BackboneChanged(BackboneError):
    """The weights of a backbone differ from those a round was trained with."""


class UtteranceTooLong(BackboneError):
    """An utterance has more tokens than the backbone can read."""
