//! Calls every function of the extension, and writes its tables in every way, at random and as each kind of role. A
//! statement must succeed, or fail with an error that its user can act on. No process may end, and no error may be an
//! internal one.
//!
//! `CALLS=1000000` calls that often (default 40000, a minute), `SEED=...` repeats a run: what is called is then the same, what
//! several sessions do at the same time is not.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use connector_service_test::*;
use postgres::error::SqlState;
use postgres::{Client, SimpleQueryMessage};

const DEFAULT_CALLS: u64 = 40_000;
/// Sessions that call at once. More: locks are all they meet. Fewer: they meet none.
const SESSIONS: u64 = 4;
/// Calls in one transaction.
const AT_ONCE: usize = 100;

/// Runs each statement within a subtransaction of its own. Returns what must not come: internal errors, and failures of
/// assertions; and counts the others by SQLSTATE.
const DRIVER: &str = "
CREATE SCHEMA driver;
CREATE FUNCTION driver.attempt(p_statements text[]) RETURNS TABLE (state text, count bigint, message text, statement text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_statement text;
    v_counts jsonb := '{}';
    v_state text;
    v_message text;
BEGIN
    FOREACH v_statement IN ARRAY p_statements LOOP
        v_state := '00000';
        BEGIN
            EXECUTE v_statement;
        EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
            GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
            IF v_state LIKE 'XX%' OR v_state = 'P0004' THEN
                state := v_state; count := 1; message := v_message; statement := v_statement;
                RETURN NEXT;
            END IF;
        END;
        v_counts := jsonb_set(v_counts, ARRAY[v_state], to_jsonb(coalesce((v_counts ->> v_state)::bigint, 0) + 1));
    END LOOP;
    message := NULL; statement := NULL;
    FOR state, count IN SELECT c.key, c.value::bigint FROM jsonb_each_text(v_counts) AS c LOOP
        RETURN NEXT;
    END LOOP;
END
$$;
GRANT USAGE ON SCHEMA driver TO PUBLIC;
-- What keeps others away is then what each function grants.
GRANT USAGE ON SCHEMA _connector_service TO PUBLIC;
CREATE ROLE an_administrator IN ROLE connector_service_admin;
CREATE ROLE an_application IN ROLE connector_service_app;
CREATE ROLE a_tenant IN ROLE connector_service_tenant;
CREATE ROLE a_stranger;
INSERT INTO tenants (tenant_id, name) VALUES ('00000000-0000-4000-8000-000000000001', 'one'), ('00000000-0000-4000-8000-000000000002', 'two');
INSERT INTO tenant_roles (role_name, tenant_id) VALUES ('a_tenant', '00000000-0000-4000-8000-000000000001');
INSERT INTO connectors (connector_id, tenant_id, name, type, credentials, config, sync_frequency) VALUES
    ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-000000000001', 'files', 'csv', '{}', '{}', 'manual'),
    ('00000000-0000-4000-8000-00000000000b', '00000000-0000-4000-8000-000000000002', 'till', 'webhook', '{\"secret\": \"whsec_test_not_a_real_secret\"}', '{\"stream\": \"orders\"}', 'manual'),
    ('00000000-0000-4000-8000-00000000000c', '00000000-0000-4000-8000-000000000002', 'pay', 'stripe', '{\"api_key\": \"sk_test_not_a_real_key\"}', '{}', 'manual');
";

/// Those who may do something come twice.
const ROLES: [&str; 11] = [
    "postgres",
    "an_administrator",
    "an_application",
    "a_tenant",
    "connector_service_engine",
    "postgres",
    "an_administrator",
    "an_application",
    "a_tenant",
    "a_stranger",
    "connector_service_engine",
];

/// Ids that something has, and one that nothing has.
const IDS: [&str; 8] = [
    "00000000-0000-4000-8000-000000000001",
    "00000000-0000-4000-8000-000000000002",
    "00000000-0000-4000-8000-00000000000a",
    "00000000-0000-4000-8000-00000000000b",
    "00000000-0000-4000-8000-00000000000c",
    "00000000-0000-4000-8000-00000000000d",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
];

const TEXTS: [&str; 40] = [
    "''",
    "' '",
    "'x'",
    "'revenue'",
    "'inventory'",
    "'costs'",
    "'daily'",
    "'hourly'",
    "'manual'",
    "'week'",
    "'month'",
    "'active'",
    "'paused'",
    "'error'",
    "'queued'",
    "'running'",
    "'sync'",
    "'csv'",
    "'api'",
    "'stripe'",
    "'orders'",
    "'$.total'",
    "'$'",
    "'$['",
    "'UTC'",
    "'Europe/Berlin'",
    "'Nowhere/At all'",
    "'EUR'",
    "'read'",
    "'2026-01-01'",
    "'12.50'",
    "'-1e400'",
    "'NaN'",
    "E'\\t\\n\\x01'",
    "'%s%n\\'",
    "'\"'",
    "'{{ config }}'",
    "U&'\\+01F600\\200F\\FEFF'",
    "repeat('x', 70000)",
    "repeat(U&'\\+01F600', 20000)",
];

const JSON: [&str; 22] = [
    "'{}'",
    "'[]'",
    "'null'",
    "'1'",
    "'\"text\"'",
    "'true'",
    "'{\"\": null}'",
    "'{\"a\": {\"b\": [1, null]}}'",
    "'{\"manifest\": {}}'",
    "'{\"manifest\": {\"streams\": [{}]}}'",
    "'{\"streams\": [null]}'",
    "'{\"streams\": \"orders\"}'",
    "'{\"api_key\": \"sk_test_not_a_real_key\"}'",
    "'{\"api_key\": {\"$sealed\": \"v1.x.y\"}}'",
    "'{\"$box\": \"AAAA\"}'",
    "'{\"n\": 1e400, \"m\": -0.0}'",
    "(repeat('[', 100) || repeat(']', 100))",
    "(repeat('[', 128) || repeat(']', 128))",
    "(repeat('{\"a\":', 3000) || '1' || repeat('}', 3000))",
    "('[' || repeat('null,', 30000) || 'null]')",
    "('{\"k\": \"' || repeat('x', 70000) || '\"}')",
    "('{\"' || repeat('k', 70000) || '\": 1}')",
];

/// A value of a type, as SQL.
fn value(random: &mut Random, kind: &str) -> String {
    if random.percent(12) {
        return format!("NULL::{kind}");
    }
    if let Some(element) = kind.strip_suffix("[]") {
        return match random.below(4) {
            0 => format!("'{{}}'::{kind}"),
            1 => format!("ARRAY[NULL]::{kind}"),
            _ => {
                let items: Vec<String> = (0..1 + random.below(3))
                    .map(|_| value(random, element))
                    .collect();
                format!("ARRAY[{}]::{kind}", items.join(", "))
            }
        };
    }
    let text = match kind {
        "uuid" => match random.percent(85) {
            true => format!("'{}'", random.pick(&IDS)),
            false => "gen_random_uuid()".into(),
        },
        "jsonb" | "json" => random.pick(&JSON).into(),
        "boolean" => random.pick(&["'t'", "'f'"]).into(),
        "smallint" => random
            .pick(&["'-32768'", "'-1'", "'0'", "'1'", "'32767'"])
            .into(),
        "integer" => random
            .pick(&[
                "'-2147483648'",
                "'-1'",
                "'0'",
                "'1'",
                "'7'",
                "'1000'",
                "'2147483647'",
            ])
            .into(),
        "bigint" => random
            .pick(&[
                "'-9223372036854775808'",
                "'-1'",
                "'0'",
                "'1'",
                "'5000'",
                "'9223372036854775807'",
            ])
            .into(),
        "numeric" => random
            .pick(&[
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "'0'",
                "'-0.00'",
                "'12.50'",
                "'1e131000'",
                "'1e-16000'",
                "'-1e30'",
            ])
            .into(),
        "double precision" | "real" => random
            .pick(&["'NaN'", "'Infinity'", "'0'", "'-1e30'"])
            .into(),
        "date" => random
            .pick(&[
                "'infinity'",
                "'-infinity'",
                "'4713-01-01 BC'",
                "'5874897-12-31'",
                "'2026-01-01'",
                "'2026-02-28'",
                "'epoch'",
            ])
            .into(),
        "timestamp with time zone" | "timestamp without time zone" => random
            .pick(&[
                "'infinity'",
                "'-infinity'",
                "'4713-01-01 BC'",
                "'294276-12-31'",
                "'2026-01-01'",
                "now()",
                "'epoch'",
            ])
            .into(),
        "interval" => random
            .pick(&[
                "'0'",
                "'1 day'",
                "'1 month'",
                "'-1 s'",
                "'178000000 years'",
                "'-178000000 years'",
                "'1 us'",
                "'1 month -31 days'",
            ])
            .into(),
        "bytea" => random
            .pick(&[
                "''",
                "'\\x00'",
                "'id,total\\0121,2\\012'",
                "decode(repeat('ff', 70000), 'hex')",
                "sha256('x')",
            ])
            .into(),
        "oid" | "regclass" => random.pick(&["'0'", "'1259'", "'4294967295'"]).into(),
        "jsonpath" => random
            .pick(&["'$'", "'$.total'", "'strict $.a[*]'", "'$.a ? (@ > 1)'"])
            .into(),
        "name" => random
            .pick(&[
                "''",
                "'a_tenant'",
                "'postgres'",
                "repeat('n', 70000)",
                "'no such role'",
            ])
            .into(),
        "text" | "character varying" => random.pick(&TEXTS).into(),
        _ => "NULL".into(),
    };
    format!("({text})::{kind}")
}

struct Function {
    /// With its schema.
    name: String,
    arguments: Vec<String>,
    kind: String,
    is_rare: bool,
}

struct Table {
    name: String,
    columns: Vec<(String, String)>,
}

/// What there is to call: all that belongs to the extension.
struct Extension {
    functions: Vec<Function>,
    tables: Vec<Table>,
    views: Vec<String>,
    merges: bool,
}

/// Look at every row of everything.
const SLOW: [&str; 6] = [
    "connector_service_doctor",
    "connector_service_prometheus",
    "connector_service_verify",
    "connector_service_check_quality",
    "check_missing_data",
    "refresh_monthly_revenue",
];

const MEMBERS: &str =
    "FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service'
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'";

impl Extension {
    fn of(client: &mut Client) -> Extension {
        let functions = client
            .query(
                &format!(
                    "SELECT p.oid::regproc::text, p.prokind::text, ARRAY(SELECT format_type(t.type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS t (type, place) ORDER BY t.place), p.prorettype = 'trigger'::regtype
                     FROM pg_proc p WHERE p.oid IN (SELECT d.objid {MEMBERS} AND d.classid = 'pg_proc'::regclass) ORDER BY p.oid::regprocedure::text"
                ),
                &[],
            )
            .unwrap();
        let functions: Vec<Function> = functions
            .iter()
            .map(|row| Function {
                name: row.get(0),
                kind: row.get(1),
                arguments: row.get(2),
                is_rare: SLOW.contains(&row.get(0)) || row.get(3),
            })
            .collect();
        let relations = |client: &mut Client, kinds: &str| -> Vec<String> {
            let sql = format!(
                "SELECT c.relname::text FROM pg_class c WHERE c.relkind::text = ANY ($1::text::text[]) AND c.oid IN (SELECT d.objid {MEMBERS} AND d.classid = 'pg_class'::regclass) ORDER BY 1"
            );
            client
                .query(&sql, &[&kinds])
                .unwrap()
                .iter()
                .map(|row| row.get(0))
                .collect()
        };
        let tables = relations(client, "{r,p}");
        let views = relations(client, "{v,m}");
        let columns = "SELECT a.attname::text, format_type(a.atttypid, NULL) FROM pg_attribute a
                       WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let tables: Vec<Table> = tables
            .into_iter()
            .map(|name| Table {
                columns: client
                    .query(columns, &[&name])
                    .unwrap()
                    .iter()
                    .map(|row| (row.get(0), row.get(1)))
                    .collect(),
                name,
            })
            .collect();
        let version: i32 = client
            .query_one("SELECT current_setting('server_version_num')::integer", &[])
            .unwrap()
            .get(0);
        assert!(functions.len() > 60 && tables.len() > 15 && views.len() > 3);
        Extension {
            functions,
            tables,
            views,
            merges: version >= 150_000,
        }
    }

    fn call(&self, random: &mut Random) -> String {
        let function = loop {
            let function = &self.functions[random.below(self.functions.len())];
            if !function.is_rare || random.percent(10) {
                break function;
            }
        };
        let given: Vec<String> = function
            .arguments
            .iter()
            .map(|kind| value(random, kind))
            .collect();
        let (name, given) = (&function.name, given.join(", "));
        match function.kind.as_str() {
            "p" => format!("CALL {name}({given})"),
            _ => format!("SELECT * FROM {name}({given})"),
        }
    }

    fn write(&self, random: &mut Random) -> String {
        let table = &self.tables[random.below(self.tables.len())];
        let name = &table.name;
        let mut some: Vec<&(String, String)> = vec![];
        let most = [3, table.columns.len()][random.below(2)];
        for column in &table.columns {
            if some.len() < most && random.percent(if most == 3 { 30 } else { 90 }) {
                some.push(column);
            }
        }
        if some.is_empty() {
            some.push(&table.columns[random.below(table.columns.len())]);
        }
        let of = |random: &mut Random, (_, kind): &(String, String)| value(random, kind);
        let place = |random: &mut Random| {
            let column = &table.columns[random.below(table.columns.len())];
            match random.below(4) {
                0 => "true".to_owned(),
                1 => format!("{} IS NULL", column.0),
                _ => format!("{} = {}", column.0, of(random, column)),
            }
        };
        let names = |columns: &[&(String, String)]| {
            columns
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match random.below(100) {
            0..=44 => {
                let values: Vec<String> = some.iter().map(|column| of(random, column)).collect();
                let conflict = random.pick(&["", "", " ON CONFLICT DO NOTHING"]);
                format!(
                    "INSERT INTO {name} ({}) VALUES ({}){conflict}",
                    names(&some),
                    values.join(", ")
                )
            }
            45..=79 => {
                let set: Vec<String> = some
                    .iter()
                    .map(|column| format!("{} = {}", column.0, of(random, column)))
                    .collect();
                format!(
                    "UPDATE {name} SET {} WHERE {}",
                    set.join(", "),
                    place(random)
                )
            }
            80..=89 => format!("DELETE FROM {name} WHERE {}", place(random)),
            90..=95 if self.merges => {
                let values: Vec<String> = some.iter().map(|column| of(random, column)).collect();
                let (first, kind) = &table.columns[0];
                format!(
                    "MERGE INTO {name} AS t USING (SELECT {}) AS s (v) ON t.{first} = s.v
                     WHEN MATCHED THEN UPDATE SET {} = {}
                     WHEN NOT MATCHED THEN INSERT ({}) VALUES ({})",
                    value(random, kind),
                    some[0].0,
                    values[0],
                    names(&some),
                    values.join(", ")
                )
            }
            96 => format!("TRUNCATE {name} CASCADE"),
            _ => {
                let view = &self.views[random.below(self.views.len())];
                format!(
                    "SELECT count(*) FROM {}",
                    if random.percent(50) { view } else { name }
                )
            }
        }
    }

    fn statement(&self, random: &mut Random) -> String {
        match random.percent(50) {
            true => self.call(random),
            false => self.write(random),
        }
    }

    /// What cannot run within a function: COPY from the client, and procedures that commit.
    fn alone(
        &self,
        random: &mut Random,
        client: &mut Client,
    ) -> Result<String, (String, postgres::Error)> {
        if random.percent(50) {
            let id = random.pick(&IDS);
            let timeout = random.pick(&["'0'", "'10 ms'", "NULL", "'-1 day'"]);
            let sql = match random.below(3) {
                0 => format!("CALL connector_service_wait('{id}', {timeout}::interval)"),
                1 => format!("CALL connector_service_sync_wait('{id}', {timeout}::interval)"),
                _ => format!(
                    "CALL connector_service_rotate_key({})",
                    random.pick(&["true", "false", "NULL"])
                ),
            };
            return client
                .batch_execute(&sql)
                .map(|()| sql.clone())
                .map_err(|error| (sql, error));
        }
        let table = &self.tables[random.below(self.tables.len())];
        let sql = format!("COPY {} FROM STDIN", table.name);
        let mut line: Vec<&str> = vec![];
        for _ in &table.columns {
            line.push(random.pick(&[
                "\\N",
                "",
                "1",
                "{}",
                "x",
                "infinity",
                IDS[0],
                IDS[3],
                "[[[",
                "\\x00",
                "2026-01-01",
            ]));
        }
        let copied = client.copy_in(&sql).and_then(|mut writer| {
            // What could not be written is said by finish().
            let _ = writer.write_all((line.join("\t") + "\n").as_bytes());
            writer.finish()
        });
        copied.map(|_| sql.clone()).map_err(|error| (sql, error))
    }
}

/// What came of all calls, by SQLSTATE, and those that ended in an internal error.
#[derive(Default)]
struct Outcome {
    states: BTreeMap<String, u64>,
    internal: Vec<String>,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        for (state, count) in other.states {
            *self.states.entry(state).or_default() += count;
        }
        self.internal.extend(other.internal);
    }

    fn count(&mut self, state: &str, count: u64) {
        *self.states.entry(state.to_owned()).or_default() += count;
    }
}

fn session(cluster: &Cluster, extension: &Extension, seed: u64, left: &AtomicU64) -> Outcome {
    let mut random = Random(seed);
    let mut outcome = Outcome::default();
    let mut client = cluster.client("app");
    client
        .batch_execute("SET client_min_messages = error; SET lock_timeout = '100ms'; SET statement_timeout = '60s'; SET deadlock_timeout = '50ms'")
        .unwrap();
    loop {
        let before = left.load(Ordering::Relaxed);
        if before == 0 || outcome.internal.len() > 20 {
            return outcome;
        }
        left.store(before.saturating_sub(AT_ONCE as u64), Ordering::Relaxed);
        let role = random.pick(&ROLES);
        client
            .batch_execute(&format!(
                "SET connector_service.tenant_id = ''; SET SESSION AUTHORIZATION {role}"
            ))
            .unwrap();
        if random.percent(5) {
            // The client is of no use after a COPY that was refused.
            let mut alone = cluster.client("app");
            alone
                .batch_execute(&format!("SET client_min_messages = error; SET lock_timeout = '100ms'; SET SESSION AUTHORIZATION {role}"))
                .unwrap();

            if let Err((sql, error)) = extension.alone(&mut random, &mut alone) {
                let state = error.code().map_or("none", SqlState::code);
                outcome.count(state, 1);
                if state.starts_with("XX") || error.code().is_none() {
                    outcome.internal.push(format!("{role}: {sql}: {error:?}"));
                }
            }
        }
        let statements: Vec<String> = (0..AT_ONCE)
            .map(|_| extension.statement(&mut random))
            .collect();
        let begin = match role {
            "an_application" => format!(
                "BEGIN; SELECT connector_service_act_for('{}')",
                random.pick(&IDS[..2])
            ),
            "postgres" if random.percent(10) => {
                "BEGIN; SET LOCAL session_replication_role = replica".into()
            }
            _ => "BEGIN".into(),
        };
        client.batch_execute(&begin).unwrap();
        match client.query("SELECT * FROM driver.attempt($1)", &[&statements]) {
            Ok(rows) => {
                for row in rows {
                    let (state, message): (String, Option<String>) = (row.get(0), row.get(2));
                    match message {
                        None => outcome.count(&state, row.get::<_, i64>(1).unsigned_abs()),
                        Some(message) => {
                            let statement: String = row.get(3);
                            let shown: String = statement.chars().take(600).collect();
                            outcome
                                .internal
                                .push(format!("{role}: {state} {message}: {shown}"));
                        }
                    }
                }
            }
            Err(error) => outcome.internal.push(format!("{role}: {error:?}")),
        }
        let end = if random.percent(10) {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        // A deferred constraint may refuse the commit.
        if let Err(error) = client.batch_execute(end) {
            let state = error.code().map_or("none", SqlState::code);
            outcome.count(state, 1);
            if state.starts_with("XX") || error.code().is_none() {
                outcome.internal.push(format!("{role}: {end}: {error:?}"));
            }
        }
        client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
    }
}

/// When the server started, and which of its processes are ours. The upkeep process is not among them: it leaves when a call has deleted the last connector.
fn processes(client: &mut Client) -> Vec<String> {
    let sql = "SELECT pg_postmaster_start_time()::text UNION ALL
               (SELECT backend_type || ' ' || pid FROM pg_stat_activity WHERE backend_type LIKE 'connector\\_service%' AND backend_type <> 'connector_service upkeep' ORDER BY 1)";
    client
        .simple_query(sql)
        .unwrap()
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .collect()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_random_call_crashes_a_process_or_raises_an_internal_error() {
    let calls = setting("CALLS").unwrap_or(DEFAULT_CALLS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("SEED").unwrap_or(now.as_nanos() as u64);
    println!("SEED={seed} CALLS={calls}");

    let shop = Shop::new(20, 10);
    let vendor = Vendor::start(move |asked| shop.answer(asked));
    let cluster = Cluster::start(
        "log_error_verbosity = verbose\nlog_min_messages = warning\nmax_wal_size = 4GB\nfsync = off",
    );
    let mut client = cluster.database("app");
    client.batch_execute(DRIVER).unwrap();
    let config = Shop::config(&vendor.url());
    let connector = insert_connector(&mut client, "shop", &config);
    let sql = "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES ($1::text::uuid, 'orders', 'revenue', '$.total', '$.updated_at')";
    client.execute(sql, &[&connector]).unwrap();
    let run = sync(&mut client, &connector);
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    cluster.wait_worker("app");

    let extension = Extension::of(&mut client);
    let before = processes(&mut client);
    assert!(before.len() >= 3, "{before:?}");
    let left = AtomicU64::new(calls);
    let started = Instant::now();
    let mut outcome = Outcome::default();
    std::thread::scope(|scope| {
        let (cluster, extension, left) = (&cluster, &extension, &left);
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                scope.spawn(move || session(cluster, extension, seed.wrapping_add(number), left))
            })
            .collect();
        for session in sessions {
            outcome.add(session.join().unwrap());
        }
    });
    let took = started.elapsed();

    let total: u64 = outcome.states.values().sum();
    println!(
        "{total} calls in {:.0} s, {:.0} a second, {} of them succeeded: {:?}",
        took.as_secs_f64(),
        total as f64 / took.max(Duration::from_millis(1)).as_secs_f64(),
        outcome.states.get("00000").copied().unwrap_or_default(),
        outcome.states
    );
    assert_eq!(outcome.internal, Vec::<String>::new(), "SEED={seed}");
    assert!(total >= calls);
    // Not only refused.
    assert!(outcome.states["00000"] > calls / 10);
    assert_eq!(processes(&mut client), before, "SEED={seed}");
    let log = cluster.log();
    let wrong: Vec<&str> = log
        .lines()
        .filter(|line| {
            [
                "was terminated by signal",
                "PANIC:",
                "TRAP:",
                " XX000: ",
                " XX001: ",
                " XX002: ",
                "panicked",
            ]
            .iter()
            .any(|sign| line.contains(sign))
        })
        .collect();
    assert_eq!(wrong, Vec::<&str>::new(), "SEED={seed}");
}
