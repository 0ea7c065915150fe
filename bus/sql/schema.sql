-- The whole of a cell's memory. Applied at every start; every statement may run again.

-- How far the log reaches and the hash of its last event. One row: the lock that makes positions dense.
CREATE TABLE IF NOT EXISTS head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL DEFAULT 0,
    hash     bytea  NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    cell     uuid   NOT NULL DEFAULT gen_random_uuid()
) WITH (fillfactor = 10);
INSERT INTO head DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Every event there ever was, in one order. Ranges of positions are partitions, so old ones can be detached whole.
CREATE TABLE IF NOT EXISTS events (
    position    bigint      NOT NULL PRIMARY KEY,
    stream      text        COLLATE "C" NOT NULL,
    version     integer     NOT NULL,
    type        text        COLLATE "C" NOT NULL,
    at          timestamptz NOT NULL,
    partition   smallint    NOT NULL,
    actor       jsonb       NOT NULL,
    correlation text        COLLATE "C" NOT NULL,
    causation   text        COLLATE "C" NOT NULL,
    data        jsonb       NOT NULL,
    hash        bytea       NOT NULL
) PARTITION BY RANGE (position);
CREATE INDEX IF NOT EXISTS events_stream ON events (stream, version);
CREATE INDEX IF NOT EXISTS events_at ON events USING brin (at);

CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are immutable: % on % is refused', TG_OP, TG_TABLE_NAME
        USING HINT = 'A wrong fact is corrected by a new event.';
END $$;

-- Partitions for the next `ahead` positions exist after this; size is fixed for the life of a log.
CREATE OR REPLACE FUNCTION ensure_partitions(ahead bigint DEFAULT 10000000) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    size CONSTANT bigint := 5000000;
    first bigint := (SELECT position FROM head) / size;
    made integer := 0;
BEGIN
    FOR n IN first .. first + ahead / size LOOP
        IF to_regclass(format('events_%s', n)) IS NULL THEN
            EXECUTE format('CREATE TABLE events_%s PARTITION OF events FOR VALUES FROM (%s) TO (%s)',
                           n, n * size, (n + 1) * size);
            EXECUTE format('CREATE TRIGGER events_are_not_truncated BEFORE TRUNCATE ON events_%s'
                           ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', n);
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
SELECT ensure_partitions();

CREATE OR REPLACE TRIGGER events_are_immutable BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE OR REPLACE TRIGGER events_are_not_truncated BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The present state of every stream, written with its events; its version is the optimistic lock.
CREATE TABLE IF NOT EXISTS documents (
    stream     text        COLLATE "C" PRIMARY KEY,
    kind       text        COLLATE "C" NOT NULL,
    id         text        COLLATE "C" NOT NULL,
    version    integer     NOT NULL,
    project_id text        COLLATE "C",
    parent_id  text        COLLATE "C",
    name       text        COLLATE "C",
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deadline   timestamptz,
    gone       boolean     NOT NULL,
    state      jsonb       NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS documents_listed ON documents (kind, project_id, created_at, id) WHERE NOT gone;
CREATE INDEX IF NOT EXISTS documents_of_kind ON documents (kind, gone, created_at, id);
CREATE INDEX IF NOT EXISTS documents_of_parent ON documents (kind, parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS documents_named ON documents (kind, name) WHERE NOT gone;
CREATE INDEX IF NOT EXISTS documents_due ON documents (deadline) WHERE deadline IS NOT NULL;

-- What must be unique across streams: names, addresses, idempotency keys. Taken and released with the events.
CREATE TABLE IF NOT EXISTS reservations (
    scope  text COLLATE "C" NOT NULL,
    key    text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,
    note   text NOT NULL DEFAULT '',
    at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, key)
);
CREATE INDEX IF NOT EXISTS reservations_of_stream ON reservations (stream);

-- Secrets, sealed under a key of their subject; keys, sealed under the master key that is not in this database.
CREATE TABLE IF NOT EXISTS vault_keys (
    id     text COLLATE "C" PRIMARY KEY,
    sealed bytea NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS vault (
    id      text COLLATE "C" PRIMARY KEY,
    subject text COLLATE "C" NOT NULL,
    sealed  bytea NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);

-- How far each consumer has come. It moves by compare-and-swap, in the same transaction as its effect.
CREATE TABLE IF NOT EXISTS checkpoints (
    consumer  text COLLATE "C" NOT NULL,
    partition smallint NOT NULL,
    position  bigint NOT NULL,
    hash      bytea,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, partition)
) WITH (fillfactor = 50);

-- Streams a consumer could not digest: set aside, with the reason, so that the others go on.
CREATE TABLE IF NOT EXISTS parked (
    consumer text COLLATE "C" NOT NULL,
    stream   text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    error    text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, stream)
);

-- Ranges of the log that live in files now; replay reads them from there. hash: the chain's at the last of them.
CREATE TABLE IF NOT EXISTS archives (
    first  bigint PRIMARY KEY,
    last   bigint NOT NULL,
    path   text NOT NULL,
    sha256 bytea NOT NULL,
    hash   bytea NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
);
