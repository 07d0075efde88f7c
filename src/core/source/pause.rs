//! How long a vendor asks to wait, in whatever header it says so.
//!
//! `Retry-After` is the standard's word. Beside it there are the headers of rate limits, which everybody spells in a way of
//! their own: what is left, and when there is more again. A moment is measured by the vendor's own clock, which its `Date`
//! shows; ours may differ. Every wait is bounded.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Response;
use crate::datetime;
use crate::error::LONGEST_REST;

/// How long to wait, where the vendor says so.
pub fn wait(got: &Response) -> Option<Duration> {
    retry_after(got).or_else(|| reset(got))
}

/// The `Retry-After` header: seconds, or a moment. What does not read is not there; of several the longest counts.
pub fn retry_after(got: &Response) -> Option<Duration> {
    let now = now(got);
    let read = |(name, value): &(String, String)| {
        let wait = match name.as_str() {
            "retry-after" | "x-retry-after" => span(value, now)?,
            "retry-after-ms" | "x-ms-retry-after-ms" => {
                Duration::try_from_secs_f64(value.trim().parse::<f64>().ok()? / 1_000.0).ok()?
            }
            _ => return None,
        };
        Some(wait.min(LONGEST_REST))
    };
    got.headers.iter().filter_map(read).max()
}

/// Whether a rate limit's header says that nothing is left.
pub fn is_used_up(got: &Response) -> bool {
    let limits = limits(got);
    limits.iter().any(|limit| limit.left == Some(0.0))
}

/// When there is more again, by the headers of rate limits. Where several limits are told, those that are used up count.
fn reset(got: &Response) -> Option<Duration> {
    let limits = limits(got);
    let used_up = |limit: &&Limit| limit.left == Some(0.0) && limit.reset.is_some();
    let of_used_up = limits.iter().filter(used_up);
    let longest = of_used_up.filter_map(|limit| limit.reset).max();
    let longest = longest.or_else(|| limits.iter().filter_map(|limit| limit.reset).max());
    // Now, or in the past: that says no more than that the request may be made again.
    longest.filter(|wait| !wait.is_zero())
}

/// One limit: what is left of it, and how long until there is more.
#[derive(Default)]
struct Limit {
    /// What tells it from others; two headers of the same limit have the same.
    name: String,
    left: Option<f64>,
    reset: Option<Duration>,
}

/// Most limits of a response that are looked at. More: each is compared with the others.
const MOST_LIMITS: usize = 20;

fn limits(got: &Response) -> Vec<Limit> {
    let now = now(got);
    let mut limits: Vec<Limit> = Vec::new();
    for (name, value) in &got.headers {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        if plain == "ratelimit" {
            limits.extend(fields(value));
            continue;
        }
        if !plain.contains("ratelimit") {
            continue;
        }
        let of_limit = |word: &str| plain.replacen(word, "", 1);
        let (name, left, reset) = if plain.contains("remaining") {
            (of_limit("remaining"), number(value), None)
        } else if plain.contains("reset") {
            let reset = span(value, now).map(|wait| wait.min(LONGEST_REST));
            (of_limit("reset").replacen("after", "", 1), None, reset)
        } else {
            continue;
        };
        if limits.len() >= MOST_LIMITS {
            break;
        }
        let known = limits.iter_mut().find(|limit| limit.name == name);
        match known {
            Some(limit) => {
                limit.left = limit.left.or(left);
                limit.reset = limit.reset.max(reset);
            }
            None => limits.push(Limit { name, left, reset }),
        }
    }
    limits
}

/// The `RateLimit` field of the IETF's draft: `"default";r=0;t=30`, and as earlier drafts had it,
/// `limit=10, remaining=0, reset=30`.
fn fields(value: &str) -> Vec<Limit> {
    let pairs = |text: &str, between: char| -> Vec<(String, f64)> {
        let pairs = text.split(between).filter_map(|pair| pair.split_once('='));
        let pairs = pairs.filter_map(|(key, value)| {
            let number = number(value)?;
            Some((key.trim().to_ascii_lowercase(), number))
        });
        pairs.collect()
    };
    let limit = |pairs: Vec<(String, f64)>, left: &str, reset: &str| {
        let find = |wanted: &str| pairs.iter().find(|(key, _)| key == wanted).map(|(_, n)| *n);
        let reset = find(reset).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Limit {
            left: find(left),
            reset: reset.map(|wait| wait.min(LONGEST_REST)),
            ..Limit::default()
        }
    };
    if value.contains("remaining") || value.contains("reset") {
        return vec![limit(pairs(value, ','), "remaining", "reset")];
    }
    let items = value.split(',').take(MOST_LIMITS);
    items
        .map(|item| limit(pairs(item, ';'), "r", "t"))
        .collect()
}

