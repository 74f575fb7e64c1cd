"""The tables, and how they came to be: functions in order, never edited once released, only added to.

One project, one database. Nothing an expert has said is ever updated or deleted: an annotation is an event,
undoing it is another, and the view `answer` shows where that leaves things.
"""

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations


class _Ordered(Migrations):
    """Migrations that can also be listed, to recognise a project from a later version."""

    def every(self) -> list[Migrations._Migration]:
        """List all migrations known to this program, in order."""
        return list(self._migrations)


migrations = _Ordered("annotator")


@migrations()
def m001_first_tables(db: Database) -> None:
    """Create everything the loop needs: utterances, labels, annotations, rounds, predictions, queue, jobs."""
    for statement in _FIRST_TABLES:
        db.execute(statement)


@migrations()
def m002_memory_of_a_round(db: Database) -> None:
    """Note the most memory a round has held, in bytes; rounds made before have none."""
    db.execute("ALTER TABLE round ADD COLUMN peak_memory INTEGER")


@migrations()
def m003_acceptances(db: Database) -> None:
    """Keep which suggestions were accepted unseen, on what evidence, and what became of that; name the round in use."""
    for statement in _ACCEPTANCES:
        db.execute(statement)


@migrations()
def m005_withheld_suggestions_and_bulk_answers(db: Database) -> None:
    """Keep with an answer which suggestion was withheld and why; keep acts that answered many utterances at once."""
    for statement in _WITHHELD_AND_BULK:
        db.execute(statement)


_FIRST_TABLES = (
    # Settings of the project, one JSON value a key.
    """CREATE TABLE setting (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID""",
    # One text. slice: pool (may be asked and trained on), audit (asked, only for measuring; drawn at random
    # at import), context (never asked, read as the turns around another).
    """CREATE TABLE utterance (
        id INTEGER PRIMARY KEY,
        external_id TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        text_hash BLOB NOT NULL,
        conversation TEXT,
        turn REAL,
        speaker TEXT,
        metadata TEXT NOT NULL DEFAULT '{}',
        slice TEXT NOT NULL CHECK (slice IN ('pool', 'audit', 'context')),
        imported_at TEXT NOT NULL
    )""",
    "CREATE INDEX utterance_turn ON utterance (conversation, turn)",
    "CREATE INDEX utterance_slice ON utterance (slice)",
    "CREATE INDEX utterance_hash ON utterance (text_hash)",
    # Ids are stable and never reused; a label is retired, not deleted.
    """CREATE TABLE label (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        definition TEXT NOT NULL DEFAULT '',
        examples TEXT NOT NULL DEFAULT '[]',
        words TEXT NOT NULL DEFAULT '',
        key TEXT NOT NULL DEFAULT '',
        position INTEGER NOT NULL,
        retired_at TEXT
    )""",
    # Every change of the codebook; its id is the codebook's version.
    """CREATE TABLE codebook_event (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        details TEXT NOT NULL,
        at TEXT NOT NULL
    )""",
    # A round: what it was made from, what it measured, where its adapter lies.
    """CREATE TABLE round (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        number INTEGER NOT NULL UNIQUE,
        state TEXT NOT NULL CHECK (state IN ('running', 'promoted', 'failed', 'cancelled', 'interrupted')),
        config TEXT NOT NULL,
        backbone TEXT NOT NULL,
        codebook_version INTEGER NOT NULL,
        label_ids TEXT NOT NULL,
        last_annotation INTEGER NOT NULL,
        snapshot_hash TEXT NOT NULL,
        trained_on INTEGER NOT NULL,
        audited_on INTEGER NOT NULL,
        calibration TEXT,
        metrics TEXT,
        adapter TEXT,
        started_at TEXT NOT NULL,
        finished_at TEXT
    )""",
    # One annotator's act on one utterance, and why it was shown. undoes: the annotation an undo takes back.
    # propensity: the chance with which the strategy drew it; none where it was chosen, not drawn.
    """CREATE TABLE annotation (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        utterance_id INTEGER NOT NULL REFERENCES utterance (id),
        annotator TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('label', 'skip', 'none_fits', 'clear', 'undo')),
        label_id INTEGER REFERENCES label (id),
        unsure INTEGER NOT NULL DEFAULT 0,
        comment TEXT NOT NULL DEFAULT '',
        undoes INTEGER UNIQUE REFERENCES annotation (id),
        round_id INTEGER REFERENCES round (id),
        strategy TEXT NOT NULL,
        propensity REAL,
        pool_size INTEGER,
        suggested_label_id INTEGER REFERENCES label (id),
        suggested_probability REAL,
        milliseconds INTEGER,
        codebook_version INTEGER NOT NULL,
        at TEXT NOT NULL,
        CHECK ((kind = 'label') = (label_id IS NOT NULL)),
        CHECK ((kind = 'undo') = (undoes IS NOT NULL))
    )""",
    "CREATE INDEX annotation_utterance ON annotation (utterance_id, annotator)",
    "CREATE INDEX annotation_annotator ON annotation (annotator)",
    # Append-only is a property of the database, not a habit of the program.
    """CREATE TRIGGER annotation_is_never_changed BEFORE UPDATE ON annotation
        BEGIN SELECT RAISE(ABORT, 'annotations are append-only'); END""",
    """CREATE TRIGGER annotation_is_never_deleted BEFORE DELETE ON annotation
        BEGIN SELECT RAISE(ABORT, 'annotations are append-only'); END""",
    # What each annotator's acts leave standing: the last one on each utterance that is not undone.
    """CREATE VIEW answer AS
        SELECT a.* FROM annotation a
        WHERE a.kind IN ('label', 'skip', 'none_fits')
        AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = a.id)
        AND NOT EXISTS (
            SELECT 1 FROM annotation b
            WHERE b.utterance_id = a.utterance_id AND b.annotator = a.annotator AND b.id > a.id
            AND b.kind != 'undo' AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = b.id)
        )""",
    # Calibrated probabilities and raw log-likelihoods: float32 in the order of the round's label_ids.
    # mass: natural log of the probability that the model says any label at all.
    """CREATE TABLE prediction (
        round_id INTEGER NOT NULL REFERENCES round (id),
        utterance_id INTEGER NOT NULL REFERENCES utterance (id),
        probabilities BLOB NOT NULL,
        logits BLOB NOT NULL,
        mass REAL NOT NULL,
        PRIMARY KEY (round_id, utterance_id)
    ) WITHOUT ROWID""",
    # What is asked next, in this order. One batch serves until the next round replaces it.
    """CREATE TABLE queue (
        rank INTEGER PRIMARY KEY,
        utterance_id INTEGER NOT NULL UNIQUE REFERENCES utterance (id),
        round_id INTEGER REFERENCES round (id),
        strategy TEXT NOT NULL,
        score REAL,
        propensity REAL,
        pool_size INTEGER NOT NULL,
        leased_by TEXT,
        leased_until TEXT
    )""",
    # A process that works on the project. At most one is active.
    """CREATE TABLE job (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        state TEXT NOT NULL CHECK (state IN ('active', 'done', 'failed', 'cancelled', 'interrupted')),
        reason TEXT NOT NULL,
        pid INTEGER,
        pid_started REAL,
        stage TEXT NOT NULL DEFAULT '',
        share REAL NOT NULL DEFAULT 0,
        seconds_left REAL,
        cancel INTEGER NOT NULL DEFAULT 0,
        last_annotation INTEGER NOT NULL,
        round_id INTEGER REFERENCES round (id),
        error TEXT,
        hint TEXT,
        started_at TEXT NOT NULL,
        heartbeat_at TEXT NOT NULL,
        finished_at TEXT
    )""",
    "CREATE UNIQUE INDEX job_one_active ON job (state) WHERE state = 'active'",
)

