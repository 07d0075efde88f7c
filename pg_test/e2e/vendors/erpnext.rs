//! ERPNext: stamps in the site's own zone, lists without child rows, and deletions in a doctype of their own.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use connector_service_test::*;
use serde_json::{Value, json};

use crate::stage::*;

struct Doc {
    doctype: &'static str,
    name: String,
    /// In the site's zone, five and a half hours ahead of UTC.
    modified: String,
    body: Value,
}

pub struct ErpNext {
    clock: Clock,
    docs: Vec<Doc>,
    deleted: Vec<(String, &'static str, String)>,
    number: usize,
    /// Doctypes that this site does not have.
    absent: Vec<&'static str>,
    /// Whether the user may read what was deleted.
    sees_deleted: bool,
}

const DOCTYPES: [(&str, &str); 4] = [
    ("Sales Invoice", "sales_invoices"),
    ("Purchase Invoice", "purchase_invoices"),
    ("Bin", "bins"),
    ("Timesheet", "timesheets"),
];

fn site(at: DateTime<Utc>, micros: usize) -> String {
    let local = at + TimeDelta::minutes(330);
    format!("{}.{micros:06}", local.format("%Y-%m-%d %H:%M:%S"))
}

impl ErpNext {
    fn new() -> ErpNext {
        ErpNext {
            clock: Clock::start(),
            docs: Vec::new(),
            deleted: Vec::new(),
            number: 0,
            absent: vec!["Expense Claim", "Salary Slip"],
            sees_deleted: true,
        }
    }

    fn stamp(&mut self, random: &mut Random) -> String {
        let at = self.clock.tick(random);
        // Most changes of a second differ in their fraction; some do not.
        site(at, random.below(3) * 250_000)
    }

    fn add(&mut self, random: &mut Random, doctype: &'static str) {
        let modified = self.stamp(random);
        self.number += 1;
        let date = modified.get(..10).unwrap().to_owned();
        let date: chrono::NaiveDate = date.parse().unwrap();
        let date = (date - TimeDelta::days(1 + random.below(5) as i64)).to_string();
        let cents = 1 + random.below(90_000) as i64;
        let money: Value =
            serde_json::from_str(&format!("{}.{:02}", cents / 100, cents % 100)).unwrap();
        let docstatus = random.pick(&[0, 1, 1, 1]);
        let body = match doctype {
            "Bin" => {
                json!({"item_code": format!("ITEM {}", self.number), "warehouse": "Stores - A", "actual_qty": random.below(60)})
            }
            "Timesheet" => {
                json!({"docstatus": docstatus, "start_date": date, "total_hours": 5, "time_logs": [
                {"name": "a", "activity_type": "Work", "hours": 2, "from_time": format!("{date} 08:00:00")},
                {"name": "b", "activity_type": "Work", "hours": 3, "from_time": format!("{date} 12:00:00")}]})
            }
            _ => {
                json!({"docstatus": docstatus, "posting_date": date, "grand_total": money, "currency": "USD", "cost_center": "Main - A",
                "is_return": 0, "is_opening": "No", "status": "Unpaid", "items": [{"item_code": "X"}], "cents": cents})
            }
        };
        // A name may hold a slash, and blanks.
        let name = format!("{}/2026 {:05}", &doctype[..3], self.number);
        self.docs.push(Doc {
            doctype,
            name,
            modified,
            body,
        });
    }

