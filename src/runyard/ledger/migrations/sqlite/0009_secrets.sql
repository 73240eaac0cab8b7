-- lives beside: 0001
-- Secrets of tenants, sealed by a key that is not here. The realm is a name of this ledger that every value is bound to.
CREATE TABLE secrets (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    key_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    queues TEXT,
    created_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    changed_by TEXT NOT NULL,
    last_used_at REAL,
    last_used_by TEXT,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE INDEX secrets_by_key ON secrets (key_id);

CREATE TABLE secret_realm (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT NOT NULL
);
