//! The changes of a history. Each change is made in the model at once, and in SQL unless the vendor makes it.

use std::collections::BTreeMap;

use crate::exact::{Day, Exact, Zone};
use crate::model::{
    Aggregation, Category, FOUR, FOUR_ARE, Filter, Kind, Mapping, Measure, Negative, Rates, Record,
    Tenant, Value,
};
use crate::order::{self, DAYS, Order};
use crate::tally::Tally;
use connector_service_test::Random;

pub const CURRENCIES: [&str; 3] = ["USD", "EUR", "JPY"];
const FIRST_MAPPING: i32 = 10_000;

/// The measures that each tenant begins with. The first one has two names, and changes between them.
const MEASURES: [(Kind, Aggregation, bool, bool); 6] = [
    (NAMES[0], Aggregation::Sum, false, false),
    ("cash flow", Aggregation::Sum, true, true),
    ("stock_level", Aggregation::Last, false, true),
    ("balance", Aggregation::Last, true, false),
    ("basket", Aggregation::Average, true, false),
    ("customers", Aggregation::DistinctCount, false, false),
];
const NAMES: [Kind; 2] = ["orders", "purchases"];

/// How many in a hundred histories have a retention.
const RETENTION: usize = 35;

/// When a change is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// No sync is going: what the raw table and the metrics hold is known.
    Quiet,
    /// Syncs are going: only changes whose result does not depend on how far they are.
    Busy,
}

pub struct World {
    pub random: Random,
    pub tenants: Vec<Tenant>,
    pub rates: Rates,
    next_mapping: i32,
    next_record: usize,
    /// How often each change was made.
    pub made: BTreeMap<&'static str, usize>,
    pub tally: Tally,
}

pub fn tenant_id(tenant: usize) -> String {
    format!("00000000-0000-4000-8000-{tenant:012x}")
}

pub fn connector_id(tenant: usize, connector: usize) -> String {
    format!("00000000-0000-4001-8000-{:012x}", tenant * 4 + connector)
}

impl World {
    /// Histories before anything was synced, and the SQL of their mappings.
    pub fn new(seed: u64, histories: usize) -> (World, Vec<String>) {
        let mut world = World {
            random: Random(seed),
            tenants: vec![],
            rates: Rates::new(),
            next_mapping: FIRST_MAPPING,
            next_record: 1,
            made: BTreeMap::new(),
            tally: Tally::default(),
        };
        let mut statements = vec![];
        for number in 0..histories {
            let random = &mut world.random;
            let first = random.below(DAYS.len());
            let count = 2 + random.below(4);
            let connectors = random.pick(&[1, 1, 1, 1, 2, 2, 3]);
            world.tenants.push(Tenant {
                has_retention: random.percent(RETENTION),
                zone: random.pick(&Zone::ALL),
                currency: random.pick(&CURRENCIES),
                days: DAYS
                    .iter()
                    .cycle()
                    .skip(first)
                    .take(count)
                    .copied()
                    .collect(),
                records: vec![BTreeMap::new(); connectors],
                mappings: vec![],
                measures: BTreeMap::new(),
                decisions: BTreeMap::new(),
                by_hand: BTreeMap::new(),
                log: vec![],
            });
            for (name, aggregation, is_money, may_be_negative) in MEASURES {
                let measure = Measure {
                    aggregation,
                    is_money,
                    may_be_negative,
                };
                world.tenants[number].measures.insert(name, measure);
                statements.push(format!(
                    "INSERT INTO measures (tenant_id, name, unit, aggregation, may_be_negative)
                     VALUES ('{}', '{name}', '{}', '{}', {may_be_negative})",
                    tenant_id(number),
                    if is_money { "money" } else { "pieces" },
                    aggregation.name()
                ));
            }
            for connector in 0..connectors {
                for _ in 0..2 + world.random.below(7) {
                    world.insert_order(number, connector);
                }
                for _ in 0..random_count(&mut world.random) {
                    let mapping = world.mapping(number, Some(connector));
                    statements.push(mapping.insert(number));
                    world.tenants[number].mappings.push(mapping);
                }
            }
            if world.random.percent(15) {
                let mapping = world.mapping(number, None);
                statements.push(mapping.insert(number));
                world.tenants[number].mappings.push(mapping);
            }
        }
        (world, statements)
    }

