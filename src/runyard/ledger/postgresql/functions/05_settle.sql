-- From claimed to settled. Both functions take what several attempts report at once, and answer each of them.

-- Guards the pools of the reports and locks what their counts stand on. Returns {pool: epoch}.
CREATE FUNCTION lock_reported(items jsonb, is_ending boolean) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    pools_ text[] := ARRAY(SELECT DISTINCT (i->>'pool') COLLATE "C" AS p FROM jsonb_array_elements(items) i ORDER BY p);
    uids text[] := ARRAY(SELECT i->>'uid' FROM jsonb_array_elements(items) i);
    queues_ text[] := ARRAY(SELECT DISTINCT queue FROM jobs WHERE uid = ANY (uids));
    epochs jsonb := '{}';
    pool_ text;
BEGIN
    FOREACH pool_ IN ARRAY pools_ LOOP
        epochs := epochs || jsonb_build_object(pool_, guard_pool(pool_));
    END LOOP;
    PERFORM FROM pool_state WHERE pool = ANY (pools_) ORDER BY pool FOR NO KEY UPDATE;
    IF is_ending THEN
        PERFORM lock_to_settle(queues_, ARRAY(SELECT DISTINCT tenant FROM jobs WHERE uid = ANY (uids)));
        PERFORM FROM classes WHERE class_key IN (SELECT class_key FROM jobs WHERE uid = ANY (uids))
            ORDER BY class_key FOR NO KEY UPDATE;
    ELSE
        PERFORM lock_queues(queues_);
    END IF;
    RETURN epochs;
END $$;

-- Why a report is not taken; NULL where it is.
CREATE FUNCTION refuse_report(item jsonb, epochs jsonb, attempt_ attempts) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF (epochs->>(item->>'pool'))::bigint IS DISTINCT FROM (item->>'epoch')::bigint THEN
        RETURN fenced((epochs->>(item->>'pool'))::bigint);
    ELSIF attempt_.pool <> item->>'pool' THEN
        RETURN jsonb_build_object('refused', 'not_yours', 'pool', attempt_.pool);
    END IF;
    RETURN NULL;
END $$;

