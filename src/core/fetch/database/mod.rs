//! Batches from databases, within every limit and let through by the guard.
//!
//! A connection is kept for a run. Each batch is a read-only transaction of its own, so that nothing is held open
//! over there while its rows are stored here. Rows are taken while they arrive; what comes between two of them is
//! counted below TLS, because a driver would read a message of any length into memory. None of the server's words
//! are repeated: an error is known by its SQLSTATE.

mod metered;
mod postgres;
mod tls;

use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::metered::Metered;
use super::Limits;
use super::client::Client;
use crate::error::{Code, Failure};
use crate::guard::{self, Allowed, Refusal};
use crate::source::Response;
use crate::source::database::{BATCH, Query, Server};

/// A connection to a database.
pub struct Database(postgres::Session);

impl Database {
    pub async fn open(
        server: &Server,
        client: &Client,
        limits: &Limits,
        allowed: &Arc<Allowed>,
    ) -> Result<Database, Failure> {
        let stream = connect(server, client, limits, allowed).await?;
        let stream = Metered::new(stream, limits.response_bytes);
        let session = postgres::Session::open(server, stream);
        let session = timeout(limits.connect_timeout, session).await;
        let session = session.map_err(|_| {
            Failure::new(
                Code::ConnectTimeout,
                "the server did not let anybody in in time",
            )
        })?;
        Ok(Database(session?))
    }

    pub async fn exchange(&mut self, query: &Query, limits: &Limits) -> Result<Response, Failure> {
        let exchange = self.0.exchange(query, limits);
        timeout(limits.request_timeout, exchange)
            .await
            .map_err(|_| Failure::new(Code::RequestTimeout, "the batch took too long"))?
    }
}

/// A connection to one of the addresses that the guard lets through.
async fn connect(
    server: &Server,
    client: &Client,
    limits: &Limits,
    allowed: &Arc<Allowed>,
) -> Result<TcpStream, Failure> {
    guard::check_url(&server.place, allowed).map_err(|refusal| match refusal {
        Refusal::Plain => Failure::new(
            Code::HttpsRequired,
            "the host is only called with TLS; see config's \"tls\"",
        ),
        other => other.into(),
    })?;
    let addresses = client
        .addresses(&server.host, guard::is_plain(&server.place), allowed)
        .await?;
    let mut failure = Failure::new(Code::DnsFailed, "the host name could not be resolved");
    for mut address in addresses {
        address.set_port(server.port);
        match timeout(limits.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(_)) => failure = Failure::new(Code::ConnectFailed, "no connection"),
            Err(_) => failure = Failure::new(Code::ConnectTimeout, "no connection in time"),
        }
    }
    Err(failure)
}

/// Rows as they become a body: see [`crate::source::database`].
struct Batch {
    body: Vec<u8>,
    came: usize,
    last: Option<Vec<Option<String>>>,
    more: bool,
}

impl Batch {
    fn new() -> Batch {
        Batch {
            body: b"{\"rows\":[".to_vec(),
            came: 0,
            last: None,
            more: false,
        }
    }

    /// Takes a row, unless there are enough. False: no other is wanted.
    fn take(&mut self, most: usize, json: &[u8], last: Vec<Option<String>>) -> bool {
        let is_full = self.came > 0 && self.body.len() + json.len() > BATCH;
        if self.came == most || is_full {
            self.more = true;
            return false;
        }
        if self.came > 0 {
            self.body.push(b',');
        }
        self.body.extend_from_slice(json);
        self.came += 1;
        self.last = Some(last);
        true
    }

    fn response(mut self) -> Response {
        let told = json!({"came": self.came, "more": self.more, "last": self.last}).to_string();
        self.body.extend_from_slice(b"],");
        // Without its first brace.
        self.body
            .extend_from_slice(told.get(1..).unwrap_or_default().as_bytes());
        response(self.body)
    }
}

fn response(body: Vec<u8>) -> Response {
    Response {
        status: 200,
        headers: Vec::new(),
        body: body.into(),
    }
}
