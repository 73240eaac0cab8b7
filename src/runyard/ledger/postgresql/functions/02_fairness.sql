-- Counters, readiness, virtual time and blocking, as in ledger/sqlite/fairness.py, which tells what they are. Every
-- function here expects the lock of the queue, those that count a tenant's jobs that of the tenant too.
--
-- Blocking over several queues: a tenant's own running_max may be reached through another queue than the one at hand,
-- whose lock we do not have. So a fair row may say "not blocked" too long: the claim that meets it looks under the
-- tenant's lock and then blocks it. It must never say "blocked" too long, or work would sleep: whoever makes room for a
-- limited tenant holds the locks of all queues in which the tenant has a share (`queues_to_settle`).

CREATE FUNCTION held_back(queue_ text, tenant_ text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (SELECT FROM tenants t WHERE t.name = tenant_ AND t.running >= t.running_max)
        OR EXISTS (SELECT FROM shares s JOIN queues q ON q.name = s.queue
                   WHERE s.queue = queue_ AND s.tenant = tenant_ AND s.running >= q.tenant_running_max);
END $$;

-- Counts jobs in or out of the state queued; the share comes into being with its first.
CREATE FUNCTION add_queued(queue_ text, tenant_ text, count_ bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE queues SET queued = queued + count_ WHERE name = queue_;
    UPDATE tenants SET queued = queued + count_ WHERE name = tenant_;
    INSERT INTO shares AS s (queue, tenant, queued) VALUES (queue_, tenant_, count_)
        ON CONFLICT (queue, tenant) DO UPDATE SET queued = s.queued + count_;
END $$;

-- Jobs of that class and tenant can be claimed from now on. Needs the share (`add_queued` first).
CREATE FUNCTION become_ready(queue_ text, class_ text, tenant_ text, count_ bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    lane_clock double precision;
    share_vtime double precision;
BEGIN
    INSERT INTO lanes AS l (queue, class_key, ready, clock)
        VALUES (queue_, class_, count_, (SELECT q.clock FROM queues q WHERE q.name = queue_))
        ON CONFLICT (queue, class_key) DO UPDATE SET ready = l.ready + count_,
            clock = CASE WHEN l.ready = 0 THEN greatest(l.clock, excluded.clock) ELSE l.clock END
        RETURNING l.clock INTO lane_clock;
    UPDATE shares SET ready = ready + count_,
            vtime = CASE WHEN ready = 0 THEN greatest(vtime, lane_clock) ELSE vtime END
        WHERE queue = queue_ AND tenant = tenant_ RETURNING vtime INTO share_vtime;
    UPDATE fair SET ready = ready + count_ WHERE queue = queue_ AND class_key = class_ AND tenant = tenant_;
    IF NOT FOUND THEN
        INSERT INTO fair (queue, class_key, tenant, ready, vtime, is_blocked)
            VALUES (queue_, class_, tenant_, count_, share_vtime, held_back(queue_, tenant_)::integer);
    END IF;
END $$;

-- One job less that can be claimed: it was, or it ended.
CREATE FUNCTION leave_ready(queue_ text, class_ text, tenant_ text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE lanes SET ready = ready - 1 WHERE queue = queue_ AND class_key = class_;
    UPDATE shares SET ready = ready - 1 WHERE queue = queue_ AND tenant = tenant_;
    PERFORM leave_fair(queue_, class_, tenant_);
END $$;

CREATE FUNCTION leave_fair(queue_ text, class_ text, tenant_ text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM fair WHERE queue = queue_ AND class_key = class_ AND tenant = tenant_ AND ready = 1;
    IF NOT FOUND THEN
        UPDATE fair SET ready = ready - 1 WHERE queue = queue_ AND class_key = class_ AND tenant = tenant_;
    END IF;
END $$;

-- What a limit kept a tenant from having is not owed to it: it goes on from the slowest of its lanes' clocks.
-- Returns whether a tenant was let go.
CREATE FUNCTION reblock_share(queue_ text, tenant_ text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    is_held boolean := held_back(queue_, tenant_);
    was_held boolean := EXISTS (SELECT FROM fair WHERE tenant = tenant_ AND queue = queue_ AND is_blocked = 1);
    slowest double precision;
BEGIN
    UPDATE fair SET is_blocked = is_held::integer
        WHERE tenant = tenant_ AND queue = queue_ AND is_blocked <> is_held::integer;
    IF is_held OR NOT was_held THEN
        RETURN false;
    END IF;
    SELECT min(l.clock) INTO slowest FROM fair f JOIN lanes l ON l.queue = f.queue AND l.class_key = f.class_key
        WHERE f.tenant = tenant_ AND f.queue = queue_;
    UPDATE shares SET vtime = slowest WHERE queue = queue_ AND tenant = tenant_ AND vtime < slowest;
    UPDATE fair SET vtime = slowest WHERE tenant = tenant_ AND queue = queue_ AND vtime < slowest;
    RETURN true;
END $$;

-- The tenant's limits changed, or how much of them it uses. Needs the locks of all its queues.
CREATE FUNCTION reblock_tenant(tenant_ text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    queue_ text;
    is_let_go boolean := false;
BEGIN
    FOR queue_ IN SELECT DISTINCT f.queue FROM fair f WHERE f.tenant = tenant_ LOOP
        is_let_go := reblock_share(queue_, tenant_) OR is_let_go;
    END LOOP;
    RETURN is_let_go;
END $$;

-- The queue's own limits changed.
CREATE FUNCTION reblock_queue(queue_ text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    tenant_ text;
    is_let_go boolean := false;
BEGIN
    FOR tenant_ IN SELECT DISTINCT f.tenant FROM fair f WHERE f.queue = queue_ LOOP
        is_let_go := reblock_share(queue_, tenant_) OR is_let_go;
    END LOOP;
    RETURN is_let_go;
END $$;

-- Moves the tenant's virtual time by cost over weight, either way.
CREATE FUNCTION charge(queue_ text, tenant_ text, cost double precision) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moved double precision;
BEGIN
    UPDATE shares SET vtime = vtime + cost / (SELECT t.weight FROM tenants t WHERE t.name = tenant_)
        WHERE queue = queue_ AND tenant = tenant_ RETURNING vtime INTO moved;
    UPDATE fair SET vtime = moved WHERE tenant = tenant_ AND queue = queue_;
END $$;

-- The queues whose locks are needed to end attempts of these tenants in these queues.
CREATE FUNCTION queues_to_settle(queues_ text[], tenants_ text[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(SELECT unnest(queues_)
        UNION SELECT s.queue FROM shares s JOIN tenants t ON t.name = s.tenant
        WHERE s.tenant = ANY (tenants_) AND t.running_max IS NOT NULL);
END $$;

-- Locks queues and tenants so that running attempts of these can end. A limit that was set, or a share that was made,
-- between the look and the lock is seen afterwards: then the caller starts anew.
CREATE FUNCTION lock_to_settle(queues_ text[], tenants_ text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    locked text[] := queues_to_settle(queues_, tenants_);
BEGIN
    PERFORM lock_queues(locked);
    PERFORM lock_tenants(tenants_);
    IF NOT queues_to_settle(queues_, tenants_) <@ locked THEN
        RAISE EXCEPTION 'the queues of a limited tenant changed meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
END $$;

-- An attempt ended: its place within the limits of pool, queue and tenant is free. Returns whether others may now be
-- able to claim what they could not.
CREATE FUNCTION release_attempt(pool_ text, queue_ text, tenant_ text, was_running boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    starting_ integer := (NOT was_running)::integer;
    running_ integer := was_running::integer;
    was_full boolean;
    over_all boolean;
    here boolean;
BEGIN
    UPDATE pool_state SET starting = starting - starting_, running = running - running_ WHERE pool = pool_;
    UPDATE queues SET starting = starting - starting_, running = running - running_ WHERE name = queue_
        RETURNING coalesce(starting + running + 1 = running_max, false) INTO was_full;
    UPDATE tenants SET running = running - 1 WHERE name = tenant_
        RETURNING coalesce(running + 1 = running_max, false) INTO over_all;
    UPDATE shares s SET running = s.running - 1 FROM queues q
        WHERE s.queue = queue_ AND s.tenant = tenant_ AND q.name = queue_
        RETURNING coalesce(s.running + 1 = q.tenant_running_max, false) INTO here;
    IF over_all THEN
        RETURN reblock_tenant(tenant_) OR was_full;
    ELSIF here THEN
        RETURN reblock_share(queue_, tenant_) OR was_full;
    END IF;
    RETURN was_full;
END $$;
