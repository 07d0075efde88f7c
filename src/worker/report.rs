//! The reports of checks and previews: what was found on the first page of a stream.

use connector_service_core::error::Failure;
use connector_service_core::fetch::{FetchedPage, Previewed};
use serde_json::{Value, json};

use crate::error::counted;
use crate::store::preview;
use crate::store::run::{Claimed, Kind};

/// Most rejected records that a report shows.
const SHOWN: usize = 5;

/// The report on one stream, for `sync_runs.report`.
pub fn of_stream(claimed: &Claimed, looked: Previewed) -> Value {
    let Previewed {
        stream,
        understood,
        result,
    } = looked;
    let (summary, understood) = understood.unzip();
    let mut page = match result {
        Ok(Some(page)) => page,
        Ok(None) => {
            let summary = "left out: the vendor does not have it";
            return json!({"stream": stream, "ok": true, "summary": summary});
        }
        Err(failure) => return failed(&stream, &failure),
    };
    let preview = (claimed.kind == Kind::Preview).then(|| preview::of_page(claimed, &mut page));
    let read = match summary {
        Some(summary) => format!("{summary}; {}", page_summary(&page)),
        None => page_summary(&page),
    };
    let (ok, summary, preview) = match preview {
        None => (true, read, None),
        Some(Ok(Some(found))) => (
            true,
            format!("{read}; {}", preview_summary(&found)),
            Some(found),
        ),
        Some(Ok(None)) => {
            let why = "no facts were derived, because another session is changing facts";
            (true, format!("{read}; {why}"), None)
        }
        Some(Err(error)) => {
            let code = error.sqlstate();
            (
                false,
                format!("{read}; the page could not be stored (SQLSTATE {code})"),
                None,
            )
        }
    };
    let named = format!("stream \"{stream}\": ");
    let summary = match &page.warning {
        Some(warning) => format!("{summary}. Warning: {}", warning.trim_start_matches(&named)),
        None => summary,
    };
    json!({
        "stream": stream,
        "ok": ok,
        "summary": summary,
        "records": page.records.len(),
        "deleted": page.deleted.len(),
        "rejected": page.rejected.len(),
        "from": page.window.from,
        "to": page.window.to,
        "warning": page.warning,
        "rejects": page.rejected.iter().take(SHOWN).map(|rejected| &rejected.detail).collect::<Vec<_>>(),
        "preview": preview,
        "understood": understood,
    })
}

fn failed(stream: &str, failure: &Failure) -> Value {
    let hint = failure.code.hint();
    let named = format!("stream \"{stream}\": ");
    json!({
        "stream": stream,
        "ok": false,
        // The stream is named beside the summary.
        "summary": format!("{}. {hint}", failure.message.replace(&named, "")),
        "error_code": failure.code.word(),
        "error_message": failure.message,
        "hint": hint,
    })
}

fn page_summary(page: &FetchedPage) -> String {
    let (records, rejected) = (page.records.len() as u64, page.rejected.len());
    match (records, rejected) {
        (0, 0) => "no records".to_owned(),
        (_, 0) => format!("{} on the first page", counted(records, "record")),
        _ => format!(
            "{} on the first page, and {rejected} that cannot be stored",
            counted(records, "record")
        ),
    }
}

/// What a preview would store, in one line.
fn preview_summary(found: &Value) -> String {
    let of = |value: &Value, place: &str| value.pointer(place).cloned().unwrap_or_default();
    let text =
        |value: &Value, place: &str| of(value, place).as_str().unwrap_or_default().to_owned();
    let count = |place: &str| of(found, place).as_u64().unwrap_or(0);
    let facts = of(found, "/facts");
    let facts = facts.as_array().into_iter().flatten().map(|fact| {
        let (kind, currency) = (text(fact, "/metric_type"), text(fact, "/currency"));
        let fact = format!("{kind} {} {currency}", of(fact, "/total"));
        // A measure that is not money has no currency.
        fact.trim_end().to_owned()
    });
    let facts: Vec<String> = facts.collect();
    let mut line = format!("{} new, {} changed", count("/inserted"), count("/updated"));
    if count("/deleted") > 0 {
        line += &format!(", {} deleted", count("/deleted"));
    }
    if !facts.is_empty() {
        line += &format!("; {}", facts.join(", "));
    }
    let example = text(found, "/unreadable/0/example");
    if !example.is_empty() {
        let unmapped = count("/unmapped").max(1);
        line += &format!("; {unmapped} not mapped, such as: {example}");
    }
    line
}