    /// One change of one history; the SQL to run, none where only the vendor's records changed.
    pub fn change(&mut self, tenant: usize, moment: Moment) -> Vec<String> {
        let connector = self.random.below(self.tenants[tenant].records.len());
        let choice = match moment {
            Moment::Quiet => self.random.below(100),
            // The first half is about records.
            Moment::Busy => 60 + self.random.below(40),
        };
        let (name, sql) = match choice {
            0..14 => {
                self.insert_order(tenant, connector);
                ("insert an order", Some(vec![]))
            }
            14..46 => ("edit an order", self.edit(tenant, connector)),
            46..50 => ("set deleted", self.set_deleted(tenant, connector)),
            50..54 => ("delete raw rows", self.delete_raw(tenant, connector)),
            54..58 => ("update data by hand", self.update_data(tenant, connector)),
            58..60 => ("give a metric back", self.give_back(tenant)),
            60..63 => ("change a measure", self.change_measure(tenant)),
            63..72 => ("change a mapping", self.change_mapping(tenant)),
            72..76 => ("add a mapping", Some(self.add_mapping(tenant, connector))),
            76..79 => ("delete a mapping", self.delete_mapping(tenant)),
            79..87 => ("change a rate", Some(self.change_rate(tenant))),
            87..88 => ("change a time zone", self.change_zone(tenant)),
            88..90 => ("change a currency", self.change_currency(tenant)),
            90..94 => ("enter a metric", self.enter_metric(tenant)),
            94..98 => ("decide what counts", Some(self.decide(tenant, connector))),
            _ => ("delete a metric", self.delete_metric(tenant)),
        };
        let Some(sql) = sql else {
            return vec![];
        };
        *self.made.entry(name).or_default() += 1;
        let when = match moment {
            Moment::Quiet => "",
            Moment::Busy => " while syncs run",
        };
        self.tenants[tenant]
            .log
            .push(format!("{name}, connector {connector}{when}: {sql:?}"));
        sql
    }

    fn insert_order(&mut self, tenant: usize, connector: usize) {
        let of = &mut self.tenants[tenant];
        let order = Order::random(&mut self.random, &of.days, of.currency);
        let record = Record {
            served: Some(order),
            stored: None,
        };
        of.records[connector].insert(self.next_record, record);
        self.next_record += 1;
    }

    /// A record that the vendor shows.
    fn served(&mut self, tenant: usize, connector: usize) -> Option<usize> {
        let records = &self.tenants[tenant].records[connector];
        let ids: Vec<usize> = records
            .iter()
            .filter(|(_, record)| record.served.is_some())
            .map(|(id, _)| *id)
            .collect();
        (!ids.is_empty()).then(|| self.random.pick(&ids))
    }

    /// A record that is stored; in half of the cases one without its JSON, if there is any.
    fn stored(&mut self, tenant: usize, connector: usize) -> Option<usize> {
        let records = &self.tenants[tenant].records[connector];
        let rows = records
            .iter()
            .filter_map(|(id, record)| Some((*id, record.stored.as_ref()?)));
        let ids: Vec<usize> = rows.clone().map(|(id, _)| id).collect();
        let dropped: Vec<usize> = rows
            .filter(|(_, stored)| stored.kept.is_some())
            .map(|(id, _)| id)
            .collect();
        match !dropped.is_empty() && self.random.percent(50) {
            true => Some(self.random.pick(&dropped)),
            false => (!ids.is_empty()).then(|| self.random.pick(&ids)),
        }
    }

    /// The vendor shows a record that differs in one thing.
    fn edit(&mut self, tenant: usize, connector: usize) -> Option<Vec<String>> {
        let id = self.served(tenant, connector)?;
        let of = &mut self.tenants[tenant];
        let order = of.records[connector].get_mut(&id)?.served.as_mut()?;
        edit(order, &mut self.random, &of.days, of.currency);
        Some(vec![])
    }

