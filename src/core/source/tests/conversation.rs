//! Whole passes as files, each with the requests word for word and the vendor's answers: written after the vendors'
//! documentation, one folder for each vendor in `pages`. The contract that every vendor has to keep is held against
//! each of them, and against answers that are refusals (`refusals.json`).
//!
//! `ACCEPT=1` writes down what is asked and found; whoever does that compares it with the documentation.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Map;

use super::*;
use crate::record::Page;
use crate::source::window::epoch;
use crate::template::parse_any;

#[derive(Deserialize, Serialize, Clone)]
struct Conversation {
    /// What the pass is about.
    about: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    config: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    credentials: Value,
    stream: String,
    /// What an earlier pass has reached.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    cursor: Value,
    exchanges: Vec<Exchange>,
    /// The same with other words: streams that differ in nothing but their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also: Vec<BTreeMap<String, String>>,
}

#[derive(Deserialize, Serialize, Clone)]
struct Exchange {
    #[serde(default)]
    asked: Asked,
    #[serde(default = "ok", skip_serializing_if = "is_ok")]
    status: u16,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    answer: Value,
    #[serde(default)]
    found: Found,
}

fn ok() -> u16 {
    200
}

fn is_ok(status: &u16) -> bool {
    *status == 200
}

#[derive(Deserialize, Serialize, Clone, Default, PartialEq, Debug)]
struct Asked {
    /// Method and address, without what follows the question mark.
    url: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    query: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    body: Value,
}

#[derive(Deserialize, Serialize, Clone, Default, PartialEq, Debug)]
struct Found {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    records: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deleted: Vec<String>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    cursor: Value,
    /// The vendor's count, and what came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("source/pages")
}

fn files(vendor: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder().join(vendor)).expect("a folder for each vendor");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !path.ends_with("refusals.json"));
    files.sort();
    files
}

/// A file's conversations: as it stands, and with other words.
fn conversations(path: &Path) -> Vec<Conversation> {
    let text = std::fs::read_to_string(path).unwrap();
    let read = |text: &str| -> Conversation {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let first = read(&text);
    let others: Vec<Conversation> = first
        .also
        .iter()
        .map(|words| {
            let replaced = words
                .iter()
                .fold(text.clone(), |text, (old, new)| text.replace(old, new));
            read(&replaced)
        })
        .collect();
    [vec![first], others].concat()
}

fn open(vendor: &str, conversation: &Conversation) -> Box<dyn Reader> {
    let mut definition = definition(vendor, conversation.config.clone().into());
    if !conversation.credentials.is_null() {
        definition.credentials = conversation.credentials.clone().into();
    }
    let opened = find(vendor).unwrap().open(&definition);
    opened.unwrap_or_else(|failure| panic!("{vendor}, {}: {failure}", conversation.about))
}

fn written(request: &Request) -> Asked {
    let mut url = request.url.clone();
    let query = url.query_pairs().into_owned().collect();
    url.set_query(None);
    let method = match request.method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    let body = request.body.as_ref().map_or(Value::Null, |body| {
        let text = String::from_utf8(body.to_vec()).unwrap();
        serde_json::from_str(&text).unwrap_or(text.into())
    });
    Asked {
        url: format!("{method} {url}"),
        query,
        headers: request.headers.iter().cloned().collect(),
        body,
    }
}

fn came(exchange: &Exchange) -> Response {
    let body = match &exchange.answer {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Response {
        status: exchange.status,
        headers: exchange
            .headers
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value.clone()))
            .collect(),
        body: body.into(),
    }
}

fn told(page: &Page) -> Found {
    Found {
        records: page
            .records
            .iter()
            .map(|record| record.id.clone())
            .collect(),
        deleted: page.deleted.clone(),
        cursor: page.high.clone().unwrap_or_default(),
        count: page.count.map(|count| (count.vendor, count.read)),
        warning: page.warning.clone(),
    }
}

