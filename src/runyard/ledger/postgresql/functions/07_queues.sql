-- Queues and tenants: their settings. A change of limits takes effect in the transaction that makes it.

-- {"name", "weight", "running_max", "queued_max", "tenant_running_max", "defaults", "is_paused", "is_configured"}
CREATE FUNCTION put_queue(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    new queues := jsonb_populate_record(NULL::queues, doc - 'at');
    old queues;
BEGIN
    PERFORM lock_queues(ARRAY[new.name]);
    SELECT * INTO old FROM queues WHERE name = new.name;
    INSERT INTO queues (name, weight, running_max, queued_max, tenant_running_max, defaults, is_paused, is_configured)
        VALUES (new.name, new.weight, new.running_max, new.queued_max, new.tenant_running_max, new.defaults,
            new.is_paused, new.is_configured)
        ON CONFLICT (name) DO UPDATE SET
            weight = excluded.weight, running_max = excluded.running_max, queued_max = excluded.queued_max,
            tenant_running_max = excluded.tenant_running_max, defaults = excluded.defaults,
            is_paused = excluded.is_paused, is_configured = excluded.is_configured;
    IF old.tenant_running_max IS DISTINCT FROM new.tenant_running_max THEN
        PERFORM reblock_queue(new.name);
    END IF;
    -- Resumed or widened: owners look again.
    RETURN jsonb_build_object('topics', notify_topics(doc->>'sender', '{ready}'));
END $$;

-- {"name"}
CREATE FUNCTION delete_queue(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    queue_ queues;
BEGIN
    SELECT * INTO queue_ FROM queues WHERE name = doc->>'name' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('refused', 'no_queue');
    ELSIF queue_.queued + queue_.starting + queue_.running > 0 THEN
        RETURN jsonb_build_object('refused', 'queue_busy',
            'unfinished', queue_.queued + queue_.starting + queue_.running);
    END IF;
    DELETE FROM shares WHERE queue = queue_.name;
    DELETE FROM lanes WHERE queue = queue_.name;
    DELETE FROM fair WHERE queue = queue_.name;
    DELETE FROM pool_queues WHERE queue = queue_.name;
    DELETE FROM queues WHERE name = queue_.name;
    RETURN '{"topics": []}';
END $$;

-- {"name", "weight", "running_max", "queued_max", "is_configured"}
CREATE FUNCTION put_tenant(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    new tenants := jsonb_populate_record(NULL::tenants, doc - 'at');
    locked text[] := ARRAY(SELECT queue FROM shares WHERE tenant = new.name);
    topics text[] := '{}';
BEGIN
    PERFORM lock_queues(locked);
    INSERT INTO tenants (name, weight, running_max, queued_max, is_configured)
        VALUES (new.name, new.weight, new.running_max, new.queued_max, new.is_configured)
        ON CONFLICT (name) DO UPDATE SET
            weight = excluded.weight, running_max = excluded.running_max, queued_max = excluded.queued_max,
            is_configured = excluded.is_configured;
    IF EXISTS (SELECT FROM shares WHERE tenant = new.name AND queue <> ALL (locked)) THEN
        RAISE EXCEPTION 'the tenant came to another queue meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
    IF reblock_tenant(new.name) THEN
        topics := '{ready}';
    END IF;
    RETURN jsonb_build_object('topics', notify_topics(doc->>'sender', topics));
END $$;
