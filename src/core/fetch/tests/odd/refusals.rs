//! Refusals: by status, by what the vendor says of its limits, and in words.

use super::*;

const MISSING: &[(&str, Is)] = &[("api", Is::Fails(Code::CredentialsRejected))];

/// A token that is refused is asked for once more, where it is not a new one.
const RENEWED: &[(&str, Is)] = &[("salesforce", Is::Renews(Code::CredentialsRejected))];

fn status(line: &'static str, headers: &'static [&'static str], body: &'static str) -> Make {
    Box::new(move |_: &str| answer(line, headers, body.as_bytes()))
}

pub fn rows() -> Vec<Row> {
    let mut rows = statuses();
    rows.extend(words());
    rows.extend(pauses());
    rows
}

fn statuses() -> Vec<Row> {
    use Code::{CredentialsRejected, NotFound, Redirected, RequestRefused, ServerError};
    use Is::{Again, Fails};
    const HTML: &str = "<html>not_a_real_secret</html>";
    let mut rows = Vec::new();
    for (line, is) in [
        ("300 Multiple Choices", Fails(Redirected)),
        ("301 Moved Permanently", Fails(Redirected)),
        ("302 Found", Fails(Redirected)),
        ("303 See Other", Fails(Redirected)),
        ("307 Temporary Redirect", Fails(Redirected)),
        ("308 Permanent Redirect", Fails(Redirected)),
        ("400 Bad Request", Fails(RequestRefused)),
        ("404 Not Found", Fails(NotFound)),
        ("405 Method Not Allowed", Fails(RequestRefused)),
        ("407 Proxy Authentication Required", Fails(RequestRefused)),
        ("408 Request Timeout", Again(ServerError)),
        ("409 Conflict", Again(ServerError)),
        ("410 Gone", Fails(NotFound)),
        ("411 Length Required", Fails(RequestRefused)),
        ("418 I'm a teapot", Fails(RequestRefused)),
        ("419 Page Expired", Fails(CredentialsRejected)),
        ("422 Unprocessable", Fails(RequestRefused)),
        ("425 Too Early", Again(ServerError)),
        ("431 Headers Too Large", Fails(RequestRefused)),
        ("440 Login Time-out", Fails(CredentialsRejected)),
        ("451 Unavailable For Legal Reasons", Fails(RequestRefused)),
        ("498 Invalid Token", Fails(CredentialsRejected)),
        ("500 Internal Server Error", Again(ServerError)),
        ("501 Not Implemented", Again(ServerError)),
        ("502 Bad Gateway", Again(ServerError)),
        ("503 Service Unavailable", Again(ServerError)),
        ("504 Gateway Timeout", Again(ServerError)),
        ("520 Unknown", Again(ServerError)),
        ("529 Overloaded", Again(ServerError)),
        ("599 Own", Again(ServerError)),
    ] {
        rows.push(Row::new(
            &format!("status: {line}"),
            is,
            status(line, &[], HTML),
        ));
    }
    let row = |line: &'static str, is: Is| {
        Row::new(&format!("status: {line}"), is, status(line, &[], HTML))
    };
    rows.push(row("401 Unauthorized", Fails(CredentialsRejected)).but(RENEWED));
    rows.push(row("403 Forbidden", Fails(Code::PermissionMissing)).but(MISSING));
    rows.push(
        row("402 Payment Required", Fails(RequestRefused))
            .but(&[("shopify", Fails(CredentialsRejected))]),
    );
    rows.push(
        row("406 Not Acceptable", Fails(RequestRefused)).but(&[("salesforce", Again(ServerError))]),
    );
    rows.push(
        row("423 Locked", Again(ServerError)).but(&[("shopify", Fails(CredentialsRejected))]),
    );
    rows.push(
        row("424 Failed Dependency", Fails(RequestRefused)).but(&[("stripe", Again(ServerError))]),
    );
    rows.push(
        row("420 Enhance Your Calm", Again(Code::RateLimited))
            .but(&[("salesforce", Again(ServerError))]),
    );
    rows.push(
        row("429 Too Many Requests", Again(Code::RateLimited))
            .but(&[("quickbooks", Is::Waits(60))]),
    );
    rows
}