    /// The row says deleted, or not any more.
    fn set_deleted(&mut self, tenant: usize, connector: usize) -> Option<Vec<String>> {
        let id = self.stored(tenant, connector)?;
        // The next sync brings back what the vendor goes on to show.
        let goes_on = self.random.percent(25);
        let record = self.tenants[tenant].records[connector].get_mut(&id)?;
        let stored = record.stored.as_mut()?;
        let deleted = !stored.deleted;
        stored.deleted = deleted;
        self.tally.marked(stored);
        if deleted && !goes_on {
            record.served = None;
        } else if !deleted && record.served.is_none() {
            record.served = Some(stored.order.clone());
        }
        let set = |deleted: bool| {
            let row = row(tenant, connector, id);
            format!("UPDATE raw_connector_data SET deleted = {deleted} WHERE {row}")
        };
        let mut statements = vec![set(deleted)];
        // By mistake.
        if deleted && goes_on && self.random.percent(50) {
            stored.deleted = false;
            self.tally.marked(stored);
            statements.push(set(false));
        }
        Some(statements)
    }

    fn delete_raw(&mut self, tenant: usize, connector: usize) -> Option<Vec<String>> {
        let id = self.stored(tenant, connector)?;
        let goes_on = self.random.percent(25);
        let records = &mut self.tenants[tenant].records[connector];
        let record = records.get_mut(&id)?;
        let stored = record.stored.take()?;
        self.tally.row_deleted += usize::from(stored.kept.is_some());
        if !goes_on || record.served.is_none() {
            records.remove(&id);
        }
        Some(vec![format!(
            "DELETE FROM raw_connector_data WHERE {}",
            row(tenant, connector, id)
        )])
    }

    fn update_data(&mut self, tenant: usize, connector: usize) -> Option<Vec<String>> {
        let id = self.stored(tenant, connector)?;
        let of = &mut self.tenants[tenant];
        let record = of.records[connector].get_mut(&id)?;
        let stored = record.stored.as_mut()?;
        let before = order::canonical(&stored.order.json(id));
        edit(&mut stored.order, &mut self.random, &of.days, of.currency);
        let order = &stored.order;
        if stored.kept.is_some() || order::canonical(&order.json(id)) != before {
            stored.text = None;
        }
        self.tally.by_hand += usize::from(stored.kept.take().is_some());
        // In some cases the vendor goes on to show its own, which the next sync takes.
        if record.served.is_some() && self.random.percent(75) {
            record.served = Some(order.clone());
        }
        Some(vec![format!(
            "UPDATE raw_connector_data SET data = $j${}$j$ WHERE {}",
            order.json(id),
            row(tenant, connector, id)
        )])
    }

    fn mapping(&mut self, tenant: usize, connector: Option<usize>) -> Mapping {
        let own = self.kinds(tenant);
        let random = &mut self.random;
        let kind = random.pick(&[
            "revenue",
            "revenue",
            "revenue",
            "costs",
            "inventory",
            "staffing",
        ]);
        let kind = match random.percent(50) {
            true => random.pick(&own),
            false => kind,
        };
        let negative = match kind {
            "revenue" => [Negative::Costs, Negative::Net, Negative::Reject],
            "inventory" => [Negative::Net, Negative::Net, Negative::Costs],
            "staffing" => [Negative::Reject, Negative::Net, Negative::Costs],
            _ => [Negative::Net, Negative::Net, Negative::Reject],
        };
        let mut mapping = Mapping {
            id: self.next_mapping,
            connector,
            kind,
            value: random.pick(&[
                Value::Total,
                Value::Total,
                Value::Lines,
                Value::Lines,
                Value::OnlyLine,
            ]),
            category: random.pick(&[
                Category::Record,
                Category::Line,
                Category::Food,
                Category::None,
            ]),
            has_currency: random.percent(50),
            filter: random.pick(&[
                Filter::None,
                Filter::NotCancelled,
                Filter::Paid,
                Filter::OnlyPaid,
            ]),
            negative: random.pick(&negative),
            factor: factor(random),
            is_minor: random.percent(25),
            is_active: random.percent(95),
            counts_texts: false,
            class: random.pick(&[None, None, Some("sales"), Some("books")]),
        };
        self.next_mapping += 1;
        mapping.fit(self.tenants[tenant].measure(kind));
        mapping
    }

    /// The measures of a tenant.
    fn kinds(&self, tenant: usize) -> Vec<Kind> {
        self.tenants[tenant].measures.keys().copied().collect()
    }

