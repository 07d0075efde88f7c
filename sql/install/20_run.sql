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
    streams jsonb,
    erased bigint NOT NULL DEFAULT 0,
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
COMMENT ON TABLE @extschema@.sync_runs IS 'One row for each run: a sync, backfill, upload, webhook, check or preview. Ended runs are kept as history for connector_service.run_retention. received = inserted + updated + unchanged + quarantined + deleted, always: the counters commit in one transaction with the rows that they count.';
COMMENT ON CONSTRAINT sync_runs_requested_by_is_bounded ON @extschema@.sync_runs IS 'It holds the name of a role, or one word.';
COMMENT ON CONSTRAINT sync_runs_error_message_is_bounded ON @extschema@.sync_runs IS 'Runs are read by the thousand.';
COMMENT ON CONSTRAINT sync_runs_waiting_for_is_bounded ON @extschema@.sync_runs IS 'Runs are read by the thousand.';
COMMENT ON COLUMN @extschema@.sync_runs.run_id IS 'Id of the run.';
COMMENT ON COLUMN @extschema@.sync_runs.connector_id IS 'Connector that the run is for.';
COMMENT ON COLUMN @extschema@.sync_runs.tenant_id IS 'Tenant of the connector.';
COMMENT ON COLUMN @extschema@.sync_runs.kind IS 'Kind of run: sync, backfill, upload, webhook, check or preview.';
COMMENT ON COLUMN @extschema@.sync_runs.requested_by IS 'Who asked for the run: the name of a role; schedule, where the connector was due; retry, where an earlier run failed; webhook, where a vendor told of a change. At most 1024 bytes.';
COMMENT ON COLUMN @extschema@.sync_runs.state IS 'queued, running, succeeded, failed or cancelled.';
COMMENT ON COLUMN @extschema@.sync_runs.attempt IS 'How often a worker has taken up the run. Times that ended in a wait do not count. More than 1: a worker ended in the middle of the run.';
COMMENT ON COLUMN @extschema@.sync_runs.token IS 'Fencing token of the worker that has the run. Each write of the worker names it. NULL unless the run is running.';
COMMENT ON COLUMN @extschema@.sync_runs.window_from IS 'Earliest time that the run asks its source for. NULL: everything.';
COMMENT ON COLUMN @extschema@.sync_runs.window_to IS 'Latest time that the run asks its source for.';
COMMENT ON COLUMN @extschema@.sync_runs.requested_at IS 'Time at which the run was queued.';
COMMENT ON COLUMN @extschema@.sync_runs.started_at IS 'Time at which a worker took up the run. NULL: it has not started yet.';
COMMENT ON COLUMN @extschema@.sync_runs.heartbeat_at IS 'Time at which the run last stored a page.';
COMMENT ON COLUMN @extschema@.sync_runs.finished_at IS 'Time at which the run ended. NULL: it has not ended.';
COMMENT ON COLUMN @extschema@.sync_runs.pages IS 'Number of pages that are stored.';
COMMENT ON COLUMN @extschema@.sync_runs.received IS 'Number of records that were received.';
COMMENT ON COLUMN @extschema@.sync_runs.inserted IS 'Number of records that were stored for the first time.';
COMMENT ON COLUMN @extschema@.sync_runs.updated IS 'Number of known records whose content was different.';
COMMENT ON COLUMN @extschema@.sync_runs.unchanged IS 'Number of records that needed no write: they are equal to what is stored, or the same page has a newer version of them.';
COMMENT ON COLUMN @extschema@.sync_runs.quarantined IS 'Number of records that could not be stored. See the table quarantine.';
COMMENT ON COLUMN @extschema@.sync_runs.deleted IS 'Number of records that the source reported as deleted, or that it does not show any more.';
COMMENT ON COLUMN @extschema@.sync_runs.bytes IS 'Size of all response bodies in bytes, after decompression.';
COMMENT ON COLUMN @extschema@.sync_runs.unmapped IS 'Number of the inserted and updated records that a mapping could not read. They are stored, are in the table quarantine too, and count in no metric.';
COMMENT ON COLUMN @extschema@.sync_runs.error_code IS 'Word that tells what went wrong, such as rate_limited. The words do not change between versions; connector_service_hint() says what to do. On a run that is not over: what interrupted it last.';
COMMENT ON COLUMN @extschema@.sync_runs.error_message IS 'What went wrong, in words and without secrets. At most 16384 bytes.';
COMMENT ON COLUMN @extschema@.sync_runs.retry_at IS 'Of a queued run: it waits until this time; infinity for a window of a backfill that waits for earlier windows. Of a failed run: the time at which the connector is tried again by itself.';
COMMENT ON COLUMN @extschema@.sync_runs.waiting_for IS 'Why a queued or running run waits, such as a pause that the vendor asked for. NULL: it does not wait. At most 16384 bytes.';
COMMENT ON COLUMN @extschema@.sync_runs.waits IS 'How often the run went back to the queue because the vendor asked for a longer pause. A pause is no failure.';
COMMENT ON COLUMN @extschema@.sync_runs.failures IS 'How often the run went back to the queue after a failure. A file or a window of a backfill is tried again by itself.';
COMMENT ON COLUMN @extschema@.sync_runs.warnings IS 'What a person should know although nothing failed, one sentence for each item.';
COMMENT ON COLUMN @extschema@.sync_runs.report IS 'JSON array of a check or preview, with one object for each stream: "stream", "summary" and details. NULL for other kinds.';
COMMENT ON COLUMN @extschema@.sync_runs.worker IS 'Number of the sync worker that last took up the run, from 1. See connector_service.sync_workers.';
COMMENT ON COLUMN @extschema@.sync_runs.backfill_step IS 'Of a backfill: number of the window that this run reads, from 1. Windows are read one after the other.';
COMMENT ON COLUMN @extschema@.sync_runs.backfill_steps IS 'Of a backfill: number of its windows.';
COMMENT ON COLUMN @extschema@.sync_runs.progress IS 'Of a backfill that is not over: JSON object with the cursor of each stream, as in sync_state. A backfill does not change sync_state.';
COMMENT ON COLUMN @extschema@.sync_runs.asked_again IS 'Whether a webhook told of a change while the run was running. Another run follows it then.';
COMMENT ON COLUMN @extschema@.sync_runs.streams IS 'JSON object with one entry for each stream that the run reads. "state": waiting (its turn is still to come, or the run goes on with it later), reading, ok (read to its end), failed, skipped (not read, or not to its end, because of what "error" says), absent (the vendor does not have it). "pages", "received": what came. "cursor": the greatest cursor value that is stored. "error": "code" and "message", or null. NULL before the first page.';
COMMENT ON COLUMN @extschema@.sync_runs.erased IS 'Number of the inserted and updated records whose JSON was dropped again, because an erasure names them. See erasures.';
COMMENT ON COLUMN @extschema@.sync_runs.queued_at IS 'When the run was last ready to be taken up: when it was requested, or when its wait was over.';

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
COMMENT ON TABLE @extschema@.rate_budgets IS 'What vendors said about the accounts that connectors call. All connectors and runs of an account share its allowance and its pauses, and a pause outlives a restart of the server. The sync worker writes these rows, and reads them when it starts. To end a pause by hand, delete the row and restart the worker with pg_terminate_backend().';
COMMENT ON CONSTRAINT rate_budgets_account_is_bounded ON @extschema@.rate_budgets IS 'An index entry holds no more.';
COMMENT ON CONSTRAINT rate_budgets_reason_is_bounded ON @extschema@.rate_budgets IS 'A run that waits shows it.';
COMMENT ON COLUMN @extschema@.rate_budgets.tenant_id IS 'Tenant whose connectors call the account.';
COMMENT ON COLUMN @extschema@.rate_budgets.account IS 'Account at the vendor, in words that are safe to show. At most 1024 bytes.';
COMMENT ON COLUMN @extschema@.rate_budgets.rests_until IS 'Time until which the account is not called. NULL or in the past: it may be called.';
COMMENT ON COLUMN @extschema@.rate_budgets.reason IS 'Why the account is not called. At most 16384 bytes.';
COMMENT ON COLUMN @extschema@.rate_budgets.used IS 'How much of the allowance is used up, as the vendor last said. NULL: the vendor does not say.';
COMMENT ON COLUMN @extschema@.rate_budgets.allowed IS 'Size of the allowance, in the vendor''s unit. For Salesforce: API calls in 24 hours.';
COMMENT ON COLUMN @extschema@.rate_budgets.updated_at IS 'Time at which the vendor last said something about the account.';

