//! PostgreSQL as a source. The server writes its rows as JSON itself: numbers exact, times with their zone.

mod columns;

use bytes::BytesMut;
use futures_util::TryStreamExt;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::metered::{Meter, Metered};
use super::{Batch, response, silence, tls};
use crate::error::{Code, Failure};
use crate::fetch::Limits;
use crate::fetch::place::no_tls;
use crate::source::Response;
use crate::source::database::{Bound, Query, Returns, Server, Tls};

pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
    meter: Meter,
    is_spent: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A value as its text, whatever the column's type is: the server reads it.
#[derive(Debug)]
struct Text<'a>(&'a str);

impl ToSql for Text<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

impl Session {
    pub async fn open(server: &Server, stream: Metered) -> Result<Session, Failure> {
        let meter = stream.meter();
        let mut config = Config::new();
        config
            .user(&server.user)
            .dbname(&server.database)
            .application_name("connector_service");
        if let Some(password) = &server.password {
            config.password(password.expose());
        }
        let explain = |error| explain(&error, &meter);
        let (client, connection) = match &server.tls {
            Tls::Off => {
                config.ssl_mode(SslMode::Disable);
                let (client, connection) =
                    config.connect_raw(stream, NoTls).await.map_err(explain)?;
                (client, tokio::spawn(async { drop(connection.await) }))
            }
            Tls::Verify { ca } => {
                config.ssl_mode(SslMode::Require);
                let mut tls = MakeRustlsConnect::new(tls::config(ca.as_deref())?);
                let tls = MakeTlsConnect::<Metered>::make_tls_connect(&mut tls, &server.host);
                let tls = tls.map_err(tls::no_name)?;
                let (client, connection) =
                    config.connect_raw(stream, tls).await.map_err(explain)?;
                (client, tokio::spawn(async { drop(connection.await) }))
            }
        };
        Ok(Session {
            client,
            connection,
            meter,
            is_spent: false,
        })
    }

    /// Whether more rows are on their way than were taken: the driver would read them to the last one.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    pub async fn exchange(&mut self, query: &Query, limits: &Limits) -> Result<Response, Failure> {
        self.meter.reset();
        let result = self.transaction(query, limits).await;
        result.map_err(|trouble| match trouble {
            Trouble::Silent => Failure::new(
                Code::ReadTimeout,
                format!(
                    "the server sent nothing for {} s",
                    silence(query, limits).as_secs_f64()
                ),
            ),
            Trouble::Refused(error) => explain(&error, &self.meter),
            Trouble::Known(failure) => failure,
        })
    }

    async fn transaction(&mut self, query: &Query, limits: &Limits) -> Result<Response, Trouble> {
        // In the transaction: a pooler in between gives the next one to another server. Before version 12, no fewer than
        // three digits more make a float that reads back.
        let begin = format!(
            "BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL extra_float_digits = 3",
            query.server.statement_timeout.as_millis()
        );
        self.client.batch_execute(&begin).await?;
        let statement = self.client.prepare(&query.text).await?;
        if statement.params().len() != query.values.len() {
            let message = "the query has a \"$1\" that no value is given for";
            return Err(Failure::new(Code::RequestRefused, message).into());
        }
        let body = match query.returns {
            Returns::Columns => {
                let columns = columns::described(&self.client, &statement, &query.text).await?;
                response(json!({"columns": columns}).to_string().into_bytes())
            }
            Returns::Rows(most) => {
                let values: Vec<Text> = query.values.iter().map(text).collect();
                let rows = self.client.query_raw(&statement, values.iter()).await?;
                let mut rows = std::pin::pin!(rows);
                let mut batch = Batch::new();
                loop {
                    let row = timeout(silence(query, limits), rows.try_next()).await;
                    let Some(row) = row.map_err(|_| Trouble::Silent)?? else {
                        break;
                    };
                    self.meter.reset();
                    let (json, position) = read(&row)?;
                    if !batch.take(most, json.as_bytes(), position)? {
                        // The one row more than asked for is the last one.
                        self.is_spent = batch.came < most;
                        break;
                    }
                }
                batch.response()
            }
        };
        if !self.is_spent {
            self.client.batch_execute("COMMIT").await?;
        }
        Ok(body)
    }
}

fn text(value: &Bound) -> Text<'_> {
    match value {
        Bound::Text(text) | Bound::Number(text) | Bound::Real(text) => Text(text),
    }
}

fn read(row: &Row) -> Result<(&str, Vec<Option<String>>), tokio_postgres::Error> {
    let json = row.try_get(0)?;
    let position: Result<Vec<Option<String>>, _> =
        (1..row.len()).map(|place| row.try_get(place)).collect();
    Ok((json, position?))
}

enum Trouble {
    Silent,
    Refused(tokio_postgres::Error),
    Known(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Known(failure)
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Trouble {
        Trouble::Refused(error)
    }
}

/// A code and a message of our own. The server's text is not used: it may hold anything.
fn explain(error: &tokio_postgres::Error, meter: &Meter) -> Failure {
    let fail = |code, what: &str| Failure::new(code, what.to_owned());
    let Some(state) = error.code() else {
        return if meter.is_used_up() {
            fail(
                Code::ResponseTooLarge,
                "a row is larger than a response may be",
            )
        } else if error.to_string().starts_with(NO_TLS) || tls_error(error).is_some() {
            Failure::new(Code::TlsFailed, no_tls(tls_error(error)))
        } else {
            fail(
                Code::ConnectFailed,
                "the connection ended, or the server does not speak PostgreSQL's protocol",
            )
        };
    };
    let code = state.code();
    let (kind, what) = match *state {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => (
            Code::CredentialsRejected,
            "the server refuses this user, password or client address",
        ),
        SqlState::INSUFFICIENT_PRIVILEGE => {
            (Code::PermissionMissing, "this user may not read the table")
        }
        SqlState::INVALID_CATALOG_NAME => (Code::NotFound, "the database does not exist"),
        SqlState::UNDEFINED_TABLE | SqlState::INVALID_SCHEMA_NAME => {
            (Code::NotFound, "the table does not exist")
        }
        SqlState::UNDEFINED_COLUMN => (Code::NotFound, "the column does not exist"),
        SqlState::QUERY_CANCELED => (
            Code::RequestTimeout,
            "the statement took longer than config's \"statement_timeout\"; create an index on the cursor and the key",
        ),
        SqlState::READ_ONLY_SQL_TRANSACTION => (
            Code::RequestRefused,
            "the query writes; only SELECT is allowed",
        ),
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "53" | "57" | "40" | "XX" | "58" => (
                Code::ServerError,
                "the server cannot run the statement at the moment",
            ),
            _ => (Code::RequestRefused, "the server refused the statement"),
        },
    };
    // A SQLSTATE is five letters and digits, so it holds nobody's data.
    fail(kind, &format!("SQLSTATE {code} ({what})"))
}

/// The driver tells a server that has no TLS by its words alone.
const NO_TLS: &str = "error performing TLS handshake";

fn tls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let first: &(dyn std::error::Error + 'static) = error;
    let mut causes = std::iter::successors(Some(first), |&cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        match io.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => cause.source(),
        }
    });
    causes.find_map(|cause| cause.downcast_ref())
}
