//! The text of a query in config, without what ends a statement.

use super::server::Make;

/// The query up to the semicolon that ends it: nothing but comments may follow one. What is written in any other way is
/// left as it is, for the server to refuse.
pub fn without_end(make: Make, query: &str) -> &str {
    let mut rest = query;
    let mut end = None;
    while let Some(first) = rest.chars().next() {
        let at = query.len() - rest.len();
        let Some(length) = part(make, rest, query.get(..at).unwrap_or_default()) else {
            // A quote or a comment that does not end.
            return query.trim_end();
        };
        let is_comment = match first {
            '#' => make == Make::MySql,
            _ => matches!(first, '-' | '/') && length > 1,
        };
        if first == ';' {
            end = end.or(Some(at));
        } else if !first.is_whitespace() && !is_comment {
            end = None;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    let query = match end {
        Some(end) => query.get(..end).unwrap_or(query),
        None => query,
    };
    query.trim_end()
}

/// Bytes of the comment, quoted text or letter that a text begins with. `None`: it does not end.
fn part(make: Make, text: &str, before: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let is_mysql = make == Make::MySql;
    let line = || text.find('\n').map_or(text.len(), |end| end + 1);
    match first {
        '-' if text.starts_with("--") && (!is_mysql || is_apart(text.get(2..))) => Some(line()),
        '#' if is_mysql => Some(line()),
        '/' if text.starts_with("/*") => comment(text, !is_mysql),
        '\'' => {
            let is_marked = before.ends_with(['e', 'E'])
                && !before
                    .get(..before.len().saturating_sub(1))
                    .is_some_and(|before| {
                        before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
                    });
            quoted(text, '\'', is_mysql || is_marked)
        }
        '"' => quoted(text, '"', is_mysql),
        '`' if is_mysql => quoted(text, '`', false),
        '$' if !is_mysql => match dollar(text, before) {
            Some(tag) => {
                let body = text.get(tag.len()..)?;
                Some(body.find(tag)? + 2 * tag.len())
            }
            None => Some(1),
        },
        other => Some(other.len_utf8()),
    }
}

/// To MySQL two dashes are a comment only before a blank.
fn is_apart(text: Option<&str>) -> bool {
    let next = text.and_then(|text| text.chars().next());
    next.is_none_or(|next| next.is_whitespace() || next.is_control())
}

/// Comments of PostgreSQL have others in them.
fn comment(text: &str, is_nested: bool) -> Option<usize> {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 {
        let rest = text.get(at..)?;
        if rest.starts_with("*/") {
            (at, depth) = (at + 2, depth - 1);
        } else if is_nested && rest.starts_with("/*") {
            (at, depth) = (at + 2, depth + 1);
        } else {
            at += rest.chars().next()?.len_utf8();
        }
    }
    Some(at)
}

/// A doubled quote ends a text and begins another, which comes to the same.
fn quoted(text: &str, quote: char, has_escapes: bool) -> Option<usize> {
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' && has_escapes {
            letters.next()?;
        } else if letter == quote {
            return Some(at + 1);
        }
    }
    None
}

/// `$$` or `$tag$`.
fn dollar<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let end = text.get(1..)?.find('$')? + 2;
    let tag = text.get(..end)?;
    let name = tag.get(1..end - 1)?;
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    is_name.then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_ends_before_its_semicolon_and_the_comments_behind_it() {
        for (query, expected) in [
            ("SELECT 1", "SELECT 1"),
            ("SELECT 1 ;; \n", "SELECT 1"),
            ("SELECT 1; -- done", "SELECT 1"),
            ("SELECT 1; -- done;\n/* all; of it */ ;", "SELECT 1"),
            ("SELECT 1 -- one; two", "SELECT 1 -- one; two"),
            (
                "SELECT ';' AS a, \";\" FROM t;",
                "SELECT ';' AS a, \";\" FROM t",
            ),
            ("SELECT 'it''s;' -- x", "SELECT 'it''s;' -- x"),
            ("SELECT 1; SELECT 2;", "SELECT 1; SELECT 2"),
            ("SELECT /* ; */ 1;", "SELECT /* ; */ 1"),
            // What does not end is the server's to refuse.
            ("SELECT 'a;", "SELECT 'a;"),
            ("", ""),
        ] {
            for make in [Make::Postgres, Make::MySql] {
                assert_eq!(without_end(make, query), expected, "{make:?}");
            }
        }
        for (make, query, expected) in [
            (Make::Postgres, r"SELECT '\'; -- '", r"SELECT '\'"),
            (Make::Postgres, r"SELECT E'\'; -- ';", r"SELECT E'\'; -- '"),
            (Make::Postgres, "SELECT $a$;$$;$a$;--", "SELECT $a$;$$;$a$"),
            (Make::Postgres, "SELECT a$1; --x$1", "SELECT a$1"),
            (Make::Postgres, "SELECT 1; /* a /* b */; */", "SELECT 1"),
            (Make::MySql, r"SELECT '\'; -- ';", r"SELECT '\'; -- '"),
            (Make::MySql, "SELECT 1; # done", "SELECT 1"),
            (Make::MySql, "SELECT `;`;", "SELECT `;`"),
            (Make::MySql, "SELECT 2--1;", "SELECT 2--1"),
            (Make::Postgres, "SELECT 1 # 2;", "SELECT 1 # 2"),
        ] {
            assert_eq!(without_end(make, query), expected);
        }
    }
}
