//! The body of a response: read within every limit, opened where it is packed, and given on as UTF-8.
//!
//! The size limit counts bytes as they arrive, and again as they are opened. A body without an end of its own, because
//! neither a length nor chunks bound it, is whole when the connection ends; where nothing came before that, it is not known
//! whether anything was to come, so it is no empty answer.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use reqwest::Version;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, TRANSFER_ENCODING};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::client::{explain, within};
use super::{Budget, Limits};
use crate::body::{self, MOST_LAYERS, Packing, Pieces, Unpacking};
use crate::error::{Code, Failure};
use crate::source::Response;

/// A body up to this size needs no permit. Larger: memory grows with the number of connectors. Smaller: pages
/// of ordinary size wait for each other.
pub const SMALL_BODY: usize = 1024 * 1024;

/// A response whose head is there.
pub struct Answering {
    pub response: reqwest::Response,
    pub deadline: Instant,
    /// Whether it is a part of a file, which is taken as it comes.
    pub is_part: bool,
}

/// What came so far: one buffer, or pieces that are given back while they are opened.
enum Came {
    Plain(BytesMut),
    Packed(Pieces),
}

impl Came {
    fn len(&self) -> usize {
        match self {
            Came::Plain(body) => body.len(),
            Came::Packed(pieces) => pieces.size(),
        }
    }
}

/// Takes permits for what is larger than an ordinary body.
struct Room<'a> {
    large: &'a Arc<Semaphore>,
    budget: Budget,
    deadline: Instant,
    limit: usize,
}

impl Room<'_> {
    async fn has(&mut self, size: usize) -> Result<(), Failure> {
        if size > self.limit {
            return Err(body::too_large(self.limit));
        }
        if size > SMALL_BODY && self.budget.0.is_none() {
            let waited = Instant::now();
            self.budget.0 = self.large.clone().acquire_owned().await.ok();
            self.deadline += waited.elapsed();
        }
        Ok(())
    }
}

impl Answering {
    pub fn is_success(&self) -> bool {
        self.response.status().is_success()
    }

