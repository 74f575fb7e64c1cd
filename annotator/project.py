"""A project: the one object that joins the rows of `store` with the task of `model`.

Opening one opens a database connection, which belongs to the thread that opened it. Close it, or use it as a
context manager.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from sqlite_utils import Database

from annotator.codebook.definition import Codebook, CodebookDraft, CodebookLabel
from annotator.config import RoundConfig
from annotator.methods.calibration import Calibrator
from annotator.methods.guarantee import Wish
from annotator.methods.sampling import audit_size, draw_audit
from annotator.rounds.batch import AUDIT, compose_audit, compose_batch
from annotator.rounds.candidates import askable
from annotator.rounds.consensus import consensus_labels
from model.backbones.machine import peak_memory
from model.types import Adapter, Origin, Utterance
from store import annotations, imports, jobs, labels, queue, rounds, settings, utterances
from store.annotations import ANSWERED
from store.database import create_database, immediate, open_database, wait_at_most, why_frozen
from store.faults import CALIBRATION, parsed
from store.files.import_report import ImportReport
from store.files.importers import ImportPlan, Rules, import_file
from store.queue import QueueEntry
from store.rounds import NewRound, Predictions
from store.utterances import NewUtterance

DRAWN = (AUDIT, "random")  # the strategies of utterances that were drawn at random


@dataclass(frozen=True)
class Snapshot:
    """What a round works from: disjoint sets of utterance ids, frozen at one moment."""

    train: dict[int, int]  # pool utterance -> label id, by consensus
    audit: dict[int, int]  # audit utterance -> label id, by consensus: what the round is measured on
    scored: tuple[int, ...]  # utterances the round gives probabilities to: what is open, and the audit slice
    open_pool: frozenset[int]  # pool utterances that may be asked next
    last_annotation: int
    codebook: Codebook  # as it was at that moment: the round keeps to it, whatever people change meanwhile
    drawn: frozenset[int] = frozenset()  # answered ones that were drawn at random, not chosen
    cross_fitted: bool = False  # whether the audit answers are trained on too, each measured by a model without it

    @property
    def lessons(self) -> dict[int, int]:
        """What the round's adapter is trained on: utterance -> column of its label."""
        given = {**self.train, **self.audit} if self.cross_fitted else self.train
        return {i: self.codebook.ids.index(label) for i, label in given.items()}

    @property
    def chosen(self) -> float:
        """The share of the lessons that were not drawn at random but chosen, by a strategy or by a person."""
        return 1 - len(self.lessons.keys() & self.drawn) / max(len(self.lessons), 1)

    @property
    def digest(self) -> str:
        """Hash what is trained and measured on, to tell whether two rounds saw the same answers."""
        content = json.dumps([sorted(self.train.items()), sorted(self.audit.items())])
        return hashlib.sha256(content.encode()).hexdigest()


