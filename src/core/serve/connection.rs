//! One connection: its requests, one after the other.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::route::{Awaits, Route, route};
use super::shared::Shared;
use super::{Answer, Ask, Asked};

/// Most bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
const HEADERS: usize = 64;

/// The state of a connection, and since when it has it.
pub struct Standing {
    at: AtomicU8,
    began: Instant,
    /// Milliseconds after it began.
    since: AtomicU32,
}

/// No request has come yet; of one whose sender nobody knows the body is still to come; one is being worked on; or its
/// answer is on its way or gone.
pub const SILENT: u8 = 0;
pub const SENDING: u8 = 1;
const ASKED: u8 = 2;
pub const ANSWERED: u8 = 3;

impl Standing {
    pub fn new() -> Standing {
        Standing {
            at: AtomicU8::new(SILENT),
            began: Instant::now(),
            since: AtomicU32::new(0),
        }
    }

    fn set(&self, at: u8) {
        let since = u32::try_from(self.began.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.since.store(since, Ordering::Relaxed);
        self.at.store(at, Ordering::Relaxed);
    }

    pub fn is(&self, at: u8) -> bool {
        self.at.load(Ordering::Relaxed) == at
    }

    /// How long it has been there.
    pub fn since(&self) -> Duration {
        let since = Duration::from_millis(self.since.load(Ordering::Relaxed).into());
        self.began.elapsed().saturating_sub(since)
    }
}

/// Longest life of a connection: it cuts off a client that reads its answers so slowly that no other bound catches it.
/// Shorter: an answer of many megabytes over a slow line does not come to its end.
const LIFE: Duration = Duration::from_secs(2 * 60);

/// Bytes of an answer that are handed over at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes of a body that there is room for at first.
const FIRST_BYTES: usize = 4 * 1024;

pub async fn serve(stream: TcpStream, shared: Arc<Shared>, at: Arc<Standing>) {
    let _ = stream.set_nodelay(true);
    let identity = shared.identity.borrow().clone();
    match identity {
        None => speak(stream, shared, at).await,
        Some(identity) => {
            let handshake = identity.acceptor().accept(stream);
            if let Ok(Ok(stream)) = timeout(shared.settings.timeout, handshake).await {
                speak(stream, shared, at).await;
            }
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    shared: Arc<Shared>,
    at: Arc<Standing>,
) {
    let longest = shared.settings.timeout;
    let service = service_fn(|request| {
        let (shared, at) = (shared.clone(), at.clone());
        async move {
            at.set(ASKED);
            Ok::<_, Infallible>(respond(request, &shared, at).await)
        }
    });
    // Without a timer hyper's time-outs do nothing. The time for a head also ends a connection that is idle.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(longest)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // What goes wrong on a connection is the affair of who made it.
    if timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(longest, connection).await;
    }
}

/// A request that is counted as open until its answer is on its way.
struct Open(Arc<Shared>, Arc<Standing>);

impl Drop for Open {
    fn drop(&mut self) {
        self.1.set(ANSWERED);
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

async fn respond(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    at: Arc<Standing>,
) -> Response<Body> {
    shared.open.fetch_add(1, Ordering::Acquire);
    let open = Open(shared.clone(), at.clone());
    let mut answer = answer(request, shared, &at)
        .await
        .unwrap_or_else(|answer| answer);
    let kilobytes = u32::try_from(answer.body.len() / 1024).unwrap_or(u32::MAX);
    let memory = shared.answers.clone().try_acquire_many_owned(kilobytes);
    let memory = memory.ok();
    if memory.is_none() {
        answer = Answer::busy(5);
    }
    let mut response = Response::new(Body {
        rest: answer.body,
        _memory: memory,
        _open: open,
    });
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    for (name, value) in answer.headers {
        headers.insert(name, value);
    }
    response
}

async fn answer(
    request: Request<Incoming>,
    shared: &Shared,
    at: &Standing,
) -> Result<Answer, Answer> {
    let (head, mut body) = request.into_parts();
    // Who waits for leave to send a body is told before he sends it.
    let is_asking = head.headers.contains_key(EXPECT);
    let read = match route(&head.method, &head.uri, &head.headers) {
        Ok(Route::At(answer)) => return Ok(answer),
        Ok(Route::Ask(what)) => Ok((what, None)),
        Ok(Route::Body(awaits)) => {
            at.set(SENDING);
            read(awaits, &mut body, shared, at).await
        }
        Err(refusal) => Err(refusal),
    };
    match read {
        Ok((what, memory)) => {
            at.set(ASKED);
            ask(what, memory, shared).await
        }
        Err(refusal) => {
            if !is_asking {
                at.set(SENDING);
                let _ = timeout(shared.settings.timeout, drain(body, shared)).await;
            }
            Err(refusal)
        }
    }
}

/// Lets what is left of a refused body come, without keeping it: who is still sending when the connection ends sees that
/// it was reset, and not what was answered.
async fn drain(mut body: Incoming, shared: &Shared) {
    let mut left = shared.settings.upload_bytes;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(less) = left.checked_sub(bytes) else {
            return;
        };
        left = less;
    }
}

type Read = (Ask, Option<OwnedSemaphorePermit>);

/// Reads the body within the bounds of memory and time.
async fn read(
    awaits: Awaits,
    body: &mut Incoming,
    shared: &Shared,
    at: &Standing,
) -> Result<Read, Answer> {
    let most = awaits.most(shared.settings.upload_bytes);
    if body.size_hint().lower() > most as u64 {
        return Err(Answer::too_large(most));
    }
    // What needs no token has a budget of its own: files of people who have none are not read at all.
    let budget = match &awaits {
        Awaits::Upload { token, .. } => {
            let may = ask(Ask::MayUpload(*token), None, shared).await?;
            if may.status != 200 {
                return Err(may);
            }
            at.set(ASKED);
            &shared.uploads
        }
        Awaits::Sync(_) | Awaits::Webhook { .. } => &shared.bodies,
    };
    let read = timeout(shared.settings.timeout, collect(body, most, budget)).await;
    let (body, mut memory) = read.map_err(|_| Answer::too_slow())??;
    let what = awaits.with(body)?;
    if let Ask::Webhook(webhook) = &what
        && webhook.text.len() > webhook.body.len()
    {
        let more = u32::try_from(webhook.text.len().div_ceil(1024)).unwrap_or(u32::MAX);
        let more = budget.clone().try_acquire_many_owned(more);
        let more = more.map_err(|_| Answer::busy(5))?;
        match &mut memory {
            Some(memory) => memory.merge(more),
            None => memory = Some(more),
        }
    }
    Ok((what, memory))
}

/// Takes memory from the budget as bytes come, and not for what is only announced. Frames are put together at once: a
/// body in pieces of one byte would take many times its size.
async fn collect(
    body: &mut Incoming,
    most: usize,
    budget: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Answer> {
    let mut whole = Vec::new();
    let mut memory: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let cut = |_| {
            Answer::refusal(
                400,
                "bad_request",
                "the body is incomplete or cannot be read",
            )
        };
        let Ok(data) = frame.map_err(cut)?.into_data() else {
            continue;
        };
        let needed = whole.len() + data.len();
        if needed > most {
            return Err(Answer::too_large(most));
        }
        if needed > whole.capacity() {
            let capacity = needed
                .max((whole.capacity() * 2).min(most))
                .max(FIRST_BYTES);
            let more = (capacity - whole.capacity()).div_ceil(1024);
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            let more = budget.clone().try_acquire_many_owned(more);
            let more = more.map_err(|_| Answer::busy(5))?;
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
            whole.reserve_exact(capacity - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    Ok((whole.into(), memory))
}

/// Has the main thread answer.
async fn ask(
    what: Ask,
    memory: Option<OwnedSemaphorePermit>,
    shared: &Shared,
) -> Result<Answer, Answer> {
    let (reply, answered) = oneshot::channel();
    let queue = match what {
        Ask::Webhook(_) => &shared.pushed,
        _ => &shared.queue,
    };
    let asked = Asked {
        what,
        reply,
        _memory: memory,
    };
    queue.try_send(asked).map_err(|_| Answer::busy(1))?;
    (shared.wake)();
    match timeout(shared.settings.timeout, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        // Dropped: the main thread is about to end.
        Ok(Err(_)) => Err(Answer::busy(1)),
        Err(_) => Err(Answer::refusal(
            504,
            "timeout",
            "the database did not answer in time; it is not known whether the request was carried out",
        )),
    }
}

/// An answer on its way, in pieces: the next one is asked for when there is room, so that what a slow reader keeps waiting
/// stays counted.
struct Body {
    rest: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
    _open: Open,
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let rest = &mut self.get_mut().rest;
        if rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
