//! MySQL and MariaDB over there. Their rows come as values with types, and become JSON here.
//!
//! What a server may ask of a client beyond rows is refused: the driver has no handler for LOCAL INFILE, and sends no
//! password in clear text.

use std::net::IpAddr;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, IoError, Opts, OptsBuilder, SslOpts, Value};
use serde_json::json;
use tokio::time::timeout;

use super::{Batch, mysql_json, response, silence};
use crate::error::{Code, Failure};
use crate::fetch::Limits;
use crate::source::Response;
use crate::source::database::{Asks, Bound, Query, Server, Tls};

pub struct Session {
    conn: Conn,
    is_spent: bool,
}

enum Trouble {
    Silent,
    Refused(Error),
    Strange,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Refused(error)
    }
}

impl Session {
    pub async fn open(
        server: &Server,
        addresses: Vec<IpAddr>,
        limits: &Limits,
    ) -> Result<Session, Failure> {
        let password = server
            .password
            .as_ref()
            .map(|password| password.text().into_owned());
        let tls = match &server.tls {
            Tls::Off => None,
            Tls::Verify { ca } => {
                let roots = roots(ca.as_deref())?;
                let roots = roots.into_iter().map(Into::into).collect();
                let tls = SslOpts::default().with_root_certs(roots);
                Some(tls.with_disable_built_in_roots(true))
            }
        };
        let options: Opts = OptsBuilder::default()
            .ip_or_hostname(server.host.clone())
            .resolved_ips(Some(addresses))
            .tcp_port(server.port)
            .user(Some(server.user.clone()))
            .pass(password)
            .db_name(Some(server.database.clone()))
            .prefer_socket(false)
            .ssl_opts(tls)
            .stmt_cache_size(Some(0))
            .max_allowed_packet(Some(limits.response_bytes))
            .into();
        let conn = Conn::new(options).await.map_err(|error| explain(&error))?;
        let mut session = Session {
            conn,
            is_spent: false,
        };
        let prepared = session.prepare(server).await;
        prepared.map_err(|error| explain(&error))?;
        Ok(session)
    }

    /// Times in UTC, and no statement without an end.
    async fn prepare(&mut self, server: &Server) -> Result<(), Error> {
        self.conn
            .query_drop("SET SESSION time_zone = '+00:00'")
            .await?;
        let version: Option<String> = self.conn.query_first("SELECT VERSION()").await?;
        let is_mariadb = version.is_some_and(|version| version.contains("MariaDB"));
        let bound = match is_mariadb {
            true => format!(
                "max_statement_time = {}",
                server.statement_timeout.as_secs_f64()
            ),
            false => format!(
                "max_execution_time = {}",
                server.statement_timeout.as_millis()
            ),
        };
        self.conn.query_drop(format!("SET SESSION {bound}")).await
    }

    /// Whether more rows are on their way than were taken.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    pub async fn exchange(&mut self, query: &Query, limits: &Limits) -> Result<Response, Failure> {
        let result = self.transaction(query, limits).await;
        result.map_err(|trouble| match trouble {
            Trouble::Silent => Failure::new(
                Code::ReadTimeout,
                format!(
                    "nothing came for {} s",
                    silence(query, limits).as_secs_f64()
                ),
            ),
            Trouble::Refused(error) => explain(&error),
            Trouble::Strange => Failure::new(
                Code::UnexpectedShape,
                "a row is another one than was described",
            ),
        })
    }

    async fn transaction(&mut self, query: &Query, limits: &Limits) -> Result<Response, Trouble> {
        self.conn.query_drop("START TRANSACTION READ ONLY").await?;
        let statement = self.conn.prep(query.text.as_str()).await?;
        let body = match query.asks {
            Asks::Columns => {
                let columns = statement.columns();
                let columns: Vec<_> = columns
                    .iter()
                    .map(|column| (column.name_str().into_owned(), mysql_json::kind(column)))
                    .collect();
                response(json!({"columns": columns}).to_string().into_bytes())
            }
            Asks::Rows(most) => {
                let values: Vec<Value> = query.values.iter().map(value).collect();
                let mut rows = self.conn.exec_iter(&statement, values).await?;
                let mut batch = Batch::new();
                loop {
                    let row = timeout(silence(query, limits), rows.next()).await;
                    let Some(row) = row.map_err(|_| Trouble::Silent)?? else {
                        break;
                    };
                    let json = mysql_json::row(&row, &query.nested, query.server.zone)
                        .ok_or(Trouble::Strange)?;
                    let told = query.told.iter().map(|name| mysql_json::told(&row, name));
                    if !batch.take(most, &json, told.collect()) {
                        // The one row more than asked for is the last one.
                        self.is_spent = batch.came < most;
                        break;
                    }
                }
                batch.response()
            }
        };
        if !self.is_spent {
            self.conn.close(statement).await?;
            self.conn.query_drop("COMMIT").await?;
        }
        Ok(body)
    }
}

