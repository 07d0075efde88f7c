//! Which of many names somebody may have meant.

/// Most names that are suggested.
const MOST: usize = 3;
/// Longest name that is compared, in characters: the cost of a comparison grows with the product of the lengths.
const LONGEST: usize = 128;

/// The names that are most like `meant`, the best one first. Capital letters make no difference.
pub fn similar<'a>(meant: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let meant = folded(meant);
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| Some((distance(&meant, &folded(name))?, name)))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MOST);
    found.into_iter().map(|(_, name)| name).collect()
}

fn folded(name: &str) -> Vec<char> {
    let letters = name.trim().chars().flat_map(char::to_lowercase);
    letters.take(LONGEST).collect()
}

/// How many characters differ, if they are few enough for a mistake: at most a third of them, or one contains the other.
fn distance(left: &[char], right: &[char]) -> Option<usize> {
    let (short, long) = match left.len() <= right.len() {
        true => (left, right),
        false => (right, left),
    };
    if short.is_empty() {
        return None;
    }
    let is_part = short.len() >= 3 && long.windows(short.len()).any(|part| part == short);
    let most = match is_part {
        true => long.len(),
        false => long.len().div_ceil(3),
    };
    if long.len() - short.len() > most {
        return None;
    }
    let mut row: Vec<usize> = (0..=short.len()).collect();
    for (line, letter) in long.iter().enumerate() {
        let mut before = line;
        let mut last = line + 1;
        if let Some(first) = row.first_mut() {
            *first = last;
        }
        for (other, cell) in short.iter().zip(row.iter_mut().skip(1)) {
            let replaced = before + usize::from(letter != other);
            before = *cell;
            last = replaced.min(before + 1).min(last + 1);
            *cell = last;
        }
    }
    row.last().copied().filter(|count| *count <= most)
}

#[cfg(test)]
mod tests {
    use super::similar;

    #[test]
    fn names_with_a_slip_or_a_part_are_found() {
        let names = ["shop", "shop eu", "bank", "Zürich", "payroll"];
        assert_eq!(similar("shp", names), ["shop"]);
        assert_eq!(similar("SHOP EU ", names), ["shop eu", "shop"]);
        assert_eq!(similar("zurich", names), ["Zürich"]);
        assert_eq!(similar("ayroll", names), ["payroll"]);
        assert_eq!(similar("zebra", names), [""; 0]);
        assert_eq!(similar("", names), [""; 0]);
        assert_eq!(similar("shop", [""]), [""; 0]);
        let long = "x".repeat(10_000);
        assert_eq!(similar(&long, [long.as_str()]), [long.as_str()]);
    }
}
