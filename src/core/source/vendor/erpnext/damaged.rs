//! A damaged document costs itself, wherever in a page it stands.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::{last, listed};
use crate::source::Response;

#[test]
fn a_list_goes_on_behind_a_page_whose_last_document_is_damaged() {
    let good =
        |n: usize| format!(r#"{{"name":"D-{n}","modified":"2026-02-28 10:00:0{n}.000000"}}"#);
    for damaged in [
        // Half a character, bytes that are no text, a raw NUL, and an escape that there is not.
        br#"{"name":"D-3","modified":"2026-02-28 10:00:03.000000","title":"x\ud83d"}"#.to_vec(),
        [
            &br#"{"name":"D-3","modified":"2026-02-28 10:00:03.000000","title":""#[..],
            b"\xff\"}",
        ]
        .concat(),
        [
            &br#"{"name":"D-3","modified":"2026-02-28 10:00:03.000000","title":""#[..],
            b"\0\"}",
        ]
        .concat(),
        br#"{"name":"D-3","modified":"2026-02-28 10:00:03.000000","title":"\q"}"#.to_vec(),
        // Its own name, or its stamp: the list goes on behind the document before it.
        br#"{"name":"D-\ud83d","modified":"2026-02-28 10:00:03.000000"}"#.to_vec(),
        br#"{"name":"D-3","modified":null}"#.to_vec(),
        br#"{"name":"D-3"}"#.to_vec(),
        b"17".to_vec(),
    ] {
        let body = [
            b"{\"data\":[",
            good(1).as_bytes(),
            b",",
            good(2).as_bytes(),
            b",",
            &damaged[..],
            b"]}",
        ]
        .concat();
        let got = Response {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
        };
        let about = String::from_utf8_lossy(&damaged).into_owned();
        let entries =
            listed(&got, "modified").unwrap_or_else(|failure| panic!("{about}: {failure}"));
        assert_eq!(entries.len(), 3, "{about}");
        let (moment, name) = last(&entries).unwrap().unwrap();
        assert!(moment.starts_with("2026-02-28 10:00:0"), "{about}");
        assert!(["D-2", "D-3"].contains(&name.as_str()), "{about}: {name}");
    }
}
