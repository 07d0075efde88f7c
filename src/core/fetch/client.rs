//! One exchange with a vendor, within every limit and allowed by the guard: the only place that touches reqwest.
//!
//! Redirects are not followed and no proxy is taken from the environment: either would carry credentials to
//! somewhere else, and a proxy would look up names by itself. A failure becomes a stable code and a message of our own;
//! the library's text may quote a URL, so it is never used.

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::ACCEPT_ENCODING;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::body::Answering;
use super::place::{no_connection, no_tls};
use super::resolver::{self, Lookup, Resolver};
use super::{Budget, Limits};
use crate::error::{Code, Failure};
use crate::guard::{self, Allowed, Refusal};
use crate::source::{Method, Request, Response};

/// Most headers of a response. More: each costs memory while a head is read. Fewer: a vendor behind several proxies that
/// each add their own cannot be read.
const MOST_HEADERS: usize = 1_000;

/// Largest head of a response over HTTP/2. Over HTTP/1 it is hyper's own buffer, of about 400 KB.
const HEAD_BYTES: u32 = 256 * 1024;

/// How many larger bodies may be in flight at once, read but not yet stored included.
const LARGE_BODIES: usize = 2;

pub struct Client {
    /// There are two clients, because a name may resolve to other addresses for http than for https, and because they
    /// may not share connections.
    secure: Mutex<Option<Kept>>,
    plain: Mutex<Option<Kept>>,
    lookup: Lookup,
    large: Arc<Semaphore>,
}

/// A client and the settings it was built with. Another connect time-out needs another client, since reqwest has it per
/// client. So does another list of allowed hosts: no connection outlives the list that allowed it.
struct Kept {
    connect_timeout: Duration,
    allowed: Arc<Allowed>,
    http: reqwest::Client,
}

impl Client {
    pub fn new() -> Client {
        Client::with(resolver::system())
    }

    pub fn with(lookup: Lookup) -> Client {
        // Only the first of a process is taken; every other is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client {
            secure: Mutex::new(None),
            plain: Mutex::new(None),
            lookup,
            large: Arc::new(Semaphore::new(LARGE_BODIES)),
        }
    }

    /// The addresses of a host that does not speak HTTP. The guard has allowed all of them.
    pub async fn addresses(
        &self,
        host: &str,
        plain: bool,
        allowed: &Arc<Allowed>,
    ) -> Result<Vec<SocketAddr>, Failure> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, 0)]);
        }
        let no_name = |_| Failure::new(Code::DnsFailed, "the host name could not be resolved");
        let answer = (self.lookup)(host.to_owned()).await.map_err(no_name)?;
        guard::check_answer(host, answer.iter().map(SocketAddr::ip), plain, allowed)?;
        Ok(answer)
    }

    pub async fn exchange(
        &self,
        request: &Request,
        limits: &Limits,
        allowed: &Arc<Allowed>,
    ) -> Result<(Response, Budget), Failure> {
        let answering = self.send(request, limits, allowed).await?;
        self.take(answering, limits).await
    }

    /// The first half of an exchange: the head of the response is there.
    pub async fn send(
        &self,
        request: &Request,
        limits: &Limits,
        allowed: &Arc<Allowed>,
    ) -> Result<Answering, Failure> {
        guard::check_url(&request.url, allowed)?;
        let deadline = Instant::now() + limits.request_timeout;
        let plain = guard::is_plain(&request.url);
        let http = self.http(plain, limits.connect_timeout, allowed)?;
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
        };
        let mut builder = http.request(method, request.url.clone());
        let mut asks_for_encoding = false;
        for (name, value) in &request.headers {
            asks_for_encoding |= name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str());
            builder = builder.header(name, value);
        }
        if !asks_for_encoding {
            builder = builder.header(ACCEPT_ENCODING, "gzip");
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let longest = limits.connect_timeout + limits.read_timeout;
        let response = within(longest, deadline, builder.send())
            .await?
            .map_err(|error| explain(&error))?;
        Ok(Answering {
            response,
            deadline,
            is_part: request.is_bare,
        })
    }

    /// The other half: its body.
    pub async fn take(
        &self,
        answering: Answering,
        limits: &Limits,
    ) -> Result<(Response, Budget), Failure> {
        answering.take(limits, &self.large).await
    }

    fn http(
        &self,
        plain: bool,
        connect_timeout: Duration,
        allowed: &Arc<Allowed>,
    ) -> Result<reqwest::Client, Failure> {
        let slot = if plain { &self.plain } else { &self.secure };
        let mut kept = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let fits =
            |kept: &&Kept| kept.connect_timeout == connect_timeout && kept.allowed == *allowed;
        if let Some(kept) = kept.as_ref().filter(fits) {
            return Ok(kept.http.clone());
        }
        let resolver = Resolver {
            lookup: self.lookup.clone(),
            allowed: allowed.clone(),
            plain,
        };
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .https_only(!plain)
            .dns_resolver(resolver)
            .connect_timeout(connect_timeout)
            .tcp_nodelay(true)
            .http1_max_headers(MOST_HEADERS)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http2_max_header_list_size(HEAD_BYTES)
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("connector_service/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| Failure::new(Code::Internal, "the HTTP client could not be built"))?;
        *kept = Some(Kept {
            connect_timeout,
            allowed: allowed.clone(),
            http: http.clone(),
        });
        Ok(http)
    }
}

