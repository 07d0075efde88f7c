//! Tests files: each is stored once, corrected, refused whole, previewed, and continued after a kill.

use std::collections::BTreeMap;
use std::io::Write;

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

struct Stage {
    cluster: Cluster,
    client: Client,
    connector: String,
}

fn stage(source: &str, config: Value) -> Stage {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let connector = connect(&mut client, source, &config);
    Stage {
        cluster,
        client,
        connector,
    }
}

/// With the default frequency, which nobody who uploads files thinks of.
fn connect(client: &mut Client, source: &str, config: &Value) -> String {
    let sql = "INSERT INTO connectors (tenant_id, name, type, config)
               SELECT '00000000-0000-4000-8000-000000000001', 'till' || CASE count(*) WHEN 0 THEN '' ELSE format(' %s', count(*)) END, $1::text, $2::jsonb
               FROM connectors RETURNING connector_id::text";
    client.query_one(sql, &[&source, config]).unwrap().get(0)
}

fn try_upload(
    client: &mut Client,
    function: &str,
    connector: &str,
    name: &str,
    content: &[u8],
) -> Result<String, postgres::Error> {
    let sql = format!("SELECT {function}($1::text::uuid, $2, $3)::text");
    let row = client.query_one(&sql, &[&connector, &name, &content])?;
    Ok(row.get(0))
}

impl Stage {
    fn upload(&mut self, name: &str, content: impl AsRef<[u8]>) -> Value {
        let run = try_upload(
            &mut self.client,
            "connector_service_upload",
            &self.connector,
            name,
            content.as_ref(),
        )
        .unwrap();
        let run = wait_for_run(&mut self.client, &run);
        ledger_holds(&mut self.client);
        run
    }

    fn look(&mut self, name: &str, content: impl AsRef<[u8]>) -> Value {
        let function = "connector_service_preview_upload";
        let run = try_upload(
            &mut self.client,
            function,
            &self.connector,
            name,
            content.as_ref(),
        )
        .unwrap();
        wait_for_run(&mut self.client, &run)
    }

    fn configure(&mut self, config: Value) {
        let sql = "UPDATE connectors SET config = $2 WHERE connector_id = $1::text::uuid";
        assert_eq!(
            self.client
                .execute(sql, &[&self.connector, &config])
                .unwrap(),
            1
        );
    }

    fn map_revenue(&mut self) {
        let sql =
            "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
                   SELECT connector_id, 'rows', 'revenue', '$.amount', '$.day' FROM connectors";
        self.client.execute(sql, &[]).unwrap();
    }

    /// What is stored and not gone, as text, with how often it is there.
    fn stored(&mut self) -> BTreeMap<String, usize> {
        let sql = "SELECT data::text FROM raw_connector_data WHERE connector_id = $1::text::uuid AND NOT deleted";
        let mut stored = BTreeMap::new();
        for row in self.client.query(sql, &[&self.connector]).unwrap() {
            *stored.entry(row.get(0)).or_insert(0) += 1;
        }
        stored
    }

