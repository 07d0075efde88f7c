//! Tests the update from every released version to this one: the same objects as a fresh install, the same rows, and no
//! sync while a new library meets old SQL.
//!
//! A released version is its whole install script, frozen in `sql/released`; the way from it is in `sql`. Version 0.0.0
//! is made here, out of this version's own script: it shows that what is compared would be seen to differ.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use connector_service_test::*;
use postgres::Client;

const THIS: &str = env!("CARGO_PKG_VERSION");

/// The folder of the server's install scripts, and what was put there for a test.
struct Scripts {
    folder: PathBuf,
    added: Vec<PathBuf>,
}

impl Scripts {
    fn new() -> Scripts {
        let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into());
        let shared = Command::new(pg_config).arg("--sharedir").output().unwrap();
        let shared = String::from_utf8(shared.stdout).unwrap();
        Scripts {
            folder: Path::new(shared.trim()).join("extension"),
            added: vec![],
        }
    }

    /// What a test that was killed has left there is written over.
    fn add(&mut self, versions: &str, text: &str) {
        let file = self
            .folder
            .join(format!("connector_service--{versions}.sql"));
        std::fs::write(&file, text).unwrap();
        self.added.push(file);
    }

    fn of_this_version(&self) -> String {
        let file = self.folder.join(format!("connector_service--{THIS}.sql"));
        std::fs::read_to_string(file).unwrap()
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        for file in &self.added {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Versions with their install scripts.
fn released() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/released");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|file| {
            let name = file.file_name().into_string().unwrap();
            let version = name
                .strip_prefix("connector_service--")?
                .strip_suffix(".sql")?;
            Some((
                version.to_owned(),
                std::fs::read_to_string(file.path()).unwrap(),
            ))
        })
        .collect()
}

/// Everything that makes the objects what they are, as text.
const OBJECTS: &str = "
WITH member AS (
    SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' WHERE d.deptype = 'e'),
relation AS (SELECT c.* FROM member m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass)
SELECT string_agg(translate(line, E'\\n', ' '), E'\\n' ORDER BY line COLLATE \"C\") FROM (
    SELECT format('%s: %s', pg_describe_object(m.classid, m.objid, 0), obj_description(m.objid, m.classid::regclass::name)) FROM member m
    UNION ALL SELECT format('schema %s: %s', n.nspname, n.nspacl) FROM member m JOIN pg_namespace n ON n.oid = m.objid AND m.classid = 'pg_namespace'::regclass
    UNION ALL SELECT format('%s owned by %s, %s, %s %s %s', r.oid::regclass, r.relowner::regrole, r.relacl, r.reloptions, r.relrowsecurity, r.relforcerowsecurity) FROM relation r
    UNION ALL SELECT format('%s.%s %s %s %s %s %s %s', r.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attacl,
            pg_get_expr(f.adbin, f.adrelid), col_description(r.oid, a.attnum))
        FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped LEFT JOIN pg_attrdef f ON f.adrelid = r.oid AND f.adnum = a.attnum
    UNION ALL SELECT pg_get_indexdef(i.indexrelid) FROM relation r JOIN pg_index i ON i.indrelid = r.oid
    UNION ALL SELECT format('%s %s %s', r.oid::regclass, k.conname, pg_get_constraintdef(k.oid)) FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid
    UNION ALL SELECT pg_get_triggerdef(t.oid) FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
    UNION ALL SELECT format('%s %s %s %s %s', r.oid::regclass, p.polname, p.polcmd, p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid)) FROM relation r JOIN pg_policy p ON p.polrelid = r.oid
    UNION ALL SELECT format('%s %s', r.oid::regclass, pg_get_viewdef(r.oid)) FROM relation r WHERE r.relkind IN ('v', 'm')
    UNION ALL SELECT format('%s %s %s', p.proowner::regrole, p.proacl, pg_get_functiondef(p.oid)) FROM member m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
    UNION ALL SELECT format('dumped: %s %s', x.oid::regclass, x.condition) FROM pg_extension e CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) AS x(oid, condition) WHERE e.extname = 'connector_service'
    UNION ALL SELECT format('%s', to_jsonb(m) - 'created_at' - 'updated_at') FROM metric_mappings m WHERE m.builtin
) AS x(line)";

