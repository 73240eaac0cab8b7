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
    SELECT q.*, (SELECT min((SELECT min(j.queued_at) FROM jobs j
                             WHERE j.queue = l.queue AND j.class_key = l.class_key AND j.is_ready = 1))
                 FROM lanes l WHERE l.queue = q.name AND l.ready > 0) AS oldest_queued_at,
        (SELECT 1 FROM fair f WHERE f.queue = q.name AND f.ready > 0 AND f.is_blocked = 0 LIMIT 1) AS has_eligible
    FROM queues q
"""

OLDEST_READY = """
    SELECT o.uid FROM lanes l JOIN jobs o ON o.uid = (
        SELECT j.uid FROM jobs j WHERE j.queue = l.queue AND j.class_key = l.class_key AND j.is_ready = 1
        ORDER BY j.queued_at LIMIT 1)
    WHERE l.queue = :queue AND l.ready > 0 ORDER BY o.queued_at, o.uid LIMIT 1
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
    INSERT INTO tokens (id, name, secret_hash, scope, tenants, created_at, expires_at, kind, parent)
    VALUES (:id, :name, :secret_hash, :scope, :tenants, :created_at, :expires_at, :kind, :parent)
    ON CONFLICT (id) DO UPDATE SET
        name = excluded.name, secret_hash = excluded.secret_hash, scope = excluded.scope,
        tenants = excluded.tenants, created_at = excluded.created_at, expires_at = excluded.expires_at,
        kind = excluded.kind, parent = excluded.parent
"""

DELETE_TOKEN = "DELETE FROM tokens WHERE id = :id"
DELETE_CHILDREN = "DELETE FROM tokens WHERE parent = :id"

DELETE_EXPIRED_SESSIONS = """
    DELETE FROM tokens WHERE id IN (
        SELECT id FROM tokens WHERE expires_at < :before AND kind <> 'token' ORDER BY expires_at LIMIT :limit
    )
"""

LIST_EXPIRED_LOGS = """
    SELECT a.uid, a.number FROM attempts a JOIN jobs j ON j.uid = a.uid
    WHERE a.ended_at IS NOT NULL AND a.is_logs_deleted = 0 AND a.ended_at < :before AND j.ended_at IS NOT NULL
    ORDER BY a.ended_at, a.uid, a.number LIMIT :limit
"""

LIST_EXPIRED_ARTIFACTS = LIST_EXPIRED_LOGS.replace("is_logs_deleted", "is_artifacts_deleted")

LIST_EXPIRED_JOBS = """
    SELECT uid FROM jobs WHERE ended_at IS NOT NULL AND ended_at < :before ORDER BY ended_at, serial LIMIT :limit
"""

NEXT_DUE = """
    SELECT (SELECT min(queue_deadline_at) FROM jobs WHERE state = 'queued' AND attempts = 0
            AND queue_deadline_at IS NOT NULL) AS deadline,
        (SELECT min(not_before) FROM jobs WHERE state = 'queued' AND is_ready = 0) AS retry
"""

COUNT_HIGHER = """
    SELECT count(*) AS ahead FROM (SELECT 1 FROM jobs WHERE queue = :queue AND class_key = :class_key
        AND tenant = :tenant AND is_ready = 1 AND priority > :priority LIMIT :most) x
"""

COUNT_OLDER = """
    SELECT count(*) AS ahead FROM (SELECT 1 FROM jobs WHERE queue = :queue AND class_key = :class_key
        AND tenant = :tenant AND is_ready = 1 AND priority = :priority AND (queued_at, uid) < (:queued_at, :uid)
        LIMIT :most) x
"""

LIST_SHARES = """
    SELECT s.tenant, t.weight, s.vtime, s.queued FROM shares s JOIN tenants t ON t.name = s.tenant
    WHERE s.queue = :queue AND s.ready > 0 ORDER BY s.vtime, s.tenant LIMIT :limit
"""

LIST_AVAILABILITY = """
    SELECT a.* FROM pools p JOIN availability a ON a.pool = p.name AND a.class_key = :class_key ORDER BY a.pool
"""

MACHINES_MAX = 10_000
BINDINGS_MAX = 10_000

MACHINE = """
    SELECT m.*, (SELECT count(*) FROM bindings b JOIN attempts a ON a.uid = b.uid AND a.number = b.number
                 WHERE b.machine = m.name AND a.state <> 'ended') AS held
    FROM machines m
"""

LIST_MACHINES = f"""
    {MACHINE} WHERE m.pool = :pool AND (m.state <> 'gone' OR :with_gone) ORDER BY m.name LIMIT :limit
