"""Define the schema as migrations: functions in order, never edited once released.

Each project has one database. Annotations are never updated or deleted: an annotation is an event, undoing it is
another, and the view `answer` shows the current state.
"""

import json
from typing import Any

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from store.faults import parsed
from store.tables import FIRST_TABLES, QUESTIONS


class _Ordered(Migrations):
    """Migrations that can also be listed, to recognize a project of a later version."""

    def every(self) -> list[Migrations._Migration]:
        """Return all migrations of this version, in order."""
        return list(self._migrations)


migrations = _Ordered("annotator")


@migrations()
def m001_first_tables(db: Database) -> None:
    """Create the first tables: utterances, labels, annotations, rounds, predictions, queue, jobs."""
    for statement in FIRST_TABLES:
        db.execute(statement)


@migrations()
def m002_memory_of_a_round(db: Database) -> None:
    """Add the peak memory of a round, in bytes; NULL for earlier rounds."""
    db.execute("ALTER TABLE round ADD COLUMN peak_memory INTEGER")


@migrations()
def m003_acceptances(db: Database) -> None:
    """Add auto-accepted suggestions with their guarantees and how they ended; add roll-backs of rounds."""
    for statement in _ACCEPTANCES:
        db.execute(statement)


@migrations()
def m004_states(db: Database) -> None:
    """Add hidden states of the untrained backbone, so that each utterance is encoded once."""
    for statement in _STATES:
        db.execute(statement)


@migrations()
def m005_codebook_changes(db: Database) -> None:
    """Allow labels to be merged, split and colored; read answers through the current codebook."""
    for statement in _CODEBOOK_CHANGES:
        db.execute(statement)
    db.execute(_answers_in_use(db))


@migrations()
def m006_withheld_suggestions_and_bulk_answers(db: Database) -> None:
    """Add withheld suggestions, with the reason, to annotations; add bulk answers."""
    for statement in _WITHHELD_AND_BULK:
        db.execute(statement)
    db.execute("DROP VIEW answer")
    db.execute(_answers_in_use(db))


@migrations()
def m007_what_was_chosen_between_rounds(db: Database) -> None:
    """Add the last annotation used when an utterance was chosen between rounds, to the queue and to annotations."""
    for table in ("queue", "annotation"):  # NULL if chosen by a round or at random
        db.execute(f"ALTER TABLE {table} ADD COLUMN heard INTEGER REFERENCES annotation (id)")
    db.execute("DROP VIEW answer")
    db.execute(_answers_in_use(db))


@migrations()
def m008_signs_of_life_of_a_job(db: Database) -> None:
    """Add the times of a job's last progress and of its cancel request; NULL for earlier jobs."""
    for column in ("progress_at", "cancelled_at"):
        db.execute(f"ALTER TABLE job ADD COLUMN {column} TEXT")


@migrations()
def m009_weights_of_a_round(db: Database) -> None:
    """Add the weights of a round; NULL for earlier rounds until they are restored."""
    for column in ("fingerprint", "revision", "fingerprint_noted"):
        db.execute(f"ALTER TABLE round ADD COLUMN {column} TEXT")


@migrations()
def m010_imports_in_short_steps(db: Database) -> None:
    """Add staging of imports, so that they need no long transaction and can be finished after a crash."""
    for statement in _IMPORTS:
        db.execute(statement)


@migrations()
def m011_names_of_the_field(db: Database) -> None:
    """Rename columns to the terms of the field: a guarantee, and the annotation after which an utterance was chosen."""
    db.execute("DROP VIEW answer")
    db.execute("ALTER TABLE acceptance RENAME COLUMN promise TO guarantee")
    for table in ("queue", "annotation"):
        db.execute(f"ALTER TABLE {table} RENAME COLUMN heard TO chosen_after")
    db.execute("DROP TABLE guess")  # no longer read
    db.execute(_answers_in_use(db))


@migrations()
def m012_process_of_a_round(db: Database) -> None:
    """Note which process makes a round, so that one that died without a job can be closed."""
    for column in ("pid INTEGER", "pid_started REAL"):
        db.execute(f"ALTER TABLE round ADD COLUMN {column}")


