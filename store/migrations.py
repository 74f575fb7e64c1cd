"""The tables, and how they came to be: functions in order, never edited once released, only added to.

One project, one database. Nothing an expert has said is ever updated or deleted: an annotation is an event,
undoing it is another, and the view `answer` shows where that leaves things.
"""

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from store.tables import FIRST_TABLES


class _Ordered(Migrations):
    """Migrations that can also be listed, to recognise a project from a later version."""

    def every(self) -> list[Migrations._Migration]:
        """List all migrations known to this program, in order."""
        return list(self._migrations)


migrations = _Ordered("annotator")


@migrations()
def m001_first_tables(db: Database) -> None:
    """Create everything the loop needs: utterances, labels, annotations, rounds, predictions, queue, jobs."""
    for statement in FIRST_TABLES:
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
def m004_states(db: Database) -> None:
    """Keep what the untrained backbone makes of each utterance, so that it is read once."""
    for statement in _STATES:
        db.execute(statement)


@migrations()
def m005_codebook_changes(db: Database) -> None:
    """Let labels be merged, split and coloured; read every answer through the codebook as it is now."""
    for statement in _CODEBOOK_CHANGES:
        db.execute(statement)
    db.execute(_answers_in_use(db))


@migrations()
def m006_withheld_suggestions_and_bulk_answers(db: Database) -> None:
    """Keep with an answer which suggestion was withheld and why; keep acts that answered many utterances at once."""
    for statement in _WITHHELD_AND_BULK:
        db.execute(statement)
    db.execute("DROP VIEW answer")
    db.execute(_answers_in_use(db))


@migrations()
def m007_what_was_chosen_between_rounds(db: Database) -> None:
    """Keep with the queue and with answers what had been heard when an utterance was chosen between two rounds."""
    for table in ("queue", "annotation"):  # the last annotation that was; none where a round chose, or chance
        db.execute(f"ALTER TABLE {table} ADD COLUMN heard INTEGER REFERENCES annotation (id)")
    db.execute("DROP VIEW answer")
    db.execute(_answers_in_use(db))


@migrations()
def m008_signs_of_life_of_a_job(db: Database) -> None:
    """Note when a job last got on, and when it was asked to stop; of jobs begun before neither is known."""
    for column in ("progress_at", "cancelled_at"):
        db.execute(f"ALTER TABLE job ADD COLUMN {column} TEXT")


@migrations()
def m009_weights_of_a_round(db: Database) -> None:
    """Note which weights a round was made with; rounds made before have none until they are restored."""
    for column in ("fingerprint", "revision", "fingerprint_noted"):
        db.execute(f"ALTER TABLE round ADD COLUMN {column} TEXT")


@migrations()
def m010_imports_in_short_steps(db: Database) -> None:
    """Keep the rows of an import that is under way apart, so that it needs no long transaction and can be finished."""
    for statement in _IMPORTS:
        db.execute(statement)


@migrations()
def m011_names_of_the_field(db: Database) -> None:
    """Call columns what the field calls them: a guarantee, and the annotation after which an utterance was chosen."""
    db.execute("DROP VIEW answer")
    db.execute("ALTER TABLE acceptance RENAME COLUMN promise TO guarantee")
    for table in ("queue", "annotation"):
        db.execute(f"ALTER TABLE {table} RENAME COLUMN heard TO chosen_after")
    db.execute("DROP TABLE guess")  # nobody's answers, and nothing reads them any more
    db.execute(_answers_in_use(db))


@migrations()
def m012_process_of_a_round(db: Database) -> None:
    """Note which process makes a round, so that one that died without a job can be closed."""
    for column in ("pid INTEGER", "pid_started REAL"):
        db.execute(f"ALTER TABLE round ADD COLUMN {column}")


def _answers_in_use(db: Database) -> str:
    """Return the view `answer`: what was said, in the labels in use. Make it anew where annotations get a column.

    It is the one place where answers are read through the codebook. A merged label counts as another; an answer whose
    label was retired or split is 'out_of_use' and has none.
    """
    resolved = {
        "kind": "CASE WHEN label.retired_at IS NULL THEN said.kind ELSE 'out_of_use' END AS kind",
        "label_id": "CASE WHEN label.retired_at IS NULL THEN label.id END AS label_id, said.label_id AS said_label_id",
    }
    columns = []
    for (name,) in db.execute("SELECT name FROM pragma_table_info('annotation') ORDER BY cid"):
        shown = f"(SELECT counts_as FROM label WHERE id = said.{name}) AS {name}"  # a label that was only shown
        columns.append(resolved.get(name, shown if name.endswith("_label_id") else f"said.{name}"))
    return f"""CREATE VIEW answer AS
        SELECT {", ".join(columns)}
        FROM said
        LEFT JOIN label first ON first.id = said.label_id
        LEFT JOIN label ON label.id = first.counts_as"""


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

_STATES = (
    # float16. reading: of which backbone, under which instruction; those of another reading do not compare.
    """CREATE TABLE state (
        utterance_id INTEGER PRIMARY KEY REFERENCES utterance (id),
        reading TEXT NOT NULL,
        vector BLOB NOT NULL
    )""",
)

_ADJUDICATED = "strategy = 'adjudicated'"  # a voice of its own: who settles a case has not changed his own answer
_CODEBOOK_CHANGES = (
    "ALTER TABLE label ADD COLUMN colour TEXT NOT NULL DEFAULT ''",
    # A label is in use where it is neither merged nor retired. counts_as: where its merges lead, itself without any.
    "ALTER TABLE label ADD COLUMN merged_into INTEGER REFERENCES label (id)",
    "ALTER TABLE label ADD COLUMN split_from INTEGER REFERENCES label (id)",
    "ALTER TABLE label ADD COLUMN counts_as INTEGER REFERENCES label (id)",
    # Answers given under an earlier version of the codebook than this one need a new look.
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
    # What each annotator's acts leave standing, in the labels in which it was said.
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
    # The suggestions that stand: accepted, not ended since, their label in use. Where two do, the newer.
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
    # What the untrained model made of utterances whose label was split: it sorts the worklist and is nobody's answer.
    """CREATE TABLE guess (
        version INTEGER NOT NULL REFERENCES codebook_event (id),
        utterance_id INTEGER NOT NULL REFERENCES utterance (id),
        label_id INTEGER NOT NULL REFERENCES label (id),
        probability REAL NOT NULL,
        PRIMARY KEY (version, utterance_id)
    ) WITHOUT ROWID""",
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

_IMPORTS = (
    # The import under way, or left behind by a process that died. complete: all its rows are staged, and it will be
    # finished; before that it leaves nothing.
    """CREATE TABLE import (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        state TEXT NOT NULL CHECK (state IN ('staging', 'complete')),
        pid INTEGER,
        pid_started REAL,
        codebook_version INTEGER NOT NULL,
        started_at TEXT NOT NULL
    )""",
    # Its rows by their numbers in the file. utterance_id: the utterance that a row completes, none where it adds one.
    # slice: none where that utterance keeps its own.
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
