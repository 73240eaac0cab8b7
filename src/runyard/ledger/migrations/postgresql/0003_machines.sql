-- lives beside: 0001
-- Machines of pools whose places are such, and which attempt is bound to which. The release before has none.
CREATE TABLE machines (
    name text COLLATE "C" PRIMARY KEY,
    pool text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    slots bigint NOT NULL,
    epoch bigint NOT NULL,             -- of the ownership that intended it
    intended_at double precision NOT NULL,
    since double precision NOT NULL,
    contact_at double precision,
    fenced_at double precision,
    fence_reason text NOT NULL DEFAULT '',
    facts text NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);
CREATE INDEX machines_of_pool ON machines (pool, state, name);
CREATE INDEX machines_gone ON machines (since) WHERE state = 'gone';

-- A row is there from the first binding (or stop) on until the attempt's resource is released.
CREATE TABLE bindings (
    uid text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    pool text COLLATE "C" NOT NULL,
    machine text COLLATE "C",
    state text COLLATE "C" NOT NULL,
    taken_at double precision,
    stop_grace_s double precision,
    is_unwanted integer NOT NULL DEFAULT 0,
    phases text NOT NULL DEFAULT '{}',
    outcome text,
    outputs text NOT NULL DEFAULT '{}',
    PRIMARY KEY (uid, number)
) WITH (fillfactor = 50);
CREATE INDEX bindings_of_machine ON bindings (machine) WHERE machine IS NOT NULL;
CREATE INDEX bindings_of_pool ON bindings (pool);
