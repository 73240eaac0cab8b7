"""Statements whose text is the same on every dialect, with named parameters (`:name`). What differs lives with its
adapter."""

SET_AVAILABILITY = """
    INSERT INTO availability (pool, class_key, kind, room, code, why, eta_s, since, stated_at)
    VALUES (:pool, :class_key, :kind, :room, :code, :why, :eta_s, :now, :now)
    ON CONFLICT (pool, class_key) DO UPDATE SET
        since = CASE WHEN availability.kind = excluded.kind AND coalesce(availability.code, '') =
                     coalesce(excluded.code, '') THEN availability.since ELSE excluded.since END,
        kind = excluded.kind, room = excluded.room, code = excluded.code, why = excluded.why,
        eta_s = excluded.eta_s, stated_at = excluded.stated_at
"""

LIST_OPEN_LANES = """
    SELECT l.queue, l.class_key, l.ready,
        (SELECT min(j.queued_at) FROM jobs j
         WHERE j.queue = l.queue AND j.class_key = l.class_key AND j.is_ready = 1) AS oldest_queued_at
    FROM lanes l JOIN queues q ON q.name = l.queue WHERE l.ready > 0 AND q.is_paused = 0
"""

QUEUE = """
    SELECT q.*, (SELECT min(j.queued_at) FROM lanes l JOIN jobs j ON j.queue = l.queue
                 AND j.class_key = l.class_key AND j.is_ready = 1
                 WHERE l.queue = q.name AND l.ready > 0) AS oldest_queued_at
    FROM queues q
"""

PUT_QUEUE = """
    INSERT INTO queues (name, weight, running_max, queued_max, tenant_running_max, defaults, is_paused, is_configured)
    VALUES (:name, :weight, :running_max, :queued_max, :tenant_running_max, :defaults, :is_paused, :is_configured)
    ON CONFLICT (name) DO UPDATE SET
        weight = excluded.weight, running_max = excluded.running_max, queued_max = excluded.queued_max,
        tenant_running_max = excluded.tenant_running_max, defaults = excluded.defaults,
        is_paused = excluded.is_paused, is_configured = excluded.is_configured
"""

PUT_TENANT = """
    INSERT INTO tenants (name, weight, running_max, queued_max, is_configured)
    VALUES (:name, :weight, :running_max, :queued_max, :is_configured)
    ON CONFLICT (name) DO UPDATE SET
        weight = excluded.weight, running_max = excluded.running_max, queued_max = excluded.queued_max,
        is_configured = excluded.is_configured
"""

PUT_TOKEN = """
    INSERT INTO tokens (id, name, secret_hash, scope, tenants, created_at, expires_at)
    VALUES (:id, :name, :secret_hash, :scope, :tenants, :created_at, :expires_at)
    ON CONFLICT (id) DO UPDATE SET
        name = excluded.name, secret_hash = excluded.secret_hash, scope = excluded.scope,
        tenants = excluded.tenants, created_at = excluded.created_at, expires_at = excluded.expires_at
"""
