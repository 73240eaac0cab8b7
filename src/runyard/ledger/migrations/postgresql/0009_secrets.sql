-- lives beside: 0001
-- Secrets of tenants, sealed by a key that is not here. The realm is a name of this ledger that every value is bound to.
CREATE TABLE secrets (
    tenant text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    queues text,
    created_at double precision NOT NULL,
    changed_at double precision NOT NULL,
    changed_by text NOT NULL,
    last_used_at double precision,
    last_used_by text,
    PRIMARY KEY (tenant, name)
);
CREATE INDEX secrets_by_key ON secrets (key_id);

CREATE TABLE secret_realm (
    one integer PRIMARY KEY CHECK (one = 1),
    name text NOT NULL
);