/// The number that a header begins with: some add the window of the limit.
fn number(value: &str) -> Option<f64> {
    let value = value.trim().trim_matches('"');
    let ends = |c: char| !matches!(c, '0'..='9' | '.' | '-' | '+');
    let number = value.split(ends).next().unwrap_or_default();
    number.parse().ok()
}

/// The vendor's clock; the client adds ours to a response without one.
fn now(got: &Response) -> Option<DateTime<Utc>> {
    datetime::any(got.header("date")?)
}

/// From this number on it is a moment since 1970, in seconds, then in milliseconds, then in microseconds. Below, it is a
/// time from now: 31 years.
const SECONDS_FROM: f64 = 1e9;
const MILLISECONDS_FROM: f64 = 1e11;
const MICROSECONDS_FROM: f64 = 1e14;

/// A time from now: a number of seconds, a number with units such as `1m30s`, or a moment in any spelling.
fn span(text: &str, now: Option<DateTime<Utc>>) -> Option<Duration> {
    let text = text.trim().trim_matches('"').trim();
    let until = |at: DateTime<Utc>| {
        let left = at.signed_duration_since(now?);
        Some(left.to_std().unwrap_or_default())
    };
    let Ok(number) = text.parse::<f64>() else {
        return with_units(text).or_else(|| until(datetime::any(text)?));
    };
    let moment = |parts: f64| DateTime::from_timestamp_micros((number / parts * 1e6) as i64);
    let at = match number {
        n if n < SECONDS_FROM || n.is_nan() => return Duration::try_from_secs_f64(n).ok(),
        n if n < MILLISECONDS_FROM => moment(1.0),
        n if n < MICROSECONDS_FROM => moment(1e3),
        n if n.is_finite() => moment(1e6),
        _ => return None,
    };
    // What no calendar has is as far away as can be.
    at.map_or(Some(Duration::MAX), until)
}

