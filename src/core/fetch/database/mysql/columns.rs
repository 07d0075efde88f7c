//! What MySQL says of the columns of a statement, and which of them an index keeps unique.

use std::collections::{BTreeMap, BTreeSet};

use mysql_common::Value;
use mysql_common::packets::Column;

use super::json;
use super::wire::Wire;
use crate::error::{Code, Failure};
use crate::source::database::Column as Described;

/// Tables whose indexes are looked at. More: a view over hundreds of them asks hundreds of times.
const TABLES: usize = 8;

/// Columns of indexes that are read of one table.
const PARTS: usize = 2_000;

const INDEXES: &str = "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS
    WHERE NON_UNIQUE = 0 AND TABLE_SCHEMA = ? AND TABLE_NAME = ?";

/// The columns, and sets of them that are unique in the table that all of them come from.
pub async fn described(
    wire: &mut Wire,
    columns: &[Column],
) -> Result<(Vec<Described>, Vec<Vec<String>>), Failure> {
    let mut described: Vec<Described> = columns.iter().map(json::described).collect();
    // Equal numbers have one spelling anyway.
    if described.iter().all(|column| column.kind != "text") {
        return Ok((described, Vec::new()));
    }
    let table = |column: &Column| {
        let table = column.org_table_str().into_owned();
        (!table.is_empty()).then(|| (column.schema_str().into_owned(), table))
    };
    let tables: BTreeSet<(String, String)> = columns.iter().filter_map(table).collect();
    let is_one = tables.len() == 1;
    let mut unique = Vec::new();
    for (schema, name) in tables.into_iter().take(TABLES) {
        let indexes = match indexes(wire, &schema, &name).await {
            Ok(indexes) => indexes,
            Err(failure) if failure.code == Code::ConnectFailed => return Err(failure),
            // Not known: the worse is taken.
            Err(_) => continue,
        };
        let place = Some((schema, name));
        for index in indexes {
            let named = |part: &String| {
                let mut same = columns.iter();
                same.position(|column| column.org_name_str() == *part && table(column) == place)
            };
            if let [part] = index.as_slice() {
                for (column, described) in columns.iter().zip(&mut described) {
                    described.exact |= column.org_name_str() == *part && table(column) == place;
                }
            }
            let places: Option<Vec<usize>> = index.iter().map(named).collect();
            if let Some(places) = places.filter(|_| is_one) {
                let names = places.iter().filter_map(|place| described.get(*place));
                unique.push(names.map(|column| column.name.clone()).collect());
            }
        }
    }
    Ok((described, unique))
}

/// The columns of each unique index of a table.
async fn indexes(wire: &mut Wire, schema: &str, name: &str) -> Result<Vec<Vec<String>>, Failure> {
    let statement = wire.prepare(INDEXES, 2).await?;
    let values = [schema, name].map(|text| Value::Bytes(text.as_bytes().to_vec()));
    let columns = wire.execute(&statement, &values).await?;
    let mut indexes: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
    let mut parts = 0;
    while let Some(row) = wire.row(&columns).await? {
        parts += 1;
        let text = |place| json::value_at(&row, place).flatten();
        let (Some(index), true) = (text(0), parts <= PARTS) else {
            continue;
        };
        let index = indexes.entry(index).or_insert_with(|| Some(Vec::new()));
        // One part of it may be an expression.
        *index = text(1).and_then(|part| {
            let mut parts = index.take()?;
            parts.push(part);
            Some(parts)
        });
    }
    wire.close(&statement).await?;
    // One that was not read to its end would be taken for a smaller one.
    let whole = if parts <= PARTS {
        indexes
    } else {
        BTreeMap::new()
    };
    Ok(whole.into_values().flatten().collect())
}