    fn list(&self, doctype: &str, asked: &Asked) -> Result<Reply, Complaint> {
        let parameter = |name: &str| -> Result<Value, Complaint> {
            let text = asked.query.get(name).ok_or(format!("no {name}"))?;
            serde_json::from_str(text).map_err(|_| format!("{name} is no JSON"))
        };
        let fields: Vec<String> =
            serde_json::from_value(parameter("fields")?).map_err(|_| "fields are no list")?;
        let by = if doctype == "Deleted Document" {
            "creation"
        } else {
            "modified"
        };
        need(
            asked.query.get("order_by").map(String::as_str) == Some(&format!("{by} asc, name asc")),
            "another order",
        )?;
        need(!asked.query.contains_key("limit_start"), "paged by offset")?;
        let limit = asked.number("limit_page_length");
        need((1..=1000).contains(&limit), "no limit: 20 by default")?;
        let mut rows: Vec<Value> = if doctype == "Deleted Document" {
            let row = |(i, (creation, doctype, name)): (usize, &(String, &str, String))| json!({"name": format!("d{i:05}"), "creation": creation, "deleted_doctype": doctype, "deleted_name": name, "restored": 0});
            self.deleted.iter().enumerate().map(row).collect()
        } else {
            let of = self.docs.iter().filter(|doc| doc.doctype == doctype);
            of.map(|doc| {
                let mut row = doc.body.clone();
                row["name"] = doc.name.clone().into();
                row["modified"] = doc.modified.clone().into();
                row
            })
            .collect()
        };
        let holds = |row: &Value, filter: &Value| -> Result<bool, Complaint> {
            let (field, operator, value) = (
                filter[0].as_str().unwrap_or_default(),
                filter[1].as_str().unwrap_or_default(),
                &filter[2],
            );
            let found = &row[field];
            // The server compares names by its own collation.
            let fold = |value: &Value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_lowercase)
            };
            Ok(match operator {
                "=" => found == value,
                ">=" => fold(found) >= fold(value),
                ">" => fold(found) > fold(value),
                other => return Err(format!("operator {other}")),
            })
        };
        let filters: Vec<Value> =
            serde_json::from_value(parameter("filters")?).map_err(|_| "filters are no list")?;
        for filter in &filters {
            let mut kept = Vec::new();
            for row in rows {
                if holds(&row, filter)? {
                    kept.push(row);
                }
            }
            rows = kept;
        }
        if asked.query.contains_key("or_filters") {
            let any: Vec<Value> = serde_json::from_value(parameter("or_filters")?)
                .map_err(|_| "or_filters are no list")?;
            let mut kept = Vec::new();
            for row in rows {
                let mut is_any = false;
                for filter in &any {
                    is_any |= holds(&row, filter)?;
                }
                if is_any {
                    kept.push(row);
                }
            }
            rows = kept;
        }
        let key = |row: &Value| {
            (
                row[by].as_str().unwrap().to_owned(),
                row["name"].as_str().unwrap().to_lowercase(),
            )
        };
        rows.sort_by_key(key);
        rows.truncate(limit);
        for row in &mut rows {
            let row = row.as_object_mut().unwrap();
            // A list has no child rows.
            row.retain(|name, value| {
                !value.is_array() && (fields.iter().any(|field| field == "*" || field == name))
            });
        }
        json_reply(json!({"data": rows}))
    }
}

impl Fake for ErpNext {
    const KIND: &'static str = "erpnext";
    const VERSION: &'static str = "data ->> 'modified'";
    const SCALE: i64 = 100;

    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    fn credentials(&self) -> Value {
        json!({"api_key": "not_a_real_key", "api_secret": "not_a_real_secret"})
    }

    fn config(&self, url: &str) -> Value {
        json!({"requests_per_second": 1000, "base_url": url})
    }

    fn answer(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        need(asked.method == "GET", "only GET is asked for")?;
        if asked.headers.get("authorization").map(String::as_str)
            != Some("token not_a_real_key:not_a_real_secret")
        {
            return Ok(refusal(
                401,
                &[],
                json!({"exc_type": "AuthenticationError"}),
            ));
        }
        let path = asked
            .path
            .strip_prefix("/api/resource/")
            .ok_or("not below /api/resource")?;
        let (doctype, name) = path.split_once('/').unwrap_or((path, ""));
        need(!doctype.contains('+'), "a blank in a path is %20")?;
        let (doctype, name) = (decode(doctype), decode(name));
        if self.absent.contains(&doctype.as_str()) {
            return Ok(refusal(404, &[], json!({"exc_type": "DoesNotExistError"})));
        }
        if doctype == "Deleted Document" && !self.sees_deleted {
            return Ok(refusal(403, &[], json!({"exc_type": "PermissionError"})));
        }
        if name.is_empty() {
            return self.list(&doctype, asked);
        }
        match self
            .docs
            .iter()
            .find(|doc| doc.doctype == doctype && doc.name == name)
        {
            Some(doc) => {
                let mut body = doc.body.clone();
                body["name"] = doc.name.clone().into();
                body["modified"] = doc.modified.clone().into();
                json_reply(json!({"data": body}))
            }
            None => Ok(refusal(404, &[], json!({"exc_type": "DoesNotExistError"}))),
        }
    }

