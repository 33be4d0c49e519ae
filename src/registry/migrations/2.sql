-- What other tools keep, and what was made of it.

-- Every link in a folder of another tool that this program made; also the journal of making it and of
-- taking it back. One row a path.
CREATE TABLE links (
    -- Never used twice: the names under links/ are made of it.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Which kind of cache: hf, ollama, lmstudio, folder.
    source TEXT NOT NULL,
    -- The folder that the path must not leave.
    root TEXT NOT NULL,
    path TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    -- symlink, hardlink, reflink
    strategy TEXT NOT NULL,
    -- planned, staged, done, undoing, undone
    state TEXT NOT NULL,
    -- Of a symlink: the name that it points at, a hard link to the content.
    name TEXT,
    -- Where the file that changes places with the one at the path lies before and after.
    stage TEXT,
    -- The file that was there before; nothing if there was none. Attributes are JSON: [[name, [bytes]]].
    device INTEGER,
    inode INTEGER,
    modified_ns INTEGER,
    changed_ns INTEGER,
    mode INTEGER,
    attributes TEXT,
    -- Identity of the hard link or clone that is there now.
    placed_device INTEGER,
    placed_inode INTEGER,
    placed_modified_ns INTEGER,
    placed_changed_ns INTEGER,
    -- Identity of the copy that a clone shares its blocks with.
    kept_device INTEGER,
    kept_inode INTEGER,
    kept_modified_ns INTEGER,
    changed_at INTEGER NOT NULL
);

CREATE INDEX links_by_digest ON links (digest);

-- What files were found to hold, so that they need not be read again as long as they do not change.
CREATE TABLE hashes (
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    -- A short hash of the beginning and the end: files that differ in it differ.
    ends INTEGER,
    -- Of the whole content, if it was needed.
    digest TEXT,
    hashed_at INTEGER NOT NULL,
    PRIMARY KEY (device, inode)
) WITHOUT ROWID;

-- Tools that keep models on this machine.
CREATE TABLE apps (
    name TEXT PRIMARY KEY,
    first_seen_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Their folders.
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    app TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    root TEXT NOT NULL UNIQUE,
    models INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
);

-- Which of their models use which content, as of the last look.
CREATE TABLE usage (
    source_id INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    -- As its tool names it.
    model TEXT NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (source_id, digest, model, path)
) WITHOUT ROWID;

CREATE INDEX usage_by_digest ON usage (digest);
