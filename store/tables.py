"""Tables of the first version, and of the version with questions. Never edited: later migrations change them."""

FIRST_TABLES = (
    # Settings of the project, one JSON value per key.
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
    # A round: what it was made from, what it measured, where its adapter is.
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
    # mass: natural log of the probability that the model outputs any of the labels.
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

_ADJUDICATED = "strategy = 'adjudicated'"
_SETTING = "(SELECT iif(json_valid(value), json_extract(value, '$'), value) FROM setting WHERE key = '{}')"
_KEPT = """id, utterance_id, annotator, kind, label_id, unsure, comment, undoes, round_id, strategy, propensity,
    pool_size, suggested_label_id, suggested_probability, milliseconds, codebook_version, at, bulk_id, withheld,
    withheld_label_id, withheld_probability, chosen_after"""

# Foreign keys are not enforced while these run, so tables can be replaced by ones with a question.
QUESTIONS = (
    "DROP VIEW answer",
    "DROP VIEW said",
    "DROP VIEW standing",
    "DROP TRIGGER slice_is_final",
    # A question about utterances or conversations. name: of its columns in exports, empty if it is the only one.
    # applies: JSON, {} for all
    # units, {"speakers": [...]} or {"question": id, "labels": [ids]} for those with one of these answers.
    # none_fits_since: answers “none fits” given under an earlier version of the codebook need a review.
    """CREATE TABLE question (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL DEFAULT '',
        instruction TEXT NOT NULL DEFAULT '',
        kind TEXT NOT NULL DEFAULT 'single' CHECK (kind IN ('single', 'multi', 'ordinal')),
        unit TEXT NOT NULL DEFAULT 'utterance' CHECK (unit IN ('utterance', 'conversation')),
        applies TEXT NOT NULL DEFAULT '{}',
        position REAL NOT NULL DEFAULT 0,
        none_fits_since INTEGER NOT NULL DEFAULT 0,
        retired_at TEXT
    )""",
    f"""INSERT INTO question (id, instruction, none_fits_since)
        VALUES (1, coalesce({_SETTING.format("instruction")}, ''),
            coalesce({_SETTING.format("none_fits_since")}, 0))""",
    "DELETE FROM setting WHERE key IN ('instruction', 'none_fits_since')",
    "ALTER TABLE label ADD COLUMN question_id INTEGER NOT NULL DEFAULT 1 REFERENCES question (id)",
    # A group holds labels and groups, cannot be chosen, and has no column of probabilities. parent_id: its group.
    "ALTER TABLE label ADD COLUMN is_group INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE label ADD COLUMN parent_id INTEGER REFERENCES label (id)",
    """CREATE TABLE asked (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        utterance_id INTEGER NOT NULL REFERENCES utterance (id),
        question_id INTEGER NOT NULL REFERENCES question (id),
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
        chosen_after INTEGER REFERENCES annotation (id),
        suggested_label_id INTEGER REFERENCES label (id),
        suggested_probability REAL,
        withheld TEXT NOT NULL DEFAULT '' CHECK (withheld IN ('', 'chance', 'choice')),
        withheld_label_id INTEGER REFERENCES label (id),
        withheld_probability REAL,
        milliseconds INTEGER,
        bulk_id INTEGER REFERENCES bulk (id),
        codebook_version INTEGER NOT NULL,
        at TEXT NOT NULL,
        CHECK ((kind = 'label') = (label_id IS NOT NULL)),
        CHECK ((kind = 'undo') = (undoes IS NOT NULL))
    )""",
    f"INSERT INTO asked (question_id, {_KEPT}) SELECT 1, {_KEPT} FROM annotation ORDER BY id",
    "DROP TABLE annotation",
    "ALTER TABLE asked RENAME TO annotation",
    "CREATE INDEX annotation_utterance ON annotation (utterance_id, annotator)",
    "CREATE INDEX annotation_annotator ON annotation (annotator)",
    "CREATE INDEX annotation_bulk ON annotation (bulk_id) WHERE bulk_id IS NOT NULL",
    *(
        f"""CREATE TRIGGER annotation_is_never_{done} BEFORE {act} ON annotation
            BEGIN SELECT RAISE(ABORT, 'annotations are append-only'); END"""
        for act, done in (("UPDATE", "changed"), ("DELETE", "deleted"))
    ),
    """CREATE TRIGGER bulk_spares_audit BEFORE INSERT ON annotation
        WHEN NEW.strategy = 'bulk' AND (SELECT slice FROM utterance WHERE id = NEW.utterance_id) != 'pool'
        BEGIN SELECT RAISE(ABORT, 'audit utterances are never answered in bulk'); END""",
    """CREATE TRIGGER answer_fits_question BEFORE INSERT ON annotation
        WHEN (SELECT is_group OR question_id != NEW.question_id FROM label WHERE id = NEW.label_id)
        BEGIN SELECT RAISE(ABORT, 'a group, or a label of another question, is not an answer'); END""",
    """CREATE TRIGGER slice_is_final BEFORE UPDATE OF slice ON utterance
        WHEN NEW.slice != OLD.slice AND EXISTS (
            SELECT 1 FROM annotation WHERE utterance_id = OLD.id AND strategy != 'given')
        BEGIN SELECT RAISE(ABORT, 'the slice of an answered utterance is final'); END""",
    """CREATE TABLE predicted (
        round_id INTEGER NOT NULL REFERENCES round (id),
        question_id INTEGER NOT NULL REFERENCES question (id),
        utterance_id INTEGER NOT NULL REFERENCES utterance (id),
        probabilities BLOB NOT NULL,
        logits BLOB NOT NULL,
        mass REAL NOT NULL,
        PRIMARY KEY (round_id, question_id, utterance_id)
    ) WITHOUT ROWID""",
    """INSERT INTO predicted SELECT round_id, 1, utterance_id, probabilities, logits, mass FROM prediction
        ORDER BY round_id, utterance_id""",
    "DROP TABLE prediction",
    "ALTER TABLE predicted RENAME TO prediction",
    # Standing annotations of each annotator to each question, in the labels as originally given.
    f"""CREATE VIEW said AS
        SELECT a.* FROM annotation a
        WHERE a.kind IN ('label', 'skip', 'none_fits')
        AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = a.id)
        AND NOT EXISTS (
            SELECT 1 FROM annotation b
            WHERE b.utterance_id = a.utterance_id AND b.annotator = a.annotator AND b.id > a.id
            AND b.question_id = a.question_id AND (b.{_ADJUDICATED}) = (a.{_ADJUDICATED})
            AND b.kind != 'undo' AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = b.id)
        )""",
    # Accepted suggestions not ended, with labels in use; of several for an utterance and question, the newest.
    """CREATE VIEW standing AS
        SELECT a.acceptance_id, a.utterance_id, label.id AS label_id, a.probability, acceptance.round_id,
            acceptance.annotator, acceptance.target, acceptance.confidence, acceptance.codebook_version, acceptance.at,
            a.label_id AS said_label_id, label.question_id
        FROM accepted a JOIN acceptance ON acceptance.id = a.acceptance_id
        JOIN label first ON first.id = a.label_id
        JOIN label ON label.id = first.counts_as AND label.retired_at IS NULL
        WHERE NOT EXISTS (SELECT 1 FROM acceptance_end e WHERE e.acceptance_id = a.acceptance_id)
        AND NOT EXISTS (
            SELECT 1 FROM accepted b JOIN label other ON other.id = b.label_id
            JOIN label now ON now.id = other.counts_as AND now.retired_at IS NULL
            WHERE b.utterance_id = a.utterance_id AND b.acceptance_id > a.acceptance_id
            AND now.question_id = label.question_id
            AND NOT EXISTS (SELECT 1 FROM acceptance_end e WHERE e.acceptance_id = b.acceptance_id)
        )""",
)
