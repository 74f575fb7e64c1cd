"""Predict the labels of new texts with the round in use.

    labeler = Labeler.of(Path("projects/client-talk"))
    labeler("I could cut down at weekends.")  # [{"label": "change", "score": 0.81}, …], likeliest first

The interface is that of a text-classification pipeline of `transformers` with `top_k=None`; the scores are calibrated.
`annotator score` predicts a whole file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self, TypedDict, overload

import numpy as np

from annotator.codebook.definition import codebook_of
from annotator.config import RoundConfig
from annotator.errors import BadInput, Message, ProjectError, RoundError
from annotator.methods.calibration import Calibrator
from annotator.methods.metrics import Array
from annotator.methods.query_strategies import Probabilities
from annotator.project import Project
from annotator.rounds.snapshot import model_input
from model.description import stored_number, stored_origin
from model.load import load_adapter
from model.types import Adapter, Progress, Utterance, no_progress
from store import labels, rounds
from store.files.columns import imported_columns
from store.files.exporters import FORMATS, Field, export
from store.files.importers import ImportPlan, read_utterances
from store.files.readers import Rejected
from store.files.spool import Spool
from store.rounds import Round
from store.utterances import NewUtterance

FIELDS = (
    Field("id", "text"),
    Field("text", "text"),
    Field("conversation", "text"),
    Field("turn", "number"),
    Field("speaker", "text"),
    Field("label", "text"),
    Field("probability", "number"),
    Field("model_round", "integer"),
    Field("probabilities", "probabilities"),
)
AT_ONCE = 2_000  # utterances in memory; many, because rows of similar length are packed together


class Scored(TypedDict):
    """A label with its calibrated probability, as in the pipelines of `transformers`."""

    label: str
    score: float


@dataclass(frozen=True)
class Labeler:
    """A round in use, to predict the labels of any text."""

    adapter: Adapter
    calibrator: Calibrator
    names: tuple[str, ...]  # of the labels in use that the round was trained with, in the order of the arrays
    shares: Array  # (labels of the round, k) share of the probability of each label of the round that goes to `names`
    round_number: int
    context_turns: int  # turns before an utterance that the round reads

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Load a project's round in use. Raises NoProject, RoundError, ProjectError, BackboneError."""
        with Project.open(folder) as project:
            row = rounds.promoted(project.db)
            if row is None:
                raise RoundError(
                    Message("{name} has no finished round yet.", name=project.name), "Run `annotator retrain` first."
                )
            _, shares = labels.shares(project.db, row.label_ids)
            names, known = codebook_of(project).names, np.asarray(shares.any(axis=0))
            adapter = _restored(project, row)
        return cls(
            adapter,
            Calibrator.from_dict(row.calibration),
            tuple(name for name, is_known in zip(names, known.tolist(), strict=True) if is_known),
            shares[:, known],
            row.number,
            RoundConfig.from_json(row.config).context_turns,
        )

    def probabilities(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Probabilities:
        """Return (n, k) calibrated probabilities, columns as in `names`."""
        return np.asarray(self.calibrator(self.adapter.logits(utterances, progress)) @ self.shares)

    @overload
    def __call__(self, text: str) -> list[Scored]: ...
    @overload
    def __call__(self, text: list[str]) -> list[list[Scored]]: ...
    def __call__(self, text: str | list[str]) -> list[Scored] | list[list[Scored]]:
        """Return every label with its probability, likeliest first, for one text or for each of several."""
        texts = [text] if isinstance(text, str) else text
        ranked = [self._ranked(row) for row in self.probabilities([Utterance(one) for one in texts])]
        return ranked[0] if isinstance(text, str) else ranked

    def _ranked(self, row: Probabilities) -> list[Scored]:
        return [{"label": self.names[i], "score": float(row[i])} for i in np.argsort(-row, kind="stable")]

    def score_file(
        self, source: Path, plan: ImportPlan, target: Path, progress: Progress = no_progress
    ) -> tuple[int, list[Rejected]]:
        """Score every utterance of a file and write the predictions; return their number and the rejected rows.

        The format follows the suffix of the target. Rows that the plan marks as context are not scored. Other columns
        of the file are copied. The file is spooled to disk, with one part of it in memory.

        Raises BadFile, and BadInput for an unknown column or suffix.
        """
        format_ = format_of(target)
        rejected: list[Rejected] = []
        with Spool() as spool:
            spool.fill(_accepted(read_utterances(source, plan), rejected))
            ours = [*(field.name for field in FIELDS), *(f"p({name})" for name in self.names)]
            extra = imported_columns(spool.metadata_names, ours)
            fields = (*FIELDS, *(Field(column, "text") for column in extra.values()))
            count = export(self._scored(spool, extra, progress), fields, self.names, target, format_)
        return count, rejected

    def _scored(self, spool: Spool, extra: Mapping[str, str], progress: Progress) -> Iterator[dict[str, object]]:
        """Yield the rows of the output, with one part at a time in memory."""
        to_score, total = with_context(spool, self.context_turns), spool.to_score()
        for done in range(0, total, AT_ONCE):
            part = list(islice(to_score, AT_ONCE))
            so_far = partial(_share, progress, done / total, len(part) / total)
            probabilities = self.probabilities([utterance for _, utterance in part], so_far)
            for (new, _), row in zip(part, probabilities, strict=True):
                imported = {column: new.metadata.get(name) for name, column in extra.items()}
                yield self._row(new, row) | imported

    def _row(self, new: NewUtterance, probabilities: Probabilities) -> dict[str, object]:
        best = int(probabilities.argmax())
        return {
            "id": new.external_id,
            "text": new.text,
            "conversation": new.conversation,
            "turn": new.turn,
            "speaker": new.speaker,
            "label": self.names[best],
            "probability": float(probabilities[best]),
            "model_round": self.round_number,
            "probabilities": dict(zip(self.names, probabilities.tolist(), strict=True)),
        }


def _restored(project: Project, row: Round) -> Adapter:
    """Load a round's adapter, and record its weights if an older version did not."""
    folder = project.adapters / row.folder
    is_other = row.fingerprint not in (None, stored_origin(folder).fingerprint)
    if is_other or stored_number(folder) not in (None, row.number):
        raise ProjectError(
            Message(
                "The adapter in {folder} is not the one that round {number} saved.", folder=folder, number=row.number
            ),
            "Restore the folder from a backup, or retrain.",
        )
    adapter = load_adapter(folder)
    origin = stored_origin(folder)
    if row.fingerprint is None and origin.fingerprint:
        rounds.note_weights(project.db, row.id, origin.fingerprint, origin.revision)
    return adapter


def with_context(spool: Spool, turns: int) -> Iterator[tuple[NewUtterance, Utterance]]:
    """Yield each row to be scored, in order, with the model's input: its text and the turns before it."""
    for row, before in spool.with_turns(turns):
        yield row, model_input(row.text, before)


def _accepted(read: Iterable[NewUtterance | Rejected], rejected: list[Rejected]) -> Iterator[NewUtterance]:
    """Yield the rows that could be read, and append the others to `rejected`."""
    for row in read:
        if isinstance(row, Rejected):
            rejected.append(row)
        else:
            yield row


def _share(progress: Progress, done: float, part: float, share: float) -> None:
    progress(done + part * share)


def format_of(target: Path) -> str:
    """Return the format for a file's suffix. Raises BadInput."""
    for name, known in FORMATS.items():
        if known.suffix and known.suffix == target.suffix.lower():
            return name
    endings = ", ".join(known.suffix for known in FORMATS.values() if known.suffix)
    raise BadInput(
        Message("The format of “{name}” is not clear from its name.", name=target.name),
        Message("Use one of these endings: {endings}.", endings=endings),
    )
