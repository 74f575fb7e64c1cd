BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'annotator','m001_first_tables','2026-11-21 10:42:59.690440+00:00');
CREATE TABLE annotation (
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
    );
INSERT INTO "annotation" VALUES(1,3,'given','label',2,0,'',NULL,NULL,'given',NULL,NULL,NULL,NULL,NULL,1,'2026-11-21T10:42:59.738+00:00');
INSERT INTO "annotation" VALUES(2,2,'ann','label',1,0,'',NULL,NULL,'random',NULL,NULL,NULL,NULL,NULL,1,'2026-11-21T10:42:59.742+00:00');
INSERT INTO "annotation" VALUES(3,2,'ann','label',2,0,'',NULL,NULL,'random',NULL,NULL,NULL,NULL,NULL,1,'2026-11-21T10:42:59.746+00:00');
INSERT INTO "annotation" VALUES(4,2,'ann','undo',NULL,0,'',3,NULL,'random',NULL,NULL,NULL,NULL,NULL,1,'2026-11-21T10:42:59.750+00:00');
INSERT INTO "annotation" VALUES(5,4,'ann','skip',NULL,0,'',NULL,NULL,'random',NULL,NULL,NULL,NULL,NULL,1,'2026-11-21T10:42:59.754+00:00');
INSERT INTO "annotation" VALUES(6,4,'ben','none_fits',NULL,0,'',NULL,NULL,'random',NULL,NULL,NULL,NULL,NULL,1,'2026-11-21T10:42:59.758+00:00');
INSERT INTO "annotation" VALUES(7,2,'ben','label',1,0,'',NULL,NULL,'random',NULL,NULL,NULL,NULL,NULL,1,'2026-11-21T10:42:59.760+00:00');
INSERT INTO "annotation" VALUES(8,2,'ben','clear',NULL,0,'',NULL,NULL,'random',NULL,NULL,NULL,NULL,NULL,1,'2026-11-21T10:42:59.766+00:00');
CREATE TABLE codebook_event (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        details TEXT NOT NULL,
        at TEXT NOT NULL
    );
INSERT INTO "codebook_event" VALUES(1,'add','{"label_id": 1, "name": "card lost", "position": 0, "definition": "It’s gone", "examples": "[\"my card is gone\"]", "words": "lost", "key": "l"}','2026-11-21T10:42:59.702+00:00');
INSERT INTO "codebook_event" VALUES(2,'add','{"label_id": 2, "name": "other", "position": 1, "examples": "[]"}','2026-11-21T10:42:59.706+00:00');
INSERT INTO "codebook_event" VALUES(3,'revise','{"label_id": 2, "definition": "none of the above"}','2026-11-21T10:42:59.710+00:00');
CREATE TABLE job (
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
    );
INSERT INTO "job" VALUES(1,'done','asked',NULL,NULL,'',0.0,NULL,0,8,1,NULL,NULL,'2026-11-21T10:42:59.767+00:00','2026-11-21T10:42:59.767+00:00','2026-11-21T10:42:59.781+00:00');
CREATE TABLE label (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        definition TEXT NOT NULL DEFAULT '',
        examples TEXT NOT NULL DEFAULT '[]',
        words TEXT NOT NULL DEFAULT '',
        key TEXT NOT NULL DEFAULT '',
        position INTEGER NOT NULL,
        retired_at TEXT
    );
INSERT INTO "label" VALUES(1,'card lost','It’s gone','["my card is gone"]','lost','l',0,NULL);
INSERT INTO "label" VALUES(2,'other','none of the above','[]','','',1,NULL);
CREATE TABLE prediction (
        round_id INTEGER NOT NULL REFERENCES round (id),
        utterance_id INTEGER NOT NULL REFERENCES utterance (id),
        probabilities BLOB NOT NULL,
        logits BLOB NOT NULL,
        mass REAL NOT NULL,
        PRIMARY KEY (round_id, utterance_id)
    ) WITHOUT ROWID;