    /// Reads the body, as text where it is no part of a file.
    pub async fn take(
        mut self,
        limits: &Limits,
        large: &Arc<Semaphore>,
    ) -> Result<(Response, Budget), Failure> {
        let mut room = Room {
            large,
            budget: Budget::default(),
            deadline: self.deadline,
            limit: limits.response_bytes,
        };
        let packings = self.packings()?;
        let came = self.receive(&packings, limits, &mut room).await?;
        let mut body = unpack(came, packings, &mut room).await?;
        if !self.is_whole_file_part() {
            let packed = |body: &Bytes| body::is_gzip(body);
            for _ in 0..MOST_LAYERS {
                if !packed(&body) {
                    break;
                }
                let came = Came::Packed(Pieces::of(body));
                body = unpack(came, vec![Packing::Gzip], &mut room).await?;
            }
            let content_type = self.response.headers().get(CONTENT_TYPE);
            let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()));
            body = body::to_utf8(body, content_type.as_deref(), limits.response_bytes)?;
        }
        if body.is_empty() && self.is_success() && !self.has_end() {
            let message = "the connection ended before any of the response came";
            return Err(Failure::new(Code::TruncatedResponse, message));
        }
        Ok((self.head(body), room.budget))
    }

    /// Whether the bytes are to be given on as they are.
    fn is_whole_file_part(&self) -> bool {
        self.is_part || self.response.status() == 206
    }

    /// Neither of these has a body, whatever its head says.
    fn is_bodyless(&self) -> bool {
        matches!(self.response.status().as_u16(), 204 | 205 | 304)
    }

    /// Whether it is known where the body ends.
    fn has_end(&self) -> bool {
        let headers = self.response.headers();
        self.is_bodyless()
            || self.response.version() >= Version::HTTP_2
            || headers.contains_key(CONTENT_LENGTH)
            || headers.contains_key(TRANSFER_ENCODING)
    }

    fn packings(&self) -> Result<Vec<Packing>, Failure> {
        if self.is_bodyless() {
            return Ok(Vec::new());
        }
        let values = self.response.headers().get_all(CONTENT_ENCODING);
        body::packings(values.iter().filter_map(|value| value.to_str().ok()))
    }

    async fn receive(
        &mut self,
        packings: &[Packing],
        limits: &Limits,
        room: &mut Room<'_>,
    ) -> Result<Came, Failure> {
        let expected = self.response.content_length();
        let expected = expected.map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
        let mut came = match packings.is_empty() {
            true => Came::Plain(BytesMut::with_capacity(expected.min(SMALL_BODY))),
            false => Came::Packed(Pieces::default()),
        };
        if self.is_bodyless() {
            return Ok(came);
        }
        loop {
            let chunk = within(limits.read_timeout, room.deadline, self.response.chunk()).await?;
            let Some(chunk) = chunk.map_err(|error| explain(&error))? else {
                return Ok(came);
            };
            let size = came.len() + chunk.len();
            room.has(size).await?;
            let may_be_gzip = came.len() == 0 && chunk.starts_with(b"\x1F");
            if may_be_gzip && !self.is_whole_file_part() {
                came = Came::Packed(Pieces::default());
            }
            match &mut came {
                Came::Packed(pieces) => pieces.push(&chunk),
                Came::Plain(body) => {
                    if size > SMALL_BODY && body.capacity() < size {
                        // All at once: growing by doubling would hold twice the limit.
                        body.reserve(expected.clamp(size, room.limit) - body.len());
                    }
                    body.extend_from_slice(&chunk);
                }
            }
        }
    }

    fn head(&self, body: Bytes) -> Response {
        let headers = self.response.headers();
        let text =
            |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
                (name.as_str().to_owned(), latin(value.as_bytes()))
            };
        let mut headers: Vec<_> = headers.iter().map(text).collect();
        let dated = |(name, value): &(String, String)| {
            name == DATE.as_str() && httpdate::parse_http_date(value).is_ok()
        };
        if !headers.iter().any(dated) {
            // What counts from a moment is measured by our clock where the vendor shows none.
            let now = httpdate::fmt_http_date(SystemTime::now());
            headers.retain(|(name, _)| name != DATE.as_str());
            headers.push((DATE.as_str().to_owned(), now));
        }
        Response {
            status: self.response.status().as_u16(),
            headers,
            body,
        }
    }
}

/// A header's value: in UTF-8, or in Latin-1, as the older standard has it.
fn latin(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().copied().map(char::from).collect(),
    }
}

/// Opens one layer after the other, the outermost first.
async fn unpack(
    mut came: Came,
    mut packings: Vec<Packing>,
    room: &mut Room<'_>,
) -> Result<Bytes, Failure> {
    while let Some(packing) = packings.pop() {
        let pieces = match came {
            Came::Plain(body) => Pieces::of(body.freeze()),
            Came::Packed(pieces) => pieces,
        };
        // A body that is not there is not packed either.
        if pieces.size() == 0 {
            return Ok(Bytes::new());
        }
        let mut unpacking = Unpacking::new(packing, pieces);
        let mut opened = BytesMut::new();
        let mut steps = 0_u32;
        while unpacking.step(&mut opened)? {
            room.has(opened.len()).await?;
            steps += 1;
            if steps.is_multiple_of(16) {
                // Members without content cost time, and have no size.
                if Instant::now() > room.deadline {
                    let message = "the response body did not decompress in time";
                    return Err(Failure::new(Code::RequestTimeout, message));
                }
                tokio::task::yield_now().await;
            }
        }
        room.has(opened.len()).await?;
        came = Came::Plain(opened);
    }
    Ok(match came {
        Came::Plain(body) => body.freeze(),
        Came::Packed(pieces) => pieces.join(),
    })
}