CREATE TABLE @extschema@.sync_state (
    connector_id uuid CONSTRAINT sync_state_connector_fkey REFERENCES @extschema@.connectors ON DELETE CASCADE,
    stream text CONSTRAINT sync_state_stream_is_bounded CHECK (pg_catalog.octet_length(stream) <= 1024),
    cursor jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT sync_state_pkey PRIMARY KEY (connector_id, stream)
) WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.sync_state IS 'One row for each connector and stream that was read: how far it was read. It commits in one transaction with the records. To read a stream again from its start, use connector_service_refresh() or delete the row.';
COMMENT ON CONSTRAINT sync_state_stream_is_bounded ON @extschema@.sync_state IS 'An index entry holds no more.';
COMMENT ON COLUMN @extschema@.sync_state.connector_id IS 'Connector of the stream.';
COMMENT ON COLUMN @extschema@.sync_state.stream IS 'Name of the stream. At most 1024 bytes.';
COMMENT ON COLUMN @extschema@.sync_state.cursor IS 'JSON object. "at": the greatest cursor value that is stored. "pass": the next page of a pass that is not finished. "read_until": when the latest complete pass began. "finished_by": the run that finished the latest pass; this run does not read the stream again after a crash.';
COMMENT ON COLUMN @extschema@.sync_state.updated_at IS 'Time at which the row was last written.';