"""

_BINDING = """
    SELECT a.uid, a.number, a.pool AS attempt_pool, a.claimed_at, a.state AS attempt_state,
        coalesce(b.state, 'unbound') AS state, b.machine, b.taken_at, b.stop_grace_s,
        coalesce(b.is_unwanted, 0) AS is_unwanted, coalesce(b.phases, '{}') AS phases, b.outcome,
        coalesce(b.outputs, '{}') AS outputs
"""

BINDING = f"""
    {_BINDING} FROM attempts a LEFT JOIN bindings b ON b.uid = a.uid AND b.number = a.number
    WHERE a.uid = :uid AND a.number = :number
"""

LIST_BINDINGS = f"""
    {_BINDING} FROM bindings b JOIN attempts a ON a.uid = b.uid AND a.number = b.number
    WHERE b.pool = :pool AND (b.machine = :machine OR :machine IS NULL) ORDER BY a.claimed_at, a.uid LIMIT :limit
"""

DELETE_GONE_MACHINES = """
    DELETE FROM machines WHERE name IN (
        SELECT m.name FROM machines m WHERE m.state = 'gone' AND m.since < :before AND NOT EXISTS (
            SELECT 1 FROM bindings b JOIN attempts a ON a.uid = b.uid AND a.number = b.number
            WHERE b.machine = m.name AND a.state <> 'ended')
        ORDER BY m.since LIMIT :limit)
"""

LAST_ANSWERED = """
    SELECT * FROM operations WHERE pool = :pool AND kind = :kind AND finished_at IS NOT NULL
    ORDER BY number DESC LIMIT 1
"""

ADD_AUDIT_LINE = """
    INSERT INTO audit (at, actor, actor_id, origin, action, subject, details)
    VALUES (:at, :actor, :actor_id, :origin, :action, :subject, :details)
"""

LIST_AUDIT = "SELECT * FROM audit WHERE sequence < :before ORDER BY sequence DESC LIMIT :limit"

DELETE_AUDIT = """
    DELETE FROM audit WHERE sequence IN (
        SELECT sequence FROM audit WHERE at < :before ORDER BY sequence LIMIT :limit
    )
"""

LIST_JOB_EVENTS = "SELECT * FROM events WHERE uid = :uid ORDER BY sequence DESC LIMIT :limit"

LIST_CLASS_ATTEMPTS = """
    SELECT a.* FROM (SELECT uid, attempts, ended_at FROM jobs WHERE class_key = :class_key AND state = 'succeeded'
                     ORDER BY ended_at DESC LIMIT :limit) j
    JOIN attempts a ON a.uid = j.uid AND a.number = j.attempts ORDER BY j.ended_at DESC
"""

LIST_QUEUE_SHARES = """
    SELECT s.tenant, t.weight, s.vtime, s.queued, s.running FROM shares s JOIN tenants t ON t.name = s.tenant
    WHERE s.queue = :queue AND (s.queued > 0 OR s.running > 0)
    ORDER BY s.running DESC, s.queued DESC, s.tenant LIMIT :limit
"""

LIST_TENANT_DEPTHS = """
    SELECT queue, queued, running FROM shares WHERE tenant = :tenant AND (queued > 0 OR running > 0)
    ORDER BY running DESC, queued DESC, queue LIMIT :limit
"""

WAITING_SCAN_MAX = 10_000

LONGEST_OF_QUEUE = """
    SELECT serial, submitted_at, uid FROM jobs WHERE queue = :queue AND state = 'queued'
    ORDER BY submitted_at, uid LIMIT :limit
"""

LONGEST_OF_TENANT = f"""
    SELECT serial, submitted_at, uid FROM (
        SELECT serial, submitted_at, uid, queue FROM jobs WHERE tenant = :tenant AND state = 'queued'
        ORDER BY submitted_at, uid LIMIT {WAITING_SCAN_MAX}) x
    WHERE :queue IS NULL OR queue = :queue ORDER BY submitted_at, uid LIMIT :limit
"""

RECEIVED_MAX = 5_000

RECEIVED_SINCE = f"""
    SELECT count(*) AS ended, min(ended_at) AS first_at FROM (
        SELECT ended_at FROM attempts WHERE ended_at IS NOT NULL AND is_logs_deleted = 0 AND ended_at >= :since
        ORDER BY ended_at DESC LIMIT {RECEIVED_MAX}) x
