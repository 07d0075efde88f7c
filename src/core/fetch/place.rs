//! Where requests go, as far as it is known before a vendor has sent anything.

use chrono::DateTime;
use url::Url;

use crate::error::Failure;
use crate::guard::{self, Allowed};
use crate::record::Window;
use crate::source::{Access, Position, Reader, Start, Stream};

/// What of the guard's judgement is known before a name is resolved: for whoever saves a connector.
pub fn foresee(reader: &dyn Reader, allowed: &Allowed) -> Result<(), Failure> {
    if reader.layout().is_some() {
        return Ok(());
    }
    // No date has a part in where a request goes.
    let start = Start {
        now: DateTime::UNIX_EPOCH,
        default_from: DateTime::UNIX_EPOCH,
        read_until: None,
        span: None,
    };
    if let Some(Ok(request)) = reader.login().map(|login| login.request(start, None)) {
        let checked = guard::check_url(&request.url, allowed);
        checked.map_err(|refusal| named(&request.url, refusal.into()))?;
    }
    for stream in reader.streams() {
        let window = reader.window(stream, None, start);
        if let Ok(window) = window
            && let Ok(Some(query)) = reader.query(&first_of(stream, window, start, None))
        {
            let checked = guard::check_url(&query.server.place, allowed);
            checked.map_err(|refusal| named(&query.server.place, refusal.into()))?;
            continue;
        }
        // What does not render yet is not checked yet.
        let Ok(url) = window.and_then(|window| first_url(reader, stream, window, start, None))
        else {
            continue;
        };
        guard::check_url(&url, allowed).map_err(|refusal| named(&url, refusal.into()))?;
    }
    Ok(())
}

/// Where a stream begins: nothing that a vendor sent has a part in it.
pub fn first_url(
    reader: &dyn Reader,
    stream: &Stream,
    window: Window,
    start: Start,
    access: Option<&Access>,
) -> Result<Url, Failure> {
    let at = first_of(stream, window, start, access);
    Ok(reader.request(&at)?.url)
}

pub fn first_of<'a>(
    stream: &'a Stream,
    window: Window,
    start: Start,
    access: Option<&'a Access>,
) -> Position<'a> {
    Position {
        stream,
        window,
        start,
        next: None,
        high: None,
        access,
    }
}

/// A failure that says whose it is.
pub fn named(url: &Url, mut failure: Failure) -> Failure {
    let host = url.host_str().unwrap_or_default();
    failure.message = format!("{host}: {}", failure.message);
    failure
}
