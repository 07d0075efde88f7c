-- fact: what one raw record contributes, by the mapping of its stream.
--
-- One lock for each tenant orders everything from here to the right: whoever writes a tenant's facts, changes a mapping
-- of theirs or sums their days holds it (connector_service_lock). The worker only tries for it; where it is taken, pages
-- are stored as unprocessed and their facts follow as soon as it is free. So no fact is ever derived by a mapping that is
-- being changed, and no sum misses a fact that committed before it. What all tenants depend on is changed under the lock of
-- all of them, connector_service_lock(NULL).
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

COMMENT ON FUNCTION _connector_service.connector_service_lock(uuid) IS 'Waits for the lock of a tenant''s facts (NULL: of all tenants'' facts), and holds it until the end of the transaction. Raises 25001 in a REPEATABLE READ or SERIALIZABLE transaction.';

-- Money.

CREATE FUNCTION _connector_service.connector_service_scale(p_unit text, p_currency text) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_unit = 'major' THEN 1
    -- Stripe sends these two in hundredths although they have no minor unit, and MGA whole although it has one.
    WHEN p_unit = 'stripe' AND p_currency IN ('ISK', 'UGX') THEN 0.01
    WHEN p_unit = 'stripe' AND p_currency = 'MGA' THEN 1
    WHEN p_currency IN ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF', 'XPF') THEN 1
    WHEN p_currency IN ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') THEN 0.001
    WHEN p_currency IN ('CLF', 'UYW') THEN 0.0001
    ELSE 0.01
END;
COMMENT ON FUNCTION _connector_service.connector_service_scale(text, text) IS 'The number that converts an amount from a mapping''s unit into units of its currency, by the exponents of ISO 4217.';

CREATE TABLE @extschema@.fx_rates (
    from_currency text CONSTRAINT fx_rates_from_is_iso_code CHECK (from_currency ~ '^[A-Z]{3}$'),
    to_currency text CONSTRAINT fx_rates_to_is_iso_code CHECK (to_currency ~ '^[A-Z]{3}$'),
    rate_date date,
    rate numeric NOT NULL CONSTRAINT fx_rates_rate_is_positive CHECK (rate > 0 AND rate < 1e15),
    CONSTRAINT fx_rates_pkey PRIMARY KEY (to_currency, rate_date, from_currency),
    CONSTRAINT fx_rates_currencies_differ CHECK (from_currency <> to_currency)
);
COMMENT ON TABLE @extschema@.fx_rates IS 'Exchange rates by day. An amount in another currency than the tenant''s counts on days that have a rate. A rate that is inserted or changed is applied to its day at once.';
COMMENT ON COLUMN @extschema@.fx_rates.from_currency IS 'Currency of the amounts, an ISO 4217 code.';
COMMENT ON COLUMN @extschema@.fx_rates.to_currency IS 'Currency of the tenant, an ISO 4217 code.';
COMMENT ON COLUMN @extschema@.fx_rates.rate_date IS 'Day that the rate is for.';
COMMENT ON COLUMN @extschema@.fx_rates.rate IS 'Units of to_currency for one unit of from_currency.';

-- Facts.

CREATE TABLE @extschema@.metric_facts (
    raw_id uuid,
    mapping_id integer,
    item integer,
    version integer NOT NULL,
    tenant_id uuid NOT NULL,
    connector_id uuid NOT NULL,
    metric_type text NOT NULL,
    metric_date date NOT NULL,
    category text,
    currency text NOT NULL,
    value numeric NOT NULL,
    distinct_value text,
    metric_time timestamptz,
    CONSTRAINT metric_facts_pkey PRIMARY KEY (raw_id, mapping_id, item)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX metric_facts_day ON @extschema@.metric_facts (tenant_id, metric_type, metric_date);
COMMENT ON TABLE @extschema@.metric_facts IS 'What each record contributes to a metric. Facts are always what the mappings make of raw_connector_data; do not write them by hand.';
COMMENT ON COLUMN @extschema@.metric_facts.raw_id IS 'The record. There is no foreign key, because its check would cost a fifth of a sync: a trigger of raw_connector_data deletes the facts of deleted records.';
COMMENT ON COLUMN @extschema@.metric_facts.mapping_id IS 'Mapping that made the fact.';
COMMENT ON COLUMN @extschema@.metric_facts.item IS 'Number of the part of the record, from 1, where the mapping has an items_path; else 1.';
COMMENT ON COLUMN @extschema@.metric_facts.version IS 'Version of the mapping that made the fact.';
COMMENT ON COLUMN @extschema@.metric_facts.tenant_id IS 'Tenant of the connector.';
COMMENT ON COLUMN @extschema@.metric_facts.connector_id IS 'Connector that the record came from.';
COMMENT ON COLUMN @extschema@.metric_facts.metric_type IS 'revenue, inventory, staffing, costs, or a measure of the tenant.';
COMMENT ON COLUMN @extschema@.metric_facts.metric_date IS 'Day in the tenant''s time zone.';
COMMENT ON COLUMN @extschema@.metric_facts.category IS 'Category of the amount. NULL: the mapping or the record has none.';
COMMENT ON COLUMN @extschema@.metric_facts.currency IS 'Currency of the amount, an ISO 4217 code. Empty for a measure whose unit is not money.';
COMMENT ON COLUMN @extschema@.metric_facts.value IS 'Exact amount, in units of the currency; hours for staffing, pieces for inventory, the measure''s own unit for a measure; 1 where texts are counted.';
COMMENT ON COLUMN @extschema@.metric_facts.distinct_value IS 'For a measure that counts different texts: the text. One of more than 256 bytes is kept as sha256: and its hash. NULL for all others.';
COMMENT ON COLUMN @extschema@.metric_facts.metric_time IS 'For a measure that takes the last value of a day: the time of the record. A date without a time is the beginning of its day. NULL for all others.';

CREATE TABLE @extschema@.metric_days_touched (
    tenant_id uuid NOT NULL,
    metric_type text NOT NULL,
    metric_date date NOT NULL
-- Rows come and go all the time.
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- A publication refuses to delete rows of a table that has neither a primary key nor a replica identity.
ALTER TABLE @extschema@.metric_days_touched REPLICA IDENTITY FULL;
-- Not unique: a session that marks a day must not wait for another session that marked the same day.
CREATE INDEX metric_days_touched_tenant ON @extschema@.metric_days_touched (tenant_id, metric_type, metric_date);
COMMENT ON TABLE @extschema@.metric_days_touched IS 'Days whose facts changed since the day was last summed. A row is written in one transaction with the facts, and deleted when the day is summed.';
COMMENT ON COLUMN @extschema@.metric_days_touched.tenant_id IS 'Tenant of the day.';
COMMENT ON COLUMN @extschema@.metric_days_touched.metric_type IS 'revenue, inventory, staffing, costs, or a measure of the tenant.';
COMMENT ON COLUMN @extschema@.metric_days_touched.metric_date IS 'Day in the tenant''s time zone.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.fx_rates', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.metric_facts', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.metric_days_touched', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