CREATE TABLE @extschema@.sync_requests (
    run_id uuid CONSTRAINT sync_requests_run_fkey REFERENCES @extschema@.sync_runs ON DELETE CASCADE,
    request bigint,
    connector_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    requested_at timestamptz NOT NULL,
    stream text,
    method text NOT NULL,
    address text NOT NULL,
    status integer,
    error_code text,
    duration interval NOT NULL,
    bytes bigint NOT NULL,
    records bigint,
    tries integer NOT NULL,
    pause interval NOT NULL,
    CONSTRAINT sync_requests_pkey PRIMARY KEY (run_id, request)
);
CREATE INDEX sync_requests_age ON @extschema@.sync_requests (requested_at);
COMMENT ON TABLE @extschema@.sync_requests IS 'The last 200 requests of a run that failed, and of every run of a connector with "trace": true in its config. They are written when the run ends, deleted with the run, and kept for connector_service.request_retention. They hold no header, no body, no value of a query, and nothing secret.';
COMMENT ON COLUMN @extschema@.sync_requests.run_id IS 'Run that made the request.';
COMMENT ON COLUMN @extschema@.sync_requests.request IS 'Number of the request within what is kept of its run, in the order in which the requests ended.';
COMMENT ON COLUMN @extschema@.sync_requests.connector_id IS 'Connector of the run.';
COMMENT ON COLUMN @extschema@.sync_requests.tenant_id IS 'Tenant of the connector.';
COMMENT ON COLUMN @extschema@.sync_requests.requested_at IS 'Time at which the request was made.';
COMMENT ON COLUMN @extschema@.sync_requests.stream IS 'Stream that the request was for. NULL: a login.';
COMMENT ON COLUMN @extschema@.sync_requests.method IS 'GET or POST; SQL for a statement on a database.';
COMMENT ON COLUMN @extschema@.sync_requests.address IS 'Address without a user and without the values of its query. *** stands for what may be secret. At most 500 characters.';
COMMENT ON COLUMN @extschema@.sync_requests.status IS 'HTTP status. NULL: no complete answer came, or the source is a database.';
COMMENT ON COLUMN @extschema@.sync_requests.error_code IS 'What was wrong with the answer, as in sync_runs.error_code. NULL: it was read.';
COMMENT ON COLUMN @extschema@.sync_requests.duration IS 'Time until the whole answer was there, or until the request failed.';
COMMENT ON COLUMN @extschema@.sync_requests.bytes IS 'Size of the answer in bytes, after decompression.';
COMMENT ON COLUMN @extschema@.sync_requests.records IS 'Number of records or rows in the answer. NULL: it was not read.';
COMMENT ON COLUMN @extschema@.sync_requests.tries IS 'Number of this try of the same request, from 1.';
COMMENT ON COLUMN @extschema@.sync_requests.pause IS 'How long the run waited before the request: for the rate limit, or after a failed try.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.sync_runs', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.sync_requests', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.sync_state', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.rate_budgets', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
