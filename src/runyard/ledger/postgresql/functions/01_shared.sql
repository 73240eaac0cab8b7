-- What every writing function rests on: the clock, the order of locks, the feed and the wake-up.
--
-- A write is one call of one function: one round trip, and no lock is ever held while a client thinks (or is stopped).
-- Each takes one JSON document and returns one: {"topics": …, and what the adapter needs}, or {"refused": …} with
-- nothing written. In the document, `at` replaces the clock (tests) and `sender` names the service.
--
-- The order of locks, the same in every function, so that no two can wait for each other:
--   pools (SHARE at the epoch; UPDATE by a takeover) < leases < pool_state < queues < tenants < classes < event_head,
-- within a table by name. A queue's row is the lock of all that is keyed by the queue: its shares, lanes and fair rows,
-- its jobs and their attempts. None of those needs a lock of its own, and a submit and a claim of the same queue never
-- see half of each other.

CREATE VIEW job_row AS
    SELECT j.uid, j.id, s.spec, j.spec_hash, j.state, j.submitted_at, j.queued_at, j.submitted_by, j.retry_of,
        j.not_before, j.queue_deadline_at, j.cancel_requested_at, j.attempts, j.infrastructure_failures, j.failures,
        j.unseen_tries, j.started_at, j.ended_at, j.reason, j.outputs, j.serial, j.tenant
    FROM jobs j JOIN job_specs s ON s.serial = j.serial;

CREATE VIEW pool_row AS
    SELECT p.name, p.settings, p.epoch, p.owner, l.lease_until, p.is_paused, s.health, s.health_message, s.starting,
        s.running
    FROM pools p JOIN leases l ON l.pool = p.name JOIN pool_state s ON s.pool = p.name;

CREATE TYPE fact AS (tenant text, queue text, job_id text, uid text, state text, attempt integer, reason text);

-- The database's clock, in seconds since the epoch: not the transaction's start, which may lie before a wait for a
-- lock.
CREATE FUNCTION runyard_now(at double precision) RETURNS double precision LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(at, extract(epoch FROM clock_timestamp())::double precision)
$$;

CREATE FUNCTION moment(doc jsonb) RETURNS double precision LANGUAGE sql VOLATILE AS $$
    SELECT runyard_now((doc->>'at')::double precision)
$$;

CREATE FUNCTION lock_queues(names text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM queues WHERE name = ANY (names) ORDER BY name FOR NO KEY UPDATE;
END $$;

CREATE FUNCTION lock_tenants(names text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM tenants WHERE name = ANY (names) ORDER BY name FOR NO KEY UPDATE;
END $$;

-- The pool's epoch, shared until the commit: a takeover waits for us, and we for a takeover. NULL where it is gone.
CREATE FUNCTION guard_pool(pool_ text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_epoch bigint;
BEGIN
    SELECT epoch INTO found_epoch FROM pools WHERE name = pool_ FOR SHARE;
    RETURN found_epoch;
END $$;

CREATE FUNCTION fenced(epoch_ bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('refused', 'fenced', 'epoch', epoch_)
$$;

-- Wakes the other services at the commit. A payload is the sender and some topics, each on its line.
CREATE FUNCTION notify_topics(sender text, topics text[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    unique_topics text[] := ARRAY(SELECT DISTINCT unnest(topics));
BEGIN
    FOR start_ IN 1 .. coalesce(array_length(unique_topics, 1), 0) BY 60 LOOP
        PERFORM pg_notify('runyard', sender || E'\n' || array_to_string(unique_topics[start_ : start_ + 59], E'\n'));
    END LOOP;
    RETURN unique_topics;
END $$;

-- The last thing that a transaction does: gives the facts their sequences and tells everybody. Returns the topics.
CREATE FUNCTION publish(doc jsonb, now_ double precision, facts fact[], topics text[]) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    count_ integer := coalesce(array_length(facts, 1), 0);
    last_ bigint;
BEGIN
    IF count_ > 0 THEN
        UPDATE event_head SET sequence = sequence + count_ RETURNING sequence INTO last_;
        INSERT INTO events (sequence, at, tenant, queue, job_id, uid, state, attempt, reason)
            SELECT last_ - count_ + f.place, now_, f.tenant, f.queue, f.job_id, f.uid, f.state, f.attempt, f.reason
            FROM unnest(facts) WITH ORDINALITY AS f (tenant, queue, job_id, uid, state, attempt, reason, place);
        topics := topics || 'events'::text || ARRAY(SELECT 'job:' || f.uid FROM unnest(facts) f);
    END IF;
    RETURN to_jsonb(notify_topics(doc->>'sender', topics));
END $$;
