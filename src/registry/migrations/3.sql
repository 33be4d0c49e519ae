-- What was measured of models, each as JSON in the shape of the report of `bench`.
CREATE TABLE benchmarks (
    id INTEGER PRIMARY KEY,
    measured_at INTEGER NOT NULL,
    -- Stays when the model goes.
    reference TEXT NOT NULL,
    environment TEXT NOT NULL,
    model TEXT NOT NULL,
    results TEXT NOT NULL
);

CREATE INDEX benchmarks_by_reference ON benchmarks (reference);
