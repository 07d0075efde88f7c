//! What a format of cells shows: a number, a date, or an amount of time.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    Number,
    Date,
    Duration,
}

pub fn built_in(format: u16) -> Shows {
    match format {
        14..=22 | 27..=36 | 45 | 47 | 50..=58 => Shows::Date,
        46 => Shows::Duration,
        _ => Shows::Number,
    }
}

/// What a format shows, by its first part: the letters of dates that are no text.
pub fn shows(format: &str) -> Shows {
    let mut rest = format.chars();
    let mut letters = String::new();
    while let Some(c) = rest.next() {
        match c {
            ';' => break,
            '\\' | '_' | '*' => {
                rest.next();
            }
            '"' => {
                let _ = rest.find(|c| *c == '"');
            }
            '[' => {
                let inside: String = rest.by_ref().take_while(|c| *c != ']').collect();
                let inside = inside.to_ascii_lowercase();
                let is_time = |letter: char| inside.chars().all(|c| c == letter);
                // Anything else is a color, a currency or a condition.
                if !inside.is_empty() && ['h', 'm', 's'].into_iter().any(is_time) {
                    return Shows::Duration;
                }
            }
            other => letters.push(other.to_ascii_lowercase()),
        }
    }
    match letters
        .replace("general", "")
        .contains(['y', 'd', 'h', 's', 'm'])
    {
        true => Shows::Date,
        false => Shows::Number,
    }
}