    fn add_mapping(&mut self, tenant: usize, connector: usize) -> Vec<String> {
        let of = (!self.random.percent(30)).then_some(connector);
        let mapping = self.mapping(tenant, of);
        let sql = mapping.insert(tenant);
        self.tenants[tenant].mappings.push(mapping);
        self.reprocessed(tenant, of, sql)
    }

    fn change_mapping(&mut self, tenant: usize) -> Option<Vec<String>> {
        let place = self.some_mapping(tenant)?;
        let other = self.mapping(tenant, None);
        let random = &mut self.random;
        let of = &mut self.tenants[tenant];
        let mapping = &mut of.mappings[place];
        match random.below(9) {
            8 => mapping.class = other.class,
            0 => mapping.value = other.value,
            1 => mapping.category = other.category,
            2 => mapping.has_currency = !mapping.has_currency,
            3 => mapping.filter = other.filter,
            4 => (mapping.kind, mapping.negative) = (other.kind, other.negative),
            5 => mapping.factor = other.factor,
            6 => mapping.is_minor = !mapping.is_minor,
            _ => mapping.is_active = !mapping.is_active,
        }
        mapping.fit(measure_of(&of.measures, mapping.kind));
        let (sql, of) = (mapping.update(), mapping.connector);
        Some(self.reprocessed(tenant, of, sql))
    }

    fn delete_mapping(&mut self, tenant: usize) -> Option<Vec<String>> {
        let place = self.some_mapping(tenant)?;
        let mapping = self.tenants[tenant].mappings.remove(place);
        let sql = format!(
            "DELETE FROM metric_mappings WHERE mapping_id = {}",
            mapping.id
        );
        Some(self.reprocessed(tenant, mapping.connector, sql))
    }

    fn some_mapping(&mut self, tenant: usize) -> Option<usize> {
        let count = self.tenants[tenant].mappings.len();
        (count > 0).then(|| self.random.below(count))
    }

    /// A change of a mapping, and what brings the stored records after: together, or one after the other.
    fn reprocessed(&mut self, tenant: usize, of: Option<usize>, sql: String) -> Vec<String> {
        let connectors = match of {
            Some(connector) => connector..connector + 1,
            None => 0..self.tenants[tenant].records.len(),
        };
        let mut statements = vec![sql];
        statements.extend(connectors.map(|connector| {
            format!(
                "SELECT connector_service_reprocess('{}')",
                connector_id(tenant, connector)
            )
        }));
        if self.random.percent(50) {
            statements = vec![statements.join("; ")];
        }
        statements
    }

    /// A measure gets another name, adds up in another way, or may be below zero from now on.
    fn change_measure(&mut self, tenant: usize) -> Option<Vec<String>> {
        let kinds = self.kinds(tenant);
        let random = &mut self.random;
        let of = &mut self.tenants[tenant];
        let update = |kind: Kind, change: String| {
            Some(vec![format!(
                "UPDATE measures SET {change} WHERE tenant_id = '{}' AND name = '{kind}'",
                tenant_id(tenant)
            )])
        };
        if random.percent(30) {
            let (old, new) = match of.measures.contains_key(NAMES[0]) {
                true => (NAMES[0], NAMES[1]),
                false => (NAMES[1], NAMES[0]),
            };
            let measure = of.measures.remove(old)?;
            of.measures.insert(new, measure);
            for mapping in of.mappings.iter_mut().filter(|m| m.kind == old) {
                mapping.kind = new;
            }
            for record in of.records.iter_mut().flat_map(BTreeMap::values_mut) {
                let kept = record.stored.as_mut().and_then(|it| it.kept.as_mut());
                for fact in kept.into_iter().flatten().filter(|f| f.kind == old) {
                    fact.kind = new;
                }
            }
            let entered = std::mem::take(&mut of.by_hand).into_iter();
            of.by_hand = entered
                .map(|((kind, day), value)| ((if kind == old { new } else { kind }, day), value))
                .collect();
            return update(old, format!("name = '{new}'"));
        }
        let kind = random.pick(&kinds);
        let measure = of.measures.get_mut(kind)?;
        if measure.aggregation == Aggregation::DistinctCount || random.percent(30) {
            let goes_below =
                |((of, _), value): (&(Kind, Day), &Exact)| *of == kind && value.is_negative();
            if measure.may_be_negative && of.by_hand.iter().any(goes_below) {
                return None;
            }
            measure.may_be_negative = !measure.may_be_negative;
            return update(
                kind,
                format!("may_be_negative = {}", measure.may_be_negative),
            );
        }
        measure.aggregation =
            random.pick(&[Aggregation::Sum, Aggregation::Last, Aggregation::Average]);
        update(
            kind,
            format!("aggregation = '{}'", measure.aggregation.name()),
        )
    }

