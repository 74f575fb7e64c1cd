"""Tables of the first version, created by the first migration. Never edited: later migrations change them."""

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
