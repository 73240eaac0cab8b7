-- Pools: their shape, who owns them, what they answer, and what operators ask of them.

-- {"name", "settings"}. The same settings again write nothing, so that a service that starts waits for nobody.
CREATE FUNCTION put_pool(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    name_ text := doc->>'name';
BEGIN
    IF NOT EXISTS (SELECT FROM pools WHERE name = name_ AND settings = doc->>'settings') THEN
        INSERT INTO pools (name, settings) VALUES (name_, doc->>'settings')
            ON CONFLICT (name) DO UPDATE SET settings = excluded.settings;
    END IF;
    INSERT INTO leases (pool) VALUES (name_) ON CONFLICT DO NOTHING;
    INSERT INTO pool_state (pool) VALUES (name_) ON CONFLICT DO NOTHING;
    RETURN '{"topics": []}';
END $$;

-- {"name"}
CREATE FUNCTION delete_pool(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    name_ text := doc->>'name';
    unfinished bigint;
BEGIN
    PERFORM FROM pools WHERE name = name_ FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('refused', 'no_pool');
    END IF;
    SELECT starting + running INTO unfinished FROM pool_state WHERE pool = name_;
    IF unfinished > 0 THEN
        RETURN jsonb_build_object('refused', 'pool_busy', 'unfinished', unfinished);
    END IF;
    SELECT count(*) INTO unfinished FROM machines WHERE pool = name_ AND state <> 'gone';
    IF unfinished > 0 THEN
        RETURN jsonb_build_object('refused', 'pool_has_machines', 'machines', unfinished);
    END IF;
    DELETE FROM machines WHERE pool = name_;
    DELETE FROM bindings WHERE pool = name_;
    DELETE FROM leases WHERE pool = name_;
    DELETE FROM pool_state WHERE pool = name_;
    DELETE FROM pool_queues WHERE pool = name_;
    DELETE FROM availability WHERE pool = name_;
    DELETE FROM operations WHERE pool = name_;
    DELETE FROM pools WHERE name = name_;
    RETURN jsonb_build_object('topics', notify_topics(doc->>'sender', ARRAY['pool:' || name_]));
END $$;

-- {"name", "is_paused"}. Waits for claims under way: none is accepted after it.
CREATE FUNCTION set_pool_paused(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pools SET is_paused = (doc->>'is_paused')::boolean::integer WHERE name = doc->>'name';
    IF NOT FOUND THEN
        RETURN jsonb_build_object('refused', 'no_pool');
    END IF;
    RETURN jsonb_build_object('topics', notify_topics(doc->>'sender', ARRAY['pool:' || (doc->>'name')]));
END $$;

-- {"name", "owner", "lease_s"} -> {"epoch": null while another's lease lasts}. Takes the pool's row alone, so it comes
-- after every write that the old epoch has under way, and before every later one.
CREATE FUNCTION acquire_pool(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    name_ text := doc->>'name';
    pool pools;
    lease leases;
    now_ double precision;
BEGIN
    -- A look without a lock: who asks again and again for a pool of another's holds up none of that owner's writes.
    IF EXISTS (SELECT FROM pools p JOIN leases l ON l.pool = p.name WHERE p.name = name_ AND p.owner <> doc->>'owner'
            AND l.lease_until > moment(doc)) THEN
        RETURN '{"epoch": null, "topics": []}';
    END IF;
    SELECT * INTO pool FROM pools WHERE name = name_ FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('refused', 'no_pool');
    END IF;
    SELECT * INTO lease FROM leases WHERE leases.pool = name_ FOR UPDATE;
    now_ := moment(doc);
    IF pool.owner IS NOT NULL AND pool.owner <> doc->>'owner' AND lease.lease_until > now_ THEN
        RETURN '{"epoch": null, "topics": []}';
    END IF;
    UPDATE pools SET epoch = epoch + 1, owner = doc->>'owner' WHERE name = name_;
    UPDATE leases SET epoch = pool.epoch + 1, lease_until = now_ + (doc->>'lease_s')::double precision
        WHERE leases.pool = name_;
    UPDATE pool_state SET health = 'unowned', health_message = '' WHERE pool_state.pool = name_;
    RETURN jsonb_build_object('epoch', pool.epoch + 1,
        'topics', notify_topics(doc->>'sender', ARRAY['pool:' || name_]));
END $$;

-- {"pool", "epoch", "lease_s"}. Judged on the lease's own row: a takeover that came first has changed its epoch.
CREATE FUNCTION renew_pool(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    lease leases;
BEGIN
    SELECT * INTO lease FROM leases WHERE pool = doc->>'pool' FOR NO KEY UPDATE;
    IF NOT FOUND OR lease.epoch <> (doc->>'epoch')::bigint THEN
        RETURN fenced(lease.epoch);
    ELSIF lease.lease_until IS NULL THEN
        RETURN jsonb_build_object('refused', 'released');
    END IF;
    UPDATE leases SET lease_until = moment(doc) + (doc->>'lease_s')::double precision WHERE pool = lease.pool;
    RETURN '{"topics": []}';
END $$;

-- {"pool", "epoch"}
CREATE FUNCTION release_pool(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    name_ text := doc->>'pool';
BEGIN
    UPDATE pools SET owner = NULL WHERE name = name_ AND epoch = (doc->>'epoch')::bigint;
    IF FOUND THEN
        UPDATE leases SET lease_until = NULL WHERE pool = name_;
        UPDATE pool_state SET health = 'unowned', health_message = '' WHERE pool = name_;
    END IF;
    RETURN jsonb_build_object('topics', notify_topics(doc->>'sender', ARRAY['pool:' || name_]));
END $$;

-- {"pool", "epoch", "health", "message"}
CREATE FUNCTION set_pool_health(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    epoch_ bigint := guard_pool(doc->>'pool');
BEGIN
    IF epoch_ IS DISTINCT FROM (doc->>'epoch')::bigint THEN
        RETURN fenced(epoch_);
    END IF;
    UPDATE pool_state SET health = doc->>'health', health_message = doc->>'message' WHERE pool = doc->>'pool';
    RETURN '{"topics": []}';
END $$;

-- {"pool", "epoch", "answers": [{"class_key", "kind", "room", "code", "why", "eta_s"}…]}
CREATE FUNCTION set_availability(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    epoch_ bigint := guard_pool(doc->>'pool');
    now_ double precision := moment(doc);
BEGIN
    IF epoch_ IS DISTINCT FROM (doc->>'epoch')::bigint THEN
        RETURN fenced(epoch_);
    END IF;
    INSERT INTO availability AS a (pool, class_key, kind, room, code, why, eta_s, since, stated_at)
        SELECT doc->>'pool', x.class_key, x.kind, x.room, x.code, x.why, x.eta_s, now_, now_
        FROM jsonb_populate_recordset(NULL::availability, doc->'answers') x ORDER BY x.class_key
        ON CONFLICT (pool, class_key) DO UPDATE SET
            since = CASE WHEN a.kind = excluded.kind AND a.code IS NOT DISTINCT FROM excluded.code THEN a.since
                    ELSE excluded.since END,
            kind = excluded.kind, room = excluded.room, code = excluded.code, why = excluded.why,
            eta_s = excluded.eta_s, stated_at = excluded.stated_at;
    RETURN '{"topics": []}';
END $$;

-- {"pool", "kind", "arguments"} -> {"number"}
CREATE FUNCTION request_operation(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    number_ bigint;
BEGIN
    PERFORM FROM pools WHERE name = doc->>'pool' FOR SHARE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('refused', 'no_pool');
    END IF;
    INSERT INTO operations (pool, kind, arguments, requested_at)
        VALUES (doc->>'pool', doc->>'kind', doc->>'arguments', moment(doc)) RETURNING number INTO number_;
    RETURN jsonb_build_object('number', number_,
        'topics', notify_topics(doc->>'sender', ARRAY['pool:' || (doc->>'pool')]));
END $$;

-- {"pool", "epoch", "number", "result"}. The first answer stands. Fires the pool's topic, so that who asked can wait.
CREATE FUNCTION finish_operation(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    epoch_ bigint := guard_pool(doc->>'pool');
BEGIN
    IF epoch_ IS DISTINCT FROM (doc->>'epoch')::bigint THEN
        RETURN fenced(epoch_);
    END IF;
    UPDATE operations SET finished_at = coalesce(finished_at, moment(doc)), result = coalesce(result, doc->>'result')
        WHERE number = (doc->>'number')::bigint AND pool = doc->>'pool';
    IF NOT FOUND THEN
        RETURN jsonb_build_object('refused', 'no_operation');
    END IF;
    RETURN jsonb_build_object('topics', notify_topics(doc->>'sender', ARRAY['pool:' || (doc->>'pool')]));
END $$;