fn text(client: &mut Client, sql: &str) -> String {
    client
        .query_one(sql, &[])
        .unwrap()
        .get::<_, Option<String>>(0)
        .unwrap_or_default()
}

/// What one has that the other lacks.
fn differences(one: &str, other: &str) -> Vec<String> {
    let lacking = |a: &str, b: &str, sign: &str| -> Vec<String> {
        let there: std::collections::BTreeSet<&str> = b.lines().collect();
        a.lines()
            .filter(|line| !there.contains(line))
            .map(|line| format!("{sign} {line}"))
            .collect()
    };
    [lacking(one, other, "-"), lacking(other, one, "+")].concat()
}

fn rows(client: &mut Client) -> Vec<String> {
    ["tenants", "connectors", "sync_runs", "sync_state", "raw_connector_data", "quarantine", "metrics", "metric_mappings"]
        .iter()
        .map(|table| {
            let columns = "SELECT string_agg(format('%L, %I', attname, attname), ', ' ORDER BY attname) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";
            let columns: String = client.query_one(columns, &[table]).unwrap().get(0);
            let sql = format!("SELECT string_agg(j::text, E'\\n' ORDER BY j::text COLLATE \"C\") FROM (SELECT jsonb_build_object({columns}) AS j FROM {table}) x");
            text(client, &sql)
        })
        .collect()
}

/// Installs a version, lets it work as far as the library does, and updates it.
fn update(cluster: &Cluster, version: &str, vendor: &Vendor) -> String {
    let name = format!("v{}", version.replace('.', "_"));
    cluster
        .client("postgres")
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .unwrap();
    let mut client = cluster.client(&name);
    client
        .batch_execute(&format!(
            "CREATE EXTENSION connector_service VERSION '{version}'"
        ))
        .unwrap();
    let said = format!("the installed SQL is version {version}");
    wait_until(20, "the worker says why it does nothing", || {
        cluster.log().contains(&said).then_some(())
    });
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "orders"));
    let asked = vendor.asked().len();
    let run = sync(&mut client, &connector);
    client
        .batch_execute(
            "INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) SELECT tenant_id, 'costs', 5, '2026-01-05' FROM tenants;
             INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data) SELECT tenant_id, connector_id, type, 'items', 'items/1', '{\"id\": 1}' FROM connectors",
        )
        .unwrap();
    assert_eq!(run_of(&mut client, &run)["state"], "queued");
    let before = rows(&mut client);
    client
        .batch_execute("ALTER EXTENSION connector_service UPDATE")
        .unwrap();
    assert_eq!(
        text(
            &mut client,
            "SELECT extversion FROM pg_extension WHERE extname = 'connector_service'"
        ),
        THIS
    );
    let objects = text(&mut client, OBJECTS);
    // New SQL and library go on with the run that was queued; all else is as it was.
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    assert!(vendor.asked().len() > asked);
    for (then, now) in before.iter().zip(rows(&mut client)) {
        let gone: Vec<&str> = then
            .lines()
            .filter(|line| {
                !line.contains("next_sync_at")
                    && !line.contains("\"queued\"")
                    && !line.contains("\"processed\": false")
            })
            .collect();
        assert!(
            gone.iter().all(|line| now.contains(line)),
            "{gone:?}\n{now}"
        );
    }
    objects
}

