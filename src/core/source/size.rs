//! How large a connector's config may be. It is read as a whole when it is saved and by every run.

use crate::error::{Code, Failure};

/// Largest config, as text, in bytes. Larger: as many runs as go at once hold it several times over. Smaller: manifests
/// of the largest APIs, which carry a schema of each stream, do not fit.
pub const LARGEST_CONFIG: usize = 1024 * 1024;
/// Most values of a config, each object, list, text, number, truth and null counted. More: one takes about a hundred
/// bytes when it is read, however short it is written. Fewer: as above.
pub const MOST_VALUES: usize = 20_000;
/// Deepest nesting of a config. Deeper: what reads it recurses that often, and the JSON parser ends at 128. Shallower: a
/// manifest with schemas in it comes to about thirty.
pub const DEEPEST: usize = 64;

/// How large a JSON text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub bytes: usize,
    /// Never fewer than there are.
    pub values: usize,
    pub depth: usize,
}

impl Size {
    /// Measures JSON that is known to be well-formed; nothing is built for it.
    pub fn of(text: &[u8]) -> Size {
        let (mut values, mut depth, mut deepest) = (1_usize, 0_usize, 0_usize);
        let (mut in_text, mut is_escaped) = (false, false);
        for byte in text {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if in_text => is_escaped = true,
                b'"' => in_text = !in_text,
                _ if in_text => {}
                b'{' | b'[' => {
                    values += 1;
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                b',' => values += 1,
                _ => {}
            }
        }
        Size {
            bytes: text.len(),
            values,
            depth: deepest,
        }
    }
}

/// Refuses a config that is too large, and says what it has too much of.
pub fn check_config(size: Size) -> Result<(), Failure> {
    let (what, most) = match size {
        Size { bytes, .. } if bytes > LARGEST_CONFIG => ("bytes", LARGEST_CONFIG),
        Size { values, .. } if values > MOST_VALUES => ("values", MOST_VALUES),
        Size { depth, .. } if depth > DEEPEST => ("levels", DEEPEST),
        _ => return Ok(()),
    };
    let message = format!("config has more than {most} {what}");
    Err(Failure::new(Code::InvalidConfig, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_json_text_counts_its_bytes_values_and_depth() {
        for (text, values, depth) in [
            ("1", 1, 0),
            ("[]", 2, 1),
            ("{\"a\": [1, 2, {\"b\": null}]}", 5 + 1, 3),
            ("\"a,[{\\\",[\\\\\"", 1, 0),
            ("[[],[]]", 5, 2),
        ] {
            let size = Size::of(text.as_bytes());
            assert_eq!((size.bytes, size.depth), (text.len(), depth), "{text}");
            assert_eq!(size.values, values, "{text}");
        }
    }

    #[test]
    fn a_config_is_accepted_up_to_its_limits_and_refused_beyond() {
        let list = |count: usize| format!("{{\"a\":[{}null]}}", "null,".repeat(count - 1));
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        // The object, its value and one more are counted beside what the list holds.
        for (text, is_taken) in [
            (list(MOST_VALUES - 2), true),
            (list(MOST_VALUES), false),
            (list(8_000_000), false),
            (deep(DEEPEST), true),
            (deep(DEEPEST + 1), false),
            (deep(5_000), false),
            (long(LARGEST_CONFIG), true),
            (long(LARGEST_CONFIG + 1), false),
        ] {
            let checked = check_config(Size::of(text.as_bytes()));
            assert_eq!(checked.is_ok(), is_taken, "{} bytes", text.len());
        }
    }
}
