//! What templates see of a response's headers.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value as Context};

/// What templates see as `headers`: a header by its name in any case, as manifests spell names as vendors
/// document them, and under `link` the targets of the `Link` header by their relation.
pub struct Headers(pub Vec<(String, String)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")
    }
}

impl Object for Headers {
    fn get_value(self: &Arc<Self>, key: &Context) -> Option<Context> {
        let wanted = key.as_str()?;
        let values = self.0.iter();
        let values = values.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let values: Vec<&str> = values.map(|(_, value)| value.as_str()).collect();
        let joined = (!values.is_empty()).then(|| values.join(", "))?;
        if !wanted.eq_ignore_ascii_case("link") {
            return Some(joined.into());
        }
        Some(Context::from_object(Links(links(&joined))))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names = self.0.iter().map(|(name, _)| name.as_str().into());
        Enumerator::Values(names.collect())
    }
}

/// The links of a header by their relation, in any case.
#[derive(Debug)]
struct Links(Vec<(String, String)>);

impl Object for Links {
    fn get_value(self: &Arc<Self>, key: &Context) -> Option<Context> {
        let wanted = key.as_str()?.to_lowercase();
        let (relation, url) = self.0.iter().find(|(relation, _)| *relation == wanted)?;
        let fields = [("url", url.as_str()), ("rel", relation.as_str())];
        Some(Context::from_pairs(fields))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names = self.0.iter().map(|(relation, _)| relation.as_str().into());
        Enumerator::Values(names.collect())
    }
}

/// The relations, in lower case, and targets of a `Link` header (RFC 8288): several links, quoted or bare values,
/// parameters in any order.
pub fn links(header: &str) -> Vec<(String, String)> {
    let mut links = Vec::new();
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((target, after)) = after.split_once('>') else {
            break;
        };
        let (mut parameters, later) = cut(after, ',');
        let mut has_relation = false;
        while !parameters.is_empty() {
            let (parameter, others) = cut(parameters, ';');
            if let Some((name, value)) = parameter.split_once('=')
                && name.trim().eq_ignore_ascii_case("rel")
                // Of several the first one counts.
                && !std::mem::replace(&mut has_relation, true)
            {
                let relations = value.trim().trim_matches(['"', '\'']).split_whitespace();
                links
                    .extend(relations.map(|relation| (relation.to_lowercase(), target.to_owned())));
            }
            parameters = others;
        }
        rest = later;
    }
    links
}

/// Cuts at the first separator outside of quotes.
fn cut(text: &str, separator: char) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    let at = text.find(|c| {
        let is_plain = !std::mem::take(&mut escaped);
        escaped = quoted && is_plain && c == '\\';
        quoted ^= is_plain && c == '"';
        c == separator && !quoted
    });
    match at {
        Some(at) => (
            text.get(..at).unwrap_or_default(),
            text.get(at + 1..).unwrap_or_default(),
        ),
        None => (text, ""),
    }
}