INSERT INTO "prediction" VALUES(1,2,X'5E4A203F446BBF3E',X'09F497C06874A8C0',-4.28034988371062485867e+00);
INSERT INTO "prediction" VALUES(1,3,X'EDAA3E3F26AA823E',X'A1066EC0514999C0',-3.4245092489043331696e+00);
INSERT INTO "prediction" VALUES(1,4,X'56F0113EEB835B3F',X'6848C2C0A0DB88C0',-4.12305436780372591698e+00);
INSERT INTO "prediction" VALUES(1,5,X'F4D62B3F1752A83E',X'871619C00DC646C0',-1.99338433750106358566e+00);
CREATE TABLE queue (
        rank INTEGER PRIMARY KEY,
        utterance_id INTEGER NOT NULL UNIQUE REFERENCES utterance (id),
        round_id INTEGER REFERENCES round (id),
        strategy TEXT NOT NULL,
        score REAL,
        propensity REAL,
        pool_size INTEGER NOT NULL,
        leased_by TEXT,
        leased_until TEXT
    );
INSERT INTO "queue" VALUES(1,2,1,'random',NULL,1.0,4,NULL,NULL);
INSERT INTO "queue" VALUES(2,3,1,'random',NULL,1.0,4,NULL,NULL);
INSERT INTO "queue" VALUES(3,4,1,'random',NULL,1.0,4,NULL,NULL);
INSERT INTO "queue" VALUES(4,5,1,'random',NULL,1.0,4,'ann','2026-11-21T10:52:59.782+00:00');
CREATE TABLE round (
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
    );
INSERT INTO "round" VALUES(1,1,'promoted','{}','tiny',1,'[1, 2]',0,'hash',2,0,'{"temperature": 1.5}','{"accuracy": 0.5}','round-0001','2026-11-21T10:42:59.770+00:00','2026-11-21T10:42:59.779+00:00');
CREATE TABLE setting (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;
INSERT INTO "setting" VALUES('instruction','"What is it about?"');
INSERT INTO "setting" VALUES('name','"Frozen \u201cproject\u201d"');
CREATE TABLE utterance (
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
    );
INSERT INTO "utterance" VALUES(1,'a1','Hello, how
can I help?',X'92BB7D069BC3052014364B4DB4CAB3E6','c1',1.0,'agent','{"stars": 4}','context','2026-11-21T10:42:59.714+00:00');
INSERT INTO "utterance" VALUES(2,'a2','I''ve lost my “card” 🙂',X'D9DD0D3AEEECB16C81C033B010DC76EF','c1',2.0,'client','{"tags": ["x"]}','pool','2026-11-21T10:42:59.718+00:00');
INSERT INTO "utterance" VALUES(3,'a3','Zwölf Boxkämpfer',X'C5963CEF928C08FCCE44CB5F9FF3BBBD',NULL,NULL,NULL,'{}','pool','2026-11-21T10:42:59.722+00:00');
INSERT INTO "utterance" VALUES(4,'a4','fourth',X'3F4D6DC808F0B1790DF961108079105C',NULL,NULL,NULL,'{}','pool','2026-11-21T10:42:59.726+00:00');
INSERT INTO "utterance" VALUES(5,'a5','fifth',X'EA078BB2A6FC16F23D045AC2D86CE71D',NULL,NULL,NULL,'{}','audit','2026-11-21T10:42:59.730+00:00');
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX utterance_turn ON utterance (conversation, turn);
CREATE INDEX utterance_slice ON utterance (slice);
CREATE INDEX utterance_hash ON utterance (text_hash);
CREATE INDEX annotation_utterance ON annotation (utterance_id, annotator);
CREATE INDEX annotation_annotator ON annotation (annotator);
CREATE TRIGGER annotation_is_never_changed BEFORE UPDATE ON annotation
        BEGIN SELECT RAISE(ABORT, 'annotations are append-only'); END;
CREATE TRIGGER annotation_is_never_deleted BEFORE DELETE ON annotation
        BEGIN SELECT RAISE(ABORT, 'annotations are append-only'); END;
CREATE VIEW answer AS
        SELECT a.* FROM annotation a
        WHERE a.kind IN ('label', 'skip', 'none_fits')
        AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = a.id)
        AND NOT EXISTS (
            SELECT 1 FROM annotation b
            WHERE b.utterance_id = a.utterance_id AND b.annotator = a.annotator AND b.id > a.id
            AND b.kind != 'undo' AND NOT EXISTS (SELECT 1 FROM annotation u WHERE u.undoes = b.id)
        );
CREATE UNIQUE INDEX job_one_active ON job (state) WHERE state = 'active';
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('label',2);
INSERT INTO "sqlite_sequence" VALUES('codebook_event',3);
INSERT INTO "sqlite_sequence" VALUES('annotation',8);
INSERT INTO "sqlite_sequence" VALUES('job',1);
INSERT INTO "sqlite_sequence" VALUES('round',1);
COMMIT;
