//! One connection: its requests, one after the other.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::listen::Shared;
use super::route::{Awaits, Route, route};
use super::{Answer, Ask, Asked};

/// Most bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
const HEADERS: usize = 64;

/// Where a connection is: no request has come yet, one is being worked on, or its answer is on its way or gone.
pub const SILENT: u8 = 0;
const ASKED: u8 = 1;
pub const ANSWERED: u8 = 2;

/// Longest life of a connection: who takes his answers too slowly to be caught by another bound is cut off by this one.
const LIFE: Duration = Duration::from_secs(15 * 60);

pub async fn serve(stream: TcpStream, shared: Arc<Shared>, at: Arc<AtomicU8>) {
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
    at: Arc<AtomicU8>,
) {
    let longest = shared.settings.timeout;
    let service = service_fn(|request| {
        let (shared, at) = (shared.clone(), at.clone());
        async move {
            at.store(ASKED, Ordering::Relaxed);
            let response = respond(request, &shared).await;
            at.store(ANSWERED, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
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
struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

async fn respond(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    shared.open.fetch_add(1, Ordering::Acquire);
    let _open = Open(shared);
    let answer = answer(request, shared)
        .await
        .unwrap_or_else(|answer| answer);
    let mut response = Response::new(Full::new(answer.body));
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

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Answer, Answer> {
    let (head, mut body) = request.into_parts();
    // Who waits for leave to send a body is told before he sends it.
    let is_asking = head.headers.contains_key(EXPECT);
    let read = match route(&head.method, &head.uri, &head.headers) {
        Ok(Route::At(answer)) => return Ok(answer),
        Ok(Route::Ask(what)) => Ok((what, None)),
        Ok(Route::Body(awaits)) => read(awaits, &mut body, shared)
            .await
            .map(|(what, memory)| (what, Some(memory))),
        Err(refusal) => Err(refusal),
    };
    match read {
        Ok((what, _memory)) => ask(what, shared).await,
        Err(refusal) => {
            if !is_asking {
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

/// Reads the body, as far as there is memory and time for it.
async fn read(
    awaits: Awaits,
    body: &mut Incoming,
    shared: &Shared,
) -> Result<(Ask, OwnedSemaphorePermit), Answer> {
    let most = awaits.most(shared.settings.upload_bytes);
    let announced = body.size_hint();
    if announced.lower() > most as u64 {
        return Err(Answer::too_large(most));
    }
    let bytes = announced.upper().unwrap_or(most as u64).min(most as u64);
    let kilobytes = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
    let memory = shared.bodies.clone().try_acquire_many_owned(kilobytes);
    let memory = memory.map_err(|_| Answer::busy(5))?;
    let read = Limited::new(body, most).collect();
    let body = match timeout(shared.settings.timeout, read).await {
        Err(_) => return Err(Answer::too_slow()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Answer::too_large(most)),
        Ok(Err(_)) => {
            let message = "the body was cut or does not read";
            return Err(Answer::refusal(400, "bad_request", message));
        }
        Ok(Ok(body)) => body.to_bytes(),
    };
    Ok((awaits.with(body)?, memory))
}

/// Has the main thread answer.
async fn ask(what: Ask, shared: &Shared) -> Result<Answer, Answer> {
    let (reply, answered) = oneshot::channel();
    let asked = Asked { what, reply };
    shared.queue.try_send(asked).map_err(|_| Answer::busy(1))?;
    (shared.wake)();
    match timeout(shared.settings.timeout, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        // Dropped: the main thread is about to end.
        Ok(Err(_)) => Err(Answer::busy(1)),
        Err(_) => Err(Answer::refusal(
            504,
            "timeout",
            "there was no answer in time; whether it was done is not known",
        )),
    }
}
