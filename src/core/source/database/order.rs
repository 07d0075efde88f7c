//! The order of a batch, and the condition that leads to the rows behind one.
//!
//! NULLs have their place in it. MySQL sorts them first, so that what comes after a value needs no word on them.
//! PostgreSQL sorts them last; read backwards, they come first there, too, and rows compare as a whole, which an index
//! answers. That is how a stream without a cursor is read. With a cursor the order has to be forwards, and rows are
//! compared as a whole where the table says that no key is NULL.

use super::position::Next;
use super::rank::Rank;
use super::server::Make;
use super::statement::Bound;
use super::table::Table;

struct Term {
    expression: String,
    told: String,
    rank: Rank,
    nullable: bool,
}

pub struct Order {
    make: Make,
    terms: Vec<Term>,
    is_backwards: bool,
}

/// The values of a statement, each with its place.
pub struct Values {
    make: Make,
    pub bound: Vec<Bound>,
}

impl Values {
    pub fn new(make: Make) -> Values {
        Values {
            make,
            bound: Vec::new(),
        }
    }

    /// A value's place in the text. Call it in the order of the text.
    pub fn put(&mut self, rank: Rank, value: &str) -> String {
        self.bound.push(rank.bound(value));
        let place = match self.make {
            Make::Postgres => format!("${}", self.bound.len()),
            Make::MySql => "?".to_owned(),
        };
        rank.given(self.make, &place)
    }
}

impl Order {
    pub fn new(make: Make, table: &Table, next: &Next) -> Order {
        let term = |rank: Rank, column: &str, nullable: bool| Term {
            expression: rank.expression(make, column),
            told: rank.told(make, column),
            rank,
            nullable,
        };
        let mut terms = Vec::new();
        let cursor = next.cursor.zip(table.cursor.as_ref());
        let cursor = cursor.filter(|_| !next.rest);
        if let Some((cursor, column)) = cursor {
            terms.push(term(cursor.rank, &make.column(column), false));
        }
        for (column, key) in table.key.iter().zip(&next.keys) {
            let column = make.column(column);
            terms.extend(
                key.ranks
                    .iter()
                    .map(|rank| term(*rank, &column, key.nullable)),
            );
        }
        if !next.content.is_empty() {
            let content = content(make, table, next);
            terms.push(term(Rank::Content, &content, false));
        }
        Order {
            make,
            terms,
            is_backwards: make == Make::Postgres && cursor.is_none(),
        }
    }

    /// How many values of a row say where it is.
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// What of a row says where it is.
    pub fn told(&self) -> String {
        let told = self.terms.iter().map(|term| format!(", {}", term.told));
        told.collect()
    }

    /// What follows ORDER BY.
    pub fn by(&self) -> String {
        let direction = if self.is_backwards { " DESC" } else { "" };
        let terms = self.terms.iter();
        let terms: Vec<String> = terms
            .map(|term| format!("{}{direction}", term.expression))
            .collect();
        terms.join(", ")
    }

    /// The rows behind the one that has these values.
    pub fn after(&self, last: &[Option<String>], values: &mut Values) -> String {
        let is_complete = last.iter().all(Option::is_some);
        let has_nulls = self.terms.iter().any(|term| term.nullable);
        // MySQL would use no index.
        if self.make == Make::Postgres && is_complete && (self.is_backwards || !has_nulls) {
            let expressions = self.terms.iter().map(|term| term.expression.as_str());
            let expressions: Vec<&str> = expressions.collect();
            let places = self.terms.iter().zip(last.iter().flatten());
            let places: Vec<String> = places
                .map(|(term, value)| values.put(term.rank, value))
                .collect();
            let further = self.further();
            return format!(
                "({}) {further} ({})",
                expressions.join(", "),
                places.join(", ")
            );
        }
        beyond(self.make, self.further(), &self.terms, last, values)
    }

    fn further(&self) -> &'static str {
        if self.is_backwards { "<" } else { ">" }
    }
}

/// As [`Order::after`], term by term.
fn beyond(
    make: Make,
    further: &str,
    terms: &[Term],
    last: &[Option<String>],
    values: &mut Values,
) -> String {
    let (Some((term, terms)), Some((value, last))) = (terms.split_first(), last.split_first())
    else {
        return "FALSE".to_owned();
    };
    let it = &term.expression;
    let nulls_are_last = make == Make::Postgres && further == ">";
    let Some(value) = value else {
        let rest = beyond(make, further, terms, last, values);
        return match nulls_are_last {
            true => format!("({it} IS NULL AND {rest})"),
            false => format!("({it} IS NOT NULL OR {rest})"),
        };
    };
    let condition = if terms.is_empty() {
        format!("{it} {further} {}", values.put(term.rank, value))
    } else {
        // The first part is for an index.
        let from = values.put(term.rank, value);
        let behind = values.put(term.rank, value);
        let rest = beyond(make, further, terms, last, values);
        format!("({it} {further}= {from} AND ({it} {further} {behind} OR {rest}))")
    };
    match nulls_are_last && term.nullable {
        true => format!("({it} IS NULL OR {condition})"),
        false => condition,
    }
}

/// Something that is the same for rows with the same content, where no key tells rows apart.
fn content(make: Make, table: &Table, next: &Next) -> String {
    let keys = table.key.iter().zip(&next.keys);
    let blank = keys.filter_map(|(column, key)| {
        let rank = key.ranks.first()?;
        Some(rank.is_blank(&make.column(column)))
    });
    let blank: Vec<String> = blank.collect();
    let hash = match make {
        Make::Postgres => "md5(row_to_json(s.*)::text)".to_owned(),
        Make::MySql => {
            let columns = next.content.iter().map(|column| {
                let column = make.column(column);
                format!("coalesce(hex(CAST({column} AS BINARY)), '-')")
            });
            let columns: Vec<String> = columns.collect();
            format!("sha2(concat_ws(' ', {}), 256)", columns.join(", "))
        }
    };
    let none = match make {
        Make::Postgres => "'' END COLLATE \"C\"",
        Make::MySql => "'' END",
    };
    format!(
        "(CASE WHEN {} THEN {hash} ELSE {none})",
        blank.join(" AND ")
    )
}