_ACCEPTANCES = (
    # One act: suggestions of a round accepted unseen. promise: JSON of what was certified, and from which answers.
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
    # A model's annotation. In a table of its own, so that nothing that reads people's answers can take it for one.
    """CREATE TABLE accepted (
        acceptance_id INTEGER NOT NULL REFERENCES acceptance (id),
        utterance_id INTEGER NOT NULL REFERENCES utterance (id),
        label_id INTEGER NOT NULL REFERENCES label (id),
        probability REAL NOT NULL,
        PRIMARY KEY (acceptance_id, utterance_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX accepted_utterance ON accepted (utterance_id)",
    # What ended an acceptance: someone took it back, or spot checks spoke against its promise.
    """CREATE TABLE acceptance_end (
        acceptance_id INTEGER PRIMARY KEY REFERENCES acceptance (id),
        kind TEXT NOT NULL CHECK (kind IN ('undone', 'withdrawn')),
        reason TEXT NOT NULL,
        at TEXT NOT NULL
    )""",
    # The suggestions that stand: accepted and not ended since.
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
    # What was drawn stays drawn: an utterance that somebody has answered never changes its slice.
    """CREATE TRIGGER slice_is_final BEFORE UPDATE OF slice ON utterance
        WHEN NEW.slice != OLD.slice AND EXISTS (
            SELECT 1 FROM annotation WHERE utterance_id = OLD.id AND strategy != 'given')
        BEGIN SELECT RAISE(ABORT, 'the slice of an answered utterance is final'); END""",
    # An older round put in use again, until the next one is promoted.
    """CREATE TABLE roll_back (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        from_round INTEGER NOT NULL REFERENCES round (id),
        to_round INTEGER NOT NULL REFERENCES round (id),
        annotator TEXT NOT NULL,
        at TEXT NOT NULL
    )""",
)

_WITHHELD_AND_BULK = (
    # One act: the same answer to all utterances that a search found. search: what was looked for, JSON.
    """CREATE TABLE bulk (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        annotator TEXT NOT NULL,
        search TEXT NOT NULL,
        at TEXT NOT NULL
    )""",
    "ALTER TABLE annotation ADD COLUMN bulk_id INTEGER REFERENCES bulk (id)",
    "CREATE INDEX annotation_bulk ON annotation (bulk_id) WHERE bulk_id IS NOT NULL",
    # A suggestion that there was and that was not shown: drawn to be hidden, or the annotator wished so.
    """ALTER TABLE annotation ADD COLUMN withheld TEXT NOT NULL DEFAULT ''
        CHECK (withheld IN ('', 'chance', 'choice'))""",
    "ALTER TABLE annotation ADD COLUMN withheld_label_id INTEGER REFERENCES label (id)",
    "ALTER TABLE annotation ADD COLUMN withheld_probability REAL",
    # No act may answer audit utterances in bulk: each of them is answered by itself, or measures nothing.
    """CREATE TRIGGER bulk_spares_audit BEFORE INSERT ON annotation
        WHEN NEW.strategy = 'bulk' AND (SELECT slice FROM utterance WHERE id = NEW.utterance_id) != 'pool'
        BEGIN SELECT RAISE(ABORT, 'audit utterances are never answered in bulk'); END""",
)
