-- raw: every record as it came; every record that could not be stored, with its reason.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.raw_connector_data (
    raw_id uuid CONSTRAINT raw_connector_data_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    tenant_id uuid NOT NULL,
    connector_id uuid NOT NULL,
    source_type text NOT NULL,
    stream text NOT NULL,
    source_record_id text COLLATE "C" NOT NULL,
    data jsonb NOT NULL,
    content_hash bytea,
    ingested_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    processed boolean NOT NULL DEFAULT false,
    deleted boolean NOT NULL DEFAULT false,
    run_id uuid,
    source_version timestamptz,
    CONSTRAINT raw_connector_data_record_key UNIQUE (connector_id, source_record_id),
    CONSTRAINT raw_connector_data_connector_fkey FOREIGN KEY (connector_id, tenant_id)
        REFERENCES @extschema@.connectors (connector_id, tenant_id)
-- PostgreSQL's default, a fifth of the rows, would leave too many dead rows in a table of millions.
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX idx_raw_tenant ON @extschema@.raw_connector_data (tenant_id, ingested_at);
CREATE INDEX idx_raw_unprocessed ON @extschema@.raw_connector_data (connector_id, ingested_at) WHERE NOT processed;
COMMENT ON TABLE @extschema@.raw_connector_data IS 'Every record of every source, once, as it came. A record that is read again updates its row only if its content differs.';
COMMENT ON COLUMN @extschema@.raw_connector_data.raw_id IS 'Time-ordered (UUIDv7) where the worker made it.';
COMMENT ON COLUMN @extschema@.raw_connector_data.source_type IS 'The connector''s type.';
COMMENT ON COLUMN @extschema@.raw_connector_data.stream IS 'Which of the source''s streams the record belongs to, such as orders.';
COMMENT ON COLUMN @extschema@.raw_connector_data.source_record_id IS 'The stream, a slash, and the vendor''s id (orders/4711); where there is none, # and a hash of the key columns or the content.';
COMMENT ON COLUMN @extschema@.raw_connector_data.data IS 'The record. Numbers are exact: its text went from the wire to jsonb without passing through a float.';
COMMENT ON COLUMN @extschema@.raw_connector_data.content_hash IS 'First 16 bytes of the SHA-256 of the record''s text: tells an unchanged record without reading it. NULL where the row was not written by the worker.';
COMMENT ON COLUMN @extschema@.raw_connector_data.ingested_at IS 'When this version of the record was stored.';
COMMENT ON COLUMN @extschema@.raw_connector_data.processed IS 'Whether the stages to the right have used this version.';
COMMENT ON COLUMN @extschema@.raw_connector_data.deleted IS 'The source says that the record is gone; the row stays.';
COMMENT ON COLUMN @extschema@.raw_connector_data.source_version IS 'Of a record that was pushed and says so: of when the state is that it shows. An older one does not take its place.';
COMMENT ON COLUMN @extschema@.raw_connector_data.run_id IS 'The run that stored this version; NULL where it was written by hand.';

CREATE TABLE @extschema@.quarantine (
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT quarantine_pkey PRIMARY KEY,
    run_id uuid,
    connector_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    stream text NOT NULL,
    source_record_id text COLLATE "C",
    reason_code text NOT NULL,
    reason text NOT NULL,
    raw bytea NOT NULL CONSTRAINT quarantine_raw_is_bounded CHECK (pg_catalog.octet_length(raw) <= 65536),
    content_hash bytea NOT NULL,
    occurrences bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    replayed_at timestamptz,
    raw_id uuid,
    mapping_id integer,
    retry_on date,
    CONSTRAINT quarantine_record_key UNIQUE (connector_id, stream, content_hash),
    CONSTRAINT quarantine_run_fkey FOREIGN KEY (run_id) REFERENCES @extschema@.sync_runs ON DELETE SET NULL,
    CONSTRAINT quarantine_connector_fkey FOREIGN KEY (connector_id, tenant_id)
        REFERENCES @extschema@.connectors (connector_id, tenant_id) ON DELETE CASCADE
);
CREATE INDEX quarantine_run ON @extschema@.quarantine (run_id);
CREATE INDEX quarantine_unmapped ON @extschema@.quarantine (raw_id) WHERE raw_id IS NOT NULL;
CREATE INDEX quarantine_retry ON @extschema@.quarantine (retry_on) WHERE retry_on IS NOT NULL AND replayed_at IS NULL;
CREATE INDEX quarantine_open ON @extschema@.quarantine (connector_id, reason_code) WHERE replayed_at IS NULL;
COMMENT ON TABLE @extschema@.quarantine IS 'Every record that could not be stored, or is stored and could not be read by its mapping, once, with its reason. One bad record costs one record.';
COMMENT ON COLUMN @extschema@.quarantine.run_id IS 'The last run that met it.';
COMMENT ON COLUMN @extschema@.quarantine.source_record_id IS 'As in raw_connector_data, where the id could still be read.';
COMMENT ON COLUMN @extschema@.quarantine.reason_code IS 'Stable word: invalid_json, nul_character, lone_surrogate, invalid_utf8, too_deep, too_large, number_out_of_range, key_too_long, not_an_object or refused_by_postgres; of a row of a file too_many_cells, unreadable_value or key_missing; of a stored record filter_unknown, value_missing, value_ambiguous, value_unreadable, value_out_of_range, negative_value, date_missing, date_unreadable, date_in_future, date_out_of_range, category_unreadable, currency_missing, currency_unreadable, mapping_failed or too_costly.';
COMMENT ON COLUMN @extschema@.quarantine.reason IS 'Where and what, for people.';
COMMENT ON COLUMN @extschema@.quarantine.raw IS 'The first 64 KiB as they came.';
COMMENT ON COLUMN @extschema@.quarantine.content_hash IS 'Of the whole record, or the raw_id of a stored one: the same one met again counts an occurrence.';
COMMENT ON COLUMN @extschema@.quarantine.occurrences IS 'How often the record was met.';
COMMENT ON COLUMN @extschema@.quarantine.replayed_at IS 'When the record was stored, or counted, after all.';
COMMENT ON COLUMN @extschema@.quarantine.raw_id IS 'The stored record that a mapping could not read; NULL where the record could not be stored.';
COMMENT ON COLUMN @extschema@.quarantine.mapping_id IS 'The mapping that could not read it.';
COMMENT ON COLUMN @extschema@.quarantine.retry_on IS 'The future day that the record names: then it is tried again by itself.';

CREATE FUNCTION _connector_service.connector_service_refusals(p_tenant_id uuid, p_connector_id uuid, p_type text, p_stream text, p_run_id uuid, p_ids text[], p_records text[])
RETURNS TABLE (place integer, why text) LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    FOR v_place IN 1..cardinality(p_ids) LOOP
        BEGIN
            INSERT INTO @extschema@.raw_connector_data AS r (tenant_id, connector_id, source_type, stream, source_record_id, data, processed, run_id)
            VALUES (p_tenant_id, p_connector_id, p_type, p_stream, p_ids[v_place], p_records[v_place]::jsonb, true, p_run_id)
            ON CONFLICT (connector_id, source_record_id) DO UPDATE
            SET data = excluded.data, stream = excluded.stream, ingested_at = excluded.ingested_at, processed = true, deleted = false, run_id = excluded.run_id
            WHERE r.data IS DISTINCT FROM excluded.data OR r.deleted;
            -- Deferred constraints are checked now.
            SET CONSTRAINTS ALL IMMEDIATE;
        EXCEPTION
            -- These errors are not about the record, but about the server, a lock or a cancel.
            WHEN insufficient_resources OR operator_intervention OR object_not_in_prerequisite_state OR transaction_rollback
                OR system_error OR internal_error OR connection_exception THEN
                RAISE;
            WHEN OTHERS THEN
                place := v_place;
                why := format('%s (SQLSTATE %s)', left(SQLERRM, 500), SQLSTATE);
                RETURN NEXT;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_refusals(uuid, uuid, text, text, uuid, text[], text[]) IS 'For the worker, which rolls back what it does: stores records one by one and returns which of them PostgreSQL refuses, and its words.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.raw_connector_data', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.quarantine', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('@extschema@.quarantine', 'quarantine_id')::pg_catalog.regclass, '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