    fn change(&mut self, random: &mut Random) {
        let doctype = DOCTYPES[random.below(DOCTYPES.len())].0;
        let some = (!self.docs.is_empty()).then(|| random.below(self.docs.len()));
        match (random.below(10), some) {
            (0..6, _) | (_, None) => self.add(random, doctype),
            (6..8, Some(index)) => {
                // Submitted, cancelled, or counted.
                let modified = self.stamp(random);
                let quantity = random.below(60);
                let doc = &mut self.docs[index];
                if doc.modified >= modified {
                    return;
                }
                doc.modified = modified;
                match doc.body["docstatus"].as_i64() {
                    None => doc.body["actual_qty"] = quantity.into(),
                    Some(status) => doc.body["docstatus"] = (status + 1).min(2).into(),
                }
            }
            (8, Some(index)) => {
                let at = self.stamp(random);
                let doc = self.docs.remove(index);
                self.deleted.push((at, doc.doctype, doc.name));
            }
            (_, Some(index)) => {
                // Gone, and another of the same name: the deletion speaks of the first one.
                let at = self.stamp(random);
                let mut doc = self.docs.remove(index);
                self.deleted.push((at, doc.doctype, doc.name.clone()));
                doc.modified = self.stamp(random).max(doc.modified.clone());
                self.docs.push(doc);
            }
        }
    }

    fn stream_of(&self, asked: &Asked) -> Option<String> {
        let path = asked.path.strip_prefix("/api/resource/")?;
        let doctype = decode(path.split('/').next()?);
        let filters = asked.query.get("filters").map_or("", String::as_str);
        let is_it = |name: &str| {
            doctype == name
                || doctype == "Deleted Document" && filters.contains(&format!("\"{name}\""))
        };
        let found = DOCTYPES.iter().find(|(name, _)| is_it(name));
        found.map(|(_, stream)| (*stream).to_owned())
    }

    fn denies(&self) -> Reply {
        refusal(403, &[], json!({"exc_type": "PermissionError"}))
    }

    fn delete(&mut self, random: &mut Random) -> bool {
        if self.docs.is_empty() {
            return false;
        }
        let at = self.stamp(random);
        let doc = self.docs.remove(random.below(self.docs.len()));
        self.deleted.push((at, doc.doctype, doc.name));
        true
    }

    /// A document of long ago is submitted or cancelled.
    fn settle(&mut self, random: &mut Random) -> bool {
        let modified = self.stamp(random);
        let old = self.docs.iter_mut().filter(|doc| doc.modified < modified);
        let Some(doc) = old.min_by(|a, b| a.modified.cmp(&b.modified)) else {
            return false;
        };
        doc.modified = modified;
        if let Some(status) = doc.body["docstatus"].as_i64() {
            doc.body["docstatus"] = (status + 1).min(2).into();
        }
        true
    }

    fn books(&self) -> Books {
        let mut books = Books::new();
        for Doc {
            doctype,
            modified,
            body,
            ..
        } in &self.docs
        {
            let submitted = body["docstatus"] == 1;
            let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
            let (kind, day, amount) = match *doctype {
                "Sales Invoice" if submitted => (
                    "revenue",
                    text("posting_date"),
                    body["cents"].as_i64().unwrap(),
                ),
                "Purchase Invoice" if submitted => (
                    "costs",
                    text("posting_date"),
                    body["cents"].as_i64().unwrap(),
                ),
                // The site's day.
                "Bin" => (
                    "inventory",
                    modified.get(..10).unwrap().to_owned(),
                    body["actual_qty"].as_i64().unwrap() * 100,
                ),
                "Timesheet" if submitted => ("staffing", text("start_date"), 500),
                _ => continue,
            };
            *books.entry((kind.to_owned(), day)).or_default() += amount;
        }
        books
    }

    fn records(&self) -> BTreeMap<String, String> {
        let stream = |doctype: &str| {
            DOCTYPES
                .iter()
                .find(|(name, _)| *name == doctype)
                .unwrap()
                .1
        };
        self.docs
            .iter()
            .map(|doc| {
                (
                    format!("{}/{}", stream(doc.doctype), doc.name),
                    doc.modified.clone(),
                )
            })
            .collect()
    }
}

/// A tenant in the zone of its site: of one further west, what the site counts in its first hours of a day would wait
/// in quarantine until the tenant's day has come.
fn stage(fake: ErpNext) -> Stage<ErpNext> {
    let mut stage = Stage::new(fake);
    stage
        .client
        .batch_execute("UPDATE tenants SET timezone = 'Asia/Kolkata'")
        .unwrap();
    stage
}

#[test]
fn erpnext_follows_every_change() {
    let mut stage = stage(ErpNext::new());
    stage.follows_every_change(41);
    let run = stage.sync();
    let warnings = run["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 2, "{run}");
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .contains("left out, because this site does not have it"),
        "{run}"
    );
}