@migrations()
def m013_american_spelling(db: Database) -> None:
    """Rename the color of a label, in its row and in the history of the codebook."""
    db.execute("ALTER TABLE label RENAME COLUMN colour TO color")
    db.execute("UPDATE label SET color = 'gray' WHERE color = 'grey'")
    db.execute("DROP TRIGGER codebook_event_is_never_changed")
    for event, details in db.execute(
        "SELECT id, details FROM codebook_event WHERE details LIKE '%\"colour\"%'"
    ).fetchall():
        spelled = json.dumps(_american(parsed(details, "a change of the codebook")), ensure_ascii=False)
        db.execute("UPDATE codebook_event SET details = ? WHERE id = ?", (spelled, event))
    db.execute(_NEVER_CHANGED)


@migrations()
def m014_questions(db: Database) -> None:
    """Add questions, first the one of an earlier project; put labels into groups, and rows under their question."""
    for statement in QUESTIONS:
        db.execute(statement)
    db.execute(_answers_in_use(db))


def _american(details: dict[str, Any]) -> dict[str, Any]:
    """Return the details of a change with the color of labels under its new name."""
    for pairs in details.get("labels", {}).values():
        if "colour" in pairs:
            pairs["color"] = ["gray" if color == "grey" else color for color in pairs.pop("colour")]
    return details


def _answers_in_use(db: Database) -> str:
    """Return the SQL of the view `answer`: standing annotations in labels in use.

    Recreate it when annotations get a new column. Answers are read through the codebook only here. A merged label
    counts as the other; an answer whose label was retired or split is 'out_of_use' and has no label.
    """
    resolved = {
        "kind": "CASE WHEN label.retired_at IS NULL THEN said.kind ELSE 'out_of_use' END AS kind",
        "label_id": "CASE WHEN label.retired_at IS NULL THEN label.id END AS label_id, said.label_id AS said_label_id",
    }
    columns = []
    for (name,) in db.execute("SELECT name FROM pragma_table_info('annotation') ORDER BY cid"):
        shown = f"(SELECT counts_as FROM label WHERE id = said.{name}) AS {name}"  # a label of a suggestion
        columns.append(resolved.get(name, shown if name.endswith("_label_id") else f"said.{name}"))
    return f"""CREATE VIEW answer AS
        SELECT {", ".join(columns)}
        FROM said
        LEFT JOIN label first ON first.id = said.label_id
        LEFT JOIN label ON label.id = first.counts_as"""


