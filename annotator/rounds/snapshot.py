"""Take a snapshot of answers and open utterances for a round, and read their texts with context turns.

Context turns are read only here: for training, for scoring and for the label page.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from annotator.codebook.definition import Codebook, codebook_of
from annotator.config import RoundConfig
from annotator.project import Project
from annotator.rounds.consensus import consensus_labels
from model.types import Utterance
from store import annotations, utterances
from store.annotations import ANSWERED, Answer
from store.database import reading
from store.utterances import Turn


@dataclass(frozen=True)
class Snapshot:
    """The answers and open utterances of one moment, as disjoint sets of utterance ids."""

    train: dict[int, int]  # pool utterance -> label id, by consensus
    audit: dict[int, int]  # audit utterance -> label id, by consensus; the round is evaluated on these
    scored: tuple[int, ...]  # utterances the round predicts: the open pool and the audit sample
    open_pool: frozenset[int]  # pool utterances that may be asked next
    last_annotation: int
    codebook: Codebook  # the version at that moment; later changes wait for the next round

    @property
    def training_examples(self) -> dict[int, int]:
        """Return the training examples: utterance -> column of its label."""
        return {i: self.codebook.ids.index(label) for i, label in self.train.items()}

    @property
    def digest(self) -> str:
        """Hash the training and audit answers; equal hashes mean equal answers."""
        content = json.dumps([sorted(self.train.items()), sorted(self.audit.items())])
        return hashlib.sha256(content.encode()).hexdigest()


def take_snapshot(project: Project, config: RoundConfig, rng: np.random.Generator) -> Snapshot:
    """Read the answers and the open utterances in one read transaction, which never waits for a writer."""
    with reading(project.db):
        answers = annotations.answers(project.db)
        pool, audit = (utterances.ids_in(project.db, name) for name in ("pool", "audit"))
        codebook = codebook_of(project)
        last = annotations.last_id(project.db)
    agreed = consensus_labels(answers)
    in_audit, done = set(audit), {a.utterance_id for a in answers if a.kind in ANSWERED}
    open_pool = [i for i in pool if i not in done]
    if len(open_pool) > config.score_limit:
        open_pool = sorted(rng.choice(open_pool, config.score_limit, replace=False).tolist())
    train = {i: label for i, label in agreed.items() if i not in in_audit}
    evaluated = {i: label for i, label in agreed.items() if i in in_audit}
    scored = tuple(sorted({*open_pool, *audit}))
    return Snapshot(train, evaluated, scored, frozenset(open_pool), last, codebook)


def training_labels(project: Project, order: Sequence[int], answers: Sequence[Answer] | None = None) -> dict[int, int]:
    """Return the consensus label of every answered pool utterance as its column in `order`, a sequence of label ids."""
    answers = annotations.answers(project.db) if answers is None else answers
    agreed = consensus_labels(answer for answer in answers if answer.slice == "pool")
    return {i: order.index(label) for i, label in agreed.items() if label in order}


def read_texts(project: Project, ids: Sequence[int], context_turns: int) -> list[Utterance]:
    """Return the model's input for these utterances, in this order."""
    rows = utterances.read(project.db, ids)
    return [model_input(row.text, utterances.turns_before(project.db, row, context_turns)) for row in rows]


def model_input(text: str, turns_before: Iterable[Turn]) -> Utterance:
    """Return an utterance as the model reads it, each turn before it with its speaker."""
    return Utterance(text, tuple(f"{turn.speaker or 'speaker'}: {turn.text}" for turn in turns_before))
