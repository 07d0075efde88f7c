-- count: which connectors count for a metric, where several see the same money. One row for each decision; how they are made
-- is in 58_decide.sql.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.count_decisions (
    tenant_id uuid,
    connector_id uuid,
    metric_type text,
    part text,
    counts boolean NOT NULL,
    first_date date,
    last_date date,
    decided_by text NOT NULL CONSTRAINT count_decisions_decided_by_is_known CHECK (decided_by IN ('worker', 'person')),
    verdict text CONSTRAINT count_decisions_verdict_is_known CHECK (verdict IN ('same', 'separate', 'unclear', 'too_early')),
    against uuid[] NOT NULL DEFAULT '{}',
    evidence jsonb NOT NULL DEFAULT '{}',
    compared_from date,
    compared_to date,
    decided_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    compared_at timestamptz,
    CONSTRAINT count_decisions_pkey PRIMARY KEY (tenant_id, connector_id, metric_type, part),
    CONSTRAINT count_decisions_connector_fkey FOREIGN KEY (connector_id, tenant_id)
        REFERENCES @extschema@.connectors (connector_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT count_decisions_part_is_known CHECK (part IN ('all', 'refunds', 'rest'))
) WITH (fillfactor = 80);
CREATE INDEX count_decisions_connector ON @extschema@.count_decisions (connector_id);
COMMENT ON TABLE @extschema@.count_decisions IS 'Which connectors count for a metric type, where several of a tenant may see the same money: a shop its order, a payment service its payment, the books their booking. The upkeep process compares them and decides; connector_service_count() decides instead of it. A connector without a row counts. Each row of the upkeep process has an open alert of type double_count.';
COMMENT ON COLUMN @extschema@.count_decisions.tenant_id IS 'Tenant of the connector.';
COMMENT ON COLUMN @extschema@.count_decisions.connector_id IS 'Connector that the decision is about.';
COMMENT ON COLUMN @extschema@.count_decisions.metric_type IS 'Metric type that the decision is about.';
COMMENT ON COLUMN @extschema@.count_decisions.part IS 'Facts that the decision is about. all: all facts of the metric type. Costs are decided in two parts: refunds (category refunds) and rest (all other costs).';
COMMENT ON COLUMN @extschema@.count_decisions.counts IS 'Whether the facts count. False: they stay, and are left out of the metrics.';
COMMENT ON COLUMN @extschema@.count_decisions.first_date IS 'With counts false: the first day on which the facts do not count. Before it nobody else has the money. NULL: no bound.';
COMMENT ON COLUMN @extschema@.count_decisions.last_date IS 'With counts false: the last day on which the facts do not count. After it nobody else has the money, for example because the other connector is paused. NULL: no bound.';
COMMENT ON COLUMN @extschema@.count_decisions.decided_by IS 'worker: the upkeep process compared the amounts, and decides again when there is more evidence. person: connector_service_count(), which wins.';
COMMENT ON COLUMN @extschema@.count_decisions.verdict IS 'What the comparison says. same: most amounts are in the connectors of "against" too, so they do not count here. separate: few are, so all count. unclear: some are; all count, and a person is asked. too_early: too few amounts or days to compare; all count. NULL: a person decided.';
COMMENT ON COLUMN @extschema@.count_decisions.against IS 'Connectors that the facts were compared with; with counts false, those that count instead.';
COMMENT ON COLUMN @extschema@.count_decisions.evidence IS 'JSON object. "amounts" and "others": numbers of records on both sides in the compared days. "matched": records with the same amount and currency on the other side within two days, or in a total of its days. "share" and "share_of_money": what matched, in percent. "by_chance" and "money_by_chance": the same shares with days that do not belong together. "others_share": {connector_id: how much of it matched, in percent}. "totals": whether some records are totals of others. "days": compared days. "left": {currency: amount} that matched nothing. "samples": some amounts that matched or not. "partners": {connector_id: records that matched}. "reason": why a verdict is unclear. "stopped": connectors that have nothing new, while others go on. "before" and "after": the sum of all days when the decision was applied.';
COMMENT ON COLUMN @extschema@.count_decisions.compared_from IS 'First compared day. NULL: nothing was compared.';
COMMENT ON COLUMN @extschema@.count_decisions.compared_to IS 'Last compared day. NULL: nothing was compared.';
COMMENT ON COLUMN @extschema@.count_decisions.decided_at IS 'Time at which counts, the days or the verdict last changed.';
COMMENT ON COLUMN @extschema@.count_decisions.compared_at IS 'Time of the last comparison. NULL: a person decided.';

CREATE TABLE @extschema@.count_due (
    due_id uuid CONSTRAINT count_due_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    tenant_id uuid NOT NULL,
    metric_type text NOT NULL,
    is_urgent boolean NOT NULL DEFAULT false
-- Rows come and go all the time.
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- Not unique: a session that asks for a comparison must not wait for another session that asked for the same.
CREATE INDEX count_due_tenant ON @extschema@.count_due (tenant_id, metric_type);
COMMENT ON TABLE @extschema@.count_due IS 'Tenants whose connectors are to be compared, because facts, connectors or mappings changed. The upkeep process deletes the rows that it saw when it has decided.';
COMMENT ON COLUMN @extschema@.count_due.due_id IS 'Id of the row.';
COMMENT ON COLUMN @extschema@.count_due.tenant_id IS 'Tenant whose connectors are compared.';
COMMENT ON COLUMN @extschema@.count_due.metric_type IS 'revenue or costs.';
COMMENT ON COLUMN @extschema@.count_due.is_urgent IS 'Whether to compare at once: a connector was paused, resumed or deleted, a mapping changed, or a person gave a decision back. False: facts changed, for which a tenant''s metric type is compared at most every five seconds, and less often where that takes long.';

CREATE FUNCTION _connector_service.connector_service_part(p_metric_type text, p_category text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN p_metric_type <> 'costs' THEN 'all' WHEN p_category = 'refunds' THEN 'refunds' ELSE 'rest' END;
COMMENT ON FUNCTION _connector_service.connector_service_part(text, text) IS 'The part of a metric type that a fact of this category belongs to, as in count_decisions.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.count_decisions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.count_due', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
