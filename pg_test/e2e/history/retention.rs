//! Retention. At quiet moments some records are made old, and the upkeep process drops their JSON. From then on they count what
//! they counted, whatever happens to mappings, zones, currencies and measures, until the source shows them anew.

use connector_service_test::*;

use crate::change::{World, connector_id};
use crate::model::Record;
use crate::{INSERT_CONNECTORS, Stage, connector_row};

/// What the setting says, and what is older.
pub const KEEPS: &str = "90 days";
const OLDER: &str = "365 days";

/// How many in a hundred connectors have old records at such a moment, and how many of their records are.
const CONNECTORS: usize = 70;
const RECORDS: usize = 40;

/// Connectors that are deleted at such a moment, and made again.
const DELETED: usize = 3;

/// The rounds in which records are dropped, and those in which the upkeep process is killed over it. The facts are emptied
/// before: that is refused as soon as a record is dropped.
pub const ROUNDS: [usize; 5] = [1, 2, 3, 4, 6];
const KILLS: [usize; 2] = [2, 4];

impl World {
    /// Makes some records old; returns the connectors that they are of, and the SQL.
    fn age(&mut self) -> (Vec<(usize, usize)>, String) {
        let (mut connectors, mut rows) = (vec![], vec![]);
        for (number, tenant) in self.tenants.iter_mut().enumerate() {
            for (connector, records) in tenant.records.iter_mut().enumerate() {
                if !tenant.has_retention || !self.random.percent(CONNECTORS) {
                    continue;
                }
                let before = rows.len();
                for (id, record) in records {
                    let Some(stored) = &mut record.stored else {
                        continue;
                    };
                    if stored.kept.is_none() && self.random.percent(RECORDS) {
                        stored.is_old = true;
                        let of = connector_id(number, connector);
                        rows.push(format!("('{of}'::uuid, 'orders/{id}')"));
                    }
                }
                if rows.len() > before {
                    connectors.push((number, connector));
                    let line = format!(
                        "{} records of connector {connector} are old",
                        rows.len() - before
                    );
                    tenant.log.push(line);
                }
            }
        }
        let sql = format!(
            "UPDATE raw_connector_data SET ingested_at = ingested_at - interval '{OLDER}'
             WHERE (connector_id, source_record_id) IN ({})",
            rows.join(", ")
        );
        (connectors, sql)
    }

    /// Some connectors with dropped records, of which nothing is left in the model but what the vendor shows.
    fn delete_connectors(&mut self) -> Vec<(usize, usize)> {
        let mut found = vec![];
        for (number, tenant) in self.tenants.iter().enumerate() {
            for (connector, records) in tenant.records.iter().enumerate() {
                let is_dropped =
                    |record: &Record| record.stored.as_ref().is_some_and(|it| it.kept.is_some());
                if records.values().filter(|record| is_dropped(record)).count() > 1 {
                    found.push((number, connector));
                }
            }
        }
        let mut chosen = vec![];
        for _ in 0..DELETED.min(found.len()) {
            chosen.push(found.swap_remove(self.random.below(found.len())));
        }
        for &(number, connector) in &chosen {
            let tenant = &mut self.tenants[number];
            for record in tenant.records[connector].values_mut() {
                let stored = record.stored.take();
                self.tally.connector_deleted +=
                    usize::from(stored.is_some_and(|it| it.kept.is_some()));
            }
            tenant.records[connector].retain(|_, record| record.served.is_some());
            tenant
                .mappings
                .retain(|mapping| mapping.connector != Some(connector));
            tenant.decisions.retain(|(of, ..), _| *of != connector);
            tenant
                .log
                .push(format!("connector {connector} is deleted, and made again"));
        }
        chosen
    }
}

impl Stage {
    /// The upkeep process drops what is old now. It looks again and again; what it has gone through it leaves alone.
    pub fn drop_old(&mut self, round: usize) {
        self.wait_until_processed();
        let (connectors, sql) = self.world.age();
        if KILLS.contains(&round) {
            self.cluster.arm("mid_drop", 5);
        }
        Stage::run(&mut self.client, &[sql]);
        if KILLS.contains(&round) {
            self.wait_until_killed(60);
        }
        let sql = "SELECT count(*) FROM connectors c WHERE config ? 'raw_retention' AND NOT EXISTS (
                SELECT FROM raw_retention r WHERE r.connector_id = c.connector_id AND r.checked_until > now() - keeps - interval '1 day')";
        wait_until(90, "what is old is dropped", || {
            let open: i64 = self.client.query_one(sql, &[]).unwrap().get(0);
            (open == 0).then_some(())
        });
        let before = self.world.tally.dropped;
        for (tenant, connector) in connectors {
            let dropped = self.world.tenants[tenant].drop_old(connector);
            self.world.tally.drops += usize::from(dropped > 0);
            self.world.tally.dropped += dropped;
            let line = format!("the JSON of {dropped} records of connector {connector} is dropped");
            self.world.tenants[tenant].log.push(line);
        }
        assert!(self.world.tally.dropped > before, "something is dropped");
        self.facts_cannot_be_emptied();
        self.delete_connectors();
    }

    fn wait_until_processed(&mut self) {
        let sql = "SELECT count(*) FROM raw_connector_data WHERE NOT processed";
        wait_until(60, "all records have their facts", || {
            let open: i64 = self.client.query_one(sql, &[]).unwrap().get(0);
            (open == 0).then_some(())
        });
    }

    /// Nothing could bring back the facts of what was dropped.
    fn facts_cannot_be_emptied(&mut self) {
        let refused = self.client.batch_execute("TRUNCATE metric_facts");
        let refused = refused.expect_err("facts of dropped records");
        assert_eq!(refused.code().unwrap().code(), "55000", "{refused:?}");
    }

    fn delete_connectors(&mut self) {
        for (tenant, connector) in self.world.delete_connectors() {
            let id = connector_id(tenant, connector);
            // Its runs go with it.
            let sql = "SELECT coalesce(sum(received), 0)::bigint FROM sync_runs WHERE connector_id = $1::text::uuid";
            let received: i64 = self.client.query_one(sql, &[&id]).unwrap().get(0);
            self.forgotten += received;
            let row = connector_row(
                &self.vendor.url(),
                &self.world.tenants[tenant],
                (tenant, connector),
            );
            Stage::run(
                &mut self.client,
                &[
                    format!("CALL connector_service_delete_wait('{id}'::uuid)"),
                    format!("{INSERT_CONNECTORS} {row}"),
                ],
            );
        }
    }
}
