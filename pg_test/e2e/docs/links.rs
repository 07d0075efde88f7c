//! Links between pages: each leads to a file, and to a heading of it where it names one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use regex::Regex;

/// A page without its blocks of code, line by line.
fn prose(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push(line);
        }
    }
    lines
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let headings = prose(text).into_iter().filter_map(|line| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len() && heading.starts_with(' ')).then(|| heading.trim())
    });
    let slug = |heading: &str| -> String {
        heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings
        .map(|heading| {
            let slug = slug(heading);
            let count = seen.entry(slug.clone()).or_default();
            *count += 1;
            match *count {
                1 => slug,
                more => format!("{slug}-{}", more - 1),
            }
        })
        .collect()
}

pub fn broken(root: &Path, name: &str) -> Vec<String> {
    static LINK: OnceLock<Regex> = OnceLock::new();
    let link = LINK.get_or_init(|| Regex::new(r"\]\(([^()\s]+)\)").unwrap());
    static CODE: OnceLock<Regex> = OnceLock::new();
    let code = CODE.get_or_init(|| Regex::new("`[^`]*`").unwrap());
    let text = std::fs::read_to_string(root.join(name)).unwrap();
    let mut wrong = Vec::new();
    for line in prose(&text) {
        let line = code.replace_all(line, "``");
        for found in link.captures_iter(&line) {
            let target = &found[1];
            if target.starts_with("https://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => root.join(name),
                path => root.join(name).parent().unwrap().join(path),
            };
            if !file.exists() {
                wrong.push(format!("{name}: {target}: there is no such file"));
            } else if !anchor.is_empty() {
                let text = std::fs::read_to_string(&file).unwrap();
                if !anchors(&text).iter().any(|known| known == anchor) {
                    wrong.push(format!("{name}: {target}: there is no such heading"));
                }
            }
        }
    }
    wrong
}
