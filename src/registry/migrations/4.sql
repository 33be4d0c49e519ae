-- What was fetched from the hub, as it was asked for.

-- Which commit a branch or tag of a repository was when it was last asked for.
CREATE TABLE branches (
    model_id INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    revision TEXT NOT NULL,
    asked_at INTEGER NOT NULL,
    PRIMARY KEY (model_id, name)
) WITHOUT ROWID;

-- Which choices of a commit's files are here whole.
CREATE TABLE choices (
    snapshot_id INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    choice TEXT NOT NULL,
    PRIMARY KEY (snapshot_id, choice)
) WITHOUT ROWID;