    /// What nobody does often: a whole table is emptied. The metrics of all histories follow.
    pub fn truncate(&mut self, round: usize) -> (&'static str, String) {
        let tables = [
            "fx_rates",
            "metric_facts",
            "metrics",
            "quarantine",
            "measure_values",
            "fx_rates",
            "quality_rules",
        ];
        let table = tables.get(round).copied().unwrap_or("fx_rates");
        match table {
            "fx_rates" => self.rates.clear(),
            "metrics" | "measure_values" => {
                for tenant in &mut self.tenants {
                    let is_four = |kind: &Kind| FOUR.contains(kind);
                    let is_emptied = |kind: &Kind| is_four(kind) == (table == "metrics");
                    tenant.by_hand.retain(|(kind, _), _| !is_emptied(kind));
                }
            }
            _ => {}
        }
        for tenant in &mut self.tenants {
            tenant.log.push(format!("TRUNCATE {table}"));
        }
        (
            table,
            format!("TRUNCATE {table} CASCADE; SELECT connector_service_process()"),
        )
    }

    /// Rates are everybody's; the day and the currency are such that this tenant may need it.
    fn change_rate(&mut self, tenant: usize) -> Vec<String> {
        let of = &self.tenants[tenant];
        let random = &mut self.random;
        let from: Vec<&str> = ["USD", "EUR", "JPY", "GBP"]
            .into_iter()
            .filter(|currency| *currency != of.currency)
            .collect();
        let day = Day(random.pick(&of.days).0 + random.pick(&[0, 0, 0, 0, -1, 1]));
        let key = (of.currency, day, random.pick(&from));
        if self.rates.contains_key(&key) && random.percent(40) {
            self.rates.remove(&key);
            return vec![format!(
                "DELETE FROM fx_rates WHERE (to_currency, rate_date, from_currency) = ('{}', '{}', '{}')",
                key.0, key.1, key.2
            )];
        }
        let rate = Exact::new(1 + random.below(20_000) as i128, 4);
        self.rates.insert(key, rate);
        vec![format!(
            "INSERT INTO fx_rates (to_currency, rate_date, from_currency, rate) VALUES ('{}', '{}', '{}', {rate})
             ON CONFLICT (to_currency, rate_date, from_currency) DO UPDATE SET rate = excluded.rate",
            key.0, key.1, key.2
        )]
    }

    fn change_zone(&mut self, tenant: usize) -> Option<Vec<String>> {
        let zone = self.random.pick(&Zone::ALL);
        self.tenants[tenant].zone = zone;
        Some(vec![format!(
            "UPDATE tenants SET timezone = '{}' WHERE tenant_id = '{}'",
            zone.name(),
            tenant_id(tenant)
        )])
    }

    fn change_currency(&mut self, tenant: usize) -> Option<Vec<String>> {
        let currency = self.random.pick(&CURRENCIES);
        self.tenants[tenant].currency = currency;
        Some(vec![format!(
            "UPDATE tenants SET currency = '{currency}' WHERE tenant_id = '{}'",
            tenant_id(tenant)
        )])
    }

    /// A person says whether a connector counts, or leaves it to the comparison: that finds nothing among a few random amounts.
    fn decide(&mut self, tenant: usize, connector: usize) -> Vec<String> {
        let random = &mut self.random;
        let kind = random.pick(&["revenue", "revenue", "costs", "refunds", "staffing"]);
        let word = random.pick(&[Some(false), Some(false), Some(true), None]);
        let parts: &[(Kind, &str)] = match kind {
            "costs" => &[("costs", "refunds"), ("costs", "rest")],
            "refunds" => &[("costs", "refunds")],
            "revenue" => &[("revenue", "all")],
            _ => &[("staffing", "all")],
        };
        for (kind, part) in parts {
            let decisions = &mut self.tenants[tenant].decisions;
            match word {
                Some(counts) => _ = decisions.insert((connector, kind, part), counts),
                None => _ = decisions.remove(&(connector, *kind, *part)),
            }
        }
        let word = word.map_or_else(|| "NULL".to_owned(), |word| word.to_string());
        let id = connector_id(tenant, connector);
        vec![format!(
            "SELECT connector_service_count('{id}', '{kind}', {word})"
        )]
    }