/// Waits for `step` as long as one step may take and the whole exchange has time left.
pub async fn within<T>(
    longest: Duration,
    deadline: Instant,
    step: impl Future<Output = T>,
) -> Result<T, Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    timeout(longest.min(left), step).await.map_err(|_| {
        if longest < left {
            Failure::new(
                Code::ReadTimeout,
                format!("the server sent nothing for {} s", longest.as_secs_f64()),
            )
        } else {
            Failure::new(
                Code::RequestTimeout,
                "the whole request took longer than connector_service.request_timeout",
            )
        }
    })
}

/// A code and a message of our own for one of reqwest's errors, by the error at its root.
pub fn explain(error: &reqwest::Error) -> Failure {
    let causes = || causes(error);
    if let Some(refusal) = causes().find_map(|cause| cause.downcast_ref::<Refusal>()) {
        return (*refusal).into();
    }
    let hyper = || causes().find_map(|cause| cause.downcast_ref::<hyper::Error>());
    if error.is_connect() && !error.is_timeout() {
        if causes().any(is_tls) {
            let tls = causes().find_map(|cause| cause.downcast_ref());
            return Failure::new(Code::TlsFailed, no_tls(tls));
        }
        if !causes().any(|cause| cause.to_string().starts_with("dns error")) {
            let io = causes().find_map(|cause| cause.downcast_ref());
            return Failure::new(Code::ConnectFailed, no_connection(io));
        }
    }
    let (code, message) = if error.is_builder() {
        (
            Code::InvalidConfig,
            "a header or URL of the request is not valid",
        )
    } else if error.is_connect() && error.is_timeout() {
        (Code::ConnectTimeout, "no connection: no answer in time")
    } else if error.is_connect() {
        (Code::DnsFailed, "the host name could not be resolved")
    } else if hyper().is_some_and(hyper::Error::is_parse) {
        (Code::ConnectFailed, "the server does not speak HTTP")
    } else {
        (
            Code::TruncatedResponse,
            "the connection ended before the response was complete",
        )
    };
    Failure::new(code, message)
}

/// The causes of an error, down to the root. An io::Error leaves the error inside of it out of its own
/// chain, and that is where TLS reports.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let first: &(dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |&cause| {
        match cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => cause.source(),
        }
    })
}

/// An error of TLS itself, or a server that closes the connection during the handshake.
fn is_tls(cause: &(dyn StdError + 'static)) -> bool {
    cause.is::<rustls::Error>() || is_cut(cause)
}

fn is_cut(cause: &(dyn StdError + 'static)) -> bool {
    let kind = |io: &std::io::Error| io.kind() == std::io::ErrorKind::UnexpectedEof;
    cause.downcast_ref().is_some_and(kind)
}
