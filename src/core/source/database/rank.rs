//! How the values of a column are put in order: one expression for each type and server.
//!
//! A batch goes on where the one before ended. That is right only if the server sorts and compares by the same
//! expression, if a value survives the way to us and back, and if two rows that are equal to the server are equal to us.
//! An enum of MySQL sorts by its number and compares by its text; a jsonb is no text that reads back; `a` and `A` are one
//! value to many collations and two records to us. So a column has the ranks that its type needs: its own order where
//! that is exact (and an index can be used), a second one that tells apart what the first one does not, or another
//! expression altogether.

use serde::{Deserialize, Serialize};

use super::column::Column;
use super::server::Make;
use super::statement::Bound;

/// One expression over a column, which never is NULL where the column is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rank {
    /// The column itself; its value comes and goes as text.
    Own,
    /// The same for a date or time of PostgreSQL, which comes as ISO 8601 writes it.
    Time,
    /// The same for a day or a time of MySQL, which may be nothing but zeros.
    Day,
    /// A whole number or a bit field.
    Whole,
    /// A decimal of MySQL with so many digits behind the point. Compared with a text, it would be a float.
    Decimal(u8),
    /// A float, compared as a double with all of its bits.
    Real,
    /// Text of PostgreSQL by its bytes, whatever its collation is.
    Plain,
    /// What PostgreSQL makes of any value in JSON, by its bytes: what a record's id is made of.
    Json,
    /// The number of a value of MySQL's ENUM, by which it sorts.
    Enum,
    /// The bits of a value of MySQL's SET.
    Set,
    /// MySQL's TIME.
    Clock,
    /// Bytes of MySQL, which come and go as hexadecimal text.
    Bytes,
    /// The beginning of a long text of MySQL, which sorts by no more than its first kilobyte.
    Start,
    /// A hash of MySQL's: any order will do, as long as two values are two.
    Digest,
    /// A hash of the whole row where every key column is NULL: then the content identifies it.
    Content,
}

/// Letters of a text, and bytes, that MySQL sorts by as a whole, whatever its collation makes of them.
const SORTED_WHOLE: u32 = 255;

impl Rank {
    /// The ranks of a key column: two rows that have the same are the same record. `None`: there is no way to order it.
    pub fn of_key(make: Make, column: &Column) -> Option<Vec<Rank>> {
        let own = |also: Rank| match column.exact {
            true => vec![Rank::Own],
            false => vec![also],
        };
        let is_short = (1..=SORTED_WHOLE).contains(&column.length);
        Some(match (make, column.kind.as_str()) {
            (Make::Postgres, "int2" | "int4" | "int8") => vec![Rank::Whole],
            (Make::Postgres, "date" | "timestamp" | "timestamptz") => vec![Rank::Time],
            (
                Make::Postgres,
                "bool" | "oid" | "uuid" | "bytea" | "time" | "name" | "char" | "inet" | "cidr"
                | "macaddr" | "macaddr8" | "pg_lsn" | "xid8" | "enum",
            ) => vec![Rank::Own],
            (Make::Postgres, "text" | "varchar" | "bpchar") => own(Rank::Json),
            (Make::Postgres, "numeric") if column.exact => vec![Rank::Own],
            // 1.0 and 1.00, 0 and -0, a day and 24 hours.
            (Make::Postgres, "numeric" | "interval") => vec![Rank::Own, Rank::Json],
            (Make::Postgres, "float4" | "float8") => vec![Rank::Real, Rank::Json],
            (Make::Postgres, _) => vec![Rank::Json],
            (Make::MySql, "int" | "year" | "bit") => vec![Rank::Whole],
            (Make::MySql, "decimal") => vec![Rank::Decimal(column.decimals)],
            (Make::MySql, "float" | "double") => vec![Rank::Real, Rank::Digest],
            (Make::MySql, "date" | "datetime" | "timestamp in UTC") => vec![Rank::Day],
            (Make::MySql, "time") => vec![Rank::Clock],
            (Make::MySql, "enum") => vec![Rank::Enum],
            (Make::MySql, "set") => vec![Rank::Set],
            (Make::MySql, "bytes") if is_short => vec![Rank::Bytes],
            (Make::MySql, "text") if is_short && column.exact => vec![Rank::Own],
            (Make::MySql, "bytes" | "text" | "json") => vec![Rank::Digest],
            (Make::MySql, _) => return None,
        })
    }

