-- The first schema. Never edit an applied migration: its checksum is stored. Times are epoch seconds.
-- Partial indexes are matched by literals only, so their predicates stand as literals in every statement.

CREATE TABLE queues (
    name TEXT PRIMARY KEY,
    weight REAL NOT NULL,
    running_max INTEGER,
    queued_max INTEGER,
    tenant_running_max INTEGER,
    defaults TEXT NOT NULL,
    is_paused INTEGER NOT NULL,
    is_configured INTEGER NOT NULL,
    queued INTEGER NOT NULL DEFAULT 0,
    starting INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0,
    clock REAL NOT NULL DEFAULT 0      -- the highest virtual time at which one of its tenants was served
) WITHOUT ROWID;

INSERT INTO queues (name, weight, defaults, is_paused, is_configured) VALUES ('default', 1.0, '{}', 0, 0);

CREATE TABLE tenants (
    name TEXT PRIMARY KEY,
    weight REAL NOT NULL,
    running_max INTEGER,
    queued_max INTEGER,
    is_configured INTEGER NOT NULL,
    queued INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- A class of equal requirements, and what one attempt of it is expected to cost (a moving average).
CREATE TABLE classes (
    class_key TEXT PRIMARY KEY,
    requirements TEXT NOT NULL,
    cpu_millis INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    disk_bytes INTEGER,
    estimate REAL NOT NULL,
    samples INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- What one tenant has had of one queue.
CREATE TABLE shares (
    queue TEXT NOT NULL,
    tenant TEXT NOT NULL,
    vtime REAL NOT NULL DEFAULT 0,
    queued INTEGER NOT NULL DEFAULT 0,
    ready INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, tenant)
) WITHOUT ROWID;

-- One class in one queue: how much is ready, and the virtual time at which a tenant was last served in it.
CREATE TABLE lanes (
    queue TEXT NOT NULL,
    class_key TEXT NOT NULL,
    ready INTEGER NOT NULL DEFAULT 0,
    clock REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, class_key)
) WITHOUT ROWID;

-- Who can be chosen next; a row is there only while it has ready jobs. `vtime` is a copy of the share's.
CREATE TABLE fair (
    queue TEXT NOT NULL,
    class_key TEXT NOT NULL,
    tenant TEXT NOT NULL,
    ready INTEGER NOT NULL,
    vtime REAL NOT NULL,
    is_blocked INTEGER NOT NULL,
    PRIMARY KEY (queue, class_key, tenant)
) WITHOUT ROWID;
CREATE INDEX fair_next ON fair (queue, class_key, vtime, tenant) WHERE ready > 0 AND is_blocked = 0;
CREATE INDEX fair_of_tenant ON fair (tenant, queue);

CREATE TABLE jobs (
    serial INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT,
    queue TEXT NOT NULL,
    class_key TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    is_ready INTEGER NOT NULL,
    pool TEXT,                         -- of the latest attempt
    spec_hash TEXT NOT NULL,
    submitted_by TEXT NOT NULL,
    retry_of TEXT,
    submitted_at REAL NOT NULL,
    queued_at REAL NOT NULL,
    not_before REAL,
    queue_deadline_at REAL,
    cancel_requested_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    infrastructure_failures INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    unseen_tries INTEGER NOT NULL DEFAULT 0,
    started_at REAL,
    ended_at REAL,
    reason TEXT,
    outputs TEXT NOT NULL DEFAULT '{}',
    UNIQUE (tenant, id)
);
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
    serial INTEGER PRIMARY KEY,
    spec TEXT NOT NULL
);

CREATE TABLE job_labels (
    label TEXT NOT NULL,
    value TEXT NOT NULL,
    submitted_at REAL NOT NULL,
    uid TEXT NOT NULL,
    serial INTEGER NOT NULL,
    PRIMARY KEY (label, value, submitted_at, uid)
) WITHOUT ROWID;
CREATE INDEX job_labels_of_job ON job_labels (serial);

CREATE TABLE attempts (
    uid TEXT NOT NULL,
    number INTEGER NOT NULL,
    pool TEXT NOT NULL,
    slot INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL,
    claimed_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    phases TEXT NOT NULL,
    outcome TEXT,
    charged REAL NOT NULL,
    is_logs_deleted INTEGER NOT NULL DEFAULT 0,
    is_artifacts_deleted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (uid, number)
);
CREATE UNIQUE INDEX attempts_unfinished ON attempts (pool, slot) WHERE state <> 'ended';
CREATE INDEX attempts_with_logs ON attempts (ended_at) WHERE ended_at IS NOT NULL AND is_logs_deleted = 0;
CREATE INDEX attempts_with_artifacts ON attempts (ended_at)
    WHERE ended_at IS NOT NULL AND is_artifacts_deleted = 0;

CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    tenant TEXT NOT NULL,
    queue TEXT NOT NULL,
    job_id TEXT NOT NULL,
    uid TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    reason TEXT
);
CREATE INDEX events_of_tenant ON events (tenant, sequence);

CREATE TABLE pools (
    name TEXT PRIMARY KEY,
    settings TEXT NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    lease_until REAL,
    is_paused INTEGER NOT NULL DEFAULT 0,
    health TEXT NOT NULL DEFAULT 'unowned',
    health_message TEXT NOT NULL DEFAULT '',
    starting INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0,
    clock REAL NOT NULL DEFAULT 0      -- the virtual time at which it last served a queue
) WITHOUT ROWID;

-- What one queue has had of one pool: each pool is a fair server of its own.
CREATE TABLE pool_queues (
    pool TEXT NOT NULL,
    queue TEXT NOT NULL,
    vtime REAL NOT NULL,
    owed REAL NOT NULL,                -- corrections of its charges, taken in by its next claim
    PRIMARY KEY (pool, queue)
) WITHOUT ROWID;

CREATE TABLE availability (
    pool TEXT NOT NULL,
    class_key TEXT NOT NULL,
    kind TEXT NOT NULL,
    room INTEGER NOT NULL,
    code TEXT,
    why TEXT NOT NULL,
    eta_s REAL,
    since REAL NOT NULL,
    stated_at REAL NOT NULL,
    PRIMARY KEY (pool, class_key)
) WITHOUT ROWID;

CREATE TABLE operations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    pool TEXT NOT NULL,
    kind TEXT NOT NULL,
    arguments TEXT NOT NULL,
    requested_at REAL NOT NULL,
    finished_at REAL,
    result TEXT
);
CREATE INDEX operations_open ON operations (pool, number) WHERE finished_at IS NULL;

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    tenants TEXT,
    created_at REAL NOT NULL,
    expires_at REAL
) WITHOUT ROWID;
