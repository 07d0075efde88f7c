-- upload: files that people give to connectors of type csv and excel, until they are stored as records.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.uploads (
    upload_id uuid CONSTRAINT uploads_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    connector_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    run_id uuid NOT NULL,
    file_name text NOT NULL CONSTRAINT uploads_file_name_is_bounded CHECK (pg_catalog.octet_length(file_name) BETWEEN 1 AND 1024),
    bytes bigint NOT NULL,
    sha256 bytea NOT NULL,
    uploaded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    stored_rows bigint NOT NULL DEFAULT 0,
    definition text,
    stored_at timestamptz,
    CONSTRAINT uploads_connector_fkey FOREIGN KEY (connector_id, tenant_id)
        REFERENCES @extschema@.connectors (connector_id, tenant_id) ON DELETE CASCADE
) WITH (fillfactor = 50);
CREATE INDEX uploads_file ON @extschema@.uploads (connector_id, file_name);
CREATE UNIQUE INDEX uploads_run ON @extschema@.uploads (run_id);
COMMENT ON TABLE @extschema@.uploads IS 'The files of a connector: those that wait to be stored, with their bytes, and those whose rows are what the connector holds. The connector''s records are the rows of all of them together.';
COMMENT ON COLUMN @extschema@.uploads.run_id IS 'The run that stores it, or looks at it.';
COMMENT ON COLUMN @extschema@.uploads.file_name IS 'Without folders. A file of the same name is taken for a correction of the one before; see config''s "replaces".';
COMMENT ON COLUMN @extschema@.uploads.bytes IS 'Size of the file.';
COMMENT ON COLUMN @extschema@.uploads.sha256 IS 'Of the file.';
COMMENT ON COLUMN @extschema@.uploads.stored_rows IS 'Rows of the file that are stored; a run that was cut off goes on behind them.';
COMMENT ON COLUMN @extschema@.uploads.definition IS 'By which config they were counted.';
COMMENT ON COLUMN @extschema@.uploads.stored_at IS 'When all of it was stored; the bytes of the file are gone since then. NULL: it waits, or its run failed.';

CREATE TABLE @extschema@.upload_parts (
    upload_id uuid CONSTRAINT upload_parts_upload_fkey REFERENCES @extschema@.uploads ON DELETE CASCADE,
    part integer,
    content bytea NOT NULL,
    CONSTRAINT upload_parts_pkey PRIMARY KEY (upload_id, part)
);
-- The files are mostly compressed already. To compress them again would take time and save little.
ALTER TABLE @extschema@.upload_parts ALTER COLUMN content SET STORAGE EXTERNAL;
COMMENT ON TABLE @extschema@.upload_parts IS 'The bytes of files that are not stored yet, in parts of 1 MiB.';
COMMENT ON COLUMN @extschema@.upload_parts.part IS 'From 0.';

CREATE TABLE @extschema@.upload_records (
    upload_id uuid CONSTRAINT upload_records_upload_fkey REFERENCES @extschema@.uploads ON DELETE CASCADE,
    stored_rows bigint,
    records bytea[] NOT NULL,
    CONSTRAINT upload_records_pkey PRIMARY KEY (upload_id, stored_rows)
);
ALTER TABLE @extschema@.upload_records ALTER COLUMN records SET STORAGE EXTERNAL;
COMMENT ON TABLE @extschema@.upload_records IS 'Which records a file shows: what the file before it showed and it does not is gone.';
COMMENT ON COLUMN @extschema@.upload_records.stored_rows IS 'Of uploads, when these were stored.';
COMMENT ON COLUMN @extschema@.upload_records.records IS 'Of each, the first 16 bytes of the SHA-256 of its source_record_id.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.uploads', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.upload_parts', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.upload_records', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