/// A cursor as a moment, whatever its vendor's spelling.
fn moment(cursor: &Value) -> Option<DateTime<Utc>> {
    let cursor = crate::source::open::stamp(cursor);
    let text = cursor.as_str()?;
    epoch(text).or_else(|| parse_any(&text.replacen(' ', "T", 1)))
}

/// What a pass does at each of its exchanges. `judge` sees every page's position and answer.
fn walk(
    vendor: &str,
    conversation: &Conversation,
    judge: &mut dyn FnMut(&dyn Reader, &Position, &Response),
) -> Vec<(Asked, Found)> {
    let about = format!("{vendor}, {}", conversation.about);
    let reader = open(vendor, conversation);
    let stream = reader
        .streams()
        .iter()
        .find(|stream| stream.name == conversation.stream)
        .unwrap_or_else(|| panic!("{about}: no stream {}", conversation.stream));
    let mut told_of = Vec::new();
    let mut exchanges = conversation.exchanges.iter();
    let mut access = None;
    if let Some(login) = reader.login() {
        let exchange = exchanges.next().expect("a token is asked for first");
        let asked = written(&login.request(start(), None).unwrap());
        let grant = login.granted(start(), None, &came(exchange));
        access = Some(
            grant
                .unwrap_or_else(|failure| panic!("{about}: {failure}"))
                .access,
        );
        told_of.push((asked, Found::default()));
    }
    let cursor = Some(&conversation.cursor).filter(|cursor| !cursor.is_null());
    let window = reader.window(stream, cursor, start()).unwrap();
    let (mut next, mut high) = (None, cursor.cloned());
    let mut tokens = HashSet::new();
    loop {
        let exchange = exchanges
            .next()
            .unwrap_or_else(|| panic!("{about}: the pass goes on beyond its last answer"));
        let at = Position {
            next: next.as_ref(),
            high: high.as_ref(),
            access: access.as_ref(),
            window,
            ..first(reader.as_ref(), stream, None)
        };
        let request = reader.request(&at).unwrap();
        assert!(!format!("{request:?}").contains(SECRET), "{about}");
        let got = came(exchange);
        assert_eq!(reader.verdict(&at, &got), Verdict::Read, "{about}");
        let page = reader.page(&at, &got);
        let page = page.unwrap_or_else(|failure| panic!("{about}: {failure}"));
        judge(reader.as_ref(), &at, &got);
        assert!(page.rejected.is_empty(), "{about}: {:?}", page.rejected);
        let found = told(&page);
        let keys: HashSet<&String> = found.records.iter().chain(&found.deleted).collect();
        let all = found.records.len() + found.deleted.len();
        assert_eq!(keys.len(), all, "{about}: a key comes twice in one page");
        let of_stream = format!("{}/", stream.name);
        assert!(
            keys.iter().all(|key| key.starts_with(&of_stream)),
            "{about}"
        );
        assert!(
            moment(&found.cursor) >= high.as_ref().and_then(moment),
            "{about}: the cursor goes back"
        );
        told_of.push((written(&request), found));
        (high, next) = (page.high.or(high), page.next);
        match &next {
            None => break,
            Some(next) => assert!(
                tokens.insert(next.to_string()),
                "{about}: the same page again"
            ),
        }
    }
    assert!(
        exchanges.next().is_none(),
        "{about}: the pass ends before its last answer"
    );
    told_of
}

