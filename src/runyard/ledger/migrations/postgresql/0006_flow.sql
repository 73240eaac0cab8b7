-- lives beside: 0001
-- When a queue was last served, and the history of the last days in buckets: gauges of queues and pools, and what each
-- pool's owner counted. `writer` tells owners apart that counted in one bucket; gauges have none.
ALTER TABLE queues ADD COLUMN last_claimed_at double precision;

CREATE TABLE history (
    subject text NOT NULL,
    name text NOT NULL,
    bucket bigint NOT NULL,
    figure text NOT NULL,
    writer text NOT NULL,
    amount double precision NOT NULL,
    seconds double precision NOT NULL,
    PRIMARY KEY (subject, name, bucket, figure, writer)
);
CREATE INDEX history_by_bucket ON history (bucket);