fn value(bound: &Bound) -> Value {
    match bound {
        Bound::Text(text) => Value::Bytes(text.clone().into_bytes()),
        Bound::Number(text) => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(number), _) => Value::Int(number),
            (_, Ok(number)) => Value::UInt(number),
            _ => Value::Bytes(text.clone().into_bytes()),
        },
    }
}

/// What the server's certificate must come from; the driver has no verifier of the system's own.
fn roots(ca: Option<&str>) -> Result<Vec<Vec<u8>>, Failure> {
    if let Some(ca) = ca {
        return Ok(vec![ca.as_bytes().to_vec()]);
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let message = "what the system trusts could not be read";
        return Err(Failure::new(Code::TlsFailed, message));
    }
    Ok(found.certs.iter().map(|root| root.to_vec()).collect())
}

/// The driver tells it by its words alone.
const TOO_LARGE: &str = "Packet is larger than max_allowed_packet";

/// A code and words of our own. The server's text may hold anything.
fn explain(error: &Error) -> Failure {
    let fail = |code, what: &str| Failure::new(code, what.to_owned());
    match error {
        Error::Server(error) => {
            let (code, what) = meaning(error.code);
            fail(code, &format!("error {} ({what})", error.code))
        }
        Error::Io(IoError::Io(error))
            if error
                .get_ref()
                .is_some_and(|inner| inner.is::<rustls::Error>()) =>
        {
            fail(Code::TlsFailed, "no secure connection: TLS failed")
        }
        Error::Io(IoError::Tls(_)) => fail(Code::TlsFailed, "no secure connection: TLS failed"),
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            fail(Code::TlsFailed, "the server has no TLS")
        }
        Error::Io(IoError::Io(error)) if error.to_string() == TOO_LARGE => fail(
            Code::ResponseTooLarge,
            "a row is larger than a response may be",
        ),
        Error::Driver(
            DriverError::CleartextPluginDisabled | DriverError::UnknownAuthPlugin { .. },
        ) => fail(
            Code::CredentialsRejected,
            "the server asks for a way of logging in that is not safe, or not known",
        ),
        Error::Driver(DriverError::LocalInfile(_)) => fail(
            Code::RequestRefused,
            "the server asked for a file of this machine, which it does not get",
        ),
        _ => fail(
            Code::ConnectFailed,
            "the connection ended, or what answered is no MySQL",
        ),
    }
}

fn meaning(number: u16) -> (Code, &'static str) {
    match number {
        1045 | 1698 | 1130 => (
            Code::CredentialsRejected,
            "the server does not let this user in, or not from here",
        ),
        1044 | 1142 | 1143 | 1227 => (Code::PermissionMissing, "this user may not read it"),
        1049 => (Code::NotFound, "there is no such database"),
        1146 => (Code::NotFound, "there is no such table"),
        1054 => (Code::NotFound, "there is no such column"),
        1969 | 3024 => (
            Code::RequestTimeout,
            "the statement took longer than config's \"statement_timeout\"; is there an index on the cursor and the key?",
        ),
        1792 => (
            Code::RequestRefused,
            "the query writes; only reading is allowed",
        ),
        1040 | 1053 | 1158..=1161 | 1203 | 1205 | 1213 | 1226 | 1927 => (
            Code::ServerError,
            "the server cannot serve it at the moment",
        ),
        1153 => (
            Code::ResponseTooLarge,
            "a row is larger than a packet may be",
        ),
        _ => (Code::RequestRefused, "the statement was refused"),
    }
}