-- The first time of each phase counts.
CREATE FUNCTION merge_phases(known text, new jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT new || known::jsonb
$$;

-- {"items": [{"pool", "epoch", "uid", "number", "phases"}…]} -> {"answers": [null or a refusal…]}
CREATE FUNCTION record_phases(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    epochs jsonb := lock_reported(doc->'items', false);
    now_ double precision := moment(doc);
    item jsonb;
    attempt_ attempts;
    refusal jsonb;
    answers jsonb[] := '{}';
    facts fact[] := '{}';
    topics text[] := '{}';
BEGIN
    FOR item IN SELECT * FROM jsonb_array_elements(doc->'items') LOOP
        SELECT * INTO attempt_ FROM attempts WHERE uid = item->>'uid' AND number = (item->>'number')::integer;
        refusal := refuse_report(item, epochs, attempt_);
        answers := answers || coalesce(refusal, 'null'::jsonb);
        CONTINUE WHEN refusal IS NOT NULL OR attempt_.uid IS NULL OR attempt_.state = 'ended';
        attempt_.phases := merge_phases(attempt_.phases, item->'phases')::text;
        UPDATE attempts SET phases = attempt_.phases WHERE uid = attempt_.uid AND number = attempt_.number;
        IF attempt_.state = 'starting' AND attempt_.phases::jsonb ? 'running' THEN
            facts := facts || start_running(attempt_);
        END IF;
        topics := topics || ('job:' || attempt_.uid);
    END LOOP;
    RETURN jsonb_build_object('answers', to_jsonb(answers), 'topics', publish(doc, now_, facts, topics));
END $$;

-- The newest value of each fact; facts beyond `count_max` are left out (model/attempt.py, merge_placement).
CREATE FUNCTION merge_placement(known text, new jsonb, count_max integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(f.name, f.value), '{}')::text FROM (
        SELECT e.key AS name, e.value FROM jsonb_each(known::jsonb || new) e
        ORDER BY known::jsonb ? e.key DESC, e.key LIMIT count_max
    ) f
$$;

-- {"pool", "epoch", "uid", "number", "placement", "placement_max", "progress": text or null}. Takes no lock but the
-- attempt's own row, as its last: what is told while an image is pulled holds up nobody.
CREATE FUNCTION record_status(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    epoch_ bigint := guard_pool(doc->>'pool');
    attempt_ attempts;
    refusal jsonb;
BEGIN
    SELECT * INTO attempt_ FROM attempts WHERE uid = doc->>'uid' AND number = (doc->>'number')::integer
        FOR NO KEY UPDATE;
    refusal := refuse_report(doc, jsonb_build_object(doc->>'pool', epoch_), attempt_);
    IF refusal IS NOT NULL THEN
        RETURN refusal;
    ELSIF attempt_.uid IS NULL OR attempt_.state = 'ended' THEN
        RETURN '{"topics": []}';
    END IF;
    UPDATE attempts SET progress = CASE WHEN state = 'starting' THEN doc->>'progress' END,
            placement = merge_placement(placement, doc->'placement', (doc->>'placement_max')::integer)
        WHERE uid = attempt_.uid AND number = attempt_.number;
    RETURN jsonb_build_object('topics', notify_topics(doc->>'sender', ARRAY['job:' || attempt_.uid]));
END $$;

-- The attempt runs, whatever was asked meanwhile; its job says so too unless it is being canceled.
CREATE FUNCTION start_running(attempt_ attempts) RETURNS fact[] LANGUAGE plpgsql AS $$
DECLARE
    at double precision := (attempt_.phases::jsonb->>'running')::double precision;
    job jobs;
BEGIN
    UPDATE attempts SET state = 'running', started_at = at, progress = NULL
        WHERE uid = attempt_.uid AND number = attempt_.number;
    UPDATE jobs SET started_at = at, state = CASE WHEN state = 'starting' THEN 'running' ELSE state END
        WHERE uid = attempt_.uid RETURNING * INTO job;
    UPDATE pool_state SET starting = starting - 1, running = running + 1 WHERE pool = attempt_.pool;
    UPDATE queues SET starting = starting - 1, running = running + 1 WHERE name = job.queue;
    IF job.state <> 'running' THEN
        RETURN '{}';
    END IF;
    RETURN ARRAY[(job.tenant, job.queue, job.id, job.uid, 'running', attempt_.number, NULL)::fact];
END $$;

-- {"items": [{"pool", "epoch", "uid", "number", "seen": {"state", "attempts", "cancel_requested_at"}, "outcome",
-- "used" (null: never seen), "weight", "phases", "outputs", "placement", "placement_max", "verdict": {"state"} or
-- {"counter", "keeps_place", "not_before"}, "reason"}…]} -> {"answers": [{"job": …, or null}, {"is_stale": true} or a refusal…]}
--
-- The verdict was made on the job as `seen`. It is taken only while the job still stands so; a stale one is decided
-- anew.
CREATE FUNCTION settle(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    epochs jsonb := lock_reported(doc->'items', true);
    now_ double precision := moment(doc);
    item jsonb;
    attempt_ attempts;
    job jobs;
    answer jsonb;
    answers jsonb[] := '{}';
    facts fact[] := '{}';
    topics text[] := '{}';
BEGIN
    FOR item IN SELECT * FROM jsonb_array_elements(doc->'items') LOOP
        SELECT * INTO attempt_ FROM attempts WHERE uid = item->>'uid' AND number = (item->>'number')::integer;
        SELECT * INTO job FROM jobs WHERE uid = item->>'uid';
        answer := refuse_report(item, epochs, attempt_);
        IF answer IS NULL AND attempt_.state <> 'ended' THEN
            IF (job.state, job.attempts, job.cancel_requested_at) IS DISTINCT FROM (item->'seen'->>'state',
                    (item->'seen'->>'attempts')::integer, (item->'seen'->>'cancel_requested_at')::double precision) THEN
                answer := jsonb_build_object('is_stale', true);
            ELSE
                topics := topics || end_attempt(item, attempt_, job, now_);
                facts := facts || end_job(item, attempt_, job, now_);
                topics := topics || ready_after(job.uid);
            END IF;
        END IF;
        answers := answers || coalesce(answer, jsonb_build_object('job',
            (SELECT to_jsonb(r) FROM job_row r WHERE r.uid = item->>'uid')));
    END LOOP;
    RETURN jsonb_build_object('answers', to_jsonb(answers), 'topics', publish(doc, now_, facts, topics));
END $$;

CREATE FUNCTION ready_after(uid_ text) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(SELECT 'ready' FROM jobs WHERE uid = uid_ AND is_ready = 1);
END $$;

-- The attempt's own end: its outcome, its places within the limits, its charge corrected to what was used (once: I12).
-- What was never seen used nothing and teaches nothing about its class. Returns the topics.
CREATE FUNCTION end_attempt(item jsonb, attempt_ attempts, job jobs, now_ double precision) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    phases_ jsonb := merge_phases(attempt_.phases, item->'phases');
    used double precision := (item->>'used')::double precision;
    difference double precision := coalesce(used, 0) - attempt_.charged;
    makes_room boolean;
BEGIN
    UPDATE attempts SET state = 'ended', ended_at = now_, phases = phases_::text, outcome = item->>'outcome',
            started_at = coalesce(started_at, (phases_->>'running')::double precision), progress = NULL,
            placement = merge_placement(placement, item->'placement', (item->>'placement_max')::integer)
        WHERE uid = attempt_.uid AND number = attempt_.number;
    makes_room := release_attempt(attempt_.pool, job.queue, job.tenant, attempt_.state = 'running');
    PERFORM charge(job.queue, job.tenant, difference);
    -- A queue's correction waits for its next claim in that pool: moved at once, it would be lost whenever the pool's
    -- clock had passed it meanwhile.
    UPDATE pool_queues SET owed = owed + difference / (SELECT q.weight FROM queues q WHERE q.name = job.queue)
        WHERE pool = attempt_.pool AND queue = job.queue;
    -- The first sample replaces the guess, the second weighs a half, and so on down to `weight`.
    UPDATE classes SET samples = samples + 1, estimate = estimate + (used - estimate)
            * greatest(1.0 / (samples + 1), (item->>'weight')::double precision)
        WHERE class_key = job.class_key AND used IS NOT NULL;
    RETURN CASE WHEN makes_room THEN '{ready}'::text[] ELSE '{}' END;
END $$;

-- What becomes of the job.
CREATE FUNCTION end_job(item jsonb, attempt_ attempts, job jobs, now_ double precision) RETURNS fact[]
LANGUAGE plpgsql AS $$
DECLARE
    verdict jsonb := item->'verdict';
    is_ready_ boolean := coalesce((verdict->>'not_before')::double precision <= now_, true);
    counter text := verdict->>'counter';
BEGIN
    IF verdict ? 'state' THEN
        UPDATE jobs SET state = verdict->>'state', ended_at = now_, reason = item->>'reason',
                outputs = item->>'outputs', started_at = coalesce(started_at, (SELECT a.started_at FROM attempts a
                    WHERE a.uid = jobs.uid AND a.number = jobs.attempts))
            WHERE serial = job.serial;
    ELSE
        UPDATE jobs SET state = 'queued', is_ready = is_ready_::integer, reason = item->>'reason', started_at = NULL,
                not_before = (verdict->>'not_before')::double precision,
                queued_at = CASE WHEN (verdict->>'keeps_place')::boolean THEN queued_at ELSE now_ END,
                infrastructure_failures = infrastructure_failures + (counter = 'infrastructure_failures')::integer,
                failures = failures + (counter = 'failures')::integer,
                unseen_tries = unseen_tries + (counter = 'unseen_tries')::integer
            WHERE serial = job.serial;
        PERFORM add_queued(job.queue, job.tenant, 1);
        IF is_ready_ THEN
            PERFORM become_ready(job.queue, job.class_key, job.tenant, 1);
        END IF;
    END IF;
    RETURN ARRAY[(job.tenant, job.queue, job.id, job.uid, coalesce(verdict->>'state', 'queued'), job.attempts,
        item->>'reason')::fact];
END $$;
