-- run: every sync as a row; one cursor per connector and stream.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.sync_runs (
    run_id uuid CONSTRAINT sync_runs_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    connector_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    kind text NOT NULL DEFAULT 'sync' CONSTRAINT sync_runs_kind_is_known CHECK (kind IN ('sync', 'backfill', 'upload', 'webhook', 'check', 'preview')),
    requested_by text NOT NULL DEFAULT session_user CONSTRAINT sync_runs_requested_by_is_bounded CHECK (pg_catalog.octet_length(requested_by) <= 1024),
    state text NOT NULL DEFAULT 'queued' CONSTRAINT sync_runs_state_is_known CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    attempt integer NOT NULL DEFAULT 0,
    token uuid,
    window_from timestamptz,
    window_to timestamptz,
    requested_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    queued_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_at timestamptz,
    heartbeat_at timestamptz,
    finished_at timestamptz,
    pages bigint NOT NULL DEFAULT 0,
    received bigint NOT NULL DEFAULT 0,
    inserted bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    unmapped bigint NOT NULL DEFAULT 0,
    error_code text,
    error_message text CONSTRAINT sync_runs_error_message_is_bounded CHECK (pg_catalog.octet_length(error_message) <= 16384),
    retry_at timestamptz,
    waiting_for text CONSTRAINT sync_runs_waiting_for_is_bounded CHECK (pg_catalog.octet_length(waiting_for) <= 16384),
    waits integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    warnings text[] NOT NULL DEFAULT '{}',
    report jsonb,
    worker integer,
    backfill_step integer,
    backfill_steps integer,
    progress jsonb,
    asked_again boolean NOT NULL DEFAULT false,
    CONSTRAINT sync_runs_connector_fkey FOREIGN KEY (connector_id, tenant_id)
        REFERENCES @extschema@.connectors (connector_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT sync_runs_counters_add_up CHECK (received = inserted + updated + unchanged + quarantined + deleted),
    CONSTRAINT sync_runs_running_has_token CHECK ((state = 'running') = (token IS NOT NULL))
-- Half empty pages: the counters of a run are updated with every page, in place. And what ended is vacuumed soon: every look
-- at the queue steps over the dead entries of its indexes.
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_analyze_scale_factor = 0.05);
CREATE UNIQUE INDEX sync_runs_one_active ON @extschema@.sync_runs (connector_id) WHERE state IN ('queued', 'running') AND kind = 'sync';
-- No index has a column that changes with every page: an update of a row is then in place.
-- With the time at which a run came into the queue: while an old snapshot is kept, nothing of what has ended is cleaned away, and
-- a look passes over its entries without visiting the rows.
CREATE INDEX sync_runs_waiting ON @extschema@.sync_runs (tenant_id, (kind = 'backfill'), requested_at, queued_at) WHERE state = 'queued' AND retry_at IS NULL;
CREATE INDEX sync_runs_postponed ON @extschema@.sync_runs (retry_at) WHERE state = 'queued' AND retry_at IS NOT NULL;
-- If two runs of a connector asked for a token at once, each would make the other's refresh token invalid.
CREATE UNIQUE INDEX sync_runs_going ON @extschema@.sync_runs (connector_id) WHERE state = 'running';
CREATE INDEX sync_runs_backfills ON @extschema@.sync_runs (connector_id, requested_at, backfill_step) WHERE kind = 'backfill' AND state IN ('queued', 'running');
CREATE INDEX sync_runs_history ON @extschema@.sync_runs (connector_id, requested_at);
CREATE INDEX sync_runs_latest ON @extschema@.sync_runs (connector_id, kind, requested_at, run_id);
CREATE INDEX sync_runs_tenant ON @extschema@.sync_runs (tenant_id, requested_at DESC, run_id);
CREATE INDEX sync_runs_age ON @extschema@.sync_runs (requested_at);
COMMENT ON TABLE @extschema@.sync_runs IS 'Every sync as a row, kept as history. received = inserted + updated + unchanged + quarantined + deleted, always: the counters commit in one transaction with the rows they count.';
COMMENT ON CONSTRAINT sync_runs_requested_by_is_bounded ON @extschema@.sync_runs IS 'A role''s name, or a word.';
COMMENT ON CONSTRAINT sync_runs_error_message_is_bounded ON @extschema@.sync_runs IS 'Runs are read by the thousand.';
COMMENT ON CONSTRAINT sync_runs_waiting_for_is_bounded ON @extschema@.sync_runs IS 'Runs are read by the thousand.';
COMMENT ON COLUMN @extschema@.sync_runs.kind IS 'sync, backfill, upload, webhook, check or preview.';
COMMENT ON COLUMN @extschema@.sync_runs.requested_by IS 'Role that asked; "schedule" where the connector was due and the worker or connector_service_sync_due() found it so; "retry" where it failed before.';
COMMENT ON COLUMN @extschema@.sync_runs.state IS 'queued, running, succeeded, failed or cancelled.';
COMMENT ON COLUMN @extschema@.sync_runs.attempt IS 'How often a worker took the run up without it ending in a wait; above 1 only when a worker ended in the middle.';
COMMENT ON COLUMN @extschema@.sync_runs.token IS 'Fencing token of the worker that has the run; there only while it is running. Every write of that worker names it.';
COMMENT ON COLUMN @extschema@.sync_runs.queued_at IS 'When the run was last ready to be taken up: when it was asked for, or when its wait was over.';
COMMENT ON COLUMN @extschema@.sync_runs.window_from IS 'Earliest moment the run asked its source for; NULL: everything.';
COMMENT ON COLUMN @extschema@.sync_runs.window_to IS 'Latest moment the run asked its source for.';
COMMENT ON COLUMN @extschema@.sync_runs.heartbeat_at IS 'When the run last stored a page.';
COMMENT ON COLUMN @extschema@.sync_runs.pages IS 'Pages stored.';
COMMENT ON COLUMN @extschema@.sync_runs.received IS 'Records received.';
COMMENT ON COLUMN @extschema@.sync_runs.inserted IS 'Records seen for the first time.';
COMMENT ON COLUMN @extschema@.sync_runs.updated IS 'Known records whose content differs.';
COMMENT ON COLUMN @extschema@.sync_runs.unchanged IS 'Records that needed no write: equal to what is stored, or followed by a newer version in the same page.';
COMMENT ON COLUMN @extschema@.sync_runs.quarantined IS 'Records that could not be stored; see quarantine.';
COMMENT ON COLUMN @extschema@.sync_runs.deleted IS 'Records the source reported as deleted.';
COMMENT ON COLUMN @extschema@.sync_runs.bytes IS 'Bytes of all bodies, decompressed.';
COMMENT ON COLUMN @extschema@.sync_runs.unmapped IS 'Of the records inserted and updated: those that a mapping could not read. They are stored, in quarantine too, and do not count.';
COMMENT ON COLUMN @extschema@.sync_runs.error_code IS 'Stable word for what went wrong, such as rate_limited; on a run that goes on, what interrupted it.';
COMMENT ON COLUMN @extschema@.sync_runs.error_message IS 'What went wrong, in our own words, without secrets.';
COMMENT ON COLUMN @extschema@.sync_runs.retry_at IS 'Of a run that waits: until when; infinity for a window of a backfill that waits for those before it. Of a failed one: when its connector is tried again by itself.';
COMMENT ON COLUMN @extschema@.sync_runs.waiting_for IS 'Why a run that is queued or running asks for nothing at the moment: the vendor wants a pause, or is tried again. NULL: it does not wait.';
COMMENT ON COLUMN @extschema@.sync_runs.waits IS 'How often the run went back to the queue because the vendor wanted a longer pause. That is no failure.';
COMMENT ON COLUMN @extschema@.sync_runs.failures IS 'How often the run went back to the queue after a failure that it may survive: a file, or a window of a backfill, is tried again by itself.';
COMMENT ON COLUMN @extschema@.sync_runs.warnings IS 'What a person should know although nothing failed.';
COMMENT ON COLUMN @extschema@.sync_runs.report IS 'Of a check or preview: what it found, a list with one object for each stream.';

COMMENT ON COLUMN @extschema@.sync_runs.worker IS 'Which of the database''s sync workers took the run up last, from 1; see connector_service.sync_workers.';
COMMENT ON COLUMN @extschema@.sync_runs.backfill_step IS 'Of a backfill: which of its windows this run reads, from 1. They are read one after the other.';
COMMENT ON COLUMN @extschema@.sync_runs.backfill_steps IS 'Of a backfill: how many windows it has.';
COMMENT ON COLUMN @extschema@.sync_runs.progress IS 'Of a backfill that is not over: where each stream stands, as sync_state.cursor is for syncs, which a backfill leaves alone.';

COMMENT ON COLUMN @extschema@.sync_runs.asked_again IS 'Whether a webhook told of a change while the run was going: another one follows it.';

CREATE FUNCTION _connector_service.connector_service_queued() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.queued_at := pg_catalog.clock_timestamp();
    RETURN NEW;
END $$;
COMMENT ON FUNCTION _connector_service.connector_service_queued() IS 'Trigger: a run that comes back into the queue has come into it now.';
CREATE TRIGGER sync_runs_before_queued BEFORE UPDATE OF state, retry_at ON @extschema@.sync_runs
    FOR EACH ROW WHEN (NEW.state = 'queued' AND NEW.retry_at IS NULL AND (OLD.state <> 'queued' OR OLD.retry_at IS NOT NULL))
    EXECUTE FUNCTION _connector_service.connector_service_queued();
COMMENT ON TRIGGER sync_runs_before_queued ON @extschema@.sync_runs IS 'A run that comes back into the queue is found by workers that know what was in it before.';

CREATE TABLE @extschema@.rate_budgets (
    tenant_id uuid CONSTRAINT rate_budgets_tenant_fkey REFERENCES @extschema@.tenants ON DELETE CASCADE,
    account text CONSTRAINT rate_budgets_account_is_bounded CHECK (pg_catalog.octet_length(account) <= 1024),
    rests_until timestamptz,
    reason text CONSTRAINT rate_budgets_reason_is_bounded CHECK (pg_catalog.octet_length(reason) <= 16384),
    used bigint,
    allowed bigint,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT rate_budgets_pkey PRIMARY KEY (tenant_id, account)
) WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.rate_budgets IS 'What vendors said of the accounts that connectors call: everything that calls an account shares its allowance, and a pause that a vendor asked for outlives the server. Written by the worker, which reads it when it starts: to end a pause by hand, delete the row and have the worker started again by pg_terminate_backend().';
COMMENT ON CONSTRAINT rate_budgets_account_is_bounded ON @extschema@.rate_budgets IS 'A row of the index holds no more.';
COMMENT ON CONSTRAINT rate_budgets_reason_is_bounded ON @extschema@.rate_budgets IS 'It is what a run shows that waits.';
COMMENT ON COLUMN @extschema@.rate_budgets.account IS 'The account at the vendor, in words that are safe to show.';
COMMENT ON COLUMN @extschema@.rate_budgets.rests_until IS 'Until when nothing of the account is called; NULL or past: it is.';
COMMENT ON COLUMN @extschema@.rate_budgets.reason IS 'Why it rests.';
COMMENT ON COLUMN @extschema@.rate_budgets.used IS 'How much of its allowance the vendor last said is used up; NULL where it does not say.';
COMMENT ON COLUMN @extschema@.rate_budgets.allowed IS 'The allowance, in the vendor''s unit: of Salesforce, calls in 24 hours.';

CREATE TABLE @extschema@.sync_state (
    connector_id uuid CONSTRAINT sync_state_connector_fkey REFERENCES @extschema@.connectors ON DELETE CASCADE,
    stream text CONSTRAINT sync_state_stream_is_bounded CHECK (pg_catalog.octet_length(stream) <= 1024),
    cursor jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT sync_state_pkey PRIMARY KEY (connector_id, stream)
) WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.sync_state IS 'Where each stream stands; commits in one transaction with the rows it speaks of. Delete a row to read its stream from the start again.';
COMMENT ON CONSTRAINT sync_state_stream_is_bounded ON @extschema@.sync_state IS 'A row of the index holds no more.';
COMMENT ON COLUMN @extschema@.sync_state.cursor IS '"at": the greatest source value of all that is stored; "pass": there while a pass is unfinished, with the next page to ask for; "read_until": when the latest complete pass began; "finished_by": the run that finished the latest pass, which does not read the stream again when it is taken up after a crash.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.sync_runs', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.sync_state', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.rate_budgets', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