#[test]
fn the_requests_are_the_vendors_and_every_stream_is_read_to_its_end() {
    for source in vendors() {
        let vendor = source.name();
        let mut read = HashSet::new();
        for path in files(vendor) {
            for (index, conversation) in conversations(&path).into_iter().enumerate() {
                let told_of = walk(vendor, &conversation, &mut |_, _, _| {});
                read.insert(conversation.stream.clone());
                let now = Conversation {
                    exchanges: conversation
                        .exchanges
                        .iter()
                        .zip(told_of)
                        .map(|(exchange, (asked, found))| Exchange {
                            asked,
                            found,
                            ..exchange.clone()
                        })
                        .collect(),
                    ..conversation.clone()
                };
                if std::env::var_os("ACCEPT").is_some() {
                    if index == 0 {
                        let text = serde_json::to_string_pretty(&now).unwrap();
                        std::fs::write(&path, text + "\n").unwrap();
                    }
                    continue;
                }
                for (was, is) in conversation.exchanges.iter().zip(&now.exchanges) {
                    let about = format!("{}, {}", path.display(), conversation.stream);
                    assert_eq!(was.asked, is.asked, "{about}");
                    assert_eq!(was.found, is.found, "{about}");
                }
            }
        }
        let default = source.about().streams;
        let default = default.iter().filter(|stream| stream.default);
        for stream in default {
            assert!(
                read.contains(stream.name),
                "{vendor}: {} is in no file",
                stream.name
            );
        }
    }
}

#[test]
fn a_truncated_page_is_never_read_as_a_page() {
    let mut judged = 0;
    for source in vendors() {
        let vendor = source.name();
        for path in files(vendor) {
            for conversation in conversations(&path) {
                walk(vendor, &conversation, &mut |reader, at, got| {
                    let length = got.body.len();
                    // A lost object may be told by its status alone.
                    if got.status != 200 {
                        return;
                    }
                    for part in (0..length)
                        .step_by((length / 40).max(1))
                        .chain([length - 1])
                    {
                        let cut = Response {
                            body: got.body.slice(..part),
                            ..got.clone()
                        };
                        let is_read = reader.verdict(at, &cut) == Verdict::Read;
                        let page = reader.page(at, &cut);
                        assert!(
                            !is_read || page.is_err(),
                            "{}: {part} of {length} bytes are taken for a page",
                            path.display()
                        );
                        judged += 1;
                    }
                });
            }
        }
    }
    assert!(judged > 2_000, "{judged}");
}

#[derive(Deserialize)]
struct Refusal {
    about: String,
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    answer: Value,
    /// Code of the failure.
    is: String,
    /// Whether it is asked for again.
    #[serde(default)]
    again: bool,
    /// Seconds.
    #[serde(default)]
    after: Option<f64>,
}

#[test]
fn every_vendor_refusal_gets_its_code_and_none_of_the_vendors_text() {
    for source in vendors() {
        let vendor = source.name();
        let path = folder().join(vendor).join("refusals.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let refusals: Vec<Refusal> = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            refusals.iter().any(|refusal| refusal.status == 200),
            "{vendor}: an error in a 200"
        );
        for (_, reader) in opened().into_iter().filter(|(name, _)| *name == vendor) {
            for stream in reader.streams() {
                for refusal in &refusals {
                    let about = format!("{vendor} {}, {}", stream.name, refusal.about);
                    let exchange = Exchange {
                        asked: Asked::default(),
                        status: refusal.status,
                        headers: refusal.headers.clone(),
                        answer: refusal.answer.clone(),
                        found: Found::default(),
                    };
                    let (at, got) = (first(reader.as_ref(), stream, None), came(&exchange));
                    let (again, failure) = match reader.verdict(&at, &got) {
                        Verdict::Read => (false, reader.page(&at, &got).expect_err(&about)),
                        Verdict::Retry(failure) => (true, failure),
                        Verdict::Fail(failure) => (false, failure),
                        other => panic!("{about}: {other:?}"),
                    };
                    assert_eq!(
                        (failure.code.word(), again),
                        (refusal.is.as_str(), refusal.again),
                        "{about}"
                    );
                    if refusal.after.is_some() {
                        let after = failure.retry_after.map(|wait| wait.as_secs_f64());
                        assert_eq!(after, refusal.after, "{about}");
                    }
                    let printed = format!("{failure} {failure:?} {got:?}");
                    assert!(!printed.contains(SECRET), "{about}: {printed}");
                }
            }
        }
    }
}
