//! What a response says of records that are on no page that is read: a total, a flag, a link or a token.
//!
//! A manifest that names no paginator, or one that ends too early, reads a part of a stream and succeeds. The words that
//! vendors use for "there is more" are few, so that this is said.

use serde_json::{Map, Value};

use super::headers::links;
use crate::source::Response;
use crate::template::value;

/// A sign that there is more.
pub struct More {
    /// What was seen, in words.
    pub saw: String,
    /// How a manifest asks for it.
    pub advice: String,
    /// Whether it stands for records that were not read. A number alone may count, or sum up, something else.
    pub is_sure: bool,
}

/// Names without case, `_`, `-` and the like.
const TOTALS: [&str; 20] = [
    "total",
    "totalcount",
    "totalitems",
    "totalrecords",
    "totalresults",
    "totalelements",
    "totalentries",
    "totalsize",
    "totalhits",
    "totalrows",
    "totalobjects",
    "count",
    "recordcount",
    "recordstotal",
    "itemcount",
    "resultcount",
    "numresults",
    "numfound",
    "odatacount",
    "totalamountofrecords",
];
/// Those that may be a sum, or count a list that no filter was applied to.
const BARE: [&str; 3] = ["total", "count", "recordstotal"];
/// Names that tell that the response is one page of several.
const OF_PAGES: [&str; 20] = [
    "limit",
    "offset",
    "skip",
    "start",
    "startat",
    "startindex",
    "pagesize",
    "perpage",
    "page",
    "pages",
    "currentpage",
    "pagenumber",
    "pageno",
    "pageindex",
    "totalpages",
    "pagecount",
    "lastpage",
    "itemsperpage",
    "maxresults",
    "pagination",
];
const PAGES: [&str; 9] = [
    "pages",
    "totalpages",
    "pagecount",
    "pagestotal",
    "pagetotal",
    "numpages",
    "numberofpages",
    "lastpage",
    "maxpage",
];
const PAGE: [&str; 8] = [
    "page",
    "currentpage",
    "pagenumber",
    "pageno",
    "pageindex",
    "pagenum",
    "current",
    "number",
];
const FLAGS: [&str; 17] = [
    "hasmore",
    "more",
    "moreavailable",
    "moredata",
    "moreresults",
    "moreitems",
    "morerecords",
    "morepages",
    "hasnext",
    "hasnextpage",
    "hasmoreitems",
    "hasmoreresults",
    "hasmorepages",
    "hasmorerecords",
    "hasmoredata",
    "istruncated",
    "isincomplete",
];
const ENDS: [&str; 5] = ["islastpage", "islast", "last", "lastpage", "done"];
const NEXTS: [&str; 31] = [
    "next",
    "nextpage",
    "nexturl",
    "nextlink",
    "nexthref",
    "nextcursor",
    "nextpagecursor",
    "nextpagetoken",
    "nextpageurl",
    "nextpageuri",
    "nextpagelink",
    "nextpageid",
    "nexturi",
    "nexttoken",
    "nextrecordsurl",
    "odatanextlink",
    "continuation",
    "continuationtoken",
    "continuationkey",
    "nextcontinuationtoken",
    "continuetoken",
    "continue",
    "lastevaluatedkey",
    "nextoffset",
    "nextstart",
    "nextkey",
    "nextmarker",
    "nextmaxid",
    "nextid",
    "resumptiontoken",
    "nextpagestart",
];
/// Objects beside the records that say something of pages.
const AROUND: [&str; 20] = [
    "meta",
    "metadata",
    "pagination",
    "paging",
    "pageinfo",
    "paginginfo",
    "paginationinfo",
    "page",
    "pager",
    "pages",
    "links",
    "link",
    "info",
    "resultinfo",
    "responsemetadata",
    "listinfo",
    "resultset",
    "cursor",
    "cursors",
    "searchinfo",
];

/// The largest body that is looked into, its records aside. Larger: a hostile one costs memory.
pub const LARGEST_REST: usize = 256 * 1024;

/// Longest name that is looked at: it comes to stand in a warning.
const LONGEST_NAME: usize = 60;

pub fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_ascii_alphanumeric());
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

