-- The first schema. Never edit an applied migration: its checksum is stored. Times are epoch seconds. The tables are
-- those of SQLite, except that what many writers share stands apart from what one of them changes often:
--   pools       who may write for a pool: shared by every write for it, taken alone by a takeover
--   leases      how long: a renewal touches this row only, so it neither blocks a claim nor waits for one
--   pool_state  what a pool's claims and settles count
-- Names are COLLATE "C": ordered by bytes, as in Python and SQLite. Flags are integers, for statements that both
-- databases share. Partial indexes are matched by literals only, so their predicates stand as literals in every
-- statement. Hot tables are vacuumed early: a claim reads the front of an index, which is where the dead rows are.

CREATE TABLE queues (
    name text COLLATE "C" PRIMARY KEY,
    weight double precision NOT NULL,
    running_max bigint,
    queued_max bigint,
    tenant_running_max bigint,
    defaults text NOT NULL,
    is_paused integer NOT NULL,
    is_configured integer NOT NULL,
    queued bigint NOT NULL DEFAULT 0,
    starting bigint NOT NULL DEFAULT 0,
    running bigint NOT NULL DEFAULT 0,
    clock double precision NOT NULL DEFAULT 0 -- the highest virtual time at which one of its tenants was served
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

INSERT INTO queues (name, weight, defaults, is_paused, is_configured) VALUES ('default', 1.0, '{}', 0, 0);

CREATE TABLE tenants (
    name text COLLATE "C" PRIMARY KEY,
    weight double precision NOT NULL,
    running_max bigint,
    queued_max bigint,
    is_configured integer NOT NULL,
    queued bigint NOT NULL DEFAULT 0,
    running bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

-- A class of equal requirements, and what one attempt of it is expected to cost (a moving average).
CREATE TABLE classes (
    class_key text COLLATE "C" PRIMARY KEY,
    requirements text NOT NULL,
    cpu_millis bigint NOT NULL,
    memory_bytes bigint NOT NULL,
    disk_bytes bigint,
    estimate double precision NOT NULL,
    samples bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- What one tenant has had of one queue.
CREATE TABLE shares (
    queue text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    vtime double precision NOT NULL DEFAULT 0,
    queued bigint NOT NULL DEFAULT 0,
    ready bigint NOT NULL DEFAULT 0,
    running bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, tenant)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE INDEX shares_of_tenant ON shares (tenant);

-- One class in one queue: how much is ready, and the virtual time at which a tenant was last served in it.
CREATE TABLE lanes (
    queue text COLLATE "C" NOT NULL,
    class_key text COLLATE "C" NOT NULL,
    ready bigint NOT NULL DEFAULT 0,
    clock double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, class_key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Who can be chosen next; a row is there only while it has ready jobs. `vtime` is a copy of the share's.
CREATE TABLE fair (
    queue text COLLATE "C" NOT NULL,
    class_key text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    ready bigint NOT NULL,
    vtime double precision NOT NULL,
    is_blocked integer NOT NULL,
    PRIMARY KEY (queue, class_key, tenant)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
CREATE INDEX fair_next ON fair (queue, class_key, vtime, tenant) WHERE ready > 0 AND is_blocked = 0;
CREATE INDEX fair_of_tenant ON fair (tenant, queue);

CREATE TABLE jobs (
    serial bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid text COLLATE "C" NOT NULL UNIQUE,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    name text,
    queue text COLLATE "C" NOT NULL,
    class_key text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    is_ready integer NOT NULL,
    pool text COLLATE "C",              -- of the latest attempt
    spec_hash text NOT NULL,
    submitted_by text NOT NULL,
    retry_of text,
    submitted_at double precision NOT NULL,
    queued_at double precision NOT NULL,
    not_before double precision,
    queue_deadline_at double precision,
    cancel_requested_at double precision,
    attempts integer NOT NULL DEFAULT 0,
    infrastructure_failures integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    unseen_tries integer NOT NULL DEFAULT 0,
    started_at double precision,
    ended_at double precision,
    reason text,
    outputs text NOT NULL DEFAULT '{}',
    UNIQUE (tenant, id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000);
CREATE INDEX jobs_ready ON jobs (queue, class_key, tenant, priority DESC, queued_at, uid) WHERE is_ready = 1;
CREATE INDEX jobs_oldest ON jobs (queue, class_key, queued_at) WHERE is_ready = 1;
CREATE INDEX jobs_held_back ON jobs (not_before) WHERE state = 'queued' AND is_ready = 0;
CREATE INDEX jobs_queue_deadline ON jobs (queue_deadline_at)
    WHERE state = 'queued' AND attempts = 0 AND queue_deadline_at IS NOT NULL;
CREATE INDEX jobs_by_state ON jobs (state, submitted_at, uid);
CREATE INDEX jobs_by_tenant ON jobs (tenant, state, submitted_at, uid);
CREATE INDEX jobs_by_queue ON jobs (queue, state, submitted_at, uid);
CREATE INDEX jobs_by_pool ON jobs (pool, submitted_at, uid) WHERE pool IS NOT NULL;
CREATE INDEX jobs_by_end ON jobs (ended_at) WHERE ended_at IS NOT NULL;

-- Apart from the job, whose row is written again at each change of state: a spec may be large.
CREATE TABLE job_specs (
    serial bigint PRIMARY KEY,
    spec text NOT NULL
);

CREATE TABLE job_labels (
    label text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    submitted_at double precision NOT NULL,
    uid text COLLATE "C" NOT NULL,
    serial bigint NOT NULL,
    PRIMARY KEY (label, value, submitted_at, uid)
);
CREATE INDEX job_labels_of_job ON job_labels (serial);

CREATE TABLE attempts (
    uid text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    pool text COLLATE "C" NOT NULL,
    slot bigint NOT NULL,
    epoch bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    claimed_at double precision NOT NULL,
    started_at double precision,
    ended_at double precision,
    phases text NOT NULL,
    outcome text,
    charged double precision NOT NULL,
    is_logs_deleted integer NOT NULL DEFAULT 0,
    is_artifacts_deleted integer NOT NULL DEFAULT 0,
    PRIMARY KEY (uid, number)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE UNIQUE INDEX attempts_unfinished ON attempts (pool, slot) WHERE state <> 'ended';
CREATE INDEX attempts_with_logs ON attempts (ended_at) WHERE ended_at IS NOT NULL AND is_logs_deleted = 0;
CREATE INDEX attempts_with_artifacts ON attempts (ended_at)
    WHERE ended_at IS NOT NULL AND is_artifacts_deleted = 0;

CREATE TABLE events (
    sequence bigint PRIMARY KEY,
    at double precision NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    uid text COLLATE "C" NOT NULL,
    state text NOT NULL,
    attempt integer NOT NULL,
    reason text
);
CREATE INDEX events_of_tenant ON events (tenant, sequence);

-- The last sequence given out. Its row is the lock of the feed: taken last in a transaction and held to its commit, so
-- sequences are in order of commit, without gaps, and none becomes visible after a higher one.
CREATE TABLE event_head (sequence bigint NOT NULL)
    WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO event_head VALUES (0);

CREATE TABLE pools (
    name text COLLATE "C" PRIMARY KEY,
    settings text NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    owner text,
    is_paused integer NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- `epoch` repeats the pool's, so that a renewal is judged on the row that it writes.
CREATE TABLE leases (
    pool text COLLATE "C" PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    lease_until double precision        -- NULL: released, or never taken
) WITH (fillfactor = 50);

CREATE TABLE pool_state (
    pool text COLLATE "C" PRIMARY KEY,
    health text NOT NULL DEFAULT 'unowned',
    health_message text NOT NULL DEFAULT '',
    starting bigint NOT NULL DEFAULT 0,
    running bigint NOT NULL DEFAULT 0,
    clock double precision NOT NULL DEFAULT 0 -- the virtual time at which it last served a queue
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What one queue has had of one pool: each pool is a fair server of its own.
CREATE TABLE pool_queues (
    pool text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    vtime double precision NOT NULL,
    owed double precision NOT NULL,     -- corrections of its charges, taken in by its next claim
    PRIMARY KEY (pool, queue)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE availability (
    pool text COLLATE "C" NOT NULL,
    class_key text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    room bigint NOT NULL,
    code text,
    why text NOT NULL,
    eta_s double precision,
    since double precision NOT NULL,
    stated_at double precision NOT NULL,
    PRIMARY KEY (pool, class_key)
) WITH (fillfactor = 50);

CREATE TABLE operations (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pool text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    arguments text NOT NULL,
    requested_at double precision NOT NULL,
    finished_at double precision,
    result text
);
CREATE INDEX operations_open ON operations (pool, number) WHERE finished_at IS NULL;

CREATE TABLE tokens (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    secret_hash text COLLATE "C" NOT NULL UNIQUE,
    scope text NOT NULL,
    tenants text,
    created_at double precision NOT NULL,
    expires_at double precision
);
