-- The append: documents first (a lost race ends there), the head row last (held as short as can be). One call, one
-- transaction, many commands.
--
-- Raises CU001 with the stale streams as a JSON array in DETAIL, or CU002 with the reservations somebody else holds (or
-- anybody, in the scopes that must be vacant) as [[scope, key, holder, note], ...]; nothing is written then.
CREATE OR REPLACE FUNCTION append(
    c_stream text[], c_version integer[],
    d_stream text[], d_expected integer[], d_version integer[], d_kind text[], d_id text[], d_project text[],
    d_parent text[], d_name text[], d_created timestamptz[], d_updated timestamptz[], d_deadline timestamptz[],
    d_gone boolean[], d_state text[],
    r_drop_scope text[], r_drop_key text[],
    r_scope text[], r_key text[], r_stream text[], r_note text[], r_vacant text[],
    v_id text[], v_subject text[], v_sealed bytea[], v_forgotten text[],
    e_stream text[], e_version integer[], e_type text[], e_at timestamptz[], e_partition smallint[], e_actor text[],
    e_correlation text[], e_causation text[], e_data text[],
    OUT base bigint, OUT chain bytea
) LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    n       CONSTANT integer := cardinality(e_stream);
    fresh   integer := 0;
    rows    integer;
    stale   json;
    taken   json;
    data    jsonb[];
    actors  jsonb[];
    hashes  bytea[];
    mine    text[];
