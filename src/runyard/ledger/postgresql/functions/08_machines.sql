-- Machines, and the race for an attempt between its owner and its machine, as in ledger/sqlite/machines.py. What stood
-- in the way of a compare-and-set is told by {"done": false}.
--
-- Locks: the pool (SHARE, the owner's calls) < the machine < the attempt < its binding. None of these functions holds
-- more than one machine and one attempt, or waits for anything after them; a settle, which takes attempts after its
-- queues, waits for no machine and no binding. An attempt's row is the lock of its binding.

CREATE VIEW machine_row AS
    SELECT m.*, (SELECT count(*) FROM bindings b JOIN attempts a ON a.uid = b.uid AND a.number = b.number
                 WHERE b.machine = m.name AND a.state <> 'ended') AS held
    FROM machines m;

CREATE FUNCTION is_done(doc jsonb, done boolean, topics text[]) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('done', done, 'topics', notify_topics(doc->>'sender', CASE WHEN done THEN topics END));
END $$;

-- {"pool", "epoch", "name", "slots", "facts"}
CREATE FUNCTION intend_machine(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    epoch_ bigint := guard_pool(doc->>'pool');
    now_ double precision := moment(doc);
BEGIN
    IF epoch_ IS DISTINCT FROM (doc->>'epoch')::bigint THEN
        RETURN fenced(epoch_);
    END IF;
    INSERT INTO machines (name, pool, state, slots, epoch, intended_at, since, facts)
        VALUES (doc->>'name', doc->>'pool', 'intended', (doc->>'slots')::bigint, epoch_, now_, now_,
            (doc->'facts')::text)
        ON CONFLICT (name) DO NOTHING;
    RETURN is_done(doc, FOUND, ARRAY['machines:' || (doc->>'pool')]);
END $$;

-- Locks the pool's epoch and the machine. Returns the refusal, or NULL; `machine_` stays NULL where there is none.
CREATE FUNCTION lock_machine(doc jsonb, name_ text, OUT refusal jsonb, OUT machine_ machines) LANGUAGE plpgsql AS $$
DECLARE
    epoch_ bigint := guard_pool(doc->>'pool');
BEGIN
    IF epoch_ IS DISTINCT FROM (doc->>'epoch')::bigint THEN
        refusal := fenced(epoch_);
        RETURN;
    END IF;
    SELECT * INTO machine_ FROM machines WHERE name = name_ FOR UPDATE;
    IF machine_.pool <> doc->>'pool' THEN
        refusal := jsonb_build_object('refused', 'other_pool', 'pool', machine_.pool);
    END IF;
END $$;

CREATE FUNCTION count_held(name_ text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT count(*) FROM bindings b JOIN attempts a ON a.uid = b.uid AND a.number = b.number
            WHERE b.machine = name_ AND a.state <> 'ended');
END $$;

CREATE FUNCTION set_machine(name_ text, to_ text, facts_ jsonb, now_ double precision) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE machines SET since = CASE WHEN state = to_ THEN since ELSE now_ END, state = to_,
            facts = (facts::jsonb || facts_)::text
        WHERE name = name_;
END $$;

-- {"pool", "epoch", "name", "seen", "to", "facts"} -> {"done"}. No busy machine is drained (I9): a bind waits for the
-- machine's lock, and then finds it draining.
CREATE FUNCTION change_machine(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    locked record;
    state_ text;
    to_ text := doc->>'to';
BEGIN
    SELECT * INTO locked FROM lock_machine(doc, doc->>'name');
    IF locked.refusal IS NOT NULL THEN
        RETURN locked.refusal;
    END IF;
    state_ := (locked.machine_).state;
    IF state_ IS NULL OR state_ NOT IN (doc->>'seen', to_)
            OR (state_ = 'ready' AND to_ = 'draining' AND count_held(doc->>'name') > 0)
            OR (state_ = 'draining' AND to_ = 'ready' AND (locked.machine_).drain_asked_at IS NOT NULL) THEN
        RETURN is_done(doc, false, NULL);
    END IF;
    PERFORM set_machine(doc->>'name', to_, doc->'facts', moment(doc));
    RETURN is_done(doc, true, ARRAY['machines:' || (doc->>'pool')]);
END $$;

-- {"pool", "epoch", "name", "reason"} -> {"done"}
CREATE FUNCTION fence_machine(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    locked record;
    state_ text;
    now_ double precision := moment(doc);
BEGIN
    SELECT * INTO locked FROM lock_machine(doc, doc->>'name');
    IF locked.refusal IS NOT NULL THEN
        RETURN locked.refusal;
    END IF;
    state_ := (locked.machine_).state;
    IF state_ IS NULL OR state_ = 'gone' THEN
        RETURN is_done(doc, state_ IS NOT NULL, '{}');
    END IF;
    UPDATE machines SET fence_reason = CASE WHEN fenced_at IS NULL THEN doc->>'reason' ELSE fence_reason END,
            fenced_at = coalesce(fenced_at, now_)
        WHERE name = doc->>'name';
    PERFORM set_machine(doc->>'name', 'ending', '{}', now_);
    RETURN is_done(doc, true, ARRAY['machines:' || (doc->>'pool'), 'machine:' || (doc->>'name')]);
END $$;

-- {"name", "is_drained"}: by an operator, whoever owns the pool.
CREATE FUNCTION set_machine_drained(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    machine_ machines;
BEGIN
    SELECT * INTO machine_ FROM machines WHERE name = doc->>'name' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('refused', 'no_machine');
    ELSIF machine_.state IN ('ending', 'gone') THEN
        RETURN is_done(doc, false, NULL);
    END IF;
    UPDATE machines
        SET drain_asked_at = CASE WHEN (doc->>'is_drained')::boolean THEN coalesce(drain_asked_at, moment(doc)) END
        WHERE name = machine_.name;
    RETURN is_done(doc, true, ARRAY['machines:' || machine_.pool, 'pool:' || machine_.pool]);
END $$;

-- Locks the pool's epoch and the attempt, and reads its binding (NULLs where there is none yet).
CREATE FUNCTION lock_binding(doc jsonb, OUT refusal jsonb, OUT attempt_ attempts, OUT binding_ bindings)
LANGUAGE plpgsql AS $$
DECLARE
    epoch_ bigint := guard_pool(doc->>'pool');
BEGIN
    SELECT * INTO attempt_ FROM attempts WHERE uid = doc->>'uid' AND number = (doc->>'number')::integer
        FOR NO KEY UPDATE;
    refusal := refuse_report(doc, jsonb_build_object(doc->>'pool', epoch_), attempt_);
    IF refusal IS NULL THEN
        SELECT * INTO binding_ FROM bindings WHERE uid = attempt_.uid AND number = attempt_.number;
    END IF;
END $$;

-- Whether the machine of a binding can run nothing any more, or is condemned. Both are for good, so no lock is needed.
CREATE FUNCTION is_fenced(machine_ text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN NOT EXISTS (SELECT FROM machines WHERE name = machine_ AND fenced_at IS NULL AND state <> 'gone');
END $$;

CREATE FUNCTION topics_of(uid_ text, machine_ text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT array_remove(ARRAY['job:' || uid_, 'machine:' || machine_], NULL)
$$;

-- {"pool", "epoch", "uid", "number", "machine"} -> {"done"}
CREATE FUNCTION bind_attempt(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    name_ text := doc->>'machine';
    locked record;
    one record;
    held bigint;
BEGIN
    SELECT * INTO locked FROM lock_machine(doc, name_);
    IF locked.refusal IS NOT NULL THEN
        RETURN locked.refusal;
    END IF;
    SELECT * INTO one FROM lock_binding(doc);
    IF one.refusal IS NOT NULL THEN
        RETURN one.refusal;
    END IF;
    IF coalesce((one.attempt_).state, 'ended') = 'ended' OR (locked.machine_).name IS NULL THEN
        RETURN is_done(doc, false, NULL);
    ELSIF (one.binding_).machine = name_ AND (one.binding_).state IN ('bound', 'taken') THEN
        RETURN is_done(doc, true, '{}');
    END IF;
    held := count_held(name_);
    IF coalesce((one.binding_).state, 'unbound') <> 'unbound' OR (one.binding_).stop_grace_s IS NOT NULL
            OR (locked.machine_).state <> 'ready' OR (locked.machine_).drain_asked_at IS NOT NULL
            OR held >= (locked.machine_).slots THEN
        RETURN is_done(doc, false, NULL);
    END IF;
    INSERT INTO bindings (uid, number, pool, machine, state)
        VALUES (doc->>'uid', (doc->>'number')::integer, doc->>'pool', name_, 'bound')
        ON CONFLICT (uid, number) DO UPDATE SET machine = name_, state = 'bound';
    RETURN is_done(doc, true, topics_of(doc->>'uid', name_));
END $$;

-- {"pool", "epoch", "uid", "number"} -> {"done"}
CREATE FUNCTION unbind_attempt(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one record;
BEGIN
    SELECT * INTO one FROM lock_binding(doc);
    IF one.refusal IS NOT NULL THEN
        RETURN one.refusal;
    ELSIF coalesce((one.binding_).state, 'unbound') <> 'bound' THEN
        RETURN is_done(doc, coalesce((one.binding_).state, 'unbound') = 'unbound', '{}');
    END IF;
    UPDATE bindings SET state = 'unbound', machine = NULL WHERE uid = doc->>'uid' AND number = (one.binding_).number;
    RETURN is_done(doc, true, topics_of(doc->>'uid', (one.binding_).machine));
END $$;

-- {"pool", "epoch", "uid", "number", "grace_s"}
CREATE FUNCTION stop_attempt(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one record;
BEGIN
    SELECT * INTO one FROM lock_binding(doc);
    IF one.refusal IS NOT NULL THEN
        RETURN one.refusal;
    ELSIF (one.attempt_).uid IS NULL THEN
        RETURN is_done(doc, false, NULL);
    END IF;
    INSERT INTO bindings AS b (uid, number, pool, state, stop_grace_s)
        VALUES (doc->>'uid', (doc->>'number')::integer, doc->>'pool', 'unbound', (doc->>'grace_s')::double precision)
        ON CONFLICT (uid, number) DO UPDATE SET stop_grace_s = coalesce(b.stop_grace_s, excluded.stop_grace_s);
    RETURN is_done(doc, true, topics_of(doc->>'uid', (one.binding_).machine));
END $$;

-- {"pool", "epoch", "uid", "number", "outcome"} -> {"done", "outcome": the one that stands}
CREATE FUNCTION end_attempt_of(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one record;
    state_ text;
BEGIN
    SELECT * INTO one FROM lock_binding(doc);
    state_ := coalesce((one.binding_).state, 'unbound');
    IF one.refusal IS NOT NULL THEN
        RETURN one.refusal;
    ELSIF state_ = 'ended' THEN
        RETURN is_done(doc, true, '{}') || jsonb_build_object('outcome', (one.binding_).outcome);
    ELSIF (one.attempt_).uid IS NULL OR (state_ = 'taken' AND NOT is_fenced((one.binding_).machine)) THEN
        RETURN is_done(doc, false, NULL);
    END IF;
    INSERT INTO bindings AS b (uid, number, pool, state, outcome)
        VALUES (doc->>'uid', (doc->>'number')::integer, doc->>'pool', 'ended', doc->>'outcome')
        ON CONFLICT (uid, number) DO UPDATE SET state = 'ended', outcome = excluded.outcome,
            machine = CASE WHEN b.state = 'taken' THEN b.machine END;
    RETURN is_done(doc, true, topics_of(doc->>'uid', (one.binding_).machine))
        || jsonb_build_object('outcome', doc->>'outcome');
END $$;

-- {"pool", "epoch", "uid", "number"} -> {"done"}
CREATE FUNCTION release_attempt_of(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one record;
    topics text[];
BEGIN
    SELECT * INTO one FROM lock_binding(doc);
    topics := topics_of(doc->>'uid', (one.binding_).machine);
    IF one.refusal IS NOT NULL THEN
        RETURN one.refusal;
    ELSIF (one.binding_).taken_at IS NOT NULL AND NOT is_fenced((one.binding_).machine) THEN
        UPDATE bindings SET is_unwanted = 1 WHERE uid = doc->>'uid' AND number = (one.binding_).number;
        RETURN is_done(doc, true, topics) || '{"done": false}';
    END IF;
    DELETE FROM bindings WHERE uid = doc->>'uid' AND number = (doc->>'number')::integer;
    RETURN is_done(doc, true, topics);
END $$;

-- What a machine does itself: by its name and without a fence, for it serves whoever owns its pool.

-- {"name", "slots", "facts"}
CREATE FUNCTION contact_machine(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    machine_ machines;
    now_ double precision;
BEGIN
    SELECT * INTO machine_ FROM machines WHERE name = doc->>'name' FOR UPDATE;
    IF NOT FOUND OR machine_.state = 'gone' THEN
        RETURN '{"topics": []}';
    END IF;
    now_ := moment(doc);
    UPDATE machines SET contact_at = now_, slots = coalesce((doc->>'slots')::bigint, slots),
            facts = (facts::jsonb || (doc->'facts'))::text
        WHERE name = machine_.name;
    IF machine_.state NOT IN ('intended', 'starting') THEN
        RETURN '{"topics": []}';
    END IF;
    PERFORM set_machine(machine_.name, 'ready', '{}', now_);
    RETURN is_done(doc, true, ARRAY['machines:' || machine_.pool]);
END $$;

-- Locks the attempt for its machine and reads the binding.
CREATE FUNCTION lock_taken(doc jsonb, OUT attempt_ attempts, OUT binding_ bindings) LANGUAGE plpgsql AS $$
BEGIN
    SELECT * INTO attempt_ FROM attempts WHERE uid = doc->>'uid' AND number = (doc->>'number')::integer
        FOR NO KEY UPDATE;
    SELECT * INTO binding_ FROM bindings WHERE uid = attempt_.uid AND number = attempt_.number
        AND machine = doc->>'machine';
END $$;

-- {"machine", "uid", "number"} -> {"done"}
CREATE FUNCTION take_attempt(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one record;
    state_ text;
BEGIN
    SELECT * INTO one FROM lock_taken(doc);
    state_ := (one.binding_).state;
    IF state_ IS NULL OR (one.attempt_).state = 'ended' OR state_ NOT IN ('bound', 'taken') THEN
        RETURN is_done(doc, false, NULL);
    ELSIF state_ = 'taken' THEN
        RETURN is_done(doc, (one.binding_).is_unwanted = 0 AND EXISTS (SELECT FROM machines
            WHERE name = doc->>'machine'), '{}');
    ELSIF (one.binding_).stop_grace_s IS NOT NULL
            OR NOT EXISTS (SELECT FROM machines WHERE name = doc->>'machine' AND state = 'ready') THEN
        RETURN is_done(doc, false, NULL);
    END IF;
    UPDATE bindings SET state = 'taken', taken_at = moment(doc)
        WHERE uid = doc->>'uid' AND number = (one.binding_).number;
    RETURN is_done(doc, true, ARRAY['job:' || (doc->>'uid')]);
END $$;

-- {"machine", "uid", "number", "phases", "outcome", "outputs"} -> {"done": whether it is this machine's}
CREATE FUNCTION report_attempt(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one record;
    state_ text;
BEGIN
    SELECT * INTO one FROM lock_taken(doc);
    state_ := (one.binding_).state;
    IF state_ IS NULL OR state_ NOT IN ('taken', 'ended') THEN
        RETURN is_done(doc, false, NULL);
    ELSIF state_ = 'ended' THEN
        RETURN is_done(doc, true, '{}');
    END IF;
    UPDATE bindings SET phases = merge_phases(phases, doc->'phases')::text, outcome = doc->>'outcome',
            outputs = (outputs::jsonb || (doc->>'outputs')::jsonb)::text,
            state = CASE WHEN doc->>'outcome' IS NULL THEN state ELSE 'ended' END
        WHERE uid = doc->>'uid' AND number = (one.binding_).number;
    RETURN is_done(doc, true, ARRAY['job:' || (doc->>'uid')]);
END $$;

-- {"machine", "uid", "number"}
CREATE FUNCTION drop_attempt(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one record;
BEGIN
    SELECT * INTO one FROM lock_taken(doc);
    DELETE FROM bindings WHERE uid = doc->>'uid' AND number = (one.binding_).number AND machine = doc->>'machine'
        AND is_unwanted = 1;
    RETURN is_done(doc, FOUND, topics_of(doc->>'uid', doc->>'machine'));
END $$;
