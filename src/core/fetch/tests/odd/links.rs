//! `Link` headers, of type `api`: which page is next.

use super::*;

/// The header's lines, and where the second page is asked for; `None`: there is none.
type Line = (&'static [&'static str], Option<&'static str>);

const LINES: [Line; 25] = [
    (&["Link: </s?page=2>; rel=\"next\""], Some("/s?page=2")),
    (&["Link: </s?page=2>; rel=next"], Some("/s?page=2")),
    (&["link: </s?page=2>;rel=next"], Some("/s?page=2")),
    (
        &["LINK:   </s?page=2>  ;  rel =  \"next\"  "],
        Some("/s?page=2"),
    ),
    (&["Link: </s?page=2>; REL=\"next\""], Some("/s?page=2")),
    (
        &["Link: </s?page=2>; title=\"a, b; c\"; rel=\"next\""],
        Some("/s?page=2"),
    ),
    (&["Link: </s?page=2>; rel=\"next last\""], Some("/s?page=2")),
    (&["Link: </s?page=2>; rel=\"last next\""], Some("/s?page=2")),
    (
        &["Link: </s?page=1>; rel=\"prev\", </s?page=2>; rel=\"next\", </s?page=9>; rel=\"last\""],
        Some("/s?page=2"),
    ),
    (
        &["Link: </s?page=9>; rel=\"last\",</s?page=2>; rel=\"next\""],
        Some("/s?page=2"),
    ),
    (
        &[
            "Link: </s?page=1>; rel=\"first\"",
            "Link: </s?page=2>; rel=\"next\"",
        ],
        Some("/s?page=2"),
    ),
    (&["Link: <?page=2>; rel=\"next\""], Some("/s?page=2")),
    (&["Link: <s?page=2>; rel=\"next\""], Some("/s?page=2")),
    (
        &["Link: </s?ids=1,2,3>; rel=\"next\""],
        Some("/s?ids=1,2,3"),
    ),
    (&["Link: </s?a=1;b=2>; rel=\"next\""], Some("/s?a=1;b=2")),
    (&["Link: </s?q=a%20b>; rel=\"next\""], Some("/s?q=a%20b")),
    (&["Link: </s?q=café>; rel=\"next\""], Some("/s?q=caf%C3%A9")),
    (
        &["Link: </s?page=2>; hreflang=en; rel=\"next\"; type=\"application/json\""],
        Some("/s?page=2"),
    ),
    (&["Link: </s?page=2>;\r\n rel=\"next\""], Some("/s?page=2")),
    (&["Link: </s?page=1>; rel=\"prev\""], None),
    (&["Link: </s?page=2>"], None),
    (&["Link: </s?page=2>; rel=\"nextish\""], None),
    (&["Link: </s?page=2>; title=\"rel=next\""], None),
    (&["Link:"], None),
    (&["X-Link: </s?page=2>; rel=\"next\""], None),
];

pub fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = LINES
        .into_iter()
        .map(|(lines, next)| {
            let make: Make = Box::new(move |text: &str| answer("200 OK", lines, text.as_bytes()));
            let row = Row::new(
                &format!("link: {}", lines.join(" | ")),
                Is::Follows(next),
                make,
            );
            Row {
                shape: Shape::Link,
                ..row.of_api()
            }
        })
        .collect();
    let latin: Make = Box::new(|text: &str| {
        let mut bytes = answer(
            "200 OK",
            &["Link: </s?q=caf\u{1}>; rel=\"next\""],
            text.as_bytes(),
        );
        let at = bytes.iter().position(|byte| *byte == 1).unwrap();
        bytes[at] = 0xE9;
        bytes
    });
    let row = Row::new(
        "link: in latin 1",
        Is::Follows(Some("/s?q=caf%C3%A9")),
        latin,
    );
    rows.push(Row {
        shape: Shape::Link,
        ..row.of_api()
    });
    rows
}