#[test]
fn erpnext_misses_nothing_that_changes_while_it_reads() {
    misses_nothing_that_changes_while_it_reads(|| stage(ErpNext::new()), 42, 6);
}

#[test]
fn erpnext_s_refresh_finds_what_is_gone_without_a_trace() {
    let mut stage = stage(ErpNext::new());
    let mut random = Random(48);
    stage.changes(60, &mut random);
    stage.sync();
    stage.agrees();
    // Taken out of the database itself, or renamed: nothing speaks of it.
    let gone = |doc: &Doc| doc.doctype == "Sales Invoice";
    let place = stage.hosted().fake.docs.iter().position(gone).unwrap();
    stage.hosted().fake.docs.remove(place);
    let other = stage.hosted().fake.docs.iter().position(gone).unwrap();
    let name = "renamed".to_owned();
    stage.hosted().fake.docs[other].name = name;
    let sql = "SELECT connector_service_refresh($1::text::uuid, 'sales_invoices')::text";
    let run: String = stage
        .client
        .query_one(sql, &[&stage.connector])
        .unwrap()
        .get(0);
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(
        (&run["state"], &run["deleted"]),
        (&json!("succeeded"), &json!(2)),
        "{run}"
    );
    stage.agrees();
}

#[test]
fn erpnext_reads_many_pages_also_where_timestamps_are_equal() {
    let mut fake = ErpNext::new();
    let mut random = Random(43);
    for _ in 0..1_300 {
        fake.add(&mut random, "Sales Invoice");
    }
    // Six hundred of one moment: more than a page.
    let moment = fake.docs[300].modified.clone();
    for doc in &mut fake.docs[300..900] {
        doc.modified = moment.clone();
    }
    let mut stage = stage(fake);
    let run = stage.sync();
    assert_eq!(run["inserted"], 1_300, "{run}");
    stage.agrees();
}

#[test]
fn erpnext_s_failures_have_different_error_codes() {
    let mut stage = stage(ErpNext::new());
    stage.changes(40, &mut Random(44));
    stage.sync();
    let limited = || Reply::Full {
        status: 429,
        headers: vec![
            ("Retry-After", "0.1".into()),
            ("X-RateLimit-Reset", "3000".into()),
        ],
        body: b"Too Many Requests".to_vec(),
    };
    stage.survives(2, limited());
    stage.survives(1, refusal(503, &[], json!({"exc_type": "SessionStopped"})));
    for (reply, code, says) in [
        (
            refusal(417, &[], json!({"exception": "not_a_real_secret"})),
            "request_refused",
            "refused the filters",
        ),
        (
            refusal(403, &[], json!({"exc_type": "PermissionError"})),
            "permission_missing",
            "this user may not read \"Sales Invoice\"",
        ),
        (
            Reply::Json(r#"{"message": []}"#.into()),
            "unexpected_shape",
            "does not have the expected shape",
        ),
    ] {
        stage.hosted().faults.push_back((0, reply));
        let run = stage.sync_anyhow();
        assert_eq!(run["error_code"], code, "{run}");
        let message = run["error_message"].as_str().unwrap();
        assert!(
            message.contains(says) && !message.contains("not_a_real"),
            "{message}"
        );
    }
    // A user who may not see what was deleted reads all the rest.
    stage.hosted().fake.sees_deleted = false;
    stage.changes(4, &mut Random(45));
    let run = stage.sync();
    let warnings = run["warnings"].to_string();
    assert!(warnings.contains("deletions are not found"), "{run}");
    stage.hosted().fake.sees_deleted = true;
    stage.sync();
    stage.agrees();
}

#[test]
fn erpnext_s_objects_of_an_unexpected_shape_are_stored_unchanged() {
    stage(ErpNext::new()).stores_objects_of_another_shape(
        47,
        |object| {
            if object.contains_key("docstatus") {
                object.insert("brand_new".into(), json!({"nested": [1, 2.50]}));
                object.remove("cost_center");
            }
        },
        "data #>> '{brand_new,nested,1}' = '2.5' AND NOT data ? 'cost_center'",
    );
}

#[test]
fn erpnext_s_rate_limit_pauses_the_account_even_after_a_restart() {
    let mut stage = stage(ErpNext::new());
    stage.changes(20, &mut Random(46));
    stage.waits_when_throttled(
        1,
        refusal(
            429,
            &[("X-RateLimit-Reset", "600")],
            json!("Too Many Requests"),
        ),
    );
}
