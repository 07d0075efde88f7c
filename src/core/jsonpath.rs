//! What a jsonpath may cost, estimated from its text when a mapping is saved.
//!
//! A path that steps from member to member costs what a record is long. `.**` visits every value below every value, so two of
//! them make a product of it; a regular expression with a back-reference can take longer than the age of the universe over
//! forty characters. Those two are refused. What is left and is not plainly linear is worked off apart from everybody
//! else's records.

/// Longest text of a path. Longer: reading it takes time in every statement. Shorter: a filter over many words does not fit.
pub const LONGEST: usize = 4_000;

/// The parts of a path that decide its cost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many `.**` the path has.
    pub descents: usize,
    pub has_regex: bool,
    /// Whether one of its regular expressions refers back to a part of what it matched.
    pub refers_back: bool,
}

impl Shape {
    /// Whether the cost of the path is linear in the length of a record.
    pub fn is_plain(self) -> bool {
        self.descents == 0 && !self.has_regex
    }
}

/// The shape of a path in PostgreSQL's own spelling (`path::jsonpath::text`): there every key and every string is quoted, and
/// every other word is syntax.
pub fn shape(path: &str) -> Shape {
    let mut shape = Shape::default();
    let mut syntax = String::new();
    let mut pattern: Option<String> = None;
    let mut rest = path.chars();
    while let Some(next) = rest.next() {
        if next != '"' {
            syntax.push(next);
            continue;
        }
        let text = string(&mut rest);
        let before = std::mem::take(&mut syntax);
        shape.descents += before.matches(".**").count();
        let before = before.trim_end();
        if before.ends_with("like_regex") {
            shape.refers_back |= pattern.replace(text).is_some_and(|it| refers_back(&it));
            shape.has_regex = true;
        } else if before.trim_start() == "flag" && text.contains('q') {
            // The pattern before it is plain text.
            pattern = None;
        }
    }
    shape.descents += syntax.matches(".**").count();
    shape.refers_back |= pattern.is_some_and(|it| refers_back(&it));
    shape
}

/// The rest of a quoted text, without its escapes.
fn string(rest: &mut std::str::Chars) -> String {
    let mut text = String::new();
    while let Some(next) = rest.next() {
        match next {
            '"' => break,
            '\\' => match rest.next() {
                Some('u') => {
                    let digits: String = rest.by_ref().take(4).collect();
                    let character = u32::from_str_radix(&digits, 16).ok();
                    text.extend(character.and_then(char::from_u32));
                }
                Some(escaped @ ('"' | '\\' | '/')) => text.push(escaped),
                // A line break and its like: no part of a reference.
                Some(_) => text.push(' '),
                None => break,
            },
            other => text.push(other),
        }
    }
    text
}

/// `\1` to `\9`, unless the backslash is itself escaped.
fn refers_back(pattern: &str) -> bool {
    let mut characters = pattern.chars();
    while let Some(next) = characters.next() {
        if next == '\\' && characters.next().is_some_and(|it| matches!(it, '1'..='9')) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Shape, shape};

    fn of(descents: usize, has_regex: bool, refers_back: bool) -> Shape {
        Shape {
            descents,
            has_regex,
            refers_back,
        }
    }

    #[test]
    fn a_path_is_distinguished_from_the_strings_inside_it() {
        for (path, expected) in [
            (r#"$."total""#, of(0, false, false)),
            (r#"$."a.**b" == "like_regex \\1""#, of(0, false, false)),
            (r#"$.**."price""#, of(1, false, false)),
            (r#"$.**{2 to last}.**."a".**"#, of(3, false, false)),
            (r#"$."a" like_regex "^x""#, of(0, true, false)),
            (r#"($."a" like_regex "^(a*)\\1$")"#, of(0, true, true)),
            // An escaped backslash and a digit.
            (r#"($."a" like_regex "\\\\1")"#, of(0, true, false)),
            (r#"($."a" like_regex "\\\\\\1")"#, of(0, true, true)),
            // Plain text by its flag, and the next one is not.
            (r#"($."a" like_regex "\\1" flag "q")"#, of(0, true, false)),
            (
                r#"($."a" like_regex "\\1" flag "iq" || $."b" like_regex "(x)\\1" flag "i")"#,
                of(0, true, true),
            ),
            (
                r#"($."a" like_regex "(x)\\1" || $."b" like_regex "y" flag "q")"#,
                of(0, true, true),
            ),
            (r#"($."a" like_regex "(x)\u005c1")"#, of(0, true, true)),
            ("$[*]", of(0, false, false)),
        ] {
            assert_eq!(shape(path), expected, "{path}");
        }
    }
}
