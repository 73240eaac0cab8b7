-- lives beside: 0001
-- What people look back at: one job's events, the latest of a class, what a pool lost or refused; and a pool's jobs by
-- their state, of which a page wants the few that run among the many that ended.
CREATE INDEX events_of_job ON events (uid, sequence);
CREATE INDEX jobs_by_class ON jobs (class_key, ended_at) WHERE state = 'succeeded';
CREATE INDEX attempts_broken ON attempts (pool, ended_at) WHERE json_extract(outcome, '$.kind') IN ('lost', 'refused');
CREATE INDEX jobs_by_pool_state ON jobs (pool, state, submitted_at, uid) WHERE pool IS NOT NULL;
DROP INDEX jobs_by_pool;
