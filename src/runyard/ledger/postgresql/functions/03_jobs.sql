-- Jobs into the ledger, and out of the state queued by other ways than a claim.

CREATE TYPE new_job AS (uid text, tenant text, id text, name text, queue text, class_key text, requirements text,
    cpu_millis bigint, memory_bytes bigint, disk_bytes bigint, estimate double precision, priority bigint, spec text,
    spec_hash text, submitted_by text, retry_of text, queue_s double precision, labels jsonb);

CREATE FUNCTION add_tenants(names text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenants (name, weight, is_configured)
        SELECT n, 1.0, 0 FROM (SELECT DISTINCT unnest(names) COLLATE "C" AS n) x
        WHERE NOT EXISTS (SELECT FROM tenants t WHERE t.name = n) ORDER BY n
        ON CONFLICT (name) DO NOTHING;
END $$;

CREATE FUNCTION add_classes(jobs_ new_job[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO classes (class_key, requirements, cpu_millis, memory_bytes, disk_bytes, estimate)
        SELECT DISTINCT ON (j.class_key COLLATE "C") j.class_key, j.requirements, j.cpu_millis, j.memory_bytes,
            j.disk_bytes, j.estimate FROM unnest(jobs_) j
        WHERE NOT EXISTS (SELECT FROM classes c WHERE c.class_key = j.class_key) ORDER BY j.class_key COLLATE "C"
        ON CONFLICT (class_key) DO NOTHING;
END $$;

-- NULL where the job is already there.
CREATE FUNCTION insert_job(j new_job, now_ double precision) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    serial_ bigint;
BEGIN
    INSERT INTO jobs (uid, tenant, id, name, queue, class_key, priority, state, is_ready, spec_hash, submitted_by,
            retry_of, submitted_at, queued_at, queue_deadline_at)
        VALUES (j.uid, j.tenant, j.id, j.name, j.queue, j.class_key, j.priority, 'queued', 1, j.spec_hash,
            j.submitted_by, j.retry_of, now_, now_, now_ + j.queue_s)
        ON CONFLICT (tenant, id) DO NOTHING RETURNING serial INTO serial_;
    IF serial_ IS NOT NULL THEN
        INSERT INTO job_specs (serial, spec) VALUES (serial_, j.spec);
        INSERT INTO job_labels (label, value, submitted_at, uid, serial)
            SELECT l.key, l.value, now_, j.uid, serial_ FROM jsonb_each_text(j.labels) l;
    END IF;
    RETURN serial_;
END $$;

-- {"jobs": [new_job…]} -> {"at", "answers": one for each: {"is_new": true}, {"job": the one that is there}, or
-- {"refused": "no_queue", or "queue_full" or "tenant_full" with "queued" and "queued_max"}}.
CREATE FUNCTION submit(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    jobs_ new_job[] := ARRAY(SELECT j FROM jsonb_populate_recordset(NULL::new_job, doc->'jobs') j);
    queues_ text[] := ARRAY(SELECT DISTINCT j.queue FROM unnest(jobs_) j);
    now_ double precision;
    gates jsonb;        -- of the limited ones: 'q' || queue and 't' || tenant -> [queued, queued_max]
    answers jsonb[] := '{}';
    serials bigint[] := '{}';
    facts fact[] := '{}';
    topics text[] := '{}';
    j new_job;
    one record;
    serial_ bigint;
    refusal jsonb;
BEGIN
    PERFORM lock_queues(queues_);
    queues_ := ARRAY(SELECT name FROM queues WHERE name = ANY (queues_));
    PERFORM add_tenants(ARRAY(SELECT x.tenant FROM unnest(jobs_) x WHERE x.queue = ANY (queues_)));
    PERFORM lock_tenants(ARRAY(SELECT x.tenant FROM unnest(jobs_) x));
    PERFORM add_classes(ARRAY(SELECT x FROM unnest(jobs_) x WHERE x.queue = ANY (queues_)));
    now_ := moment(doc);
    SELECT coalesce(jsonb_object_agg(g.key, jsonb_build_array(g.queued, g.queued_max)), '{}') INTO gates FROM (
        SELECT 'q' || name AS key, queued, queued_max FROM queues WHERE name = ANY (queues_)
        UNION ALL
        SELECT 't' || name, queued, queued_max FROM tenants
            WHERE name = ANY (ARRAY(SELECT x.tenant FROM unnest(jobs_) x))
    ) g WHERE g.queued_max IS NOT NULL;
    FOREACH j IN ARRAY jobs_ LOOP
        serial_ := NULL;
        refusal := refuse_job(gates, queues_, j);
        IF refusal IS NULL THEN
            serial_ := insert_job(j, now_);
        END IF;
        IF serial_ IS NOT NULL THEN
            serials := serials || serial_;
            gates := count_in(gates, j);
            facts := facts || (j.tenant, j.queue, j.id, j.uid, 'queued', 0, NULL)::fact;
            answers := answers || jsonb_build_object('is_new', true);
        ELSE
            answers := answers || coalesce((SELECT jsonb_build_object('job', to_jsonb(r)) FROM job_row r
                JOIN jobs k ON k.serial = r.serial WHERE k.tenant = j.tenant AND k.id = j.id), refusal);
        END IF;
    END LOOP;
    FOR one IN SELECT k.queue, k.class_key, k.tenant, count(*) AS jobs FROM jobs k WHERE k.serial = ANY (serials)
            GROUP BY k.queue, k.class_key, k.tenant LOOP
        PERFORM add_queued(one.queue, one.tenant, one.jobs);
        PERFORM become_ready(one.queue, one.class_key, one.tenant, one.jobs);
        topics := '{ready}';
    END LOOP;
    RETURN jsonb_build_object('at', now_, 'answers', to_jsonb(answers), 'topics', publish(doc, now_, facts, topics));
END $$;

CREATE FUNCTION refuse_job(gates jsonb, queues_ text[], j new_job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    gate jsonb := gates->('q' || j.queue);
BEGIN
    IF NOT j.queue = ANY (queues_) THEN
        RETURN jsonb_build_object('refused', 'no_queue');
    ELSIF (gate->>0)::bigint >= (gate->>1)::bigint THEN
        RETURN jsonb_build_object('refused', 'queue_full', 'queued', gate->0, 'queued_max', gate->1);
    END IF;
    gate := gates->('t' || j.tenant);
    IF (gate->>0)::bigint >= (gate->>1)::bigint THEN
        RETURN jsonb_build_object('refused', 'tenant_full', 'queued', gate->0, 'queued_max', gate->1);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION count_in(gates jsonb, j new_job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    gate text;
BEGIN
    FOREACH gate IN ARRAY ARRAY['q' || j.queue, 't' || j.tenant] LOOP
        IF gates ? gate THEN
            gates := jsonb_set(gates, ARRAY[gate, '0'], to_jsonb((gates->gate->>0)::bigint + 1));
        END IF;
    END LOOP;
    RETURN gates;
END $$;

-- Ends a job that no pool holds. Needs the locks of its queue and its tenant.
CREATE FUNCTION end_queued(job jobs, state_ text, reason_ text, now_ double precision) RETURNS fact
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE jobs SET state = state_, is_ready = 0, not_before = NULL, ended_at = now_, reason = reason_,
            cancel_requested_at = CASE WHEN state_ = 'canceled' THEN now_ ELSE cancel_requested_at END
        WHERE serial = job.serial;
    PERFORM add_queued(job.queue, job.tenant, -1);
    IF job.is_ready = 1 THEN
        PERFORM leave_ready(job.queue, job.class_key, job.tenant);
    END IF;
    RETURN (job.tenant, job.queue, job.id, job.uid, state_, job.attempts, reason_)::fact;
END $$;

-- {"uid", "reason"} -> {"job"}
CREATE FUNCTION request_cancel(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    job jobs;
    now_ double precision;
    facts fact[] := '{}';
    topics text[] := '{}';
BEGIN
    SELECT * INTO job FROM jobs WHERE uid = doc->>'uid';
    PERFORM lock_queues(ARRAY[job.queue]);
    PERFORM lock_tenants(ARRAY[job.tenant]);
    SELECT * INTO job FROM jobs WHERE uid = doc->>'uid';
    IF NOT FOUND THEN
        RETURN jsonb_build_object('refused', 'no_job');
    END IF;
    now_ := moment(doc);
    IF job.state = 'queued' THEN
        facts := ARRAY[end_queued(job, 'canceled', doc->>'reason', now_)];
    ELSIF job.state IN ('starting', 'running') THEN
        UPDATE jobs SET state = 'canceling', cancel_requested_at = now_ WHERE serial = job.serial;
        facts := ARRAY[(job.tenant, job.queue, job.id, job.uid, 'canceling', job.attempts, NULL)::fact];
        topics := ARRAY['pool:' || job.pool];
    END IF;
    RETURN jsonb_build_object('topics', publish(doc, now_, facts, topics),
        'job', (SELECT to_jsonb(r) FROM job_row r WHERE r.serial = job.serial));
END $$;

-- {"uid"}
CREATE FUNCTION delete_job(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    job jobs;
BEGIN
    SELECT * INTO job FROM jobs WHERE uid = doc->>'uid';
    PERFORM lock_queues(ARRAY[job.queue]); -- gone already where the queue is: then nobody else writes a final job
    SELECT * INTO job FROM jobs WHERE uid = doc->>'uid' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('refused', 'no_job');
    ELSIF job.ended_at IS NULL THEN
        RETURN jsonb_build_object('refused', 'not_final', 'id', job.id, 'state', job.state);
    END IF;
    DELETE FROM attempts WHERE uid = job.uid;
    DELETE FROM bindings WHERE uid = job.uid;
    DELETE FROM job_labels WHERE serial = job.serial;
    DELETE FROM job_specs WHERE serial = job.serial;
    DELETE FROM jobs WHERE serial = job.serial;
    RETURN jsonb_build_object('topics', publish(doc, NULL, '{}', ARRAY['job:' || job.uid]));
END $$;

-- {"limit", "message"} -> {"uids"}. The deadline ends with the first claim, so a job that was withdrawn and waits again
-- is not meant. What falls due is read without a lock, locked, and read again.
CREATE FUNCTION expire_queued(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := moment(doc);
    due bigint[] := ARRAY(SELECT serial FROM jobs
        WHERE state = 'queued' AND attempts = 0 AND queue_deadline_at IS NOT NULL AND queue_deadline_at <= now_
        ORDER BY queue_deadline_at LIMIT (doc->>'limit')::bigint);
    job jobs;
    facts fact[] := '{}';
BEGIN
    PERFORM lock_queues_of(due);
    FOR job IN SELECT * FROM jobs WHERE serial = ANY (due) AND state = 'queued' AND attempts = 0
            ORDER BY queue_deadline_at LOOP
        facts := facts || end_queued(job, 'timed_out', queue_timeout(doc->>'message', job), now_);
    END LOOP;
    RETURN jsonb_build_object('uids', to_jsonb(ARRAY(SELECT f.uid FROM unnest(facts) f)),
        'topics', publish(doc, now_, facts, '{}'));
END $$;

CREATE FUNCTION queue_timeout(message text, job jobs) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('code', 'queue_timeout', 'message', format(message,
        trim_scale(round((job.queue_deadline_at - job.submitted_at)::numeric, 3))))::text
$$;

-- {"limit"} -> {"count"}
CREATE FUNCTION promote_due(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := moment(doc);
    due bigint[] := ARRAY(SELECT serial FROM jobs WHERE state = 'queued' AND is_ready = 0 AND not_before <= now_
        ORDER BY not_before LIMIT (doc->>'limit')::bigint);
    job jobs;
    topics text[] := '{}';
    count_ bigint := 0;
BEGIN
    PERFORM lock_queues_of(due);
    FOR job IN SELECT * FROM jobs WHERE serial = ANY (due) AND state = 'queued' AND is_ready = 0 LOOP
        UPDATE jobs SET is_ready = 1 WHERE serial = job.serial;
        PERFORM become_ready(job.queue, job.class_key, job.tenant, 1);
        count_ := count_ + 1;
        topics := '{ready}';
    END LOOP;
    RETURN jsonb_build_object('count', count_, 'topics', publish(doc, now_, '{}', topics));
END $$;

CREATE FUNCTION lock_queues_of(serials bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_queues(ARRAY(SELECT DISTINCT queue FROM jobs WHERE serial = ANY (serials)));
    PERFORM lock_tenants(ARRAY(SELECT DISTINCT tenant FROM jobs WHERE serial = ANY (serials)));
END $$;
