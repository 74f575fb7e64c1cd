"""“Why?”: one utterance put to the bare backbone, in a process of its own: `python -m annotator.labeling.explanation FOLDER ID`.

As with rounds, torch stays out of the app and the memory comes back when the process ends. Whoever asks looks again
later, so labelling never waits for it.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from annotator.codebook.definition import codebook_of
from annotator.config import RoundConfig
from annotator.errors import AnnotatorError, BackboneError, BadInput
from annotator.project import Project
from annotator.rounds.snapshot import read_texts
from annotator.rounds.worker import LOG, patient
from store import rounds, utterances

LIMIT = 180  # seconds: the starter takes some ten, a large backbone must first be read from the disk


@dataclass(frozen=True)
class Explanation:
    """What the backbone of the round in use says of an utterance by itself, without what the round has learned."""

    text: str
    label: str  # the name of the label it goes on to answer with
    backbone: str


class Asking:
    """A question that a process of its own is answering."""

    def __init__(self, process: subprocess.Popen[str], limit: float) -> None:
        self._process = process
        self._limit = limit
        self._until = time.monotonic() + limit

    @classmethod
    def start(cls, folder: Path, utterance_id: int, limit: float = LIMIT) -> Self:
        """Put an utterance of a project to the backbone."""
        command = [sys.executable, "-m", "annotator.labeling.explanation", str(folder.resolve()), str(utterance_id)]
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, encoding="utf-8", env=patient()
            )
        return cls(process, limit)

    def answer(self) -> Explanation | None:
        """Return the answer, None while there is none yet. Raises AnnotatorError: what the process met, or its end."""
        if self._process.poll() is None:
            if time.monotonic() < self._until:
                return None
            self.stop()
            raise BackboneError(
                f"The backbone did not answer within {self._limit:.0f} seconds.",
                "Try again when the computer is less busy.",
            )
        said, _ = self._process.communicate()
        return _read(said, self._process.returncode)

    def stop(self) -> None:
        """End the process. Nothing is lost by it."""
        self._process.kill()
        self._process.communicate()


def _read(said: str, code: int) -> Explanation:
    try:
        told = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise BackboneError(
            f"The explanation process ended without an answer (code {code}).",
            f"The details are in {LOG} in the project's folder.",
        ) from error
    if "message" in told:
        raise AnnotatorError(told["message"], told["hint"])
    return Explanation(**told)


def explain(project: Project, utterance_id: int) -> Explanation:
    """Ask the backbone of the round in use, in this process. Raises BadInput, BackboneError, BadCodebook."""
    from model.load import explain_label  # here, so that asking imports no torch

    _check_shown(project, utterance_id)
    promoted = rounds.promoted(project.db)
    config = RoundConfig.from_json(promoted["config"]) if promoted else project.config
    codebook = codebook_of(project)
    (utterance,) = read_texts(project, [utterance_id], config.context_turns)
    made = project.folder / "adapters" / promoted["adapter"] if promoted else None
    said = explain_label(config.backbone, codebook.task(), config.recipe, utterance, made)
    return Explanation(said.text, codebook.names[said.label], config.backbone)


def _check_shown(project: Project, utterance_id: int) -> None:
    """Refuse what shows no suggestion: an answer that measures the model must be a person's own."""
    if utterance_id not in utterances.ids_in(project.db, "pool") or not project.config.show_suggestions:
        raise BadInput(
            f"Utterance {utterance_id} shows no suggestion, so there is nothing to explain.",
            "Choose an utterance with a suggestion. Audit utterances never show one.",
        )


def main() -> None:
    """Explain the utterance named on the command line; what comes out is one line of JSON."""
    folder, utterance_id = Path(sys.argv[1]), int(sys.argv[2])
    try:
        with Project.open(folder) as project:
            told = asdict(explain(project, utterance_id))
    except AnnotatorError as error:
        told = {"message": error.message, "hint": error.hint}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
