-- Times are milliseconds since 1970, the columns *_ns nanoseconds since 1970. Paths are relative to the
-- store where they lie in it, else absolute.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    -- As shown and asked for. Letters of either case are the same, as on the hub and on macOS's disks.
    reference TEXT NOT NULL UNIQUE COLLATE NOCASE,
    host TEXT NOT NULL,
    org TEXT NOT NULL,
    name TEXT NOT NULL
);

CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY,
    model_id INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    revision TEXT NOT NULL,
    origin TEXT NOT NULL,
    -- Whether the content lies in the store's blobs.
    stored INTEGER NOT NULL,
    -- The folder that the paths of its files start from.
    root TEXT NOT NULL,
    -- The one file below root that is the model, if it is one file.
    entry TEXT,
    kind TEXT NOT NULL,
    architecture TEXT,
    parameters INTEGER,
    quantization TEXT,
    context_length INTEGER,
    bytes INTEGER NOT NULL,
    file_count INTEGER NOT NULL,
    added_at INTEGER NOT NULL,
    last_used_at INTEGER,
    UNIQUE (model_id, revision)
);

CREATE TABLE files (
    snapshot_id INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    -- Identity of a file outside the store when it was hashed.
    device INTEGER,
    inode INTEGER,
    modified_ns INTEGER,
    changed_ns INTEGER,
    PRIMARY KEY (snapshot_id, path)
) WITHOUT ROWID;

CREATE INDEX files_by_digest ON files (digest);

CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL,
    -- When its content was last hashed, and its identity then.
    verified_at INTEGER,
    device INTEGER,
    inode INTEGER,
    modified_ns INTEGER,
    changed_ns INTEGER
) WITHOUT ROWID;

CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    -- Stays when the model goes.
    reference TEXT NOT NULL,
    command TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    generated_tokens INTEGER NOT NULL,
    load_s REAL NOT NULL,
    ttft_s REAL NOT NULL,
    total_s REAL NOT NULL
);
