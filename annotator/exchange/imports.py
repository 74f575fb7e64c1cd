"""Import utterances from a file or from Python, and draw the audit sample among them."""

from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from annotator.codebook.definition import codebook_of
from annotator.errors import Message
from annotator.methods.guarantee import Target
from annotator.methods.sampling import audit_size, draw_audit
from annotator.project import Project
from annotator.rounds.batch import AUDIT
from annotator.rounds.queueing import refill_queue
from store import imports, rounds, utterances
from store.database import immediate
from store.files import importers
from store.files.import_report import ImportReport
from store.files.importers import ImportPlan, Rules
from store.utterances import NewUtterance, SamplingUnit


def import_file(project: Project, path: Path, plan: ImportPlan, whole_conversations: bool = False) -> ImportReport:
    """Import a file completely or not at all, draw its audit sample, and fill the queue before the first round.

    The sample consists of utterances or of whole conversations. Others can work on the project in the meantime.
    Raises BadFile, BadInput, ImportRunning.
    """
    codebook = codebook_of(project)

    @cache
    def given(name: str) -> int | str:
        label_id = codebook.id_of(name)
        return Message("“{name}” is not a label of the codebook", name=name) if label_id is None else label_id

    draw = partial(_audit_of, project, whole_conversations=whole_conversations)
    report = importers.import_file(project.db, path, plan, Rules(given, codebook.version, draw, whole_conversations))
    if not rounds.promoted(project.db):
        refill_queue(project)
    imports.close(project.db)
    return report


def add_utterances(project: Project, new: Sequence[NewUtterance]) -> list[int]:
    """Add utterances from Python in one transaction, with an audit sample; return their ids in order."""
    with immediate(project.db):
        imports.refuse_beside_another(project.db)
        ids = [utterances.add(project.db, one) for one in new]
        to_label = [i for i, one in zip(ids, new, strict=True) if not one.context_only]
        utterances.move_to_audit(project.db, _audit_of(project, utterances.drawn_before(project.db, to_label)))
        if not rounds.promoted(project.db):
            refill_queue(project)
    return ids


def _audit_of(project: Project, new: Iterable[SamplingUnit], whole_conversations: bool = False) -> set[int]:
    """Draw the new utterances that join the audit sample.

    An utterance whose group is already in a sample (its `drawn`) joins that sample.
    """
    config = project.config
    drawn = {unit.id: (unit.drawn, _group(unit, whole_conversations)) for unit in new}
    fresh = {i: group for i, (before, group) in drawn.items() if before is None}
    size = audit_size(len(fresh), Target(config.precision))
    rng = np.random.default_rng([config.seed, len(drawn)])
    return {i for i, (before, _) in drawn.items() if before == AUDIT} | draw_audit(fresh, size, rng)


def _group(unit: SamplingUnit, whole_conversations: bool) -> bytes | str | int:
    """Return the group of an utterance: its text, or in conversations the conversation or the utterance alone.

    In conversations the same words in another place are another utterance.
    """
    if unit.conversation is None:
        return unit.text_hash
    return unit.conversation if whole_conversations else unit.id