#[test]
fn an_update_from_every_released_version_equals_a_fresh_install() {
    let mut scripts = Scripts::new();
    let own = scripts.of_this_version();
    let cluster = Cluster::start("");
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}]}"#.into()));
    let fresh = text(&mut cluster.database("fresh"), OBJECTS);
    assert!(fresh.lines().count() > 500);

    // The same objects under another number.
    scripts.add("0.0.0", &own);
    scripts.add(&format!("0.0.0--{THIS}"), "-- nothing to do");
    assert_eq!(
        differences(&fresh, &update(&cluster, "0.0.0", &vendor)),
        Vec::<String>::new()
    );
    let mut versions = vec!["0.0.0".to_owned()];
    for (version, script) in released() {
        scripts.add(&version, &script);
        assert_eq!(
            differences(&fresh, &update(&cluster, &version, &vendor)),
            Vec::<String>::new(),
            "{version}"
        );
        versions.push(version);
    }
    println!("updated to {THIS}: {versions:?}");
}

#[test]
fn an_incomplete_update_script_is_detected() {
    let mut scripts = Scripts::new();
    let own = scripts.of_this_version();
    let cluster = Cluster::start("max_worker_processes = 20");
    let mut fresh = cluster.database("fresh");
    let fresh = text(&mut fresh, OBJECTS);
    for (n, (forgotten, seen)) in [
        ("DROP INDEX idx_raw_tenant", "idx_raw_tenant"),
        (
            "ALTER TABLE metrics DROP CONSTRAINT valid_metric_value",
            "valid_metric_value",
        ),
        (
            "ALTER TABLE metrics NO FORCE ROW LEVEL SECURITY",
            "metrics owned by",
        ),
        (
            "GRANT EXECUTE ON FUNCTION connector_service_verify(uuid) TO PUBLIC",
            "connector_service_verify",
        ),
        ("DROP POLICY own ON sync_runs", "sync_runs own"),
        (
            "ALTER FUNCTION _connector_service.connector_service_settle(integer, uuid) SECURITY INVOKER",
            "connector_service_settle",
        ),
        ("COMMENT ON COLUMN metrics.data IS 'x'", "metrics.data"),
    ]
    .into_iter()
    .enumerate()
    {
        let version = format!("0.0.1{n}");
        scripts.add(&version, &format!("{own}\n{forgotten};"));
        scripts.add(&format!("{version}--{THIS}"), "-- forgotten");
        cluster
            .client("postgres")
            .batch_execute(&format!("CREATE DATABASE d{n}"))
            .unwrap();
        let mut client = cluster.client(&format!("d{n}"));
        client
            .batch_execute(&format!("CREATE EXTENSION connector_service VERSION '{version}'; ALTER EXTENSION connector_service UPDATE"))
            .unwrap();
        let found = differences(&fresh, &text(&mut client, OBJECTS));
        assert!(
            found.iter().any(|line| line.contains(seen)) && found.len() <= 2,
            "{forgotten}: {found:?}"
        );
    }
}

#[test]
fn an_update_that_fails_changes_nothing() {
    let mut scripts = Scripts::new();
    let own = scripts.of_this_version();
    let cluster = Cluster::start("");
    scripts.add("0.0.2", &own);
    scripts.add(
        &format!("0.0.2--{THIS}"),
        "CREATE TABLE new_table (); SELECT 1 / 0;",
    );
    cluster
        .client("postgres")
        .batch_execute("CREATE DATABASE app")
        .unwrap();
    let mut client = cluster.client("app");
    client
        .batch_execute("CREATE EXTENSION connector_service VERSION '0.0.2'")
        .unwrap();
    let before = text(&mut client, OBJECTS);
    let error = client
        .batch_execute("ALTER EXTENSION connector_service UPDATE")
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22012");
    assert_eq!(text(&mut client, OBJECTS), before);
    assert_eq!(
        text(
            &mut client,
            "SELECT extversion FROM pg_extension WHERE extname = 'connector_service'"
        ),
        "0.0.2"
    );
    // With the right script it goes through.
    scripts.add(&format!("0.0.2--{THIS}"), "-- nothing to do");
    client
        .batch_execute("ALTER EXTENSION connector_service UPDATE")
        .unwrap();
    let pid = cluster.wait_worker("app");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(cluster.worker("app"), Some(pid));
}
