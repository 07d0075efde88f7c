//! docs/reference.md, made of what the installed extension says of itself: the catalog's comments, the settings'
//! descriptions, and the list of error codes.

use std::path::Path;

use connector_service_test::Cluster;
use postgres::Client;

use crate::accepts;

pub const FILE: &str = "docs/reference.md";

/// Objects of the extension in the schema that a user chose at CREATE EXTENSION.
const OWN: &str = "d.refobjid = e.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'connector_service'";

pub struct ErrorCode {
    pub word: String,
    /// Whether it is tried again without a person.
    pub is_transient: bool,
    hint: String,
}

/// The list in src/core/error.rs: `Variant "word" Class "hint";`
pub fn error_codes(root: &Path) -> Vec<ErrorCode> {
    let text = std::fs::read_to_string(root.join("src/core/error.rs")).unwrap();
    let list = text.split("\ncodes! {").nth(1).unwrap();
    let list = list.split("\n}").next().unwrap();
    let mut codes = Vec::new();
    for line in list.lines().map(str::trim) {
        if line.starts_with("//") || line.is_empty() {
            continue;
        }
        let mut parts = line.splitn(3, '"');
        let (_, word, rest) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
        let (class, hint) = rest.split_once('"').unwrap();
        codes.push(ErrorCode {
            word: word.to_owned(),
            is_transient: class.trim() == "Transient",
            hint: hint.trim_end_matches([';', '"']).to_owned(),
        });
    }
    assert!(codes.len() > 20, "the list of error codes");
    codes
}

fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let rows = client
        .query(sql, &[])
        .unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    let text = |row: &postgres::Row, n| row.get::<_, Option<String>>(n).unwrap_or_default();
    rows.iter()
        .map(|row| (0..row.len()).map(|n| text(row, n)).collect())
        .collect()
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('\n', " ")
        .trim()
        .to_owned()
}

fn table(page: &mut String, head: &[&str], rows: &[Vec<String>]) {
    *page += &format!("| {} |\n", head.join(" | "));
    *page += &format!("|{}\n", " --- |".repeat(head.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
        *page += &format!("| {} |\n", cells.join(" | "));
    }
    page.push('\n');
}

/// Functions and procedures that a user may call: one of the roles may, or the comment says that a superuser does. What
/// only the extension's own functions, triggers and policies call is left out.
fn functions(client: &mut Client, page: &mut String) {
    let sql = format!(
        "SELECT p.proname::text, p.oid::regprocedure::text, pg_get_function_arguments(p.oid),
             coalesce(pg_get_function_result(p.oid), ''), coalesce(obj_description(p.oid, 'pg_proc'), ''), p.prokind::text,
             coalesce((SELECT string_agg(r.name, ', ' ORDER BY r.n)
                 FROM unnest(ARRAY['admin', 'app', 'tenant']) WITH ORDINALITY AS r(name, n)
                 WHERE has_function_privilege('connector_service_' || r.name, p.oid, 'EXECUTE')), '')
         FROM pg_depend d JOIN pg_extension e ON true JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
         WHERE {OWN} AND p.pronamespace = e.extnamespace AND p.prorettype <> 'trigger'::regtype
             AND p.prorettype <> 'event_trigger'::regtype
             AND coalesce(obj_description(p.oid, 'pg_proc'), '') !~ '^For (the trigger|connector_service|triggers|policies|the)'
         ORDER BY p.proname COLLATE \"C\", p.oid::regprocedure::text COLLATE \"C\""
    );
    *page += "## Functions and procedures\n\n";
    *page += "Call a function with `SELECT`, a procedure with `CALL`. \"May call it\" names the roles that\n";
    *page +=
        "[security](security.md#roles) explains, without their prefix `connector_service_`.\n\n";
    for row in rows(client, &sql) {
        let [name, _, arguments, result, comment, kind, roles] = &row[..] else {
            unreachable!()
        };
        if roles.is_empty() && !comment.contains("superuser") {
            continue;
        }
        *page += &format!("### {name}\n\n");
        let call = match kind.as_str() {
            "p" => "CALL ",
            _ => "",
        };
        let result = match result.as_str() {
            "" => String::new(),
            result => format!(" returns {result}"),
        };
        *page += &format!("`{call}{name}({arguments}){result}`\n\n");
        *page += &format!("{comment}\n\n");
        let roles = if roles.is_empty() {
            "superusers"
        } else {
            roles
        };
        *page += &format!("May call it: {roles}.\n\n");
    }
}

fn relations(client: &mut Client, page: &mut String, title: &str, kinds: &str) {
    let sql = format!(
        "SELECT c.oid::text, c.relname::text, coalesce(obj_description(c.oid, 'pg_class'), '')
         FROM pg_depend d JOIN pg_extension e ON true JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
         WHERE {OWN} AND c.relnamespace = e.extnamespace AND c.relkind IN ({kinds}) ORDER BY c.relname COLLATE \"C\""
    );
    *page += &format!("## {title}\n\n");
    for relation in rows(client, &sql) {
        let [oid, name, comment] = &relation[..] else {
            unreachable!()
        };
        *page += &format!("### {name}\n\n{comment}\n\n");
        let sql = format!(
            "SELECT '`' || a.attname || '`', format_type(a.atttypid, a.atttypmod),
                 coalesce('`' || pg_get_expr(f.adbin, f.adrelid) || '`', CASE WHEN a.attnotnull THEN 'required' ELSE '' END),
                 coalesce(col_description(a.attrelid, a.attnum), '')
             FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
             WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
        );
        let mut columns = rows(client, &sql);
        if kinds == "'r'" {
            table(page, &["column", "type", "default", "meaning"], &columns);
        } else {
            // A view has no defaults.
            for column in &mut columns {
                column.remove(2);
            }
            table(page, &["column", "type", "meaning"], &columns);
        }
    }
}

fn settings(client: &mut Client, page: &mut String) {
    let sql = "SELECT '`' || name || '`', coalesce(CASE
                 WHEN boot_val = '' THEN ''
                 WHEN unit = 'kB' THEN pg_size_pretty(boot_val::bigint * 1024)
                 WHEN unit IS NOT NULL THEN boot_val || ' ' || unit
                 ELSE boot_val END, ''),
             CASE WHEN vartype = 'enum' THEN array_to_string(enumvals, ', ') WHEN unit IS NOT NULL THEN coalesce(min_val || ' to ' || max_val || ' ' || unit, '')
                 ELSE coalesce(min_val || ' to ' || max_val, '') END,
             CASE context WHEN 'sighup' THEN 'reload' WHEN 'postmaster' THEN 'restart' ELSE 'connector_service_act_for()' END,
             short_desc || coalesce(' ' || extra_desc, '')
         FROM pg_settings WHERE name LIKE 'connector_service.%' ORDER BY name COLLATE \"C\"";
    *page += "## Settings\n\n";
    *page += "Set them in `postgresql.conf` or by `ALTER SYSTEM`. \"reload\": `SELECT pg_reload_conf()` is enough.\n\n";
    let head = ["setting", "default", "values", "takes effect by", "meaning"];
    let rows = rows(client, sql);
    assert!(rows.len() > 20, "the library is loaded");
    table(page, &head, &rows);
}