    /// The rank of a cursor column, whose equal values the key tells apart. `None`: its order says nothing of changes.
    pub fn of_cursor(make: Make, column: &Column) -> Option<Rank> {
        let is_short = (1..=SORTED_WHOLE).contains(&column.length);
        Some(match (make, column.kind.as_str()) {
            (Make::Postgres, "float4" | "float8") => Rank::Real,
            (Make::Postgres, "numeric" | "interval") => Rank::Own,
            (Make::Postgres, "text" | "varchar" | "bpchar") if column.exact => Rank::Own,
            (Make::Postgres, "text" | "varchar" | "bpchar" | "citext") => Rank::Plain,
            (Make::MySql, "float" | "double") => Rank::Real,
            (Make::MySql, "text") if is_short => Rank::Own,
            (Make::MySql, "text") => Rank::Start,
            (Make::MySql, "enum" | "set") => return None,
            _ => match Rank::of_key(make, column)?.as_slice() {
                [Rank::Json | Rank::Digest] => return None,
                [rank] => *rank,
                _ => return None,
            },
        })
    }

    /// The expression that the server sorts and compares by.
    pub fn expression(self, make: Make, column: &str) -> String {
        match (self, make) {
            (Rank::Plain, _) => format!("({column}::text COLLATE \"C\")"),
            (Rank::Json, _) => format!("(to_json({column})::text COLLATE \"C\")"),
            (Rank::Set, _) => format!("CAST({column} AS UNSIGNED)"),
            (Rank::Start, _) => format!("left({column}, {SORTED_WHOLE})"),
            (Rank::Digest, _) => format!("sha2({column}, 256)"),
            _ => column.to_owned(),
        }
    }

    /// What a row gives for it, as text.
    pub fn told(self, make: Make, column: &str) -> String {
        match (self, make) {
            (Rank::Own | Rank::Whole, Make::Postgres) => format!("{column}::text"),
            (Rank::Time, _) => format!("to_json({column}) #>> '{{}}'"),
            (Rank::Real, Make::Postgres) => format!("{column}::float8::text"),
            (Rank::Enum, _) => format!("{column} + 0"),
            (Rank::Whole, Make::MySql) => format!("{column} + 0"),
            (Rank::Bytes, _) => format!("hex({column})"),
            _ => self.expression(make, column),
        }
    }

    /// What a value is compared as.
    pub fn given(self, make: Make, place: &str) -> String {
        match (self, make) {
            // A bound of the lookback may be outside of the column's own type.
            (Rank::Whole, Make::Postgres) => format!("{place}::bigint"),
            (Rank::Real, Make::Postgres) => format!("{place}::float8"),
            (Rank::Decimal(decimals), _) => format!("CAST({place} AS DECIMAL(65, {decimals}))"),
            (Rank::Clock, _) => format!("CAST({place} AS TIME(6))"),
            (Rank::Bytes, _) => format!("unhex({place})"),
            _ => place.to_owned(),
        }
    }

    /// Whether a row has no value there: NULL, or what is none to us, a day of zeros and the null of JSON.
    pub fn is_blank(self, column: &str) -> String {
        match self {
            Rank::Day => {
                format!("({column} IS NULL OR month({column}) = 0 OR dayofmonth({column}) = 0)")
            }
            Rank::Json => format!("({column} IS NULL OR to_json({column})::text = 'null')"),
            _ => format!("{column} IS NULL"),
        }
    }

    pub fn bound(self, value: &str) -> Bound {
        match self {
            // Less than any integer is there.
            Rank::Whole if value.parse::<i128>().is_ok_and(|n| n < i64::MIN.into()) => {
                Bound::Number(i64::MIN.to_string())
            }
            Rank::Whole | Rank::Enum | Rank::Set => Bound::Number(value.to_owned()),
            Rank::Real => Bound::Real(value.to_owned()),
            _ => Bound::Text(value.to_owned()),
        }
    }
}