"""


def received(*, wall_s: str) -> str:
    """Seconds by queue, tenant and shape of a class. `wall_s`: how long an attempt `a` ran, in the database's words.

    An attempt ended when it was settled, so of its seconds at most those since `since` lie in between. The index of
    ended attempts is that of logs that are kept; logs are deleted of final jobs only, so the jobs' ends find the rest.
    """
    return f"""
        SELECT x.queue, x.tenant, c.cpu_millis, c.memory_bytes,
            sum(CASE WHEN x.wall_s > x.most_s THEN x.most_s ELSE x.wall_s END) AS wall_s
        FROM (
            SELECT j.queue, j.tenant, j.class_key, {wall_s} AS wall_s, a.ended_at - :since AS most_s
            FROM attempts a JOIN jobs j ON j.uid = a.uid
            WHERE a.ended_at IS NOT NULL AND a.is_logs_deleted = 0 AND a.ended_at >= :since
            UNION ALL
            SELECT j.queue, j.tenant, j.class_key, {wall_s} AS wall_s, a.ended_at - :since AS most_s
            FROM (SELECT uid, queue, tenant, class_key FROM jobs WHERE ended_at IS NOT NULL AND ended_at >= :since
                  ORDER BY ended_at DESC LIMIT {RECEIVED_MAX}) j
            JOIN attempts a ON a.uid = j.uid WHERE a.is_logs_deleted = 1 AND a.ended_at >= :since
            UNION ALL
            SELECT j.queue, j.tenant, j.class_key, :now - a.started_at AS wall_s, :now - :since AS most_s
            FROM attempts a JOIN jobs j ON j.uid = a.uid WHERE a.state <> 'ended' AND a.started_at < :now
        ) x JOIN classes c ON c.class_key = x.class_key
        GROUP BY x.queue, x.tenant, c.cpu_millis, c.memory_bytes
    """


ENDED_MAX = 5_000

COUNT_ENDED = """
    SELECT queue, count(*) AS ended, min(ended_at) AS first_at FROM (
        SELECT queue, ended_at FROM jobs WHERE ended_at IS NOT NULL AND ended_at >= :since
        ORDER BY ended_at DESC LIMIT :limit) x
    GROUP BY queue
"""

READ_HISTORY = """
    SELECT bucket - bucket % :step AS at, figure, max(amount) AS highest, sum(amount) AS amount,
        sum(seconds) AS seconds
    FROM history WHERE subject = :subject AND name = :name AND bucket >= :begin AND bucket < :end
    GROUP BY bucket - bucket % :step, figure ORDER BY at, figure LIMIT :limit
"""

HISTORY_MAX = 50_000

DELETE_HISTORY = """
    DELETE FROM history WHERE bucket IN (
        SELECT DISTINCT bucket FROM history WHERE bucket < :before ORDER BY bucket LIMIT :limit
    )
"""

PUT_SECRET = """
    INSERT INTO secrets (tenant, name, version, key_id, sealed, queues, created_at, changed_at, changed_by)
    VALUES (:tenant, :name, :version, :key_id, :sealed, :queues, :created_at, :changed_at, :changed_by)
    ON CONFLICT (tenant, name) DO UPDATE SET
        version = excluded.version, key_id = excluded.key_id, sealed = excluded.sealed, queues = excluded.queues,
        changed_at = excluded.changed_at, changed_by = excluded.changed_by
"""

GET_SECRET = "SELECT * FROM secrets WHERE tenant = :tenant AND name = :name"

LIST_SECRETS = "SELECT * FROM secrets WHERE tenant = :tenant ORDER BY name LIMIT :limit"

LIST_ALL_SECRETS = "SELECT * FROM secrets ORDER BY tenant, name LIMIT :limit"

DELETE_SECRET = "DELETE FROM secrets WHERE tenant = :tenant AND name = :name"

NOTE_SECRET_USED = """
    UPDATE secrets SET last_used_at = :at, last_used_by = :attempt
    WHERE tenant = :tenant AND name = :name AND version = :version
"""

SECRET_KEYS_MAX = 1000

COUNT_SECRET_KEYS = (
    "SELECT key_id, count(*) AS held FROM secrets GROUP BY key_id ORDER BY key_id LIMIT :limit"
)

LIST_SECRETS_OF_KEY = "SELECT * FROM secrets WHERE key_id = :key_id ORDER BY tenant, name LIMIT :limit"

RESEAL_SECRET = """
    UPDATE secrets SET key_id = :key_id, sealed = :sealed
    WHERE tenant = :tenant AND name = :name AND version = :version AND key_id = :seen_key_id
"""

MAKE_SECRET_REALM = "INSERT INTO secret_realm (one, name) VALUES (1, :name) ON CONFLICT (one) DO NOTHING"
SECRET_REALM = "SELECT name FROM secret_realm WHERE one = 1"
