"""A few rows of each kind, for tests that need some to be there."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
from sqlite_utils import Database

from store import annotations, labels, queue, rounds, utterances
from store.annotations import Answer, Kind, NewAnnotation
from store.database import immediate
from store.queue import QueueEntry
from store.rounds import NewRound, Predictions, Round
from store.utterances import NewUtterance


def add_utterances(db: Database, count: int) -> list[int]:
    with immediate(db):
        return [utterances.add(db, NewUtterance(f"u{n}", f"text {n}")) for n in range(count)]


def add_labels(db: Database, count: int = 2) -> list[int]:
    return [labels.add(db, f"label {n}") for n in range(count)]


def say(
    db: Database, annotator: str, utterance: int, label: int | None, kind: Kind = "label", strategy: str = "random"
) -> int:
    return annotations.record(db, NewAnnotation(utterance, annotator, kind, label, strategy, codebook_version=1))


def answer(**given: Any) -> Answer:
    """Return a standing answer without a suggestion, with these values."""
    plain: dict[str, Any] = dict.fromkeys(field.name for field in fields(Answer))
    usual = {"id": 1, "utterance_id": 1, "slice": "pool", "annotator": "ann", "kind": "label", "strategy": "random"}
    return Answer(**plain | usual | {"unsure": 0, "comment": "", "withheld": "", "codebook_version": 1} | given)


def entries(ids: list[int]) -> list[QueueEntry]:
    return [QueueEntry(i, "random", score=None, propensity=1.0, pool_size=len(ids)) for i in ids]


def fill_queue(db: Database, count: int) -> list[int]:
    ids = add_utterances(db, count)
    queue.replace(db, None, entries(ids))
    return ids


def begin_round(db: Database, label_ids: list[int], trained_on: int = 2) -> Round:
    return rounds.begin(db, NewRound("{}", "tiny", 1, json.dumps(label_ids), 0, "hash", trained_on, audited_on=0))


A_ROUND = Round(
    id=1,
    number=1,
    state="promoted",
    config="{}",
    backbone="tiny",
    codebook_version=1,
    last_annotation=0,
    trained_on=2,
    audited_on=0,
    folder="round-0001",
    peak_memory=None,
    fingerprint=None,
    revision=None,
    fingerprint_noted=None,
    started_at="2026-11-21T10:00:00.000+00:00",
    finished_at="2026-11-21T10:05:00.000+00:00",
    label_ids_json="[1, 2]",
    calibration_json='{"temperature": 1.0}',
    metrics_json='{"n": 0}',
)


def predictions(ids: list[int], label_ids: list[int], seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    logits = rng.normal(-5, 2, (len(ids), len(label_ids)))
    odds = np.exp(logits)
    return Predictions(np.array(ids), odds / odds.sum(axis=1, keepdims=True), logits, tuple(label_ids))
