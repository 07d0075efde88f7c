//! The SQL way: a site's own tables, with the streams, keys and mappings of its REST way.
//!
//! A table is named after its doctype, with `tab` before it and its blanks in it. Children lie in tables of their own
//! and are made anew with each save, so they are read with their parents.

use super::streams::Spec;
use crate::source::database::{From, Table};
use crate::source::table::Row;

/// The fields that are read of each child row; a list also where there is none, as the REST way has it.
const CHILDREN: &str = "coalesce((SELECT json_arrayagg(json_object('name', d.name, 'idx', d.idx, 'activity_type', d.activity_type,
    'hours', d.hours, 'from_time', d.from_time, 'to_time', d.to_time, 'project', d.project, 'task', d.task,
    'billing_amount', d.billing_amount, 'costing_amount', d.costing_amount))
    FROM `tabTimesheet Detail` AS d WHERE d.parent = t.name AND d.parenttype = 'Timesheet'), '[]') AS time_logs";

/// Longer than the two hours by which clocks are put back at most, in seconds.
const LOOKBACK: f64 = 3.0 * 60.0 * 60.0;

pub fn table(spec: &Spec, is_chosen: bool) -> Table {
    let name = format!("tab{}", spec.doctype);
    let from = match (spec.children, spec.filter) {
        (true, _) => From::Query(format!("SELECT t.*, {CHILDREN} FROM `{name}` AS t")),
        (false, Some((field, value))) => {
            From::Query(format!("SELECT * FROM `{name}` WHERE {field} = {value}"))
        }
        (false, None) => From::Table(vec![name.clone()]),
    };
    // Another document may have the name by now.
    let gone = format!(
        "SELECT DISTINCT d.deleted_name AS name FROM `tabDeleted Document` AS d
         WHERE d.deleted_doctype = '{}' AND d.restored = 0 AND d.creation >= ?
         AND NOT EXISTS (SELECT 1 FROM `{name}` AS t WHERE t.name = d.deleted_name)",
        spec.doctype
    );
    Table {
        name: spec.about().name.to_owned(),
        from,
        columns: Vec::new(),
        key: vec!["name".to_owned()],
        cursor: Some("modified".to_owned()),
        lookback: Some(LOOKBACK),
        nested: if spec.children {
            vec!["time_logs".to_owned()]
        } else {
            Vec::new()
        },
        gone: Some(gone),
        deletes: false,
        optional: spec.optional && !is_chosen,
    }
}
