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
    dropped_at timestamptz,
    erasure_id bigint,
    CONSTRAINT raw_connector_data_record_key UNIQUE (connector_id, source_record_id),
    CONSTRAINT raw_connector_data_connector_fkey FOREIGN KEY (connector_id, tenant_id)
        REFERENCES @extschema@.connectors (connector_id, tenant_id)
-- PostgreSQL's default, a fifth of the rows, would leave too many dead rows in a table of millions.
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX idx_raw_tenant ON @extschema@.raw_connector_data (tenant_id, ingested_at);
CREATE INDEX idx_raw_unprocessed ON @extschema@.raw_connector_data (connector_id, ingested_at) WHERE NOT processed;
COMMENT ON TABLE @extschema@.raw_connector_data IS 'Every record of every source, once, as it came. A record that is read again updates its row only if its content is different.';
COMMENT ON COLUMN @extschema@.raw_connector_data.raw_id IS 'Id of the row. Ids that the sync worker makes are ordered by time (UUIDv7).';
COMMENT ON COLUMN @extschema@.raw_connector_data.tenant_id IS 'Tenant of the connector.';
COMMENT ON COLUMN @extschema@.raw_connector_data.connector_id IS 'Connector that the record came from.';
COMMENT ON COLUMN @extschema@.raw_connector_data.source_type IS 'Type of the connector.';
COMMENT ON COLUMN @extschema@.raw_connector_data.stream IS 'Stream of the source that the record belongs to, such as orders.';
COMMENT ON COLUMN @extschema@.raw_connector_data.source_record_id IS 'The stream, a slash and the id that the vendor uses, such as orders/4711. Where the vendor has no id: the stream, a slash, # and a hash of the key columns or of the content.';
COMMENT ON COLUMN @extschema@.raw_connector_data.data IS 'The record as JSON. Numbers are exact: they are never converted to a binary float. Of a record that was dropped (dropped_at) an empty object, or the ids and stamps by which its deletion is recognized.';
COMMENT ON COLUMN @extschema@.raw_connector_data.content_hash IS 'First 16 bytes of the SHA-256 of the record''s text. An equal hash shows that a record has not changed. NULL: the row was written by hand.';
COMMENT ON COLUMN @extschema@.raw_connector_data.ingested_at IS 'Time at which this version of the record was stored.';
COMMENT ON COLUMN @extschema@.raw_connector_data.processed IS 'Whether the facts of this version are written. See metric_facts.';
COMMENT ON COLUMN @extschema@.raw_connector_data.deleted IS 'Whether the source reported the record as deleted, or does not show it any more. The row stays, and counts in no metric.';
COMMENT ON COLUMN @extschema@.raw_connector_data.run_id IS 'Run that stored this version. NULL: the row was written by hand.';
COMMENT ON COLUMN @extschema@.raw_connector_data.dropped_at IS 'Time at which the JSON of the record was dropped, by raw_retention or connector_service_erase(). Its facts stay. NULL: data is the whole record.';
COMMENT ON COLUMN @extschema@.raw_connector_data.erasure_id IS 'Erasure that dropped the JSON for good; see erasures. A later version of the record is counted, and its JSON is dropped again. NULL: none did.';
COMMENT ON COLUMN @extschema@.raw_connector_data.source_version IS 'Time of the state that the record shows, as the vendor says. An older state does not replace a newer one. NULL: the vendor does not say.';

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
COMMENT ON TABLE @extschema@.quarantine IS 'Every record that could not be stored, or that is stored and could not be read by a mapping, once, with the reason. The other records of the same page are not affected. See connector_service_replay().';
COMMENT ON COLUMN @extschema@.quarantine.quarantine_id IS 'Id of the row.';
COMMENT ON COLUMN @extschema@.quarantine.run_id IS 'Last run that met the record. NULL: no run met it, or the run is deleted.';
COMMENT ON COLUMN @extschema@.quarantine.connector_id IS 'Connector that the record came from.';
COMMENT ON COLUMN @extschema@.quarantine.tenant_id IS 'Tenant of the connector.';
COMMENT ON COLUMN @extschema@.quarantine.stream IS 'Stream of the record.';
COMMENT ON COLUMN @extschema@.quarantine.source_record_id IS 'Id of the record as in raw_connector_data. NULL: it could not be read.';
COMMENT ON COLUMN @extschema@.quarantine.reason_code IS 'Word that tells the reason. The words do not change between versions. A record that could not be stored: invalid_json, nul_character, lone_surrogate, invalid_utf8, too_deep, too_large, number_out_of_range, key_too_long, not_an_object or refused_by_postgres. A row of a file: also too_many_cells, unreadable_value or key_missing. A stored record: filter_unknown, value_missing, value_ambiguous, value_unreadable, value_out_of_range, value_in_other_currency, negative_value, date_missing, date_unreadable, date_in_future, date_out_of_range, category_unreadable, currency_missing, currency_unreadable, mapping_failed or too_costly.';
COMMENT ON COLUMN @extschema@.quarantine.reason IS 'The reason in words, with the place in the record.';
COMMENT ON COLUMN @extschema@.quarantine.raw IS 'The first 64 KiB of the record as it came.';
COMMENT ON COLUMN @extschema@.quarantine.content_hash IS 'First 16 bytes of the SHA-256 of the whole record, or the raw_id of a stored record. A record that comes again is recognized by it.';
COMMENT ON COLUMN @extschema@.quarantine.occurrences IS 'How often the record was met.';
COMMENT ON COLUMN @extschema@.quarantine.created_at IS 'Time at which the record was first met.';
COMMENT ON COLUMN @extschema@.quarantine.last_seen_at IS 'Time at which the record was last met.';
COMMENT ON COLUMN @extschema@.quarantine.replayed_at IS 'Time at which the record was stored or counted after all. NULL: the record is still in quarantine.';
COMMENT ON COLUMN @extschema@.quarantine.raw_id IS 'The stored record that a mapping could not read. NULL: the record could not be stored.';
COMMENT ON COLUMN @extschema@.quarantine.mapping_id IS 'The mapping that could not read the record. NULL: the record could not be stored, or no single mapping is to blame.';
COMMENT ON COLUMN @extschema@.quarantine.retry_on IS 'Day in the future that the record names. On this day the record is read again by itself. NULL: it is not.';

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
COMMENT ON FUNCTION _connector_service.connector_service_refusals(uuid, uuid, text, text, uuid, text[], text[]) IS 'Stores records one by one and returns which of them PostgreSQL refuses, and why. The worker rolls this back.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.raw_connector_data', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.quarantine', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('@extschema@.quarantine', 'quarantine_id')::pg_catalog.regclass, '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