class Project:
    """One folder with a database and the adapters of its rounds."""

    def __init__(self, folder: Path, db: Database) -> None:
        self.folder = folder
        self.db = db

    @classmethod
    def create(cls, folder: Path, draft: CodebookDraft, config: RoundConfig | None = None) -> Self:
        """Create a project with a codebook and nothing to label yet. Raises ProjectExists."""
        draft = draft.checked()
        project = cls(folder, create_database(folder))
        with immediate(project.db):
            settings.put(project.db, "name", draft.name or folder.name)
            settings.put(project.db, "instruction", draft.instruction)
            project.config = replace(config or RoundConfig(), context_turns=draft.context_turns)
            for label in draft.labels:
                labels.add(project.db, **label.model_dump())
        return project

    @classmethod
    def open(cls, folder: Path, patience: float | None = None) -> Self:
        """Open an existing project, and finish the import that a process has left behind.

        Where nothing can be written, it is opened to be read. `patience`: seconds to wait at most for others that
        write. Raises NoProject, ProjectError.
        """
        project = cls(folder, open_database(folder))
        try:
            if patience is not None:
                wait_at_most(project.db, patience)
            if not why_frozen(project.db) and imports.recover(project.db):
                project._settle()
        except BaseException:
            project.close()
            raise
        return project

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What the project is

    @property
    def name(self) -> str:
        """The name people see."""
        return str(settings.get(self.db, "name", self.folder.name))

    @property
    def config(self) -> RoundConfig:
        """How the next round is made."""
        return settings.read(self.db, "config", {}, lambda stored: RoundConfig.from_json(json.dumps(stored)))

    @config.setter
    def config(self, config: RoundConfig) -> None:
        settings.put(self.db, "config", json.loads(config.to_json()))

    @property
    def calibrator(self) -> Calibrator | None:
        """The calibrator of the round in use, None before the first."""
        row = rounds.promoted(self.db)
        return Calibrator.from_dict(parsed(row["calibration"], CALIBRATION)) if row else None

    def codebook(self) -> Codebook:
        """Return the labels in use."""
        rows = tuple(CodebookLabel.of(row) for row in labels.current(self.db))
        return Codebook(str(settings.get(self.db, "instruction", "")), rows, labels.version(self.db))

    # What comes in

    def import_file(self, path: Path, plan: ImportPlan, whole_conversations: bool = False) -> ImportReport:
        """Import a file, all or nothing, draw its audit slice, and see that there is something to ask.

        The slice is drawn by utterances or by whole conversations. Others can work on the project meanwhile.
        """
        codebook = self.codebook()

        @cache
        def given(name: str) -> int | str:
            label_id = codebook.id_of(name)
            return f"“{name}” is no label of the codebook" if label_id is None else label_id

        draw = partial(self._audit_of, whole_conversations=whole_conversations)
        report = import_file(self.db, path, plan, Rules(given, codebook.version, draw, whole_conversations))
        self._settle()
        return report

    def _settle(self) -> None:
        """See that there is something to ask, and close the import that brought it."""
        if not rounds.promoted(self.db):
            self.refill()
        imports.close(self.db)

    def add(self, new: Sequence[NewUtterance]) -> list[int]:
        """Add utterances that are at hand already, in one transaction, as `import_file` does; return their ids."""
        with immediate(self.db):
            imports.refuse_beside_another(self.db)
            ids = [utterances.add(self.db, one) for one in new]
            asked = [i for i, one in zip(ids, new, strict=True) if not one.context_only]
            utterances.move_to_audit(self.db, self._audit_of(utterances.drawn_before(self.db, asked)))
            if not rounds.promoted(self.db):
                self.refill()
        return ids

    def _audit_of(self, new: Iterable[Mapping[str, Any]], whole_conversations: bool = False) -> set[int]:
        """Draw which of the new utterances go to the audit slice.

        Their `drawn` is the slice in which their group lies already, which they join.
        """
        drawn = {row["id"]: (row["drawn"], _group(row, whole_conversations)) for row in new}
        fresh = {i: group for i, (before, group) in drawn.items() if before is None}
        size = audit_size(len(fresh), Wish(self.config.precision))
        rng = np.random.default_rng([self.config.seed, len(drawn)])
        return {i for i, (before, _) in drawn.items() if before == AUDIT} | draw_audit(fresh, size, rng)

    # What is asked

    def refill(self, annotator: str = "") -> int:
        """Add a batch from what the round in use knows, at random before there is one; return its size.

        Leaves out what this annotator has skipped and what others have on screen.
        """
        with immediate(self.db):
            config, promoted = self.config, rounds.promoted(self.db)
            rng = np.random.default_rng([config.seed, annotations.last_id(self.db)])
            predictions = rounds.predictions_of(self.db, promoted) if promoted else None
            without = annotations.skipped_ids(self.db, annotator) | queue.leased_ids(self.db)
            batch = compose_batch(askable(self, predictions, frozenset(without)), config, rng)
            queue.refill(self.db, promoted["id"] if promoted else None, batch)
        return len(batch)

    def measure_next(self, count: int, annotator: str = "") -> int:
        """Ask so many audit utterances, drawn at random, before all else; return how many that are.

        Leaves out what this annotator has skipped and what is on a screen. Asked twice before one is answered, it is
        the same ones.
        """
        with immediate(self.db):
            promoted = rounds.promoted(self.db)
            rng = np.random.default_rng([self.config.seed, annotations.last_id(self.db)])
            passed = annotations.skipped_ids(self.db, annotator) | queue.leased_ids(self.db)
            taken = annotations.answered_ids(self.db) | passed
            batch = compose_audit([i for i in utterances.ids_in(self.db, AUDIT) if i not in taken], count, rng)
            queue.put_ahead(self.db, promoted["id"] if promoted else None, batch)
        return len(batch)

    # What a round reads and writes

    def snapshot(self, config: RoundConfig, rng: np.random.Generator) -> Snapshot:
        """Freeze what has been answered and what is open, in one read transaction."""
        with immediate(self.db):
            answers = annotations.answers(self.db)
            pool, audit = (utterances.ids_in(self.db, name) for name in ("pool", "audit"))
            codebook = self.codebook()
            last, asked = annotations.last_id(self.db), annotations.first_asked(self.db)
        agreed = consensus_labels(answers)
        in_audit, done = set(audit), {a["utterance_id"] for a in answers if a["kind"] in ANSWERED}
        open_pool = [i for i in pool if i not in done]
        if len(open_pool) > config.score_limit:
            open_pool = sorted(rng.choice(open_pool, config.score_limit, replace=False).tolist())
        train = {i: label for i, label in agreed.items() if i not in in_audit}
        measure = {i: label for i, label in agreed.items() if i in in_audit}
        scored = tuple(sorted({*open_pool, *audit}))
        few = bool(train) and len(measure) < config.cross_fit_below
        drawn = frozenset(i for i, strategy in asked.items() if strategy in DRAWN)
        return Snapshot(train, measure, scored, frozenset(open_pool), last, codebook, drawn, few)

    def lessons(self, order: Sequence[int]) -> dict[int, int]:
        """Return what may teach now: pool utterance -> column of its label, by consensus, among these label ids."""
        agreed = consensus_labels(answer for answer in annotations.answers(self.db) if answer["slice"] == "pool")
        return {i: order.index(label) for i, label in agreed.items() if label in order}

    def texts(self, ids: Sequence[int], context_turns: int) -> list[Utterance]:
        """Return what the model reads of these utterances, in this order."""
        return [self._text(row, context_turns) for row in utterances.read(self.db, ids)]

    def _text(self, row: Mapping[str, Any], context_turns: int) -> Utterance:
        before = utterances.turns_before(self.db, row, context_turns)
        return Utterance(row["text"], tuple(spoken(turn["speaker"], turn["text"]) for turn in before))

    def begin_round(self, config: RoundConfig, snapshot: Snapshot, origin: Origin | None = None) -> dict[str, Any]:
        """Open a round's row; from here on it is either promoted whole or closed as not.

        `origin`: the weights it is made with.
        """
        new = NewRound(
            config=config.to_json(),
            backbone=config.backbone,
            codebook_version=snapshot.codebook.version,
            label_ids=json.dumps(snapshot.codebook.ids),
            last_annotation=snapshot.last_annotation,
            snapshot_hash=snapshot.digest,
            trained_on=len(snapshot.lessons),
            audited_on=len(snapshot.audit),
            fingerprint=(origin and origin.fingerprint) or None,
            revision=(origin and origin.revision) or None,
        )
        with immediate(self.db):
            row = rounds.begin(self.db, new)
            jobs.attach_round(self.db, row["id"], snapshot.last_annotation)
        return row

    def unfinished(self, part: str) -> Path:
        """Where a part of the training keeps its state until it has ended, so that it can go on if it is stopped."""
        return self.folder / "adapters" / f"unfinished-{part}.pt"

    def save_adapter(self, round_row: Mapping[str, Any], adapter: Adapter) -> str:
        """Write an adapter into the project so that it is there whole or not at all; return its folder's name."""
        name = _adapter_name(round_row["number"])
        half = self.folder / "adapters" / f"tmp-{name}"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        adapter.save(half)
        for path in half.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        whole = self.folder / "adapters" / name
        shutil.rmtree(whole, ignore_errors=True)  # left by a round that died after this step
        os.replace(half, whole)
        return name

    def drop_adapter(self, name: str) -> None:
        """Remove the adapter of a round that is not to be promoted."""
        shutil.rmtree(self.folder / "adapters" / name, ignore_errors=True)

    def promote(
        self,
        round_row: Mapping[str, Any],
        adapter: str,
        calibrator: Calibrator,
        metrics: Mapping[str, Any],
        predictions: Predictions,
        batch: Sequence[QueueEntry],
    ) -> None:
        """Put a finished round in use: its predictions, its metrics and the new batch, in one transaction.

        With it goes the most memory that this process, which has made the round, has held.
        """
        with immediate(self.db):
            rounds.save_predictions(self.db, round_row["id"], predictions)
            rounds.promote(self.db, round_row["id"], adapter, calibrator.as_dict(), metrics, peak_memory())
            queue.replace(self.db, round_row["id"], batch)

    def roll_back(self, round_id: int, annotator: str) -> None:
        """Put an older round in use again, with a batch of its own, until the next one is promoted."""
        with immediate(self.db):
            rounds.roll_back(self.db, round_id, annotator)
            self.refill(annotator)

    def recover(self) -> bool:
        """Tidy up after a process that died: close its round, drop its adapter, half-written or whole.

        Adapters are looked for each time: `jobs.begin` closes a dead process's round too, and knows no folders. What no
        round of this database has left is not ours to drop: the database may have been restored from a backup.
        """
        if why_frozen(self.db):
            return False
        found = jobs.recover(self.db)
        if self._left_behind():  # every page looks: it waits for nobody who writes where there is nothing to do
            with immediate(self.db):  # so that no job begins to write one meanwhile
                for path in self._left_behind():
                    shutil.rmtree(path, ignore_errors=True)
        return found

    def _left_behind(self) -> list[Path]:
        adapters = self.folder / "adapters"
        left = (adapters / _adapter_name(number) for number in rounds.numbers_never_promoted(self.db))
        return [] if jobs.active(self.db) else [*adapters.glob("tmp-*"), *filter(Path.is_dir, left)]


def _adapter_name(number: int) -> str:
    return f"round-{number:04d}"


def _group(row: Mapping[str, Any], whole_conversations: bool) -> bytes | str | int:
    """Say with what an utterance stays together: its copies, or the turns around it if asked, or nothing.

    In conversations the same words are another utterance.
    """
    if row["conversation"] is None:
        return bytes(row["text_hash"])
    return str(row["conversation"]) if whole_conversations else int(row["id"])


def spoken(speaker: str | None, text: str) -> str:
    """Write a turn before an utterance as the model reads it."""
    return f"{speaker or 'speaker'}: {text}"
