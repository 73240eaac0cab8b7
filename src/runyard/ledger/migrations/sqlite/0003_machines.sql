-- lives beside: 0001
-- Machines of pools whose places are such, and which attempt is bound to which. The release before has none.
CREATE TABLE machines (
    name TEXT PRIMARY KEY,
    pool TEXT NOT NULL,
    state TEXT NOT NULL,
    slots INTEGER NOT NULL,
    epoch INTEGER NOT NULL,            -- of the ownership that intended it
    intended_at REAL NOT NULL,
    since REAL NOT NULL,
    contact_at REAL,
    fenced_at REAL,
    fence_reason TEXT NOT NULL DEFAULT '',
    facts TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;
CREATE INDEX machines_of_pool ON machines (pool, state, name);
CREATE INDEX machines_gone ON machines (since) WHERE state = 'gone';

-- A row is there from the first binding (or stop) on until the attempt's resource is released.
CREATE TABLE bindings (
    uid TEXT NOT NULL,
    number INTEGER NOT NULL,
    pool TEXT NOT NULL,
    machine TEXT,
    state TEXT NOT NULL,
    taken_at REAL,
    stop_grace_s REAL,
    is_unwanted INTEGER NOT NULL DEFAULT 0,
    phases TEXT NOT NULL DEFAULT '{}',
    outcome TEXT,
    outputs TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (uid, number)
) WITHOUT ROWID;
CREATE INDEX bindings_of_machine ON bindings (machine) WHERE machine IS NOT NULL;
CREATE INDEX bindings_of_pool ON bindings (pool);
