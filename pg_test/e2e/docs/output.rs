//! Whether an output that a page shows is what came. Only what another run cannot repeat may differ: ids that the server
//! makes, the time at which the test runs, durations, tokens and keys. Everything else is compared as it is.

use std::sync::OnceLock;

use chrono::{DateTime, NaiveDate, Utc};
use regex::Regex;

/// What may differ, and how it looks. The first that fits is taken.
const KINDS: [(&str, &str); 9] = [
    ("uuid", r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"),
    (
        "time",
        r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: ?(?:Z|UTC|[+-]\d\d(?::?\d\d)?))?",
    ),
    ("date", r"\b(?:[A-Z][a-z]+day, )?\d{4}-\d\d-\d\d\b"),
    ("interval", r"\b\d+:\d\d:\d\d\.\d+\b"),
    ("rate", r"\b\d+ records/s\b"),
    ("duration", r"\b\d+(?:\.\d+)? (?:ms|s)\b"),
    ("token", r"\bcs_[A-Za-z0-9_-]{20,}"),
    ("key", r"\b[A-Za-z0-9+/]{43}="),
    ("key_id", r"\bkey [0-9a-f]{16}\b"),
];

/// Ids that begin like this are written by people, and have to be the same.
const WRITTEN_ID: &str = "00000000-";

/// A moment that is further away from now is data, and has to be the same.
const NEAR_DAYS: i64 = 40;

fn pattern() -> &'static Regex {
    static PATTERN: OnceLock<Regex> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let kinds = KINDS.map(|(name, pattern)| format!("(?P<{name}>{pattern})"));
        Regex::new(&kinds.join("|")).unwrap()
    })
}

/// A text without what may differ, and that.
fn split(text: &str) -> (String, Vec<(&'static str, String)>) {
    let mut rest = String::new();
    let mut parts = Vec::new();
    let mut end = 0;
    for found in pattern().captures_iter(text) {
        let whole = found.get(0).unwrap();
        let kind = KINDS.iter().find(|(name, _)| found.name(name).is_some());
        let kind = kind.unwrap().0;
        rest += &text[end..whole.start()];
        rest += &format!("<{kind}>");
        parts.push((kind, whole.as_str().to_owned()));
        end = whole.end();
    }
    rest += &text[end..];
    (rest, parts)
}

/// Whether what came is of this run, and so may be something else in the page.
fn is_of_this_run(kind: &str, came: &str) -> bool {
    match kind {
        "uuid" => !came.starts_with(WRITTEN_ID),
        "time" | "date" => {
            let day = came.split("day, ").last().unwrap_or_default();
            let day = NaiveDate::parse_from_str(&day[..10], "%Y-%m-%d");
            let today = DateTime::<Utc>::from(std::time::SystemTime::now()).date_naive();
            day.is_ok_and(|day| (day - today).num_days().abs() <= NEAR_DAYS)
        }
        _ => true,
    }
}

/// Lines without blanks at their ends, and without empty lines at the end.
fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned()
}

/// What `connector_service_wait()` says about a run that takes longer than a moment, which depends on the machine.
fn is_progress(line: &str) -> bool {
    static PROGRESS: OnceLock<Regex> = OnceLock::new();
    let progress = r"^NOTICE:  .+: (?:waits until .+|\d+ pages?, \d+ records?, \d+ records/s)$";
    let progress = PROGRESS.get_or_init(|| Regex::new(progress).unwrap());
    progress.is_match(line)
}

/// What came, without progress that the page does not show.
fn without_progress(shown: &str, came: &str) -> String {
    if shown.lines().any(is_progress) {
        return came.to_owned();
    }
    let lines: Vec<&str> = came.lines().filter(|line| !is_progress(line)).collect();
    lines.join("\n")
}

/// psql makes a column as wide as its widest value.
fn without_widths(text: &str) -> String {
    static WIDTHS: OnceLock<[Regex; 2]> = OnceLock::new();
    let [blanks, dashes] =
        WIDTHS.get_or_init(|| [" +", "-{2,}"].map(|pattern| Regex::new(pattern).unwrap()));
    let text = blanks.replace_all(text, " ");
    let text = dashes.replace_all(&text, "--");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join("\n")
}

pub fn is_same(shown: &str, came: &str) -> bool {
    let (shown, came) = (trimmed(shown), trimmed(&without_progress(shown, came)));
    if shown == came {
        return true;
    }
    let (shown, shown_parts) = split(&shown);
    let (came, came_parts) = split(&came);
    !came_parts.is_empty()
        && without_widths(&shown) == without_widths(&came)
        && shown_parts.len() == came_parts.len()
        && shown_parts.iter().zip(&came_parts).all(|(shown, came)| {
            shown == came || (shown.0 == came.0 && is_of_this_run(came.0, &came.1))
        })
}

/// What a page shows of what came, in the place of what it showed.
pub fn for_page(shown: &str, came: &str) -> String {
    trimmed(&without_progress(shown, came))
}

#[test]
fn only_what_is_of_this_run_may_differ() {
    let today = Utc::now().format("%Y-%m-%d").to_string();
    let now = format!("{today} 10:00:00.123+00");
    let id = "0b54a2ff-90a8-4ac5-8ab5-ab1f5c4dd1d3";
    let same = [
        ("shop | 7 pages", "shop | 7 pages  \n\n"),
        ("2020-01-01 08:00:00+00 | ok", &format!("{now} | ok")),
        ("at 2020-01-01", &format!("at {today}")),
        (
            "NOTICE:  shop: succeeded",
            "NOTICE:  shop: waits until 10:00: its metrics\nNOTICE:  shop: 3 pages, 90 records, 4 records/s\nNOTICE:  shop: succeeded",
        ),
        ("in 0.12 s, 4 records/s", "in 3.4 s, 99 records/s"),
        (
            " id\n----\n 0b54a2ff-90a8-4ac5-8ab5-ab1f5c4dd1d4",
            &format!("  id \n------\n  {id}"),
        ),
    ];
    for (shown, came) in same {
        assert!(is_same(shown, came), "{shown} and {came}");
    }
    let other = [
        ("7 pages", "8 pages"),
        ("2020-01-01 10:00:00", "2020-01-02 10:00:00"),
        (
            "00000000-0000-4000-8000-000000000001",
            "00000000-0000-4000-8000-000000000002",
        ),
        ("in 0.12 s, 7 pages", "in 0.12 s, 8 pages"),
        ("19.90", "19.91"),
        ("a  b", "a b"),
        ("", "a"),
    ];
    for (shown, came) in other {
        assert!(!is_same(shown, came), "{shown} and {came}");
    }
}