    /// A day of a history, with or without records.
    fn some_metric(&mut self, tenant: usize) -> (Kind, Day) {
        let of = &self.tenants[tenant];
        let kinds: Vec<Kind> = of.measures.keys().copied().collect();
        let kind = match self.random.percent(40) {
            true => self.random.pick(&kinds),
            false => self
                .random
                .pick(&["revenue", "revenue", "costs", "inventory", "staffing"]),
        };
        (kind, self.random.pick(&of.days))
    }

    /// Whether there is a metric of the day or not, it is the person's from now on.
    fn enter_metric(&mut self, tenant: usize) -> Option<Vec<String>> {
        let (kind, day) = self.some_metric(tenant);
        let value = Exact::new(self.random.below(10_000_000) as i128, 3);
        let measure = self.tenants[tenant].measure(kind);
        let value = match measure.may_be_negative && self.random.percent(30) {
            true => value.negated(),
            false => value,
        };
        self.tenants[tenant].by_hand.insert((kind, day), value);
        Some(vec![format!(
            "INSERT INTO {} (tenant_id, metric_type, metric_date, metric_value) VALUES ('{}', '{kind}', '{day}', {value})
             ON CONFLICT (tenant_id, metric_type, metric_date) DO UPDATE SET metric_value = excluded.metric_value, by_hand = true",
            table_of(kind),
            tenant_id(tenant)
        )])
    }

    fn by_hand(&mut self, tenant: usize) -> Option<(Kind, Day)> {
        let entered: Vec<(Kind, Day)> = self.tenants[tenant].by_hand.keys().copied().collect();
        (!entered.is_empty()).then(|| self.random.pick(&entered))
    }

    /// Where there is no derived value, no metric is left.
    fn give_back(&mut self, tenant: usize) -> Option<Vec<String>> {
        let (kind, day) = self.by_hand(tenant)?;
        // What was changed by hand before is summed first, or later.
        let first = match self.random.percent(50) {
            true => "SELECT connector_service_process(); ",
            false => "",
        };
        if self.random.percent(20) {
            self.tenants[tenant]
                .by_hand
                .retain(|(of, _), _| table_of(of) != table_of(kind));
            return Some(vec![format!(
                "{first}UPDATE {} SET by_hand = false WHERE tenant_id = '{}'",
                table_of(kind),
                tenant_id(tenant)
            )]);
        }
        self.tenants[tenant].by_hand.remove(&(kind, day));
        Some(vec![format!(
            "{first}UPDATE {} SET by_hand = false WHERE {}",
            table_of(kind),
            metric(tenant, kind, day)
        )])
    }

    fn delete_metric(&mut self, tenant: usize) -> Option<Vec<String>> {
        let (kind, day) = match self.by_hand(tenant) {
            Some(entered) if self.random.percent(80) => entered,
            _ => self.some_metric(tenant),
        };
        self.tenants[tenant].by_hand.remove(&(kind, day));
        Some(vec![format!(
            "DELETE FROM {} WHERE {}",
            table_of(kind),
            metric(tenant, kind, day)
        )])
    }
}

fn random_count(random: &mut Random) -> usize {
    random.pick(&[1, 1, 1, 2, 2, 3])
}

fn factor(random: &mut Random) -> Exact {
    let (digits, places) = random.pick(&[(1, 0), (1, 0), (1, 0), (-1, 0), (25, 2), (-15, 1)]);
    Exact::new(digits, places)
}

/// One thing changes: a good record may turn bad, and a bad one good.
fn edit(order: &mut Order, random: &mut Random, days: &[Day], home: &str) {
    let bad = random.pick(&[0, 0, 50]);
    match random.below(8) {
        0 | 1 => order.total = order::amount(random, bad),
        2 => order.at = order::when(random, days, bad),
        3 => order.category = order::category(random, bad),
        4 => order.currency = order::currency(random, home, bad),
        5 => order.status = random.pick(&[Some("cancelled"), Some("paid"), None]),
        6 => order.lines = Order::random(random, days, home).lines,
        _ => *order = Order::random(random, days, home),
    }
}

