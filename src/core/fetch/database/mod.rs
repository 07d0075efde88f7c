//! Batches from databases, within every limit and let through by the guard.
//!
//! A connection is kept for a run. Each batch is a read-only transaction of its own, so that nothing is held open
//! over there while its rows are stored here. Rows are taken while they arrive, and none may be longer than a response;
//! PostgreSQL's driver would read a message of any length into memory, so that what comes is counted below it. None of
//! the server's words are repeated: an error is known by its code.

mod metered;
mod mysql;
mod postgres;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::metered::Metered;
use super::Limits;
use super::client::Client;
use super::place::no_connection;
use crate::error::{Code, Failure};
use crate::guard::{self, Allowed, Refusal};
use crate::source::Response;
use crate::source::database::{BATCH, Make, Query, Server};

/// A connection to a database.
pub struct Database(Session);

enum Session {
    Postgres(postgres::Session),
    MySql(mysql::Session),
}

impl Database {
    pub async fn open(
        server: &Server,
        client: &Client,
        limits: &Limits,
        allowed: &Arc<Allowed>,
    ) -> Result<Database, Failure> {
        let addresses = addresses(server, client, allowed).await?;
        let opening = async {
            let stream = connect(server, addresses, limits).await?;
            Ok(Database(match server.make {
                Make::Postgres => {
                    let stream = Metered::new(stream, limits.response_bytes);
                    Session::Postgres(postgres::Session::open(server, stream).await?)
                }
                Make::MySql => Session::MySql(mysql::Session::open(server, stream, limits).await?),
            }))
        };
        // To connect, and to be let in.
        let opened = timeout(limits.connect_timeout * 2, opening).await;
        opened.unwrap_or_else(|_| {
            let message = "no login in time";
            Err(Failure::new(Code::ConnectTimeout, message))
        })
    }

    /// Whether it is not good for another batch.
    pub fn is_spent(&self) -> bool {
        match &self.0 {
            Session::Postgres(session) => session.is_spent(),
            Session::MySql(session) => session.is_spent(),
        }
    }

    pub async fn exchange(&mut self, query: &Query, limits: &Limits) -> Result<Response, Failure> {
        let exchange = async {
            match &mut self.0 {
                Session::Postgres(session) => session.exchange(query, limits).await,
                Session::MySql(session) => session.exchange(query, limits).await,
            }
        };
        let longest = limits.request_timeout + silence(query, limits);
        timeout(longest, exchange)
            .await
            .map_err(|_| Failure::new(Code::RequestTimeout, "the batch of rows took too long"))?
    }
}

/// How long a server may say nothing: it may sort for as long as a statement may take.
fn silence(query: &Query, limits: &Limits) -> Duration {
    limits.read_timeout + query.server.statement_timeout
}

/// The addresses of a server, all of them let through by the guard.
async fn addresses(
    server: &Server,
    client: &Client,
    allowed: &Arc<Allowed>,
) -> Result<Vec<SocketAddr>, Failure> {
    guard::check_url(&server.place, allowed).map_err(|refusal| match refusal {
        Refusal::Plain => Failure::new(
            Code::HttpsRequired,
            "the host may only be called with TLS; see config's \"tls\"",
        ),
        other => other.into(),
    })?;
    let plain = guard::is_plain(&server.place);
    client.addresses(&server.host, plain, allowed).await
}

/// A connection to the first of the addresses that answers.
async fn connect(
    server: &Server,
    addresses: Vec<SocketAddr>,
    limits: &Limits,
) -> Result<TcpStream, Failure> {
    let mut failure = Failure::new(Code::DnsFailed, "the host name could not be resolved");
    for mut address in addresses {
        address.set_port(server.port);
        match timeout(limits.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                failure = Failure::new(Code::ConnectFailed, no_connection(Some(&error)));
            }
            Err(_) => {
                let message = "no connection: no answer in time";
                failure = Failure::new(Code::ConnectTimeout, message);
            }
        }
    }
    Err(failure)
}

/// Longest cursor or key. Longer: far more than any index holds, several times in memory.
const LONGEST_KEY: usize = 1024 * 1024;

/// Bytes of rows at one place. More: they are in memory at once.
const MOST_TIED: usize = 8 * BATCH;

/// Rows as they become a body: see [`crate::source::database`].
struct Batch {
    body: Vec<u8>,
    came: usize,
    last: Option<Vec<Option<String>>>,
    more: bool,
    /// Whether the first row that was not taken is at the same place as the last one.
    tied: bool,
}

impl Batch {
    fn new() -> Batch {
        Batch {
            body: b"{\"rows\":[".to_vec(),
            came: 0,
            last: None,
            more: false,
            tied: false,
        }
    }

    /// Takes a row, unless there are enough. False: no other is wanted. `last`: its cursor and key.
    fn take(
        &mut self,
        most: usize,
        json: &[u8],
        last: Vec<Option<String>>,
    ) -> Result<bool, Failure> {
        if last.iter().flatten().any(|value| value.len() > LONGEST_KEY) {
            let message = format!("a cursor or key has more than {LONGEST_KEY} bytes");
            return Err(Failure::new(Code::ResponseTooLarge, message));
        }
        let is_tied = !last.is_empty() && self.last.as_ref() == Some(&last);
        // Those at one place are read together, as long as memory allows.
        let most_bytes = if is_tied { MOST_TIED } else { BATCH };
        let is_full = self.came > 0 && self.body.len() + json.len() > most_bytes;
        if self.came == most || is_full {
            (self.more, self.tied) = (true, is_tied);
            return Ok(false);
        }
        if self.came > 0 {
            self.body.push(b',');
        }
        self.body.extend_from_slice(json);
        self.came += 1;
        self.last = Some(last);
        Ok(true)
    }

    fn response(mut self) -> Response {
        let summary =
            json!({"came": self.came, "more": self.more, "tied": self.tied, "last": self.last})
                .to_string();
        self.body.extend_from_slice(b"],");
        // Without its first brace.
        self.body
            .extend_from_slice(summary.get(1..).unwrap_or_default().as_bytes());
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