BEGIN
    IF cardinality(c_stream) > 0 THEN
        PERFORM FROM documents WHERE stream = ANY (c_stream) ORDER BY stream FOR SHARE;
        SELECT json_agg(c.stream) INTO stale
        FROM unnest(c_stream, c_version) AS c (stream, version) LEFT JOIN documents d ON d.stream = c.stream
        WHERE coalesce(d.version, 0) <> c.version;
        IF stale IS NOT NULL THEN
            RAISE EXCEPTION 'stale' USING ERRCODE = 'CU001', DETAIL = stale::text;
        END IF;
    END IF;

    UPDATE documents d
    SET version = u.version, project_id = u.project_id, parent_id = u.parent_id, name = u.name,
        created_at = u.created, updated_at = u.updated, deadline = u.deadline, gone = u.gone, state = u.state::jsonb
    FROM unnest(d_stream, d_expected, d_version, d_project, d_parent, d_name, d_created, d_updated, d_deadline, d_gone,
                d_state)
        AS u (stream, expected, version, project_id, parent_id, name, created, updated, deadline, gone, state)
    WHERE u.expected > 0 AND d.stream = u.stream AND d.version = u.expected;
    GET DIAGNOSTICS rows = ROW_COUNT;

    IF rows < cardinality(d_stream) THEN
        INSERT INTO documents
        SELECT u.stream, u.kind, u.id, u.version, u.project_id, u.parent_id, u.name, u.created, u.updated, u.deadline,
               u.gone, u.state::jsonb
        FROM unnest(d_stream, d_expected, d_version, d_kind, d_id, d_project, d_parent, d_name, d_created, d_updated,
                    d_deadline, d_gone, d_state)
            AS u (stream, expected, version, kind, id, project_id, parent_id, name, created, updated, deadline, gone,
                  state)
        WHERE u.expected = 0
        ON CONFLICT (stream) DO NOTHING;
        GET DIAGNOSTICS fresh = ROW_COUNT;
    END IF;
    IF rows + fresh < cardinality(d_stream) THEN
        -- Ours are the ones that carry our version and differ from what was expected; the rest were not written.
        SELECT json_agg(u.stream) INTO stale
        FROM unnest(d_stream, d_expected, d_version, d_state) AS u (stream, expected, version, state)
        LEFT JOIN documents d ON d.stream = u.stream
        WHERE d.version IS DISTINCT FROM u.version OR d.state <> u.state::jsonb;
        RAISE EXCEPTION 'stale' USING ERRCODE = 'CU001', DETAIL = coalesce(stale, to_json(d_stream))::text;
    END IF;

    IF cardinality(r_drop_key) > 0 THEN
        DELETE FROM reservations r USING unnest(r_drop_scope, r_drop_key) AS u (scope, key)
        WHERE r.scope = u.scope AND r.key = u.key;
    END IF;
    IF cardinality(r_key) > 0 THEN
        WITH ours AS (
            INSERT INTO reservations (scope, key, stream, note)
            SELECT * FROM unnest(r_scope, r_key, r_stream, r_note) ON CONFLICT DO NOTHING RETURNING scope, key
        )
        SELECT coalesce(array_agg(scope || E'\x1f' || key), '{}') INTO mine FROM ours;
        IF cardinality(mine) < cardinality(r_key) THEN
            -- What the stream held already is fine, except a command's key: that one was spent.
            SELECT json_agg(json_build_array(r.scope, r.key, r.stream, r.note))
                   FILTER (WHERE r.stream <> u.stream OR u.scope = 'command'), count(r.key)
            INTO taken, rows
            FROM unnest(r_scope, r_key, r_stream) AS u (scope, key, stream)
            LEFT JOIN reservations r ON r.scope = u.scope AND r.key = u.key
            WHERE u.scope || E'\x1f' || u.key <> ALL (mine);
            IF taken IS NOT NULL THEN
                RAISE EXCEPTION 'taken' USING ERRCODE = 'CU002', DETAIL = taken::text;
            END IF;
            IF rows + cardinality(mine) < cardinality(r_key) THEN
                -- Its holder let go between the two statements: neither taken nor ours. Once more, from the start.
                RAISE EXCEPTION 'stale' USING ERRCODE = 'CU001', DETAIL = to_json(d_stream)::text;
            END IF;
        END IF;
    END IF;
    IF cardinality(r_vacant) > 0 THEN
        -- A statement of its own, after the documents are locked: it sees what was committed until then.
        SELECT json_agg(json_build_array(r.scope, r.key, r.stream, r.note)) INTO taken
        FROM unnest(r_vacant) AS v (scope)
        CROSS JOIN LATERAL (SELECT * FROM reservations WHERE reservations.scope = v.scope LIMIT 1) AS r;
        IF taken IS NOT NULL THEN
            RAISE EXCEPTION 'taken' USING ERRCODE = 'CU002', DETAIL = taken::text;
        END IF;
    END IF;
    IF cardinality(v_id) > 0 THEN
        INSERT INTO vault (id, subject, sealed) SELECT * FROM unnest(v_id, v_subject, v_sealed)
        ON CONFLICT (id) DO UPDATE SET sealed = EXCLUDED.sealed, subject = EXCLUDED.subject, at = now();
    END IF;
    IF cardinality(v_forgotten) > 0 THEN
        DELETE FROM vault WHERE id = ANY (v_forgotten);
    END IF;

    data := e_data::jsonb[];
    actors := e_actor::jsonb[];
    SELECT position, hash INTO STRICT base, chain FROM head FOR UPDATE;
    FOR i IN 1 .. n LOOP
        chain := sha256(chain || convert_to(concat_ws(E'\x1f', base + i, e_stream[i], e_version[i], e_type[i],
            (extract(epoch FROM e_at[i]) * 1000000)::bigint, actors[i]::text, e_correlation[i], e_causation[i],
            data[i]::text), 'UTF8'));
        hashes[i] := chain;
    END LOOP;
    INSERT INTO events (position, stream, version, type, at, partition, actor, correlation, causation, data, hash)
    SELECT base + u.nth, u.stream, u.version, u.type, u.at, u.partition, u.actor, u.correlation, u.causation, u.data,
           u.hash
    FROM unnest(e_stream, e_version, e_type, e_at, e_partition, actors, e_correlation, e_causation, data, hashes)
        WITH ORDINALITY AS u (stream, version, type, at, partition, actor, correlation, causation, data, hash, nth);
    UPDATE head SET position = base + n, hash = chain;
END $$;
