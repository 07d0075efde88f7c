//! Answers without content. `api` takes them for a page without records; the vendors always send an object, so there they are
//! no answer.

use super::*;

fn raw(text: &'static str) -> Make {
    Box::new(move |_: &str| text.as_bytes().to_vec())
}

fn body(headers: &'static [&'static str], body: &'static [u8]) -> Make {
    Box::new(move |_: &str| answer("200 OK", headers, body))
}

pub fn rows() -> Vec<Row> {
    let none = Is::Again(Code::TruncatedResponse);
    let row = |about: &str, make: Make| {
        Row::new(&format!("empty: {about}"), Is::Empty, make).vendors(none)
    };
    let mut rows = vec![
        row("204", raw("HTTP/1.1 204 No Content\r\n\r\n")),
        (row(
            "204 on a connection that stays",
            raw("HTTP/1.1 204 No Content\r\n\r\n"),
        )),
        row(
            "204 with a length",
            raw("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        ),
        row(
            "204 that is called gzip",
            raw("HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n"),
        ),
        row(
            "204 with a type",
            raw("HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\n\r\n"),
        ),
        row(
            "205",
            raw("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
        ),
        (row(
            "205 without a length on a connection that stays",
            raw("HTTP/1.1 205 Reset Content\r\n\r\n"),
        )),
        row("a length of 0", body(&[JSON], b"")),
        row("a length of 0 and no type", body(&[], b"")),
        row(
            "201 with a length of 0",
            Box::new(|_: &str| answer("201 Created", &[], b"")),
        ),
        row(
            "no chunk",
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        row("a line end", body(&[JSON], b"\r\n")),
        row("blanks", body(&[JSON], b" \t\n  \r\n ")),
        row("a mark", body(&[JSON], b"\xEF\xBB\xBF")),
        row("a mark and a blank", body(&[JSON], b"\xEF\xBB\xBF ")),
        row("a mark of utf-16", body(&[JSON], b"\xFF\xFE")),
        row(
            "nothing that is called gzip",
            body(&[JSON, "Content-Encoding: gzip"], b""),
        ),
        row(
            "nothing, packed",
            Box::new(|_: &str| {
                answer(
                    "200 OK",
                    &[JSON, "Content-Encoding: gzip"],
                    &bodies::gzip(b""),
                )
            }),
        ),
        row(
            "a blank, packed",
            Box::new(|_: &str| answer("200 OK", &[JSON], &bodies::gzip(b"\n"))),
        ),
        row(
            "no line of NDJSON",
            body(&["Content-Type: application/x-ndjson"], b"\n"),
        ),
    ];
    // JSON that says that there is nothing.
    for (about, text) in [("an empty list", "[]"), ("null", "null")] {
        let make: Make = Box::new(move |_: &str| answer("200 OK", &[JSON], text.as_bytes()));
        rows.push(row(about, make).of_api());
    }
    for text in [
        r#"{"data": []}"#,
        r#"{"data": null}"#,
        r#"{"data": [], "error": null}"#,
        r#"{"data": [], "errors": []}"#,
        r#"{"data": [], "errors": {}, "error": ""}"#,
        r#"{"data": [], "ok": true}"#,
        r#"{"data": [], "success": true, "message": "no orders found"}"#,
        r#"{"data": [], "status": "ok", "code": 200}"#,
        r#"{"data": [], "code": 0, "msg": "success"}"#,
        r#"{"data": [], "errcode": 0, "errmsg": "ok"}"#,
        r#"{"data": [], "error": {"code": 0, "message": ""}}"#,
        r#"{"data": [], "error": false}"#,
        r#"{"data": [], "errorCode": "0", "errorMessage": null}"#,
        r#"{"data": [], "status": "ZERO_RESULTS"}"#,
        r#"{"data": [], "type": "list", "total": 0}"#,
        r#"{"data": [], "meta": {"error": "not of this object"}}"#,
    ] {
        let make: Make = Box::new(move |_: &str| answer("200 OK", &[JSON], text.as_bytes()));
        rows.push(row(text, make).at_data().of_api());
    }
    rows
}