    fn number(&mut self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).unwrap().get(0)
    }

    fn metrics(&mut self) -> Vec<String> {
        let sql = "SELECT metric_date || ' ' || metric_value FROM metrics ORDER BY 1";
        let rows = self.client.query(sql, &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn counts(run: &Value) -> [i64; 5] {
    assert_eq!(run["state"], "succeeded", "{run}");
    ["inserted", "updated", "unchanged", "deleted", "quarantined"]
        .map(|count| run[count].as_i64().unwrap())
}

#[test]
fn a_file_is_stored_once_and_a_corrected_file_changes_only_the_differences() {
    let mut stage = stage("csv", json!({"columns": {"amount": "number"}}));
    stage.map_revenue();
    let sql = "SELECT sync_frequency || ' ' || coalesce(next_sync_at::text, '-') FROM connectors";
    assert_eq!(
        stage
            .client
            .query_one(sql, &[])
            .unwrap()
            .get::<_, String>(0),
        "manual -"
    );
    // Two sales of the same thing are two sales.
    let january = "day,item,amount\n2026-01-05,tea,3.50\n2026-01-05,tea,3.50\n2026-01-06,cake,4\n2026-01-07,tea,x\n";
    assert_eq!(
        counts(&stage.upload("january.csv", january)),
        [3, 0, 0, 0, 1]
    );
    assert_eq!(stage.metrics(), ["2026-01-05 7.00", "2026-01-06 4"]);
    assert_eq!(
        counts(&stage.upload("january.csv", january)),
        [0, 0, 3, 0, 1]
    );
    // Under another name, too: browsers number what is downloaded twice.
    assert_eq!(
        counts(&stage.upload("/home/me/january (1).csv", january)),
        [0, 0, 3, 0, 1]
    );
    let sql = "SELECT count(*) FROM uploads WHERE file_name IN ('january.csv', 'january (1).csv') AND stored_at IS NOT NULL";
    assert_eq!(stage.number(sql), 2);
    stage
        .client
        .batch_execute("DELETE FROM uploads WHERE file_name = 'january (1).csv'")
        .unwrap();

    // One sale less, one with another price, and the bad one mended.
    let corrected = "day,item,amount\n2026-01-05,tea,3.50\n2026-01-06,cake,5\n2026-01-07,tea,3\n";
    assert_eq!(
        counts(&stage.upload("january.csv", corrected)),
        [2, 0, 1, 2, 0]
    );
    assert_eq!(
        stage.metrics(),
        ["2026-01-05 3.50", "2026-01-06 5", "2026-01-07 3"]
    );
    assert_eq!(stage.number("SELECT count(*) FROM quarantine"), 0);
    // What was taken back and comes again is there again.
    assert_eq!(
        counts(&stage.upload("january.csv", january)),
        [0, 2, 1, 2, 1]
    );
    assert_eq!(stage.metrics(), ["2026-01-05 7.00", "2026-01-06 4"]);
    // Another file is no correction.
    assert_eq!(
        counts(&stage.upload("february.csv", "day,item,amount\n2026-02-01,tea,1\n")),
        [1, 0, 0, 0, 0]
    );
    assert_eq!(stage.metrics().len(), 3);
    assert_eq!(stage.number("SELECT count(*) FROM upload_parts"), 0);
    assert_eq!(stage.number("SELECT count(*) FROM uploads"), 2);
    let sql = "SELECT count(*) FROM connectors WHERE error_message IS NULL AND last_sync_at IS NOT NULL AND status = 'active'";
    assert_eq!(stage.number(sql), 1);
}

/// A row that is refused is in the file all the same: nothing that was stored of it is gone.
#[test]
fn a_refused_row_of_a_corrected_file_deletes_nothing_that_was_stored_before() {
    let declared = json!({"key": "id", "columns": {"amount": {"type": "number", "decimal": ",", "thousands": "."}}});
    let good = "id;day;amount\n1;2026-01-05;400.00\n2;2026-01-05;1.150,00\n3;2026-01-06;80.00\n";
    // With a key: what config makes unreadable stays as it was, row by row.
    let mut keyed = stage("csv", json!({"key": "id"}));
    assert_eq!(counts(&keyed.upload("till.csv", good)), [3, 0, 0, 0, 0]);
    keyed.configure(declared.clone());
    assert_eq!(counts(&keyed.upload("till.csv", good)), [0, 1, 0, 0, 2]);
    assert_eq!(keyed.stored().len(), 3);
    let sql = "SELECT string_agg(source_record_id, ' ' ORDER BY source_record_id) FROM quarantine";
    let ids: String = keyed.client.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(ids, "rows/1 rows/3");
    // A row that is in the file no more is gone, also beside rows that are refused.
    let shorter = "id;day;amount\n1;2026-01-05;400.00\n2;2026-01-05;1.150,00\n";
    assert_eq!(counts(&keyed.upload("till.csv", shorter)), [0, 0, 1, 1, 1]);
    assert_eq!(keyed.stored().len(), 2);
    // One whose key cannot be read may be any of them.
    let torn = "id;day;amount\n2;2026-01-05;1.150,00\nx;y;z;more;cells\n";
    keyed.configure(json!({"key": "id", "columns": {"id": "number", "amount": {"type": "number", "decimal": ",", "thousands": "."}}}));
    let run = keyed.upload("till.csv", torn);
    assert_eq!(run["deleted"], 0, "{run}");
    let warning = run["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("1 row of this file could not be read; no record was marked as deleted"),
        "{warning}"
    );

    // Without a key: as many as were refused may be the ones that are missing.
    let mut keyless = stage("csv", json!({}));
    assert_eq!(counts(&keyless.upload("till.csv", good)), [3, 0, 0, 0, 0]);
    keyless.configure(json!({"columns": {"day": "date", "amount": {"type": "number", "decimal": ",", "thousands": "."}}}));
    let run = keyless.upload("till.csv", good);
    assert_eq!(run["quarantined"], 2, "{run}");
    let warning = run["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("3 rows of the earlier file are not in this one, but 2 rows of this file could not be read; the records of the earlier file were marked as deleted"),
        "{warning}"
    );
    // The row that is read otherwise now is another record; two are refused, so more are missing than those.
    assert_eq!(
        keyless.number("SELECT count(*) FROM raw_connector_data WHERE NOT deleted"),
        1
    );
}

#[test]
fn a_file_replaces_the_rows_that_its_config_declares() {
    let rows = |days: std::ops::Range<u32>| {
        let rows: String = days.map(|day| format!("{day},{}\n", day * 2)).collect();
        format!("id,amount\n{rows}")
    };
    let mut stage = stage("csv", json!({"key": "id"}));
    assert_eq!(
        counts(&stage.upload("orders.csv", rows(0..100))),
        [100, 0, 0, 0, 0]
    );
    // Every week the same name, and other orders: no correction, and nothing is gone.
    let run = stage.upload("orders.csv", rows(90..200));
    assert_eq!(counts(&run), [100, 0, 10, 0, 0]);
    let warning = run["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with(
            "90 of 100 rows of the earlier file with this name are not in the new one"
        ),
        "{warning}"
    );
    assert_eq!(stage.stored().len(), 200);
    // A few less are a correction, of all files of the name together.
    assert_eq!(
        counts(&stage.upload("orders.csv", rows(5..200))),
        [0, 0, 195, 5, 0]
    );
    assert_eq!(stage.number("SELECT count(*) FROM uploads"), 1);
    // What another file shows stays.
    assert_eq!(
        counts(&stage.upload("more.csv", rows(5..8))),
        [0, 0, 3, 0, 0]
    );
    stage.configure(json!({"key": "id", "replaces": "file"}));
    assert_eq!(
        counts(&stage.upload("orders.csv", rows(190..191))),
        [0, 0, 1, 191, 0]
    );
    assert_eq!(stage.stored().len(), 4);
    stage.configure(json!({"key": "id", "replaces": "nothing"}));
    assert_eq!(
        counts(&stage.upload("orders.csv", rows(300..301))),
        [1, 0, 0, 0, 0]
    );
    stage.configure(json!({"key": "id", "replaces": "all"}));
    assert_eq!(
        counts(&stage.upload("list.csv", rows(6..9))),
        [0, 1, 2, 3, 0]
    );
    assert_eq!(stage.stored().len(), 3);
    assert_eq!(stage.number("SELECT count(*) FROM uploads"), 1);
}

#[test]
fn a_file_that_cannot_be_read_stores_nothing_until_the_config_says_how() {
    let mut stage = stage("csv", json!({}));
    let mut text = "Name;Betrag\n".to_owned() + &"Ada;1\n".repeat(5_000);
    text.push_str("Jürgen;2\n");
    let windows: Vec<u8> = text
        .chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect();
    let run = stage.upload("kasse.csv", &windows);
    assert_eq!(
        (&run["state"], &run["error_code"], &run["received"]),
        (&json!("failed"), &json!("file_refused"), &json!(0)),
        "{run}"
    );
    let message = run["error_message"].as_str().unwrap();
    assert!(
        message
            .starts_with("file \"kasse.csv\": line 5002, column 1: the bytes are not valid UTF-8"),
        "{message}"
    );
    assert!(stage.stored().is_empty());
    let sql = "SELECT status || ': ' || error_message FROM connectors";
    let told: String = stage.client.query_one(sql, &[]).unwrap().get(0);
    assert!(
        told.starts_with("active: file \"kasse.csv\": line 5002"),
        "{told}"
    );
    // It waits, and is not sent again.
    stage.configure(json!({"encoding": "windows-1252"}));
    let run = sync(&mut stage.client, &stage.connector.clone());
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!((counts(&run)[0], &run["kind"]), (5_001, &json!("upload")));
    assert!(
        stage
            .stored()
            .contains_key(r#"{"Name": "Jürgen", "Betrag": "2"}"#)
    );
    // Then there is nothing more to do.
    let sql = "SELECT connector_service_sync(connector_id) IS NULL FROM connectors";
    assert!(stage.client.query_one(sql, &[]).unwrap().get::<_, bool>(0));
    let sql = "SELECT count(*) FROM connectors WHERE error_message IS NULL";
    assert_eq!(stage.number(sql), 1);
    // What nobody mends is replaced by a file that is sound.
    stage.upload("kasse.csv", b"a\n\xFF\x81\"\n\"");
    stage.configure(json!({}));
    assert_eq!(
        stage.upload("neu.csv", [0xFF, 0xFF, b'\n'])["state"],
        "failed"
    );
    assert_eq!(stage.number("SELECT count(*) FROM upload_parts"), 2);
    assert_eq!(counts(&stage.upload("neu.csv", "a\n1\n"))[0], 1);
    assert_eq!(counts(&stage.upload("kasse.csv", "a\n1\n"))[2], 1);
    assert_eq!(stage.number("SELECT count(*) FROM upload_parts"), 0);
}

#[test]
fn a_preview_reports_how_a_file_is_read_and_stores_nothing() {
    let mut stage = stage(
        "csv",
        json!({"columns": {"amount": {"type": "number", "decimal": ","}}}),
    );
    stage.map_revenue();
    let text = "Kasse 3;;\nday;amount;seen\n2026-01-05;3,50;01/02/2026\n2026-01-06;x;03/04/2026\n;;\n2026-01-06;4,25;05/06/2026\n";
    let run = stage.look("kasse.csv", text);
    assert_eq!(run["state"], "succeeded", "{run}");
    let report = &run["report"][0];
    let summary = report["summary"].as_str().unwrap();
    let understood = "UTF-8, delimiter \";\"; headings in row 2: day, amount, seen; 3 rows; 2 records on the first page, and 1 that cannot be stored; 2 new, 0 changed; revenue 7.75";
    assert!(summary.starts_with(understood), "{summary}");
    assert_eq!(
        report["rejects"],
        json!(["row 4: column \"amount\": \"x\" is not a number with the decimal separator \",\""])
    );
    assert_eq!(report["understood"]["tables"][0]["blank_rows"], json!(1));
    let warnings = run["warnings"].to_string();
    assert!(
        warnings.contains("may be DD/MM/YYYY or MM/DD/YYYY"),
        "{warnings}"
    );
    assert!(stage.stored().is_empty());
    assert_eq!(stage.number("SELECT count(*) FROM uploads"), 0);
    assert_eq!(
        stage.number("SELECT (SELECT count(*) FROM quarantine) + (SELECT count(*) FROM metrics)"),
        0
    );
    // Of a file that is refused, why.
    let run = stage.look("kasse.csv", "a,b\n1,\"2\n");
    assert_eq!(
        (&run["state"], &run["error_code"]),
        (&json!("failed"), &json!("file_refused")),
        "{run}"
    );
    assert!(
        run["report"][0]["summary"]
            .as_str()
            .unwrap()
            .contains("line 2: a quoted value is not closed"),
        "{run}"
    );
    assert_eq!(stage.number("SELECT count(*) FROM uploads"), 0);
    // Without a file there is nothing to look at.
    let sql = "SELECT connector_service_preview(connector_id)::text FROM connectors";
    let run: String = stage.client.query_one(sql, &[]).unwrap().get(0);
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(run["state"], "succeeded", "{run}");
    assert!(
        run["warnings"][0]
            .as_str()
            .unwrap()
            .contains("connector_service_preview_upload()"),
        "{run}"
    );
}

#[test]
fn a_file_that_does_not_fit_its_connector_is_refused_at_once() {
    let mut stage = stage("csv", json!({}));
    let excel = connect(&mut stage.client, "excel", &json!({}));
    let api = insert_connector(
        &mut stage.client,
        "shop",
        &api("https://example.com", "orders"),
    );
    let connector = stage.connector.clone();
    let mut refused = |connector: &str, name: &str, content: &[u8], state: &str, words: &str| {
        for function in [
            "connector_service_upload",
            "connector_service_preview_upload",
        ] {
            let error =
                try_upload(&mut stage.client, function, connector, name, content).unwrap_err();
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), state, "{error}");
            assert!(error.message().contains(words), "{error}");
            assert!(
                error.hint().is_some_and(|hint| !hint.is_empty()),
                "{error:?}"
            );
        }
    };
    refused(
        "00000000-0000-4000-8000-00000000000f",
        "x.csv",
        b"a\n1\n",
        "42704",
        "does not exist",
    );
    refused(&api, "x.csv", b"a\n1\n", "22023", "takes no files");
    refused(&connector, "x.csv", b"", "22023", "the file is empty");
    refused(
        &connector,
        "/tmp/",
        b"a\n1\n",
        "22023",
        "the name of the file",
    );
    refused(
        &connector,
        "a\nb.csv",
        b"a\n1\n",
        "22023",
        "the name of the file",
    );
    refused(
        &connector,
        "x.xlsx",
        b"PK\x03\x04 and more",
        "22023",
        "upload workbooks to a connector of type \"excel\"",
    );
    refused(
        &excel,
        "x.xlsx",
        b"a,b\n1,2\n",
        "22023",
        "upload text to a connector of type \"csv\"",
    );
    stage
        .cluster
        .configure("connector_service.max_upload_size = '64kB'");
    stage.cluster.command(
        "pg_ctl",
        &["reload", "-D", stage.cluster.data().to_str().unwrap()],
    );
    wait_until(10, "the setting is there", || {
        let size: String = stage
            .client
            .query_one("SHOW connector_service.max_upload_size", &[])
            .unwrap()
            .get(0);
        (size == "64kB").then_some(())
    });
    let large = vec![b'a'; 70_000];
    let error = try_upload(
        &mut stage.client,
        "connector_service_upload",
        &connector,
        "x.csv",
        &large,
    )
    .unwrap_err();
    assert_eq!(
        error.as_db_error().unwrap().code().code(),
        "53400",
        "{error}"
    );
    stage
        .client
        .batch_execute("UPDATE connectors SET status = 'paused'")
        .unwrap();
    let error = try_upload(
        &mut stage.client,
        "connector_service_upload",
        &connector,
        "x.csv",
        b"a\n1\n",
    )
    .unwrap_err();
    assert_eq!(
        error.as_db_error().unwrap().code().code(),
        "55000",
        "{error}"
    );
    assert_eq!(stage.look("x.csv", "a\n1\n")["state"], "succeeded");
    // Another tenant's connector is none.
    stage
        .client
        .batch_execute(
            "CREATE ROLE other LOGIN; GRANT connector_service_tenant TO other;
             INSERT INTO tenant_roles VALUES ('other', '00000000-0000-4000-8000-000000000002')",
        )
        .unwrap();
    let mut other = stage.cluster.client_as("other", "app");
    let error = try_upload(
        &mut other,
        "connector_service_upload",
        &connector,
        "x.csv",
        b"a\n1\n",
    )
    .unwrap_err();
    assert_eq!(
        error.as_db_error().unwrap().code().code(),
        "42704",
        "{error}"
    );
    for table in ["upload_parts", "upload_records"] {
        let error = other
            .query(&format!("SELECT FROM {table}"), &[])
            .unwrap_err();
        assert_eq!(
            error.as_db_error().unwrap().code().code(),
            "42501",
            "{error}"
        );
    }
    assert!(other.query("SELECT FROM uploads", &[]).unwrap().is_empty());
}