/// What only the words of a body tell.
fn words() -> Vec<Row> {
    use Code::{CredentialsRejected, PermissionMissing, RateLimited};
    use Is::{Again, Fails, Renews};
    let row = |about: &str, is: Is, make: Make| Row::new(&format!("words: {about}"), is, make);
    const OVER: &str = r#"{"error": "token_expired", "message": "not_a_real_secret"}"#;
    const LIMIT: &str = r#"{"message": "API rate limit exceeded for not_a_real_secret"}"#;
    vec![
        row(
            "403, a rate limit",
            Fails(PermissionMissing),
            status("403 Forbidden", &[JSON], LIMIT),
        )
        .but(&[("api", Again(RateLimited))]),
        row(
            "403, a rate limit in a plain sentence",
            Fails(PermissionMissing),
            status("403 Forbidden", &[], "Too many requests."),
        )
        .but(&[("api", Again(RateLimited))]),
        row(
            "400, a rate limit",
            Again(RateLimited),
            status(
                "400 Bad Request",
                &[JSON],
                r#"{"error": {"code": 4, "message": "Application request limit reached"}}"#,
            ),
        ),
        row(
            "400, a token that is over",
            Fails(CredentialsRejected),
            status("400 Bad Request", &[JSON], OVER),
        )
        .but(RENEWED),
        row(
            "403, a token that is over",
            Fails(PermissionMissing),
            status("403 Forbidden", &[JSON], OVER),
        )
        .but(&[
            ("api", Fails(CredentialsRejected)),
            ("salesforce", Renews(PermissionMissing)),
        ]),
        row(
            "403, a challenge that names the token",
            Fails(PermissionMissing),
            status(
                "403 Forbidden",
                &["WWW-Authenticate: Bearer error=\"invalid_token\""],
                "",
            ),
        )
        .but(&[
            ("api", Fails(CredentialsRejected)),
            ("salesforce", Renews(PermissionMissing)),
        ]),
        row(
            "401 with Retry-After",
            Fails(CredentialsRejected),
            status("401 Unauthorized", &["Retry-After: 5"], ""),
        )
        .but(RENEWED),
        row(
            "404 with Retry-After",
            Fails(Code::NotFound),
            status("404 Not Found", &["Retry-After: 5"], ""),
        ),
    ]
}

const DATE: &str = "Date: Sun, 01 Mar 2026 00:00:00 GMT";

