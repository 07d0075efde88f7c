//! Where requests go, as far as that is known before a vendor has sent anything, and what a failure calls the place.

use std::io::{self, ErrorKind};

use chrono::DateTime;
use rustls::CertificateError;
use url::Url;

use crate::error::{Code, Failure};
use crate::guard::{self, Allowed};
use crate::record::Window;
use crate::source::{Access, Position, Reader, Start, Stream};

/// Checks the first addresses of a connector with the guard when the connector is saved. No name is resolved.
pub fn check_addresses(reader: &dyn Reader, allowed: &Allowed) -> Result<(), Failure> {
    if reader.layout().is_some() {
        return Ok(());
    }
    // No date has a part in where a request goes.
    let start = Start {
        now: DateTime::UNIX_EPOCH,
        default_from: DateTime::UNIX_EPOCH,
        read_until: None,
        missed_since: None,
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

/// The host of a URL, with its port where the URL has one.
pub fn server(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    format!("{host}{}", port.unwrap_or_default())
}

/// Why no connection was made, without the server's name: [`named`] adds it.
pub fn no_connection(error: Option<&io::Error>) -> String {
    let why = match error.map(io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => ": connection refused",
        Some(ErrorKind::HostUnreachable) => ": host unreachable",
        Some(ErrorKind::NetworkUnreachable) => ": network unreachable",
        Some(ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted) => ": connection reset",
        Some(ErrorKind::PermissionDenied) => ": not permitted by this machine",
        _ => "",
    };
    format!("{NO_CONNECTION}{why}")
}

/// Why no TLS connection was made, without the server's name: [`named`] adds it.
pub fn no_tls(error: Option<&rustls::Error>) -> String {
    let why = match error {
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ": the server's certificate has expired"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                ": the server's certificate is for another name"
            }
            CertificateError::UnknownIssuer => {
                ": the issuer of the server's certificate is not trusted"
            }
            _ => ": the server's certificate is not valid",
        },
        _ => "",
    };
    format!("{NO_TLS}{why}")
}

const NO_CONNECTION: &str = "no connection";
const NO_TLS: &str = "no TLS connection";

/// Whether a failure says that a host cannot be reached at all, whatever it is asked for.
pub fn is_unreachable(failure: &Failure) -> bool {
    match failure.code {
        Code::DnsFailed
        | Code::ConnectTimeout
        | Code::TlsFailed
        | Code::AddressNotAllowed
        | Code::HttpsRequired => true,
        // It has other reasons, such as an answer that is no HTTP.
        Code::ConnectFailed => failure.message.starts_with(NO_CONNECTION),
        _ => false,
    }
}

/// Adds the server's name to a failure's message: `no connection to 127.0.0.1:5433`, `127.0.0.1:8080: HTTP 401`.
pub fn named(url: &Url, mut failure: Failure) -> Failure {
    for missing in [NO_CONNECTION, NO_TLS] {
        if let Some(why) = failure.message.strip_prefix(missing) {
            // Here the default port counts, too: it is what a firewall lets through or not.
            let host = url.host_str().unwrap_or_default();
            let port = url.port_or_known_default().unwrap_or_default();
            failure.message = format!("{missing} to {host}:{port}{why}");
            return failure;
        }
    }
    failure.message = format!("{}: {}", server(url), failure.message);
    failure
}
