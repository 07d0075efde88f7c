//! A stream that passes on a number of bytes, and no more until it is told that they were used.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub struct Metered {
    stream: TcpStream,
    meter: Meter,
}

/// How many bytes may still come.
#[derive(Clone)]
pub struct Meter {
    left: Arc<AtomicUsize>,
    most: usize,
}

impl Meter {
    /// Call this when the bytes that came were used.
    pub fn reset(&self) {
        self.left.store(self.most, Ordering::Relaxed);
    }

    pub fn is_used_up(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

impl Metered {
    pub fn new(stream: TcpStream, most: usize) -> Metered {
        let meter = Meter {
            left: Arc::new(AtomicUsize::new(most)),
            most,
        };
        Metered { stream, meter }
    }

    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.meter.is_used_up() {
            return Poll::Ready(Err(io::Error::other(
                "the batch is larger than a response may be",
            )));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len() - before;
        let left = self.meter.left.load(Ordering::Relaxed);
        self.meter
            .left
            .store(left.saturating_sub(came), Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