/// Headers that say how long to wait, or that nothing is left. `None`: as long as without them.
type Pause = (&'static str, &'static [&'static str], Option<u64>);

const RETRY_AFTER: [Pause; 22] = [
    ("seconds", &["Retry-After: 30"], Some(30)),
    ("seconds with blanks", &["Retry-After:   30  "], Some(30)),
    ("in quotes", &["Retry-After: \"30\""], Some(30)),
    ("a decimal", &["Retry-After: 30.5"], Some(30)),
    ("with a unit", &["Retry-After: 30s"], Some(30)),
    ("in minutes", &["Retry-After: 2 minutes"], Some(120)),
    (
        "a date",
        &[DATE, "Retry-After: Sun, 01 Mar 2026 00:00:30 GMT"],
        Some(30),
    ),
    (
        "a date of RFC 850",
        &[DATE, "Retry-After: Sunday, 01-Mar-26 00:00:30 GMT"],
        Some(30),
    ),
    (
        "a date of C",
        &[DATE, "Retry-After: Sun Mar  1 00:00:30 2026"],
        Some(30),
    ),
    (
        "a date with an offset",
        &[DATE, "Retry-After: Sun, 01 Mar 2026 01:00:30 +0100"],
        Some(30),
    ),
    (
        "a date of ISO 8601",
        &[DATE, "Retry-After: 2026-03-01T00:00:30Z"],
        Some(30),
    ),
    (
        "a moment in seconds",
        &[DATE, "Retry-After: 1772323230"],
        Some(30),
    ),
    (
        "a far date and no clock",
        &["Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"],
        Some(86_400),
    ),
    (
        "a date in the past and no clock",
        &["Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"],
        None,
    ),
    ("zero", &["Retry-After: 0"], None),
    ("negative", &["Retry-After: -30"], None),
    (
        "absurd",
        &["Retry-After: 999999999999999999999"],
        Some(86_400),
    ),
    ("a year", &["Retry-After: 31536000"], Some(86_400)),
    ("twice", &["Retry-After: 10", "Retry-After: 30"], Some(30)),
    ("milliseconds", &["retry-after-ms: 30000"], Some(30)),
    ("a word", &["Retry-After: soon"], None),
    ("empty", &["Retry-After:"], None),
];

const LIMITS: [Pause; 22] = [
    (
        "X-RateLimit-Reset in seconds",
        &["X-RateLimit-Reset: 30"],
        Some(30),
    ),
    ("X-Rate-Limit-Reset", &["X-Rate-Limit-Reset: 30"], Some(30)),
    ("RateLimit-Reset", &["RateLimit-Reset: 30"], Some(30)),
    (
        "X-RateLimit-Reset-After",
        &["X-RateLimit-Reset-After: 30.25"],
        Some(30),
    ),
    (
        "a reset of one kind of request",
        &["x-ratelimit-reset-requests: 1m30s"],
        Some(90),
    ),
    (
        "a reset in seconds since 1970",
        &[DATE, "X-RateLimit-Reset: 1772323230"],
        Some(30),
    ),
    (
        "a moment in seconds with a fraction",
        &[DATE, "X-RateLimit-Reset: 1772323230.5"],
        Some(30),
    ),
    (
        "a moment in milliseconds",
        &[DATE, "X-RateLimit-Reset: 1772323230000"],
        Some(30),
    ),
    (
        "a moment in microseconds",
        &[DATE, "X-RateLimit-Reset: 1772323230000000"],
        Some(30),
    ),
    (
        "a reset as a date",
        &[DATE, "X-RateLimit-Reset: Sun, 01 Mar 2026 00:00:30 GMT"],
        Some(30),
    ),
    (
        "a reset of ISO 8601",
        &[DATE, "X-RateLimit-Reset: 2026-03-01T00:00:30+00:00"],
        Some(30),
    ),
    (
        "a reset in the past",
        &[DATE, "X-RateLimit-Reset: 1772323000"],
        None,
    ),
    (
        "a reset in a far future",
        &[DATE, "X-RateLimit-Reset: 9999999999"],
        Some(86_400),
    ),
    ("a negative reset", &["X-RateLimit-Reset: -30"], None),
    (
        "a reset that does not read",
        &["X-RateLimit-Reset: later"],
        None,
    ),
    (
        "the RateLimit field",
        &["RateLimit: \"default\";r=0;t=30"],
        Some(30),
    ),
    (
        "two limits in the RateLimit field",
        &["RateLimit: \"day\";r=50;t=3600, \"second\";r=0;t=30"],
        Some(30),
    ),
    (
        "the RateLimit field of earlier drafts",
        &["RateLimit: limit=10, remaining=0, reset=30"],
        Some(30),
    ),
    (
        "two windows, one of them used up",
        &[
            "X-RateLimit-Remaining-Minute: 0",
            "X-RateLimit-Reset-Minute: 30",
            "X-RateLimit-Remaining-Day: 9",
            "X-RateLimit-Reset-Day: 8000",
        ],
        Some(30),
    ),
    (
        "Retry-After before a reset",
        &["Retry-After: 30", "X-RateLimit-Reset: 500"],
        Some(30),
    ),
    (
        "a Retry-After that does not read, and a reset",
        &["Retry-After: soon", "X-RateLimit-Reset: 30"],
        Some(30),
    ),
    ("a limit without a reset", &["X-RateLimit-Limit: 100"], None),
];

fn pauses() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |line: &'static str, (about, headers, seconds): Pause, but| {
        let about = format!("{line}: {about}");
        let is = seconds.map_or(Is::Again(Code::RateLimited), Is::Waits);
        rows.push(Row::new(&about, is, status(line, headers, "not_a_real_secret")).but(but));
    };
    for pause in RETRY_AFTER.into_iter().chain(LIMITS) {
        let quickbooks: &[(&str, Is)] = match pause {
            // Where nothing is said of it, a minute.
            (about, _, None) if !["zero", "a date in the past and no clock"].contains(&about) => {
                &[("quickbooks", Is::Waits(60))]
            }
            _ => &[],
        };
        add("429 Too Many", pause, quickbooks);
    }
    // A refusal without words, too, when it says how long, or that nothing is left.
    for pause in [
        ("Retry-After", &["Retry-After: 2"] as &[&str], Some(2)),
        (
            "Retry-After, a date",
            &[DATE, "Retry-After: Sun, 01 Mar 2026 00:00:30 GMT"],
            Some(30),
        ),
        ("nothing left", &["X-RateLimit-Remaining: 0"], None),
        (
            "nothing left, in other words",
            &["x-rate-limit-remaining: 0"],
            None,
        ),
        (
            "nothing left, by the standard",
            &["RateLimit-Remaining: 0"],
            None,
        ),
        (
            "nothing left of one kind",
            &["X-RateLimit-Requests-Remaining: 0"],
            None,
        ),
        (
            "nothing left, and a reset",
            &[
                DATE,
                "X-RateLimit-Remaining: 0",
                "X-RateLimit-Reset: 1772323230",
            ],
            Some(30),
        ),
        (
            "nothing left, by the field",
            &["RateLimit: \"default\";r=0;t=30"],
            Some(30),
        ),
    ] {
        add("403 Forbidden", pause, &[]);
    }
    for pause in [
        ("Retry-After", &["Retry-After: 30"] as &[&str], Some(30)),
        (
            "Retry-After, a date",
            &[DATE, "Retry-After: Sun, 01 Mar 2026 00:00:30 GMT"],
            Some(30),
        ),
    ] {
        add("503 Unavailable", pause, &[]);
    }
    rows.push(
        Row::new(
            "403 Forbidden: something left",
            Is::Fails(Code::PermissionMissing),
            status(
                "403 Forbidden",
                &["X-RateLimit-Remaining: 5", "X-RateLimit-Reset: 30"],
                "",
            ),
        )
        .but(MISSING),
    );
    rows
}
