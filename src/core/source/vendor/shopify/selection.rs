//! Takes a field out of a selection of GraphQL, because a version does not have it or a token may not read it.

/// One field of a selection, in its own text.
struct Field<'a> {
    /// Name and arguments; for a fragment, its condition.
    head: &'a str,
    name: &'a str,
    /// What is selected of it.
    inner: Option<&'a str>,
}

/// A selection without one of its fields. `None`: the field is not there.
pub fn without(selection: &str, path: &[&str]) -> Option<String> {
    let (name, rest) = path.split_first()?;
    let mut kept = Vec::new();
    let mut is_found = false;
    for field in fields(selection) {
        // What a fragment selects belongs to what surrounds it.
        let inner = match (field.inner, field.name == *name) {
            (_, true) if rest.is_empty() => {
                is_found = true;
                continue;
            }
            (Some(inner), true) => without(inner, rest),
            (Some(inner), false) if field.head.starts_with("...") => without(inner, path),
            _ => None,
        };
        is_found |= inner.is_some();
        match inner.as_deref().or(field.inner) {
            None => kept.push(field.head.to_owned()),
            Some("") => {}
            Some(inner) => kept.push(format!("{} {{ {} }}", field.head, inner.trim())),
        }
    }
    is_found.then(|| kept.join(" "))
}

fn fields(selection: &str) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    let mut rest = selection.trim_start();
    while !rest.is_empty() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let start = rest;
        let name = match rest.strip_prefix("... on ") {
            Some(_) => "",
            None => {
                let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                rest.get(..end).unwrap_or_default()
            }
        };
        let mut used = match name {
            "" => rest.find('{').unwrap_or(rest.len()),
            name => name.len(),
        };
        rest = start.get(used..).unwrap_or_default();
        if rest.starts_with('(') {
            used += length(rest, '(', ')');
        }
        let head = start.get(..used).unwrap_or_default().trim_end();
        rest = start.get(used..).unwrap_or_default().trim_start();
        let mut inner = None;
        if rest.starts_with('{') {
            let length = length(rest, '{', '}');
            inner = rest.get(1..length.saturating_sub(1)).map(str::trim);
            rest = rest.get(length..).unwrap_or_default().trim_start();
        } else if head.is_empty() {
            // Nothing that is known: the text of a query is our own.
            break;
        }
        fields.push(Field { head, name, inner });
    }
    fields
}

/// How long the text in brackets is that begins here.
fn length(text: &str, open: char, close: char) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at + c.len_utf8();
            }
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_is_taken_out_wherever_it_is() {
        let selection = "id a(x: [\"b\"]) { b c { d } } ... on T { e f { g } } h";
        for (path, left) in [
            ("id", "a(x: [\"b\"]) { b c { d } } ... on T { e f { g } } h"),
            ("a", "id ... on T { e f { g } } h"),
            (
                "a.b",
                "id a(x: [\"b\"]) { c { d } } ... on T { e f { g } } h",
            ),
            ("a.c.d", "id a(x: [\"b\"]) { b } ... on T { e f { g } } h"),
            ("e", "id a(x: [\"b\"]) { b c { d } } ... on T { f { g } } h"),
            ("f.g", "id a(x: [\"b\"]) { b c { d } } ... on T { e } h"),
            ("h", "id a(x: [\"b\"]) { b c { d } } ... on T { e f { g } }"),
        ] {
            let path: Vec<&str> = path.split('.').collect();
            assert_eq!(without(selection, &path).as_deref(), Some(left), "{path:?}");
        }
        for path in [&["x"][..], &["a", "x"], &["id", "x"], &["b"]] {
            assert_eq!(without(selection, path), None, "{path:?}");
        }
    }
}