/// Rows with values of their own, and some that come often.
fn sales(rows: usize) -> String {
    sales_of("a", rows)
}

fn sales_of(shop: &str, rows: usize) -> String {
    let rows: String = (0..rows)
        .map(|row| match row % 10 {
            0 => "2026-01-05,tea,3.50\n".to_owned(),
            _ => format!(
                "2026-01-{:02},\"item {shop} {row}, with a comma\",{}.25\n",
                row % 28 + 1,
                row % 90
            ),
        })
        .collect();
    format!("day,item,amount\n{rows}")
}

#[test]
fn a_file_is_stored_once_wherever_the_worker_is_killed() {
    let mut stage = stage(
        "csv",
        json!({"columns": {"amount": "number"}, "replaces": "file"}),
    );
    stage.map_revenue();
    let mut expected = None;
    let places = [
        ("after_claim", 1),
        ("mid_page_insert", 2),
        ("before_commit", 1),
        ("before_commit", 3),
        ("after_commit", 2),
        ("before_stored", 1),
        ("before_finish", 1),
        ("after_settle", 1),
    ];
    for (killed, (place, passes)) in (1..).zip(places) {
        let rows = 20_000 + killed * 10;
        stage.cluster.arm(place, passes);
        let run = try_upload(
            &mut stage.client,
            "connector_service_upload",
            &stage.connector,
            "sales.csv",
            sales_of(place, rows).as_bytes(),
        )
        .unwrap();
        wait_until(60, &format!("the server has noticed {place}"), || {
            (stage
                .cluster
                .log()
                .matches("was terminated by signal 9")
                .count()
                == killed)
                .then_some(())
        });
        stage.client = stage.cluster.wait_ready_in("app");
        let run = wait_for_run(&mut stage.client, &run);
        ledger_holds(&mut stage.client);
        assert_eq!(run["state"], "succeeded", "{place}: {run}");
        assert_eq!(
            run["received"].as_i64().unwrap() - run["deleted"].as_i64().unwrap(),
            rows as i64,
            "{place}: {run}"
        );
        let stored = stage.stored();
        assert_eq!(stored.values().sum::<usize>(), rows, "{place}");
        assert_eq!(
            stored.get(r#"{"day": "2026-01-05", "item": "tea", "amount": 3.50}"#),
            Some(&(rows / 10)),
            "{place}"
        );
        assert_eq!(
            stage.number(
                "SELECT (SELECT count(*) FROM uploads) + (SELECT count(*) FROM upload_parts)"
            ),
            1,
            "{place}"
        );
        expected = Some(rows);
    }
    // The sums are those of the rows.
    let sum = stage.number("SELECT (sum(metric_value) * 100)::bigint FROM metrics");
    let rows = sales(expected.unwrap());
    let amount = |row: &str| {
        row.rsplit(',')
            .next()
            .unwrap()
            .replace('.', "")
            .parse::<i64>()
            .unwrap()
    };
    assert_eq!(sum, rows.lines().skip(1).map(amount).sum::<i64>());
}

#[test]
fn a_cancelled_upload_stops_at_once_and_can_be_resumed() {
    let mut stage = stage("csv", json!({}));
    let text = sales(300_000);
    let run = try_upload(
        &mut stage.client,
        "connector_service_upload",
        &stage.connector,
        "sales.csv",
        text.as_bytes(),
    )
    .unwrap();
    wait_until(60, "pages are stored", || {
        (run_of(&mut stage.client, &run)["pages"].as_i64() > Some(0)).then_some(())
    });
    let sql = "SELECT connector_service_cancel($1::text::uuid)";
    assert!(
        stage
            .client
            .query_one(sql, &[&run])
            .unwrap()
            .get::<_, bool>(0)
    );
    let cancelled = wait_for_run(&mut stage.client, &run);
    assert_eq!(cancelled["state"], "cancelled");
    // The next file does not wait for the rest of it.
    assert_eq!(counts(&stage.upload("other.csv", "a\n1\n"))[0], 1);
    assert_eq!(run_of(&mut stage.client, &run)["pages"], cancelled["pages"]);
    let again = sync(&mut stage.client, &stage.connector.clone());
    let again = wait_for_run(&mut stage.client, &again);
    assert_eq!(again["state"], "succeeded");
    assert_eq!(stage.stored().values().sum::<usize>(), 300_001);
    // It went on where it had come to.
    assert!(again["received"].as_i64().unwrap() < 300_000, "{again}");
}

/// An archive whose one part unpacks to so many megabytes, of a thousandth of the size.
fn bomb(name: &str, start: &str, piece: &str, megabytes: usize) -> Vec<u8> {
    let mut packed = Vec::new();
    let pack = |text: &[u8]| {
        let mut encoder = flate2::Compress::new(flate2::Compression::best(), false);
        let mut out = Vec::with_capacity(text.len() + 1024);
        encoder
            .compress_vec(text, &mut out, flate2::FlushCompress::Full)
            .unwrap();
        out
    };
    packed.extend(pack(start.as_bytes()));
    let mut megabyte = piece.repeat(1024 * 1024 / piece.len() + 1);
    megabyte.truncate(megabyte.len() / piece.len() * piece.len());
    let unpacked = (start.len() + megabyte.len() * megabytes) as u32;
    let megabyte = pack(megabyte.as_bytes());
    for _ in 0..megabytes {
        packed.extend_from_slice(&megabyte);
    }
    // An empty block that is the last.
    packed.extend([3, 0]);
    let size = packed.len() as u32;
    let fields = |signature: u32, is_central: bool| {
        let mut head = signature.to_le_bytes().to_vec();
        if is_central {
            head.extend(20_u16.to_le_bytes());
        }
        head.extend(
            [20_u16, 0, 8, 0, 0]
                .iter()
                .flat_map(|field| field.to_le_bytes()),
        );
        head.extend(
            [0_u32, size, unpacked]
                .iter()
                .flat_map(|field| field.to_le_bytes()),
        );
        head.extend(
            [name.len() as u16, 0]
                .iter()
                .flat_map(|field| field.to_le_bytes()),
        );
        if is_central {
            head.extend([0; 14]);
        }
        head.extend(name.as_bytes());
        head
    };
    let mut archive = fields(0x0403_4B50, false);
    archive.extend(packed);
    let (at, central) = (archive.len() as u32, fields(0x0201_4B50, true));
    archive.extend(&central);
    archive.extend(0x0605_4B50_u32.to_le_bytes());
    archive.extend(
        [0_u16, 0, 1, 1]
            .iter()
            .flat_map(|field| field.to_le_bytes()),
    );
    archive.extend((central.len() as u32).to_le_bytes());
    archive.extend(at.to_le_bytes());
    archive.extend([0, 0]);
    archive
}

#[test]
fn hostile_files_are_refused_and_the_worker_keeps_running() {
    let mut stage = stage("csv", json!({}));
    let excel = connect(&mut stage.client, "excel", &json!({}));
    // What is used anyway.
    counts(&stage.upload("sound.csv", sales(20_000)));
    let worker = stage.cluster.wait_worker("app");
    let idle = memory_kb(worker, "VmRSS");
    let filler = |start: &str, megabytes: usize| {
        [start.as_bytes(), &vec![b'x'; megabytes * 1024 * 1024]].concat()
    };
    let texts: Vec<(&str, Vec<u8>)> = vec![
        ("open quote.csv", filler("a,b\n1,\"", 200)),
        ("one line.csv", filler("a,b\n", 200)),
        ("one line.jsonl", filler("{\"a\": \"", 200)),
        ("delimiters.csv", b",".repeat(50 * 1024 * 1024)),
        ("columns.csv", "c,".repeat(10_000).into_bytes()),
        ("pairs.csv", {
            let mut pairs = Vec::new();
            for row in 0..6_000_000_u32 {
                writeln!(pairs, "{}", row % 3_000_000).unwrap();
            }
            pairs
        }),
    ];
    let sheet = "<worksheet><sheetData>";
    let books: Vec<(&str, Vec<u8>)> = vec![
        (
            "sheet.xlsx",
            bomb(
                "xl/worksheets/sheet1.xml",
                sheet,
                "<row><c><v>1</v></c></row>",
                4000,
            ),
        ),
        (
            "blank.xlsx",
            bomb("xl/worksheets/sheet1.xml", sheet, "        ", 4000),
        ),
        (
            "texts.xlsx",
            bomb("xl/sharedStrings.xml", "<sst>", "<si><t>a</t></si>", 4000),
        ),
        (
            "styles.xlsx",
            bomb("xl/styles.xml", "<styleSheet><cellXfs>", "<xf/>", 1024),
        ),
        (
            "picture.xlsx",
            bomb("xl/media/image1.png", "\u{1}", "\u{1}", 4000),
        ),
        (
            "cells.ods",
            bomb(
                "content.xml",
                "<document-content><table name=\"S\"><table-row>",
                "<table-cell office:value-type=\"float\" office:value=\"1\"/>",
                1024,
            ),
        ),
        (
            "text.ods",
            bomb(
                "content.xml",
                "<document-content><table name=\"S\"><table-row><table-cell office:value-type=\"string\"><p>",
                "<s c=\"1000\"/>",
                1024,
            ),
        ),
    ];
    let run = |client: &mut Client, connector: &str, name: &str, content: &[u8]| {
        let run = try_upload(client, "connector_service_upload", connector, name, content).unwrap();
        let run = wait_until(300, "the run ends", || {
            Some(run_of(client, &run))
                .filter(|run| !["queued", "running"].contains(&run["state"].as_str().unwrap()))
        });
        let grown = memory_kb(worker, "VmHWM").saturating_sub(idle) / 1024;
        println!(
            "{name}: {} MB sent, {} {}, the worker grew by {grown} MB at most",
            content.len() / 1024 / 1024,
            run["state"],
            run["error_message"]
        );
        assert!(grown < 128, "{name}: {grown} MB");
        run
    };
    for (name, content) in texts {
        let ended = run(&mut stage.client, &stage.connector.clone(), name, &content);
        assert_eq!(
            (&ended["state"], &ended["error_code"], &ended["received"]),
            (&json!("failed"), &json!("file_too_large"), &json!(0)),
            "{name}"
        );
    }
    for (name, content) in books {
        let ended = run(&mut stage.client, &excel, name, &content);
        assert_eq!(
            (&ended["state"], &ended["error_code"], &ended["received"]),
            (&json!("failed"), &json!("file_too_large"), &json!(0)),
            "{name}"
        );
    }
    assert_eq!(stage.cluster.worker("app"), Some(worker));
    assert_eq!(counts(&stage.upload("sound.csv", sales(20_000)))[2], 20_000);
}

const BY_BASE64: &str = r"
\set file `base64 sales.csv`
CALL connector_service_wait(connector_service_upload('00000000-0000-4000-8000-00000000000a', 'sales.csv', decode(:'file', 'base64')));
";

const BY_LARGE_OBJECT: &str = r"
\lo_import sales.csv
SELECT connector_service_upload('00000000-0000-4000-8000-00000000000a', 'sales.csv', lo_get(:LASTOID)) AS run \gset
\lo_unlink :LASTOID
CALL connector_service_wait(:'run');
";

#[test]
fn psql_sends_a_local_file_as_base64_or_as_a_large_object() {
    let mut stage = stage("csv", json!({"key": ["Order ID"]}));
    let file = stage.cluster.data().parent().unwrap().join("sales.csv");
    std::fs::write(&file, "Order ID,Total\n0042,10\n").unwrap();
    for psql in [BY_BASE64, BY_LARGE_OBJECT] {
        let psql = psql.replace("sales.csv", file.to_str().unwrap());
        let psql = psql.replace(
            "'00000000-0000-4000-8000-00000000000a'",
            &format!("'{}'", stage.connector),
        );
        let said = stage.cluster.script("app", &psql);
        assert!(
            said.contains("till: succeeded in") && said.contains("0 quarantined"),
            "{said}"
        );
        assert_eq!(stage.stored().len(), 1, "{said}");
    }
    assert_eq!(
        stage.number("SELECT count(*) FROM pg_largeobject_metadata"),
        0
    );
    assert_eq!(
        stage
            .number("SELECT count(*) FROM sync_runs WHERE kind = 'upload' AND state = 'succeeded'"),
        2
    );
}

#[test]
fn a_preview_of_a_file_with_a_nul_has_its_report() {
    for (content, config) in [
        ("id,am\0ount\n1,2\n", json!({})),
        ("id,amount\n1,\0\n2,x\0y\n", json!({})),
        (
            "i\0d,amount\n1,2\n1,3\n",
            json!({"columns": {"amount": "number"}}),
        ),
        (
            "id,amount\n1,a\0b\n2,3\n",
            json!({"columns": {"amount": "number"}}),
        ),
        ("\0", json!({})),
        (
            "{\"a\\u0000b\": \"\\u0000\"}\n{\"a\": 1}\n",
            json!({"format": "jsonl"}),
        ),
    ] {
        let sql = "INSERT INTO connectors (tenant_id, name, type, config)
                   VALUES ('00000000-0000-4000-8000-000000000001', 'other till', 'csv', $1) RETURNING connector_id::text";
        let mut stage = stage("csv", json!({}));
        if let Ok(row) = stage.client.query_one(sql, &[&config]) {
            stage.connector = row.get(0);
        }
        let run = stage.look("sales.csv", content);
        // Read, or refused with the reason; but never without a word.
        match run["state"].as_str() {
            Some("succeeded") => assert_eq!(
                run["report"].as_array().map(Vec::len),
                Some(1),
                "{content:?} {run}"
            ),
            _ => assert!(run["error_message"].is_string(), "{content:?} {run}"),
        }
        let stored = stage.upload("sales.csv", content);
        assert!(
            stored["state"] == "succeeded" || stored["error_message"].is_string(),
            "{stored}"
        );
        let quarantine = "SELECT count(*) FROM quarantine WHERE position(E'\\x01' IN reason || coalesce(source_record_id, '')) > 0";
        let odd: i64 = stage.client.query_one(quarantine, &[]).unwrap().get(0);
        assert_eq!(odd, 0);
        assert!(
            !stage.cluster.log().contains("could not"),
            "{}",
            stage.cluster.log()
        );
    }
}

fn sum_of(stage: &mut Stage) -> String {
    let sql = "SELECT coalesce(sum(metric_value), 0)::text FROM metrics";
    stage.client.query_one(sql, &[]).unwrap().get(0)
}

/// Whatever config changes between two readings of a file, its rows count once.
#[test]
fn a_changed_reading_of_a_file_replaces_what_it_read_before() {
    let rows: String = (1..=50)
        .map(|row| format!("R{row},2026-01-05,2.50\n"))
        .collect();
    let text = format!("id,day,amount\n{rows}");
    // The same bytes, by one config after the other, and back.
    let mut stage = stage("csv", json!({}));
    stage.map_revenue();
    assert_eq!(counts(&stage.upload("till.csv", &text)), [50, 0, 0, 0, 0]);
    assert_eq!(sum_of(&mut stage), "125.00");
    for (config, expected) in [
        (json!({"columns": {"amount": "number"}}), [50, 0, 0, 50, 0]),
        (
            json!({"columns": {"amount": "number", "day": "date"}}),
            [0, 0, 50, 0, 0],
        ),
        (
            json!({"key": "id", "columns": {"amount": "number"}}),
            [50, 0, 0, 50, 0],
        ),
        (json!({"key": "id"}), [0, 50, 0, 0, 0]),
        (
            json!({"key": ["id", "day"], "replaces": "nothing"}),
            [50, 0, 0, 50, 0],
        ),
        (json!({}), [0, 50, 0, 50, 0]),
        (
            json!({"quote": false, "null_values": ["R1"]}),
            [1, 0, 49, 1, 0],
        ),
    ] {
        stage.configure(config.clone());
        let run = stage.upload("till.csv", &text);
        assert_eq!(counts(&run), expected, "{config}");
        assert_eq!(
            run["warnings"].to_string().matches("rows").count(),
            0,
            "{run}"
        );
        assert_eq!(
            (sum_of(&mut stage), stage.stored().len()),
            ("125.00".into(), 50),
            "{config}"
        );
    }
    // Under another name, in another order, and with a row more.
    stage.configure(json!({"columns": {"amount": "number"}}));
    assert_eq!(counts(&stage.upload("till (1).csv", &text))[3], 50);
    assert_eq!(sum_of(&mut stage), "125.00");
    stage.configure(json!({"key": "id", "columns": {"amount": "number"}}));
    let reversed: String = rows.lines().rev().map(|row| format!("{row}\n")).collect();
    let longer = format!("Till of January,,\nid,day,amount\n{reversed}R51,2026-01-06,2.50\n");
    assert_eq!(counts(&stage.upload("till.csv", longer)), [1, 50, 0, 50, 0]);
    assert_eq!(sum_of(&mut stage), "127.50");
    // Rows of another day under the same name stay beside them.
    stage.configure(json!({"key": "id"}));
    let other = text.replace("R", "S").replace("2026-01-05", "2026-01-07");
    let run = stage.upload("till.csv", other);
    assert_eq!(counts(&run), [50, 0, 0, 0, 0]);
    assert!(
        run["warnings"]
            .to_string()
            .contains("too many for a correction"),
        "{run}"
    );
    assert_eq!(sum_of(&mut stage), "252.50");
}

#[test]
fn a_row_that_another_reading_refuses_is_in_quarantine_and_the_others_count_once() {
    let mut stage = stage("csv", json!({}));
    stage.map_revenue();
    let text =
        "id;day;amount\n1;2026-01-05;400.00\n2;2026-01-05;150.00\n3;2026-01-06;80.00\nx;y;z;more\n";
    assert_eq!(counts(&stage.upload("till.csv", text)), [3, 0, 0, 0, 1]);
    assert_eq!(sum_of(&mut stage), "630.00");
    stage.configure(json!({"key": "id", "columns": {"amount": "number"}}));
    assert_eq!(counts(&stage.upload("till.csv", text)), [3, 0, 0, 3, 1]);
    assert_eq!(sum_of(&mut stage), "630.00");
}

/// A run that stopped in the middle is gone on with by another config: what it stored by the first one does not stay beside.
#[test]
fn a_file_of_which_a_part_was_read_by_another_config_counts_once() {
    let mut stage = stage("csv", json!({}));
    stage.map_revenue();
    let rows: String = (0..300_000)
        .map(|row| format!("{row},2026-01-05,1\n"))
        .collect();
    let text = format!("id,day,amount\n{rows}");
    let (connector, content) = (stage.connector.clone(), text.into_bytes());
    let run = try_upload(
        &mut stage.client,
        "connector_service_upload",
        &connector,
        "till.csv",
        &content,
    )
    .unwrap();
    wait_until(60, "pages are stored", || {
        (run_of(&mut stage.client, &run)["pages"].as_i64() > Some(0)).then_some(())
    });
    stage
        .client
        .execute("SELECT connector_service_cancel($1::text::uuid)", &[&run])
        .unwrap();
    wait_for_run(&mut stage.client, &run);
    assert!(stage.stored().len() < 300_000);
    stage.configure(json!({"key": "id"}));
    let again = sync(&mut stage.client, &connector);
    let again = wait_for_run(&mut stage.client, &again);
    assert_eq!(again["state"], "succeeded", "{again}");
    assert!(again["deleted"].as_i64() > Some(0), "{again}");
    ledger_holds(&mut stage.client);
    assert_eq!(stage.stored().values().sum::<usize>(), 300_000);
}

#[test]
fn small_files_of_one_name_day_after_day_do_not_delete_each_other() {
    let day = |day: u32, ids: std::ops::Range<u32>| {
        let rows: String = ids
            .map(|id| format!("{id},2026-01-{day:02},2.50\n"))
            .collect();
        format!("id,day,amount\n{rows}")
    };
    for key in [json!({"key": "id"}), json!({})] {
        let mut stage = stage("csv", key.clone());
        stage.map_revenue();
        assert_eq!(
            counts(&stage.upload("sales.csv", day(5, 0..10))),
            [10, 0, 0, 0, 0]
        );
        for next in 1..4 {
            let run = stage.upload("sales.csv", day(5 + next, next * 10..next * 10 + 10));
            assert_eq!(counts(&run), [10, 0, 0, 0, 0], "{key}");
            let warning = run["warnings"][0].as_str().unwrap();
            assert!(warning.contains("of the earlier file with this name are not in the new one, too many for a correction; they are kept. Set \"replaces\""), "{warning}");
        }
        assert_eq!(sum_of(&mut stage), "100.00");
        // A correction of a few rows is one, and of most of them is told.
        let mut small = json!({"key": "id", "columns": {"amount": "number"}});
        small["stream"] = json!("others");
        stage.configure(small);
        assert_eq!(counts(&stage.upload("few.csv", day(5, 0..6)))[0], 6);
        let run = stage.upload("few.csv", day(5, 0..5));
        assert_eq!(
            (counts(&run)[3], &run["warnings"]),
            (1, &json!([])),
            "{run}"
        );
        let run = stage.upload("few.csv", day(5, 0..2));
        assert_eq!(counts(&run)[3], 3);
        assert!(run["warnings"][0].as_str().unwrap().contains("3 of 5 rows of the earlier file with this name are not in the new one, and were marked as deleted"), "{run}");
    }
}

#[test]
fn rows_of_a_file_that_are_refused_raise_an_alert_until_they_are_read() {
    let mut stage = stage("csv", json!({"key": "id", "columns": {"amount": "number"}}));
    let text = "id,amount\n1,5\n2,six\n3,seven\n4,8,more\n";
    assert_eq!(counts(&stage.upload("till.csv", text))[4], 3);
    let alerts = |stage: &mut Stage| -> Vec<String> {
        let sql = "SELECT concat_ws(' ', severity, occurrences, resolved, message) FROM data_quality_alerts WHERE alert_type = 'schema_error' ORDER BY 1";
        stage
            .client
            .query(sql, &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    };
    let expected = [
        "warning 1 f stream \"rows\": 1 row of the file \"till.csv\" could not be read, such as row 5: the row has 3 cells, but there are 2 headings; such rows are not stored",
        "warning 2 f stream \"rows\": 2 rows of the file \"till.csv\" could not be read, such as row 3: column \"amount\": \"six\" is not a number with the decimal separator \".\"; such rows are not stored",
    ];
    assert_eq!(alerts(&mut stage), expected);
    assert_eq!(
        counts(&stage.upload("till.csv", "id,amount\n1,5\n2,6\n3,7\n4,8\n"))[4],
        0
    );
    let open = alerts(&mut stage);
    assert!(
        open.iter().all(|alert| alert.contains(" t stream")),
        "{open:?}"
    );
}

#[test]
fn amounts_and_days_are_read_as_people_write_them_and_never_guessed() {
    let mut stage = stage("csv", json!({"key": "id"}));
    let sql = "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, currency_path, negative)
               SELECT connector_id, 'rows', 'costs', '$.amount', '$.day', '$.currency', 'net' FROM connectors";
    stage.client.execute(sql, &[]).unwrap();
    let rows = [
        ("$(12.50)", "2026-01-05", Some("-12.50")),
        ("$ -", "2026-01-05", Some("0")),
        ("USD 5,00", "2026-01-05", Some("5.00")),
        ("$1,234.56", "20260105", Some("1234.56")),
        ("12.50 CR", "202601052230", Some("-12.50")),
        ("5", "Mon, 05 Jan 2026 22:30:00 +0000", Some("5")),
        ("5", "20260105T2230", Some("5")),
        ("EUR 5,00", "2026-01-05", None),
        ("€5", "2026-01-05", None),
        ("$1,234", "2026-01-05", None),
        ("6,60", "2026-01-05", None),
        ("5", "05012026", None),
        ("5", "260105", None),
        ("5", "2026101322", None),
    ];
    let text: String = rows
        .iter()
        .enumerate()
        .map(|(id, (amount, day, _))| format!("{id};{day};{amount};USD\n"))
        .collect();
    stage.upload("costs.csv", format!("id;day;amount;currency\n{text}"));
    let sql = "SELECT r.data ->> 'id', f.value::text FROM raw_connector_data r LEFT JOIN metric_facts f USING (raw_id) ORDER BY (r.data ->> 'id')::int";
    let facts: Vec<Option<String>> = stage
        .client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(1))
        .collect();
    let expected: Vec<Option<String>> = rows
        .iter()
        .map(|(.., value)| value.map(str::to_owned))
        .collect();
    assert_eq!(facts, expected);
    let sql = "SELECT string_agg(reason_code || ' ' || source_record_id, ', ' ORDER BY source_record_id COLLATE \"C\") FROM quarantine WHERE replayed_at IS NULL";
    let reasons: String = stage.client.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(
        reasons,
        "value_unreadable rows/10, date_unreadable rows/11, date_unreadable rows/12, date_unreadable rows/13, \
         value_in_other_currency rows/7, value_in_other_currency rows/8, value_unreadable rows/9"
    );
    assert_eq!(
        stage.number("SELECT count(*) FROM metric_facts WHERE metric_date <> '2026-01-05'"),
        0
    );
}

#[test]
fn a_path_calculates_with_amounts_that_are_text() {
    let mut stage = stage("csv", json!({"key": "sku"}));
    let sql = "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
               SELECT connector_id, 'rows', 'revenue', path, '$.day' FROM connectors, unnest(ARRAY['$.price * $.qty']) AS path";
    stage.client.execute(sql, &[]).unwrap();
    stage.upload(
        "lines.csv",
        "sku,day,price,qty\n007,2026-01-05,2.50,3\n008,2026-01-05,$1.10,2\n009,2026-01-05,two,2\n",
    );
    assert_eq!(stage.metrics(), ["2026-01-05 9.70"]);
    let sql = "SELECT count(*) FROM quarantine WHERE reason_code = 'value_missing' AND source_record_id = 'rows/009'";
    assert_eq!(stage.number(sql), 1);
}
