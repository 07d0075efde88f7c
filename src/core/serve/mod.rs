//! The gateway's socket side: it listens, reads requests within bounds, and asks the main thread.
//!
//! Nothing here knows a table. A request that is well-formed becomes an [`Asked`] in a bounded queue, and whoever has
//! PostgreSQL answers it; a full queue is a 503 at once, so that a flood costs nobody else anything. What an outsider
//! controls is bounded before it is an allocation: connections, headers, the bytes of all bodies together, and the time
//! for each of them.
//!
//! [`route`] is the judgement over one request, without a socket; [`connection`] is what has one.

mod addresses;
mod answer;
mod connection;
mod listen;
mod route;
mod shared;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::NaiveDate;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use uuid::Uuid;

pub use addresses::Addresses;
pub use answer::Answer;
pub use listen::Server;
pub use tls::{Identity, TlsError};

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct Settings {
    pub address: SocketAddr,
    /// `None`: plain HTTP, for a proxy on the same machine or a network that is trusted.
    pub identity: Option<Arc<Identity>>,
    /// Connections at once. One that says nothing, or not all of it, gives way to one that comes; where all are answered at
    /// the moment, that one waits.
    pub connections: usize,
    /// Longest time for a header, for a body, for an answer, and between two requests of a connection.
    pub timeout: Duration,
    /// Largest file that is accepted.
    pub upload_bytes: usize,
}

/// A request, read and bounded, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    pub what: Ask,
    reply: oneshot::Sender<Answer>,
    /// What its body takes of the memory for all of them; it lasts as long as the body, whoever still waits.
    _memory: Option<OwnedSemaphorePermit>,
}

impl Asked {
    /// Whether the client has given up waiting for the answer.
    pub fn is_over(&self) -> bool {
        self.reply.is_closed()
    }

    pub fn answer(self, answer: Answer) {
        // Whoever asked may be gone.
        let _ = self.reply.send(answer);
    }
}

/// The kinds of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Ready,
    Prometheus(Token),
    Metrics(Token, Metrics),
    Tenants(Token),
    Overview(Token, Uuid),
    Resolve(Token, Uuid),
    Replay(Token, Uuid),
    Sync(Token, Uuid),
    Webhook(Webhook),
    /// Whether a token opens uploads; asked before a file is read.
    MayUpload(Token),
    Upload(Token, Upload),
}

/// The SHA-256 of a bearer token. The token itself goes no further than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    pub tenant: Uuid,
    pub metric_type: Option<String>,
    pub from: NaiveDate,
    pub to: NaiveDate,
    /// The last metric of the page before: its day and type.
    pub after: Option<(NaiveDate, String)>,
    pub limit: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub connector: Uuid,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, Vec<u8>)>,
    /// As it came.
    pub body: Bytes,
    /// The same, decompressed and in UTF-8.
    pub text: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub connector: Uuid,
    pub file: String,
    pub body: Bytes,
}
