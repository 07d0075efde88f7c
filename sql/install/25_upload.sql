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
COMMENT ON TABLE @extschema@.uploads IS 'The files of connectors of type csv and excel: files that wait to be stored, and files whose rows are stored. The records of a connector are the rows of all its files.';
COMMENT ON COLUMN @extschema@.uploads.upload_id IS 'Id of the file.';
COMMENT ON COLUMN @extschema@.uploads.connector_id IS 'Connector that the file was given to.';
COMMENT ON COLUMN @extschema@.uploads.tenant_id IS 'Tenant of the connector.';
COMMENT ON COLUMN @extschema@.uploads.run_id IS 'Run that stores the file, or that previews it.';
COMMENT ON COLUMN @extschema@.uploads.file_name IS 'Name of the file without folders, 1 to 1024 bytes. A file of the same name replaces the earlier one; see "replaces" in connector_service_catalog().';
COMMENT ON COLUMN @extschema@.uploads.bytes IS 'Size of the file in bytes.';
COMMENT ON COLUMN @extschema@.uploads.sha256 IS 'SHA-256 hash of the file.';
COMMENT ON COLUMN @extschema@.uploads.uploaded_at IS 'Time at which the file was given.';
COMMENT ON COLUMN @extschema@.uploads.stored_rows IS 'Number of rows of the file that are stored. A run that was interrupted goes on behind them.';
COMMENT ON COLUMN @extschema@.uploads.definition IS 'Hash of the config that the rows were counted with. Another config reads the file from its start.';
COMMENT ON COLUMN @extschema@.uploads.stored_at IS 'Time at which the whole file was stored. The bytes of the file are deleted then. NULL: the file waits, or its run failed.';

CREATE TABLE @extschema@.upload_parts (
    upload_id uuid CONSTRAINT upload_parts_upload_fkey REFERENCES @extschema@.uploads ON DELETE CASCADE,
    part integer,
    content bytea NOT NULL,
    CONSTRAINT upload_parts_pkey PRIMARY KEY (upload_id, part)
);
-- The files are mostly compressed already. To compress them again would take time and save little.
ALTER TABLE @extschema@.upload_parts ALTER COLUMN content SET STORAGE EXTERNAL;
COMMENT ON TABLE @extschema@.upload_parts IS 'The bytes of files that are not stored yet, in parts of 1 MiB.';
COMMENT ON COLUMN @extschema@.upload_parts.upload_id IS 'File that the part belongs to.';
COMMENT ON COLUMN @extschema@.upload_parts.part IS 'Number of the part, from 0.';
COMMENT ON COLUMN @extschema@.upload_parts.content IS 'Bytes of the part.';

CREATE TABLE @extschema@.upload_records (
    upload_id uuid CONSTRAINT upload_records_upload_fkey REFERENCES @extschema@.uploads ON DELETE CASCADE,
    stored_rows bigint,
    records bytea[] NOT NULL,
    origins bytea[],
    CONSTRAINT upload_records_pkey PRIMARY KEY (upload_id, stored_rows)
);
ALTER TABLE @extschema@.upload_records ALTER COLUMN records SET STORAGE EXTERNAL, ALTER COLUMN origins SET STORAGE EXTERNAL;
COMMENT ON TABLE @extschema@.upload_records IS 'The records that each file shows. A record that an earlier version of the file showed, and the new version does not, is deleted.';
COMMENT ON COLUMN @extschema@.upload_records.upload_id IS 'File that shows the records.';
COMMENT ON COLUMN @extschema@.upload_records.stored_rows IS 'Value of uploads.stored_rows when these records were stored.';
COMMENT ON COLUMN @extschema@.upload_records.records IS 'One hash for each record: the first 16 bytes of the SHA-256 of its source_record_id.';
COMMENT ON COLUMN @extschema@.upload_records.origins IS 'For each of records, the first 16 bytes of the SHA-256 of the row or line that it was made of, however config says that it is read. Empty: it is not known. A row that was read by another config is told by it.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.uploads', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.upload_parts', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.upload_records', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