_ACCEPTANCES = (
    # One auto-acceptance of suggestions of a round. promise: JSON of the guarantee and the answers it rests on.
    """CREATE TABLE acceptance (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        round_id INTEGER NOT NULL REFERENCES round (id),
        annotator TEXT NOT NULL,
        target REAL NOT NULL,
        confidence REAL NOT NULL,
        promise TEXT NOT NULL,
        codebook_version INTEGER NOT NULL,
        at TEXT NOT NULL
    )""",
    # An accepted suggestion. In a separate table, so that no query for people's answers includes it.
    """CREATE TABLE accepted (
        acceptance_id INTEGER NOT NULL REFERENCES acceptance (id),
        utterance_id INTEGER NOT NULL REFERENCES utterance (id),
        label_id INTEGER NOT NULL REFERENCES label (id),
        probability REAL NOT NULL,
        PRIMARY KEY (acceptance_id, utterance_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX accepted_utterance ON accepted (utterance_id)",
    # The end of an acceptance: undone by a person, or withdrawn because spot checks contradict its guarantee.
    """CREATE TABLE acceptance_end (
        acceptance_id INTEGER PRIMARY KEY REFERENCES acceptance (id),
        kind TEXT NOT NULL CHECK (kind IN ('undone', 'withdrawn')),
        reason TEXT NOT NULL,
        at TEXT NOT NULL
    )""",
    # Accepted suggestions whose acceptance has not ended.
    """CREATE VIEW standing AS
        SELECT accepted.*, acceptance.round_id, acceptance.annotator, acceptance.target, acceptance.confidence,
            acceptance.codebook_version, acceptance.at
        FROM accepted JOIN acceptance ON acceptance.id = accepted.acceptance_id
        WHERE NOT EXISTS (SELECT 1 FROM acceptance_end e WHERE e.acceptance_id = acceptance.id)""",
    *(
        f"""CREATE TRIGGER {table}_is_never_{done} BEFORE {act} ON {table}
            BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"""
        for table in ("acceptance", "accepted", "acceptance_end")
        for act, done in (("UPDATE", "changed"), ("DELETE", "deleted"))
    ),
    # An utterance that somebody has answered never changes its slice.
    """CREATE TRIGGER slice_is_final BEFORE UPDATE OF slice ON utterance
        WHEN NEW.slice != OLD.slice AND EXISTS (
            SELECT 1 FROM annotation WHERE utterance_id = OLD.id AND strategy != 'given')
        BEGIN SELECT RAISE(ABORT, 'the slice of an answered utterance is final'); END""",
    # A roll-back to an older round, until the next one is promoted.
    """CREATE TABLE roll_back (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        from_round INTEGER NOT NULL REFERENCES round (id),
        to_round INTEGER NOT NULL REFERENCES round (id),
        annotator TEXT NOT NULL,
        at TEXT NOT NULL
    )""",
)

_STATES = (
    # vector: float16. reading: key of backbone and instruction; states of different readings do not compare.
    """CREATE TABLE state (
        utterance_id INTEGER PRIMARY KEY REFERENCES utterance (id),
        reading TEXT NOT NULL,
        vector BLOB NOT NULL
    )""",
)

_ADJUDICATED = "strategy = 'adjudicated'"  # kept apart: adjudicating does not change the person's own answer
_CODEBOOK_CHANGES = (
    "ALTER TABLE label ADD COLUMN colour TEXT NOT NULL DEFAULT ''",
    # A label is in use if neither merged nor retired. counts_as: the label after all merges, itself if there are none.
    "ALTER TABLE label ADD COLUMN merged_into INTEGER REFERENCES label (id)",
    "ALTER TABLE label ADD COLUMN split_from INTEGER REFERENCES label (id)",
    "ALTER TABLE label ADD COLUMN counts_as INTEGER REFERENCES label (id)",
    # Answers given under an earlier version of the codebook than this one need a review.
    "ALTER TABLE label ADD COLUMN look_since INTEGER NOT NULL DEFAULT 0",
    "UPDATE label SET counts_as = id",
    "ALTER TABLE codebook_event ADD COLUMN author TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE codebook_event ADD COLUMN undoes INTEGER REFERENCES codebook_event (id)",
    *(
        f"""CREATE TRIGGER {table}_is_never_{done} BEFORE {act} ON {table}
            BEGIN SELECT RAISE(ABORT, '{reason}'); END"""
        for table, act, done, reason in (
            ("codebook_event", "UPDATE", "changed", "codebook_event is append-only"),
            ("codebook_event", "DELETE", "deleted", "codebook_event is append-only"),
            ("label", "DELETE", "deleted", "a label is retired, not deleted"),
        )
    ),
    "DROP VIEW answer",
    # Standing annotations of each annotator, in the labels as originally given.
    f"""CREATE VIEW said AS
        SELECT a.* FROM annotation a
        WHERE a.kind IN ('label', 'skip', 'none_fits')
        AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = a.id)
        AND NOT EXISTS (
            SELECT 1 FROM annotation b
            WHERE b.utterance_id = a.utterance_id AND b.annotator = a.annotator AND b.id > a.id
            AND (b.{_ADJUDICATED}) = (a.{_ADJUDICATED})
            AND b.kind != 'undo' AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = b.id)
        )""",
    "DROP VIEW standing",
    # Accepted suggestions not ended, with labels in use; of several for an utterance, the newest.
    """CREATE VIEW standing AS
        SELECT a.acceptance_id, a.utterance_id, label.id AS label_id, a.probability, acceptance.round_id,
            acceptance.annotator, acceptance.target, acceptance.confidence, acceptance.codebook_version, acceptance.at,
            a.label_id AS said_label_id
        FROM accepted a JOIN acceptance ON acceptance.id = a.acceptance_id
        JOIN label first ON first.id = a.label_id
        JOIN label ON label.id = first.counts_as AND label.retired_at IS NULL
        WHERE NOT EXISTS (SELECT 1 FROM acceptance_end e WHERE e.acceptance_id = a.acceptance_id)
        AND NOT EXISTS (
            SELECT 1 FROM accepted b JOIN label other ON other.id = b.label_id
            JOIN label now ON now.id = other.counts_as AND now.retired_at IS NULL
            WHERE b.utterance_id = a.utterance_id AND b.acceptance_id > a.acceptance_id
            AND NOT EXISTS (SELECT 1 FROM acceptance_end e WHERE e.acceptance_id = b.acceptance_id)
        )""",
    # Predictions of the untrained model for utterances whose label was split, used to sort the work list.
    """CREATE TABLE guess (
        version INTEGER NOT NULL REFERENCES codebook_event (id),
        utterance_id INTEGER NOT NULL REFERENCES utterance (id),
        label_id INTEGER NOT NULL REFERENCES label (id),
        probability REAL NOT NULL,
        PRIMARY KEY (version, utterance_id)
    ) WITHOUT ROWID""",
)

_NEVER_CHANGED = """CREATE TRIGGER codebook_event_is_never_changed BEFORE UPDATE ON codebook_event
    BEGIN SELECT RAISE(ABORT, 'codebook_event is append-only'); END"""

_WITHHELD_AND_BULK = (
    # One bulk act: the same answer to all utterances found by a search. search: its conditions, JSON.
    """CREATE TABLE bulk (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        annotator TEXT NOT NULL,
        search TEXT NOT NULL,
        at TEXT NOT NULL
    )""",
    "ALTER TABLE annotation ADD COLUMN bulk_id INTEGER REFERENCES bulk (id)",
    "CREATE INDEX annotation_bulk ON annotation (bulk_id) WHERE bulk_id IS NOT NULL",
    # A suggestion that was not shown: hidden at random, or by the annotator's preference.
    """ALTER TABLE annotation ADD COLUMN withheld TEXT NOT NULL DEFAULT ''
        CHECK (withheld IN ('', 'chance', 'choice'))""",
    "ALTER TABLE annotation ADD COLUMN withheld_label_id INTEGER REFERENCES label (id)",
    "ALTER TABLE annotation ADD COLUMN withheld_probability REAL",
    # Audit utterances are never answered in bulk: each must be answered individually to count as a measurement.
    """CREATE TRIGGER bulk_spares_audit BEFORE INSERT ON annotation
        WHEN NEW.strategy = 'bulk' AND (SELECT slice FROM utterance WHERE id = NEW.utterance_id) != 'pool'
        BEGIN SELECT RAISE(ABORT, 'audit utterances are never answered in bulk'); END""",
)

_IMPORTS = (
    # The running import, or one left behind by a process that died. complete: all rows are staged, and it will be
    # finished; otherwise it is discarded.
    """CREATE TABLE import (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        state TEXT NOT NULL CHECK (state IN ('staging', 'complete')),
        pid INTEGER,
        pid_started REAL,
        codebook_version INTEGER NOT NULL,
        started_at TEXT NOT NULL
    )""",
    # Its rows by their numbers in the file. utterance_id: the utterance that a row completes, NULL for a new one.
    # slice: NULL if that utterance keeps its own.
    """CREATE TABLE staged (
        number INTEGER PRIMARY KEY,
        external_id TEXT NOT NULL,
        text TEXT NOT NULL,
        text_hash BLOB NOT NULL,
        conversation TEXT,
        turn REAL,
        speaker TEXT,
        metadata TEXT NOT NULL,
        slice TEXT CHECK (slice IN ('pool', 'audit', 'context')),
        label_id INTEGER REFERENCES label (id),
        utterance_id INTEGER REFERENCES utterance (id)
    )""",
)
