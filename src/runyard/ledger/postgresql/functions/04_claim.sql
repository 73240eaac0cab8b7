-- The claim: which jobs a pool gets, by fair choice, and the attempts that record it.
--
-- Level by level, as in ledger/sqlite/claims.py: the queue with the least virtual time in this pool that holds
-- something takeable; in it the tenant with the least virtual time over the takeable classes; of that tenant the job of
-- highest priority, then the oldest. Each level is an index lookup; nothing that cannot be taken is ever looked at.

CREATE TYPE room AS (class_key text, count integer, cpu_millis bigint, memory_bytes bigint, disk_bytes bigint,
    estimate double precision, cpu_left bigint, memory_left bigint, disk_left bigint);

CREATE TYPE open_queue AS (name text, vtime double precision, owed double precision, weight double precision,
    room bigint, tenant_running_max bigint);

-- Those that hold something that can be taken, least virtual time first, with one more than a claim locks. Not locked:
-- what is returned is looked at again once it is. Not EXISTS: the planner makes a join of it, which reads every tenant.
CREATE FUNCTION takeable_queues(pool_ text, served jsonb, classes_ text[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(
        SELECT q.name FROM queues q LEFT JOIN pool_queues v ON v.pool = pool_ AND v.queue = q.name
        WHERE q.queued > 0 AND q.is_paused = 0 AND (q.running_max IS NULL OR q.starting + q.running < q.running_max)
            AND (served ? '*' OR served ? q.name)
            AND (SELECT true FROM lanes l WHERE l.queue = q.name AND l.ready > 0 AND l.class_key = ANY (classes_)
                AND (SELECT true FROM fair f WHERE f.queue = l.queue AND f.class_key = l.class_key AND f.ready > 0
                    AND f.is_blocked = 0 LIMIT 1) LIMIT 1)
        ORDER BY coalesce(v.vtime, 0), q.name LIMIT 65);
END $$;

CREATE FUNCTION open_queues(pool_ text, names text[]) RETURNS open_queue[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(
        SELECT (q.name, coalesce(v.vtime, 0), coalesce(v.owed, 0), q.weight, q.running_max - q.starting - q.running,
            q.tenant_running_max)::open_queue
        FROM queues q LEFT JOIN pool_queues v ON v.pool = pool_ AND v.queue = q.name
        WHERE q.name = ANY (names) AND q.is_paused = 0
            AND (q.running_max IS NULL OR q.starting + q.running < q.running_max));
END $$;

CREATE FUNCTION next_tenant(queue_ text, classes_ text[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT f.tenant FROM lanes l CROSS JOIN LATERAL (
            SELECT x.vtime, x.tenant FROM fair x WHERE x.queue = l.queue AND x.class_key = l.class_key
                AND x.ready > 0 AND x.is_blocked = 0 ORDER BY x.vtime, x.tenant LIMIT 1) f
        WHERE l.queue = queue_ AND l.ready > 0 AND l.class_key = ANY (classes_)
        ORDER BY f.vtime, f.tenant LIMIT 1);
END $$;

CREATE FUNCTION first_job(queue_ text, tenant_ text, classes_ text[]) RETURNS jobs LANGUAGE plpgsql AS $$
DECLARE
    job jobs;
BEGIN
    SELECT j.* INTO job FROM fair f CROSS JOIN LATERAL (
        SELECT x.* FROM jobs x WHERE x.queue = f.queue AND x.class_key = f.class_key AND x.tenant = f.tenant
            AND x.is_ready = 1 ORDER BY x.priority DESC, x.queued_at, x.uid LIMIT 1) j
    WHERE f.tenant = tenant_ AND f.queue = queue_ AND f.ready > 0 AND f.class_key = ANY (classes_)
    ORDER BY j.priority DESC, j.queued_at, j.uid LIMIT 1;
    RETURN job;
END $$;

-- The tenant under its lock. Which tenants a claim needs is known one by one, so it may wait only for one that comes
-- after all it holds; another is taken if it is free, or the claim starts anew.
CREATE FUNCTION lock_tenant_in_claim(name_ text, held text[]) RETURNS tenants LANGUAGE plpgsql AS $$
DECLARE
    tenant_ tenants;
BEGIN
    IF name_ = ANY (held) THEN
        SELECT * INTO tenant_ FROM tenants WHERE name = name_;
    ELSIF NOT EXISTS (SELECT FROM unnest(held) h WHERE h COLLATE "C" > name_ COLLATE "C") THEN
        SELECT * INTO tenant_ FROM tenants WHERE name = name_ FOR NO KEY UPDATE;
    ELSE
        SELECT * INTO tenant_ FROM tenants WHERE name = name_ FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'tenant % is locked by another claim', name_ USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    RETURN tenant_;
END $$;

-- Whose turn it is in that queue; NULL when nothing of it can be taken. A tenant found at its limit is blocked here.
-- `held` grows by all that were locked.
CREATE FUNCTION choose_tenant(queue_ text, classes_ text[], INOUT held text[], OUT chosen text) LANGUAGE plpgsql AS $$
DECLARE
    tenant_ tenants;
BEGIN
    LOOP
        chosen := next_tenant(queue_, classes_);
        IF chosen IS NULL THEN
            RETURN;
        END IF;
        tenant_ := lock_tenant_in_claim(chosen, held);
        held := held || chosen;
        IF tenant_.running_max IS NULL OR tenant_.running < tenant_.running_max THEN
            RETURN;
        END IF;
        UPDATE fair SET is_blocked = 1 WHERE fair.tenant = chosen AND queue = queue_;
    END LOOP;
END $$;

CREATE TYPE choice AS (job jobs, queue open_queue, others open_queue[], held text[]);

-- The job whose turn it is (NULL: nothing that waits can be taken), its queue, the queues that may still hold
-- something, and all tenants locked by now.
CREATE FUNCTION choose_job(queues_ open_queue[], classes_ text[], held text[]) RETURNS choice LANGUAGE plpgsql AS $$
DECLARE
    queue_ open_queue;
    chosen_ text;
    job jobs;
BEGIN
    WHILE job.serial IS NULL AND queues_ <> '{}' LOOP
        SELECT * INTO queue_ FROM unnest(queues_) q ORDER BY q.vtime, q.name COLLATE "C" LIMIT 1;
        queues_ := ARRAY(SELECT q FROM unnest(queues_) q WHERE q.name <> queue_.name);
        SELECT c.held, c.chosen INTO held, chosen_ FROM choose_tenant(queue_.name, classes_, held) c;
        IF chosen_ IS NOT NULL THEN
            job := first_job(queue_.name, chosen_, classes_);
        END IF;
    END LOOP;
    RETURN (job, queue_, queues_, held)::choice;
END $$;

-- {"pool", "epoch", "slots": [slot…], "rooms": {class: count}, "cpu_millis", "memory_bytes", "disk_bytes"}
-- -> {"at", "claimed": [{"job", "slot", "charged"}…], "is_more": there were more queues than one call looks at}
CREATE FUNCTION claim(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    epoch_ bigint := guard_pool(doc->>'pool');
    pool pools;
    state_ pool_state;
    slots integer[];
    slot_ integer;
    rooms room[] := rooms_of(doc);
    names text[] := '{}';
    queues_ open_queue[];
    held text[] := '{}';
    one choice;
    cost double precision;
    now_ double precision;
    claimed jsonb[] := '{}';
    facts fact[] := '{}';
BEGIN
    IF epoch_ IS DISTINCT FROM (doc->>'epoch')::bigint THEN
        RETURN fenced(epoch_);
    END IF;
    SELECT * INTO pool FROM pools WHERE name = doc->>'pool';
    SELECT * INTO state_ FROM pool_state s WHERE s.pool = pool.name FOR NO KEY UPDATE;
    slots := open_slots(pool, state_, doc->'slots');
    IF pool.is_paused = 0 AND slots <> '{}' THEN
        names := takeable_queues(pool.name, pool.settings::jsonb->'queues', classes_of(rooms));
        PERFORM lock_queues(names[1:64]);
    END IF;
    queues_ := open_queues(pool.name, names[1:64]);
    now_ := moment(doc);
    FOREACH slot_ IN ARRAY slots LOOP
        one := choose_job(queues_, classes_of(rooms), held);
        EXIT WHEN (one.job).serial IS NULL;
        held := one.held;
        cost := take_job(one, slot_, pool, now_);
        claimed := claimed || jsonb_build_object('slot', slot_, 'charged', cost,
            'job', (SELECT to_jsonb(r) FROM job_row r WHERE r.serial = (one.job).serial));
        facts := facts || ((one.job).tenant, (one.job).queue, (one.job).id, (one.job).uid, 'starting',
            (one.job).attempts + 1, NULL)::fact;
        rooms := take_room(rooms, (one.job).class_key);
        state_.clock := greatest(state_.clock, (one.queue).vtime);
        queues_ := one.others || serve_queue(pool.name, one.queue, state_.clock, cost);
    END LOOP;
    UPDATE pool_state s SET starting = s.starting + array_length(claimed, 1), clock = state_.clock
        WHERE s.pool = pool.name AND claimed <> '{}';
    RETURN jsonb_build_object('at', now_, 'claimed', to_jsonb(claimed), 'topics', publish(doc, now_, facts, '{}'),
        'is_more', coalesce(array_length(names, 1), 0) > 64);
END $$;

-- Makes the attempt, and writes it into every count it moves. Returns what it is expected to cost.
CREATE FUNCTION take_job(one choice, slot_ integer, pool_ pools, now_ double precision) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    job jobs := one.job;
    tenant_ tenants;
    share shares;
    cost double precision;
BEGIN
    SELECT * INTO tenant_ FROM tenants WHERE name = job.tenant;
    SELECT * INTO share FROM shares WHERE queue = job.queue AND tenant = job.tenant;
    SELECT estimate INTO cost FROM classes WHERE class_key = job.class_key;
    UPDATE jobs SET state = 'starting', is_ready = 0, not_before = NULL, attempts = attempts + 1, pool = pool_.name
        WHERE serial = job.serial;
    INSERT INTO attempts (uid, number, pool, slot, epoch, state, claimed_at, phases, charged)
        VALUES (job.uid, job.attempts + 1, pool_.name, slot_, pool_.epoch, 'starting', now_, '{}', cost);
    UPDATE shares SET queued = queued - 1, ready = ready - 1, running = running + 1,
            vtime = vtime + cost / tenant_.weight
        WHERE queue = job.queue AND tenant = job.tenant;
    UPDATE lanes SET ready = ready - 1, clock = greatest(clock, share.vtime)
        WHERE queue = job.queue AND class_key = job.class_key;
    UPDATE queues SET queued = queued - 1, starting = starting + 1, clock = greatest(clock, share.vtime),
            last_claimed_at = now_
        WHERE name = job.queue;
    UPDATE tenants SET queued = queued - 1, running = running + 1 WHERE name = job.tenant;
    PERFORM leave_fair(job.queue, job.class_key, job.tenant);
    UPDATE fair SET vtime = share.vtime + cost / tenant_.weight,
            is_blocked = (coalesce(tenant_.running + 1 >= tenant_.running_max, false)
                OR coalesce(share.running + 1 >= (one.queue).tenant_running_max, false))::integer
        WHERE tenant = job.tenant AND queue = job.queue;
    RETURN cost;
END $$;

-- I6: never more unfinished attempts than the pool has slots, whatever its owner believes to be free.
CREATE FUNCTION open_slots(pool pools, state_ pool_state, free jsonb) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(
        SELECT f.slot FROM (SELECT value::integer AS slot, min(place) AS place
            FROM jsonb_array_elements_text(free) WITH ORDINALITY AS x (value, place) GROUP BY 1) f
        WHERE (SELECT true FROM attempts a WHERE a.pool = pool.name AND a.slot = f.slot AND a.state <> 'ended' LIMIT 1)
            IS NULL
        ORDER BY f.place
        LIMIT greatest(0, (pool.settings::jsonb->>'slots')::bigint - state_.starting - state_.running));
END $$;

-- What there is for each class: how many of it at most, within what is left of the budget (the same in each of them).
CREATE FUNCTION rooms_of(doc jsonb) RETURNS room[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(SELECT (c.class_key, least(x.value::bigint, 2147483647), c.cpu_millis, c.memory_bytes,
            coalesce(c.disk_bytes, 0), c.estimate, (doc->>'cpu_millis')::bigint, (doc->>'memory_bytes')::bigint,
            (doc->>'disk_bytes')::bigint)::room
        FROM jsonb_each_text(doc->'rooms') x JOIN classes c ON c.class_key = x.key WHERE x.value::bigint > 0);
END $$;

CREATE FUNCTION classes_of(rooms room[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(SELECT r.class_key FROM unnest(rooms) r WHERE r.count > 0 AND r.cpu_millis <= r.cpu_left
        AND r.memory_bytes <= r.memory_left AND (r.disk_left IS NULL OR r.disk_bytes <= r.disk_left));
END $$;

-- What is left once one more of that class is taken.
CREATE FUNCTION take_room(rooms room[], class_ text) RETURNS room[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(SELECT (r.class_key, r.count - (r.class_key = class_)::integer, r.cpu_millis, r.memory_bytes,
            r.disk_bytes, r.estimate, r.cpu_left - t.cpu_millis, r.memory_left - t.memory_bytes,
            r.disk_left - t.disk_bytes)::room
        FROM unnest(rooms) r JOIN unnest(rooms) t ON t.class_key = class_);
END $$;

-- Moves the queue's virtual time in this pool past a claim. A queue that lags starts at the pool's clock: what it did
-- not ask for is not owed to it. Returns it, unless it is full now.
CREATE FUNCTION serve_queue(pool_ text, queue_ open_queue, clock_ double precision, cost double precision)
RETURNS open_queue[] LANGUAGE plpgsql AS $$
DECLARE
    due double precision := cost / queue_.weight + queue_.owed;
BEGIN
    queue_.vtime := clock_ + greatest(0, due);
    queue_.owed := least(0, due);
    queue_.room := queue_.room - 1;
    INSERT INTO pool_queues (pool, queue, vtime, owed) VALUES (pool_, queue_.name, queue_.vtime, queue_.owed)
        ON CONFLICT (pool, queue) DO UPDATE SET vtime = excluded.vtime, owed = excluded.owed;
    IF queue_.room = 0 THEN
        RETURN '{}';
    END IF;
    RETURN ARRAY[queue_];
END $$;