/// `came`: how many records the stream has shown by now, where that is known. `path`: where the records are. `is_first`: it
/// is the first page.
pub fn seen(got: &Response, path: &[String], came: Option<u64>, is_first: bool) -> Option<More> {
    // A total counts what is listed, not what is in its items.
    let came = came.filter(|_| !path.iter().any(|step| step == "*"));
    let mut signs = Signs {
        came,
        is_first,
        more: None,
        number: None,
        is_paged: false,
        is_over: false,
    };
    signs.headers(got);
    // Without a path the body is the records.
    if let Some(body) = Some(path)
        .filter(|path| !path.is_empty())
        .and_then(|path| value::read_within(&got.body, path, LARGEST_REST).ok())
    {
        signs.body(&value::to_json(&body), path);
    }
    let number = signs.number.map(|number| More {
        is_sure: signs.is_paged,
        ..number
    });
    signs.more.or(number).filter(|_| !signs.is_over)
}

struct Signs {
    came: Option<u64>,
    is_first: bool,
    more: Option<More>,
    /// A number that may count something else.
    number: Option<More>,
    /// The response speaks of pages.
    is_paged: bool,
    /// The response says that this is all.
    is_over: bool,
}

impl Signs {
    fn note(&mut self, saw: String, advice: impl Into<String>) {
        let advice = advice.into();
        self.more.get_or_insert(More {
            saw,
            advice,
            is_sure: true,
        });
    }