/// `1s`, `6m0s`, `250ms`, `1 hour`: numbers, each with its unit.
fn with_units(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() || rest.len() > 40 {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !matches!(c, '0'..='9' | '.'))?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let unit = after.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, after) = after.split_at(unit.unwrap_or(after.len()));
        let size = match unit.to_ascii_lowercase().as_str() {
            "ms" | "msec" | "millisecond" | "milliseconds" => 0.001,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3_600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * size;
        rest = after.trim_start();
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use bytes::Bytes;

    fn got(headers: &[(&str, &str)]) -> Response {
        let date = ("date", "Sun, 06 Nov 1994 08:49:30 GMT");
        let named = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Response {
            status: 429,
            headers: std::iter::once(&date).chain(headers).map(named).collect(),
            body: Bytes::new(),
        }
    }

    #[test]
    fn retry_after_is_read_in_every_spelling_and_bounded() {
        let seconds = |seconds: f64| Some(Duration::from_secs_f64(seconds));
        for (value, expected) in [
            ("7", seconds(7.0)),
            (" 2.5 ", seconds(2.5)),
            ("\"7\"", seconds(7.0)),
            ("7s", seconds(7.0)),
            ("7 seconds", seconds(7.0)),
            ("1m30s", seconds(90.0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(7.0)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", seconds(7.0)),
            ("Sun Nov  6 08:49:37 1994", seconds(7.0)),
            ("Sun, 06 Nov 1994 09:49:37 +0100", seconds(7.0)),
            ("1994-11-06T08:49:37Z", seconds(7.0)),
            // A moment since 1970, although the standard has no such thing.
            ("784111777", seconds(784_111_777.0).map(|_| LONGEST_REST)),
            ("1e3", seconds(1_000.0)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", seconds(0.0)),
            ("0", seconds(0.0)),
            ("999999999", Some(LONGEST_REST)),
            ("99999999999", Some(LONGEST_REST)),
            ("999999999999999999999", Some(LONGEST_REST)),
            ("-1", None),
            ("", None),
            ("soon", None),
            ("NaN", None),
            ("inf", None),
            ("1e400", None),
            ("7 fortnights", None),
        ] {
            assert_eq!(
                retry_after(&got(&[("retry-after", value)])),
                expected,
                "{value}"
            );
        }
        let both = got(&[("retry-after", "2"), ("retry-after", "5")]);
        assert_eq!(retry_after(&both), seconds(5.0));
        assert_eq!(
            retry_after(&got(&[("retry-after-ms", "1500")])),
            seconds(1.5)
        );
    }

    #[test]
    fn the_headers_of_rate_limits_are_read_in_every_spelling() {
        let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
        // 784111770 is the moment that the vendor's clock shows; a plain number below 1e9 is a time from now.
        for (headers, is_used_up, expected) in [
            (vec![("x-ratelimit-reset", "30")], false, seconds(30)),
            (vec![("x-rate-limit-reset", "30")], false, seconds(30)),
            (vec![("ratelimit-reset", "30")], false, seconds(30)),
            (vec![("x-ratelimit-reset-after", "30")], false, seconds(30)),
            (
                vec![("x-ratelimit-reset-requests", "1m0s")],
                false,
                seconds(60),
            ),
            (
                vec![("x-ratelimit-reset", "Sun, 06 Nov 1994 08:50:00 GMT")],
                false,
                seconds(30),
            ),
            (
                vec![("x-ratelimit-reset", "1994-11-06T08:50:00Z")],
                false,
                seconds(30),
            ),
            (vec![("x-ratelimit-remaining", "0")], true, None),
            (vec![("x-rate-limit-remaining", "0")], true, None),
            (vec![("ratelimit-remaining", "0")], true, None),
            (vec![("rate-limit-remaining", "0.0")], true, None),
            (vec![("x-ratelimit-requests-remaining", "0")], true, None),
            (vec![("x-ratelimit-remaining", "1")], false, None),
            (vec![("x-ratelimit-limit", "0")], false, None),
            (
                vec![("ratelimit", "\"default\";r=0;t=30")],
                true,
                seconds(30),
            ),
            (
                vec![("ratelimit", "\"a\";r=9;t=90, \"b\";r=0;t=30")],
                true,
                seconds(30),
            ),
            (
                vec![("ratelimit", "limit=10, remaining=0, reset=30")],
                true,
                seconds(30),
            ),
            (
                vec![("ratelimit", "\"default\";r=5;t=30")],
                false,
                seconds(30),
            ),
            (
                vec![
                    ("x-ratelimit-remaining-minute", "0"),
                    ("x-ratelimit-reset-minute", "30"),
                    ("x-ratelimit-remaining-hour", "100"),
                    ("x-ratelimit-reset-hour", "3000"),
                ],
                true,
                seconds(30),
            ),
            (vec![("x-ratelimit-reset", "-5")], false, None),
            (vec![("x-ratelimit-reset", "0")], false, None),
            (vec![("x-ratelimit-reset", "later")], false, None),
            (
                vec![("x-ratelimit-reset", "900000000")],
                false,
                Some(LONGEST_REST),
            ),
            (
                vec![("x-ratelimit-reset", "1000000000")],
                false,
                Some(LONGEST_REST),
            ),
        ] {
            let got = got(&headers);
            let found = (self::is_used_up(&got), wait(&got));
            assert_eq!(found, (is_used_up, expected), "{headers:?}");
        }
        let epochs = [
            "1772323230",
            "1772323230.0",
            "1772323230000",
            "1772323230000000",
        ];
        for epoch in epochs {
            let mut got = got(&[("x-ratelimit-reset", epoch)]);
            got.headers[0].1 = "Sun, 01 Mar 2026 00:00:00 GMT".to_owned();
            assert_eq!(wait(&got), seconds(30), "{epoch}");
        }
    }
}