fn row(tenant: usize, connector: usize, id: usize) -> String {
    format!(
        "connector_id = '{}' AND source_record_id = 'orders/{id}'",
        connector_id(tenant, connector)
    )
}

fn table_of(kind: Kind) -> &'static str {
    match FOUR.contains(&kind) {
        true => "metrics",
        false => "measure_values",
    }
}

fn measure_of(measures: &BTreeMap<Kind, Measure>, kind: Kind) -> Measure {
    measures.get(kind).copied().unwrap_or(FOUR_ARE)
}

fn metric(tenant: usize, kind: Kind, day: Day) -> String {
    format!(
        "(tenant_id, metric_type, metric_date) = ('{}', '{kind}', '{day}')",
        tenant_id(tenant)
    )
}

impl Mapping {
    /// Only money has minor units and refunds, and texts are counted as they are.
    fn fit(&mut self, measure: Measure) {
        self.counts_texts = measure.aggregation == Aggregation::DistinctCount;
        if self.counts_texts {
            self.factor = Exact::ONE;
        }
        if !measure.is_money {
            self.is_minor = false;
            if self.negative == Negative::Costs {
                self.negative = Negative::Net;
            }
        }
    }

    /// What stands in the row, but for whom it is: pairs of column and SQL.
    fn columns(&self) -> Vec<(&'static str, String)> {
        let text = |text: &str| format!("'{text}'");
        let null = || "NULL".to_owned();
        let lines = self.value == Value::Lines;
        let record = if lines { "$record" } else { "$" };
        vec![
            ("metric_type", text(self.kind)),
            (
                "items_path",
                if lines { text("$.lines[*]") } else { null() },
            ),
            (
                "value_path",
                text(match self.value {
                    Value::Total | Value::Lines if self.counts_texts => "$.category",
                    Value::OnlyLine if self.counts_texts => "$.lines[*].category",
                    Value::Total => "$.total",
                    Value::OnlyLine => "$.lines[*].amount",
                    Value::Lines => "$.amount",
                }),
            ),
            ("date_path", text(&format!("{record}.created_at"))),
            (
                "category_path",
                match self.category {
                    Category::None => null(),
                    Category::Record => text(&format!("{record}.category")),
                    Category::Line => text("$.category"),
                    Category::Food => text("\"food\""),
                },
            ),
            (
                "currency_path",
                match self.has_currency {
                    true => text(&format!("{record}.currency")),
                    false => null(),
                },
            ),
            (
                "filter",
                match self.filter {
                    Filter::None => null(),
                    Filter::Paid => text(&format!("{record}.status == \"paid\"")),
                    Filter::OnlyPaid => text(&format!("{record} ? (@.status == \"paid\")")),
                    Filter::NotCancelled => text(&format!("!({record}.status == \"cancelled\")")),
                },
            ),
            (
                "negative",
                text(match self.negative {
                    Negative::Reject => "reject",
                    Negative::Net => "net",
                    Negative::Costs => "costs",
                }),
            ),
            ("factor", self.factor.to_string()),
            ("unit", text(if self.is_minor { "minor" } else { "major" })),
            ("active", self.is_active.to_string()),
            ("class", self.class.map_or_else(null, text)),
        ]
    }

    fn insert(&self, tenant: usize) -> String {
        let (mut names, mut values) = (
            vec!["mapping_id", "stream"],
            vec![self.id.to_string(), "'orders'".into()],
        );
        match self.connector {
            Some(connector) => {
                names.push("connector_id");
                values.push(format!("'{}'", connector_id(tenant, connector)));
            }
            None => {
                names.extend(["connector_type", "tenant_id"]);
                values.extend(["'api'".into(), format!("'{}'", tenant_id(tenant))]);
            }
        }
        for (name, value) in self.columns() {
            names.push(name);
            values.push(value);
        }
        format!(
            "INSERT INTO metric_mappings ({}) VALUES ({})",
            names.join(", "),
            values.join(", ")
        )
    }

    fn update(&self) -> String {
        let columns: Vec<String> = self
            .columns()
            .into_iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        format!(
            "UPDATE metric_mappings SET {} WHERE mapping_id = {}",
            columns.join(", "),
            self.id
        )
    }
}