    fn headers(&mut self, got: &Response) {
        let all = |name: &str| {
            let values = got
                .headers
                .iter()
                .filter(|(known, _)| known.eq_ignore_ascii_case(name));
            values
                .map(|(_, value)| value.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        if links(&all("link"))
            .iter()
            .any(|(relation, _)| relation == "next")
        {
            self.note(
                "the header \"Link\" names a next page".to_owned(),
                "CursorPagination with \"cursor_value\": \"{{ headers['link'].next.url }}\", and RequestPath as \"page_token_option\"",
            );
        }
        for name in [
            "x-total-count",
            "x-total",
            "x-wp-total",
            "x-pagination-total-count",
            "total-count",
        ] {
            self.total(
                &format!("the header \"{name}\""),
                all(name).trim().parse().ok(),
            );
        }
        let range = all("content-range");
        self.total(
            "the header \"Content-Range\"",
            range
                .rsplit_once('/')
                .and_then(|(_, total)| total.trim().parse().ok()),
        );
        let pages = ["x-total-pages", "x-wp-totalpages"]
            .iter()
            .find_map(|name| all(name).trim().parse::<u64>().ok());
        let next = all("x-next-page");
        if pages.is_some_and(|pages| pages > 1) && self.is_first {
            self.note(
                "a header says that there are more pages".to_owned(),
                "PageIncrement",
            );
        } else if !next.trim().is_empty() {
            self.note(
                "the header \"X-Next-Page\" names a next page".to_owned(),
                "PageIncrement",
            );
        }
    }

    fn total(&mut self, name: &str, total: Option<u64>) {
        let (Some(total), Some(came)) = (total, self.came) else {
            return;
        };
        if total > came {
            self.note(said(name, total, came), BY_NUMBER);
        } else if total > 0 {
            self.is_over = true;
        }
    }

    /// A number that may count something else than the records of the stream.
    fn bare(&mut self, name: &str, key: &str, total: Option<u64>) {
        let (Some(total), Some(came)) = (total, self.came) else {
            return;
        };
        if total > came {
            self.number.get_or_insert(More {
                saw: said(name, total, came),
                advice: BY_NUMBER.to_owned(),
                is_sure: false,
            });
        } else if total > 0 && key != "count" {
            // A count may be the page's own.
            self.is_over = true;
        }
    }

    fn body(&mut self, body: &Value, path: &[String]) {
        let mut place = "response".to_owned();
        let mut object = body;
        for step in std::iter::once(None).chain(path.iter().map(Some)) {
            if let Some(step) = step {
                let Some(inner) = object.get(step) else {
                    return;
                };
                place = below(&place, step);
                object = inner;
            }
            let Some(fields) = object.as_object() else {
                return;
            };
            self.object(fields, &place);
            for (name, value) in fields {
                if name.len() > LONGEST_NAME || !AROUND.contains(&plain(name).as_str()) {
                    continue;
                }
                let place = below(&place, name);
                match value {
                    Value::Object(fields) => self.object(fields, &place),
                    Value::Array(links) => self.links(links),
                    _ => {}
                }
            }
        }
    }

    /// `[{"rel": "next", "href": ...}]`
    fn links(&mut self, links: &[Value]) {
        let text =
            |link: &Value, name: &str| link.get(name).and_then(Value::as_str).map(str::to_owned);
        let is_next = |link: &Value| {
            let relation = text(link, "rel").unwrap_or_default();
            relation
                .split_whitespace()
                .any(|word| word.eq_ignore_ascii_case("next"))
                && ["href", "url", "uri"]
                    .iter()
                    .any(|name| text(link, name).is_some_and(|url| !url.is_empty()))
        };
        if links.iter().any(is_next) {
            self.note(
                "a link with \"rel\": \"next\"".to_owned(),
                "CursorPagination with a \"cursor_value\" that gives this link, and RequestPath as \"page_token_option\"",
            );
        }
    }

    fn object(&mut self, fields: &Map<String, Value>, place: &str) {
        let of = |names: &[&str]| {
            fields
                .iter()
                .find(|(name, _)| names.contains(&plain(name).as_str()))
        };
        let number = |value: &Value| {
            value
                .as_u64()
                .or_else(|| value.as_str()?.trim().parse().ok())
        };
        for (name, value) in fields.iter().filter(|(name, _)| name.len() <= LONGEST_NAME) {
            let key = plain(name);
            let key = key.as_str();
            if FLAGS.contains(&key) {
                match truth(value) {
                    Some(true) => self.note(
                        format!("\"{name}\" is true"),
                        "PageIncrement, OffsetIncrement or CursorPagination",
                    ),
                    Some(false) => self.is_over = true,
                    None => {}
                }
            }
            if ENDS.contains(&key) {
                match truth(value) {
                    Some(false) => self.note(
                        format!("\"{name}\" is false"),
                        "PageIncrement, OffsetIncrement or CursorPagination",
                    ),
                    Some(true) => self.is_over = true,
                    None => {}
                }
            }
            if NEXTS.contains(&key) && leads_on(value) {
                let value = match value {
                    Value::Object(inner) => inner
                        .keys()
                        .find(|key| LINK.contains(&key.as_str()))
                        .map(|key| below(&below(place, name), key)),
                    _ => Some(below(place, name)),
                };
                let advice = format!(
                    "CursorPagination with \"cursor_value\": \"{{{{ {} }}}}\"",
                    value.unwrap_or_default()
                );
                self.note(format!("\"{name}\" is there"), advice);
            }
            let tells = number(value).is_some() || value.is_object();
            self.is_paged |= OF_PAGES.contains(&key) && tells;
            if TOTALS.contains(&key) {
                let total = number(value.get("value").unwrap_or(value));
                let name = format!("\"{name}\"");
                match BARE.contains(&key) {
                    true => self.bare(&name, key, total),
                    false => self.total(&name, total),
                }
            }
        }
        // Whether pages are counted from 0 or 1 cannot be told on a later one.
        if !self.is_first {
            return;
        }
        if let Some((name, pages)) =
            of(&PAGES).and_then(|(name, value)| Some((name, number(value)?)))
        {
            let page = of(&PAGE).and_then(|(_, value)| number(value));
            match page {
                // Counted from 0 or not known: there is one page at least.
                None | Some(0) if pages > 1 => {
                    self.note(format!("\"{name}\" is {pages}"), "PageIncrement")
                }
                Some(page) if page > 0 && page < pages => {
                    self.note(
                        format!("\"{name}\" is {pages}, and this is page {page}"),
                        "PageIncrement",
                    );
                }
                Some(page) if page > 0 && pages > 0 => self.is_over = true,
                _ => {}
            }
        }
    }
}

const BY_NUMBER: &str = "PageIncrement or OffsetIncrement";

fn said(name: &str, total: u64, came: u64) -> String {
    format!("{name} is {total}, and {came} records came")
}

const LINK: [&str; 7] = ["href", "url", "uri", "link", "after", "cursor", "token"];

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn leads_on(value: &Value) -> bool {
    match value {
        Value::String(text) => !matches!(
            text.trim().to_ascii_lowercase().as_str(),
            "" | "null" | "none" | "false" | "0" | "-1"
        ),
        Value::Number(number) => number.as_f64().is_some_and(|number| number > 0.0),
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            LINK.contains(&name.as_str()) && value.as_str().is_some_and(|text| !text.is_empty())
        }),
        _ => false,
    }
}

/// A key of a place, as a template writes it.
fn below(place: &str, key: &str) -> String {
    let is_word = key
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !key.starts_with(|c: char| c.is_ascii_digit());
    match is_word && !key.is_empty() {
        true => format!("{place}.{key}"),
        false => format!("{place}['{key}']"),
    }
}