fn codes(root: &Path, page: &mut String) {
    *page += "## Error codes\n\n";
    *page += "`sync_runs.error_code` holds one of these. [Troubleshooting](troubleshooting.md#by-error-code) says more.\n\n";
    let rows: Vec<Vec<String>> = error_codes(root)
        .into_iter()
        .map(|code| {
            let next = match code.is_transient {
                true => "it is tried again by itself",
                false => "a person must act",
            };
            vec![format!("`{}`", code.word), next.to_owned(), code.hint]
        })
        .collect();
    table(page, &["code", "what happens next", "what to do"], &rows);
}

fn generate(root: &Path, client: &mut Client) -> String {
    let mut page = String::from(
        "# Reference\n\n\
         This page is generated from the comments in the catalog of the installed extension. Do not edit it: run\n\
         `ACCEPT=1 cargo test -p connector_service_test --test docs reference`.\n\n\
         In psql, `\\df+ connector_service*` and `\\d+ connectors` show the same.\n\n\
         - [Functions and procedures](#functions-and-procedures)\n\
         - [Tables](#tables)\n\
         - [Views](#views)\n\
         - [Settings](#settings)\n\
         - [Error codes](#error-codes)\n\n",
    );
    functions(client, &mut page);
    relations(client, &mut page, "Tables", "'r'");
    relations(client, &mut page, "Views", "'v','m'");
    settings(client, &mut page);
    codes(root, &mut page);
    page.trim_end().to_owned() + "\n"
}

pub fn compare(root: &Path) {
    let cluster = Cluster::start("timezone = 'UTC'");
    let mut client = cluster.database("app");
    let generated = generate(root, &mut client);
    let file = root.join(FILE);
    if accepts() {
        std::fs::write(&file, &generated).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let different = written.lines().zip(generated.lines()).find(|(a, b)| a != b);
    assert!(
        written == generated,
        "{FILE} is not what the extension says (ACCEPT=1 writes it again); the first difference: {different:?}"
    );
}
