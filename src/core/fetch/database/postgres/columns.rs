//! What PostgreSQL says of the columns of a statement: which may be NULL, and whose equal values have one spelling.

use std::collections::{BTreeSet, HashSet};

use tokio_postgres::types::{Kind, Type};
use tokio_postgres::{Client, Error, SimpleQueryMessage, Statement};

use crate::source::database::Column;

pub async fn described(
    client: &Client,
    statement: &Statement,
    text: &str,
) -> Result<Vec<Column>, Error> {
    // What is not known is taken for the worse. The transaction has nothing more to do.
    let kept = known(not_null(client, statement).await)?;
    let collated = known(deterministic(client, statement, text).await)?;
    let mut collated = collated.into_iter();
    let columns = statement.columns().iter().map(|column| {
        let kind = column.type_();
        let is_deterministic = !is_collated(kind) || collated.next().unwrap_or(false);
        // A type's modifier is its scale or its length.
        let is_bounded = column.type_modifier() >= 0;
        Column {
            name: column.name().to_owned(),
            kind: match kind.kind() {
                Kind::Enum(_) => "enum".to_owned(),
                _ => kind.name().to_owned(),
            },
            not_null: column
                .table_oid()
                .zip(column.column_id())
                .is_some_and(|place| kept.contains(&place)),
            exact: match *kind {
                Type::NUMERIC => is_bounded,
                Type::BPCHAR => is_deterministic && is_bounded,
                _ => is_deterministic,
            },
            ..Column::default()
        }
    });
    Ok(columns.collect())
}

fn known<T: Default>(found: Result<T, Error>) -> Result<T, Error> {
    match found {
        Err(error) if error.code().is_none() => Err(error),
        found => Ok(found.unwrap_or_default()),
    }
}

fn is_collated(kind: &Type) -> bool {
    matches!(*kind, Type::TEXT | Type::VARCHAR | Type::BPCHAR)
}

/// Tables and numbers of the columns that are declared NOT NULL. A table's heirs may have NULLs all the same. So may a
/// foreign table, whose own server is not asked, a table with such a partition, and a column whose rows were not checked
/// (NOT VALID). Such a constraint ('n') is in the catalogue since version 18; before, all rows were checked.
async fn not_null(client: &Client, statement: &Statement) -> Result<HashSet<(u32, i16)>, Error> {
    let tables = statement
        .columns()
        .iter()
        .filter_map(|column| column.table_oid());
    let tables: BTreeSet<u32> = tables.collect();
    if tables.is_empty() {
        return Ok(HashSet::new());
    }
    let tables: Vec<String> = tables.iter().map(u32::to_string).collect();
    let sql = format!(
        "SELECT a.attrelid::oid, a.attnum
         FROM (SELECT t.oid FROM pg_catalog.pg_class AS t
               WHERE t.oid IN ({}) AND t.relkind <> 'f' AND NOT (t.relkind = 'r' AND t.relhassubclass) AND NOT EXISTS (
                   WITH RECURSIVE part (oid) AS (
                       SELECT t.oid
                       UNION SELECT i.inhrelid FROM part AS p JOIN pg_catalog.pg_inherits AS i ON i.inhparent = p.oid)
                   SELECT FROM part AS p JOIN pg_catalog.pg_class AS f ON f.oid = p.oid WHERE f.relkind = 'f')
               OFFSET 0) AS t
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid
         WHERE a.attnotnull AND NOT EXISTS (
             SELECT FROM pg_catalog.pg_constraint AS n
             WHERE n.conrelid = a.attrelid AND n.contype = 'n' AND NOT n.convalidated AND a.attnum = ANY (n.conkey))",
        tables.join(", ")
    );
    let rows = client.simple_query(&sql).await?;
    let read = |row: &SimpleQueryMessage| match row {
        SimpleQueryMessage::Row(row) => {
            Some((row.get(0)?.parse().ok()?, row.get(1)?.parse().ok()?))
        }
        _ => None,
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// For each column of text, whether its collation takes different texts for different. The statement is not run.
async fn deterministic(
    client: &Client,
    statement: &Statement,
    text: &str,
) -> Result<Vec<bool>, Error> {
    let columns = statement.columns();
    let is_text = |(place, column): (usize, &tokio_postgres::Column)| {
        is_collated(column.type_()).then(|| format!("pg_catalog.pg_collation_for(c.c{place})"))
    };
    let asked: Vec<String> = columns.iter().enumerate().filter_map(is_text).collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = (0..columns.len())
        .map(|place| format!("c{place}"))
        .collect();
    let sql = format!(
        "SELECT (SELECT coalesce(bool_and(coalesce(to_jsonb(c) ->> 'collisdeterministic', 'true')::boolean), false)
                 FROM pg_catalog.pg_collation AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace
                 WHERE x.name COLLATE \"C\" IN (quote_ident(c.collname), quote_ident(n.nspname) || '.' || quote_ident(c.collname)))
         FROM (SELECT ARRAY[{}] AS names FROM (SELECT 1) AS one LEFT JOIN (SELECT * FROM (
{text}
) AS a LIMIT 0) AS c ({}) ON true) AS l, unnest(l.names) WITH ORDINALITY AS x (name, place) ORDER BY x.place",
        asked.join(", "),
        names.join(", ")
    );
    let rows = client.simple_query(&sql).await?;
    let read = |row: &SimpleQueryMessage| match row {
        SimpleQueryMessage::Row(row) => Some(row.get(0) == Some("t")),
        _ => None,
    };
    Ok(rows.iter().filter_map(read).collect())
}
