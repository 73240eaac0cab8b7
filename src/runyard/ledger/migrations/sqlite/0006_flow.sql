-- lives beside: 0001
-- When a queue was last served, and the history of the last days in buckets: gauges of queues and pools, and what each
-- pool's owner counted. `writer` tells owners apart that counted in one bucket; gauges have none.
ALTER TABLE queues ADD COLUMN last_claimed_at REAL;

CREATE TABLE history (
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    figure TEXT NOT NULL,
    writer TEXT NOT NULL,
    amount REAL NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (subject, name, bucket, figure, writer)
) WITHOUT ROWID;
CREATE INDEX history_by_bucket ON history (bucket);
