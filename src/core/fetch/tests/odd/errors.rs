//! Errors that come with 200: beside no records one is a failure of its kind, and beside records it is read past.

use super::*;

/// What is right at "data" of a manifest, and for the vendors.
type Line = (&'static str, Is, Is);

fn json(text: &'static str) -> Make {
    Box::new(move |_: &str| answer("200 OK", &[JSON], text.as_bytes()))
}

const RENEWED: &[(&str, Is)] = &[("salesforce", Is::Renews(Code::CredentialsRejected))];
/// Shopify's own rules for "errors" go before.
const GRAPHQL: &[(&str, Is)] = &[("shopify", Is::Fails(Code::RequestRefused))];
const GRAPHQL_RENEWED: &[(&str, Is)] = &[
    ("shopify", Is::Fails(Code::RequestRefused)),
    ("salesforce", Is::Renews(Code::CredentialsRejected)),
];

const LINES: [Line; 43] = {
    use Code::{CredentialsRejected, RateLimited, ServerError, UnexpectedShape};
    use Is::{Again, Fails};
    const LIMITED: Is = Again(RateLimited);
    const REFUSED: Is = Fails(CredentialsRejected);
    const FAILING: Is = Again(ServerError);
    const OTHER: Is = Fails(UnexpectedShape);
    [
        (
            r#"{"data": null, "error": {"message": "rate limited"}}"#,
            LIMITED,
            LIMITED,
        ),
        (
            r#"{"ok": false, "error": "ratelimited", "data": []}"#,
            LIMITED,
            LIMITED,
        ),
        (r#"{"ok": false, "error": "ratelimited"}"#, LIMITED, LIMITED),
        (
            r#"{"data": null, "error": {"code": 429}}"#,
            LIMITED,
            LIMITED,
        ),
        (
            r#"{"data": [], "error": {"status": "429", "message": "no"}}"#,
            LIMITED,
            LIMITED,
        ),
        (
            r#"{"success": false, "code": "TOO_MANY_REQUESTS"}"#,
            LIMITED,
            LIMITED,
        ),
        (
            r#"{"success": false, "message": "You have exceeded your daily request limit"}"#,
            LIMITED,
            LIMITED,
        ),
        (
            r#"{"status": "OVER_QUERY_LIMIT", "data": []}"#,
            LIMITED,
            LIMITED,
        ),
        (
            r#"{"status": "error", "reason": "Quota exceeded"}"#,
            LIMITED,
            LIMITED,
        ),
        (
            r#"{"error": {"errors": [{"reason": "userRateLimitExceeded"}], "code": 403}}"#,
            LIMITED,
            LIMITED,
        ),
        (
            r#"{"Note": "Our standard API call frequency is 5 calls per minute"}"#,
            LIMITED,
            LIMITED,
        ),
        (
            r#"{"data": null, "message": "API rate limit exceeded"}"#,
            LIMITED,
            LIMITED,
        ),
        (
            r#"{"fault": {"faultstring": "Rate limit quota violation", "detail": {}}}"#,
            LIMITED,
            LIMITED,
        ),
        (r#"{"error": "Throttled"}"#, LIMITED, LIMITED),
        (
            r#"{"data": null, "error": {"code": 401, "message": "no"}}"#,
            REFUSED,
            REFUSED,
        ),
        (r#"{"error": "unauthorized"}"#, REFUSED, REFUSED),
        (
            r#"{"error": "invalid_token", "error_description": "not_a_real_secret"}"#,
            REFUSED,
            REFUSED,
        ),
        (r#"{"ok": false, "error": "not_authed"}"#, REFUSED, REFUSED),
        (
            r#"{"ok": false, "error": "invalid_auth"}"#,
            REFUSED,
            REFUSED,
        ),
        (
            r#"{"success": false, "error": {"type": "AuthenticationError"}}"#,
            REFUSED,
            REFUSED,
        ),
        (
            r#"{"status": "error", "message": "Invalid API key"}"#,
            REFUSED,
            REFUSED,
        ),
        (
            r#"{"status": 401, "error": "Unauthorized", "path": "/orders"}"#,
            REFUSED,
            REFUSED,
        ),
        (r#"{"code": 403, "message": "Forbidden"}"#, REFUSED, REFUSED),
        (
            r#"{"status": "REQUEST_DENIED", "error_message": "no", "data": []}"#,
            REFUSED,
            REFUSED,
        ),
        (
            r#"{"error": true, "message": "Session expired"}"#,
            REFUSED,
            REFUSED,
        ),
        (r#"{"error": "internal server error"}"#, FAILING, FAILING),
        (
            r#"{"data": null, "error": {"code": 503}}"#,
            FAILING,
            FAILING,
        ),
        (
            r#"{"status": 500, "error": "x", "timestamp": 1}"#,
            FAILING,
            FAILING,
        ),
        (
            r#"{"success": false, "message": "Service temporarily unavailable, try again"}"#,
            FAILING,
            FAILING,
        ),
        (r#"{"ok": 0, "error": "timeout"}"#, FAILING, FAILING),
        (
            r#"{"data": null, "error": {"message": "not_a_real_secret"}}"#,
            OTHER,
            OTHER,
        ),
        (r#"{"data": [], "error": "boom"}"#, OTHER, OTHER),
        (r#"{"data": [], "ok": false}"#, OTHER, OTHER),
        (r#"{"data": [], "success": "false"}"#, OTHER, OTHER),
        (r#"{"data": [], "status": "error"}"#, OTHER, OTHER),
        (
            r#"{"data": [], "status": "failure", "reason": "x"}"#,
            OTHER,
            OTHER,
        ),
        (r#"{"data": [], "stat": "fail"}"#, OTHER, OTHER),
        (r#"{"data": [], "errorCode": 17}"#, OTHER, OTHER),
        (
            r#"{"data": [], "errcode": 40001, "errmsg": "x"}"#,
            OTHER,
            OTHER,
        ),
        (
            r#"{"data": [], "code": 404, "message": "no such account"}"#,
            OTHER,
            OTHER,
        ),
        (r#"{"data": [], "hasError": true}"#, OTHER, OTHER),
        (r#"{"message": "Unauthorized"}"#, OTHER, OTHER),
        (r#"{"detail": "Not found."}"#, OTHER, OTHER),
    ]
};

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (text, api, vendors) in LINES {
        let row = Row::new(&format!("error in a 200: {text}"), api, json(text));
        let but: &[(&str, Is)] = match vendors {
            Is::Fails(Code::CredentialsRejected) => RENEWED,
            _ => &[],
        };
        rows.push(row.at_data().vendors(vendors).but(but));
    }
    // Of GraphQL, and of what calls its errors as GraphQL does.
    for (text, is, but) in [
        (
            r#"{"data": null, "errors": [{"message": "x", "extensions": {"code": "THROTTLED"}}]}"#,
            Is::Again(Code::RateLimited),
            &[("shopify", Is::Again(Code::RateLimited))] as &[(&str, Is)],
        ),
        (
            r#"{"data": null, "errors": [{"message": "Internal error", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}]}"#,
            Is::Again(Code::ServerError),
            &[],
        ),
        (
            r#"{"data": null, "errors": [{"message": "Unauthorized"}]}"#,
            Is::Fails(Code::CredentialsRejected),
            GRAPHQL_RENEWED,
        ),
        (
            r#"{"errors": [{"message": "not_a_real_secret"}]}"#,
            Is::Fails(Code::UnexpectedShape),
            GRAPHQL,
        ),
        (
            r#"{"data": [], "errors": ["x"]}"#,
            Is::Fails(Code::UnexpectedShape),
            GRAPHQL,
        ),
        (
            r#"{"data": [], "errors": {"base": ["x"]}}"#,
            Is::Fails(Code::UnexpectedShape),
            GRAPHQL,
        ),
    ] {
        rows.push(
            Row::new(&format!("error in a 200: {text}"), is, json(text))
                .at_data()
                .but(but),
        );
    }
    rows.extend(of_lists());
    rows
}

/// Where the body itself is the page, and where there are records.
fn of_lists() -> Vec<Row> {
    let row =
        |text: &'static str, is: Is| Row::new(&format!("body: {text}"), is, json(text)).of_api();
    let rate = Row::new(
        "body: a plain sentence about a rate limit",
        Is::Again(Code::RateLimited),
        Box::new(|_: &str| {
            answer(
                "200 OK",
                &["Content-Type: text/plain"],
                b"Rate limit exceeded, slow down.",
            )
        }),
    );
    let headers: Make = Box::new(|_: &str| {
        answer(
            "200 OK",
            &[JSON, "Retry-After: 30"],
            br#"{"error": "rate_limited"}"#,
        )
    });
    vec![
        row(
            r#"{"message": "Unauthorized"}"#,
            Is::Fails(Code::UnexpectedShape),
        ),
        row(
            r#"{"message": "Not Found", "documentation_url": "https://example.com"}"#,
            Is::Fails(Code::UnexpectedShape),
        ),
        row(
            r#"{"error": "unauthorized"}"#,
            Is::Fails(Code::CredentialsRejected),
        ),
        row(
            r#"{"error": {"message": "rate limited"}}"#,
            Is::Again(Code::RateLimited),
        ),
        row(
            r#"{"status": "error", "code": 500}"#,
            Is::Again(Code::ServerError),
        ),
        row(r#"{"success": false}"#, Is::Fails(Code::UnexpectedShape)),
        row(
            r#"{"id": 1, "status": "failed", "error": "card declined"}"#,
            Is::Some(1, 0),
        ),
        row(r#"[{"id": 1, "error": "card declined"}]"#, Is::Some(1, 0)),
        row(r#""rate limit""#, Is::Fails(Code::UnexpectedShape)),
        row("<html>Please log in</html>", Is::Again(Code::InvalidJson)),
        row(
            r#"{"data": [{"id": 1}], "errors": [{"message": "one field"}]}"#,
            Is::Some(1, 0),
        )
        .at_data(),
        row(
            r#"{"data": [{"id": 1}], "status": "error", "success": false}"#,
            Is::Some(1, 0),
        )
        .at_data(),
        row(
            r#"{"data": "rate limited", "error": true}"#,
            Is::Fails(Code::UnexpectedShape),
        )
        .at_data(),
        row(
            r#"{"data": [], "message": "Rate limit: 98 of 100 left"}"#,
            Is::Empty,
        )
        .at_data(),
        rate,
        Row::new("error in a 200 that says how long", Is::Waits(30), headers).at_data(),
    ]
}
