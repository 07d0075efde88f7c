//! MySQL and MariaDB as a source. Their rows come as values with types, and become JSON here.
//!
//! The client is our own, over `mysql_common`'s packets: drivers believe a server that says how much will come, and
//! the memory that they take for it ends the process. What a server may ask of a client beyond rows is refused: it gets
//! no file and, outside TLS, no password in clear text.

mod columns;
mod json;
mod login;
#[cfg(test)]
mod tests;
mod wire;

use futures_util::FutureExt;
use mysql_common::Value;
use serde_json::json;
use tokio::time::timeout;

use self::wire::Wire;
use super::{Batch, response, silence};
use crate::error::{Code, Failure};
use crate::fetch::Limits;
use crate::source::Response;
use crate::source::database::{Bound, Query, Returns, Server};

pub struct Session {
    wire: Wire,
    is_spent: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whatever the connection is good for by now, and as far as it goes at once: nobody waits for it.
        let _ = self.wire.quit().now_or_never();
    }
}

impl Session {
    pub async fn open(
        server: &Server,
        stream: impl wire::Stream + 'static,
        limits: &Limits,
    ) -> Result<Session, Failure> {
        let most = limits.response_bytes;
        let wire = Wire::new(Box::new(stream), most);
        let wire = login::login(wire, server, most).await?;
        let mut session = Session {
            wire,
            is_spent: false,
        };
        session.prepare(server).await?;
        Ok(session)
    }

    /// Times in UTC, days of zeros that may be compared with, and no statement without an end.
    async fn prepare(&mut self, server: &Server) -> Result<(), Failure> {
        let sets = "SET SESSION time_zone = '+00:00', SESSION sql_mode = replace(replace(replace(@@SESSION.sql_mode, 'TRADITIONAL', ''), 'NO_ZERO_IN_DATE', ''), 'NO_ZERO_DATE', '')";
        self.wire.run(sets).await?;
        let bound = match self.is_mariadb().await? {
            true => format!(
                "max_statement_time = {}",
                server.statement_timeout.as_secs_f64()
            ),
            false => format!(
                "max_execution_time = {}",
                server.statement_timeout.as_millis()
            ),
        };
        self.wire.run(&format!("SET SESSION {bound}")).await
    }

    async fn is_mariadb(&mut self) -> Result<bool, Failure> {
        let statement = self.wire.prepare("SELECT VERSION()", 0).await?;
        let columns = self.wire.execute(&statement, &[]).await?;
        let mut is_mariadb = false;
        while let Some(row) = self.wire.row(&columns).await? {
            is_mariadb = match row.as_ref(0) {
                Some(Value::Bytes(version)) => String::from_utf8_lossy(version).contains("MariaDB"),
                _ => false,
            };
        }
        self.wire.close(&statement).await?;
        Ok(is_mariadb)
    }

    /// Whether more rows are on their way than were taken.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    pub async fn exchange(&mut self, query: &Query, limits: &Limits) -> Result<Response, Failure> {
        let wire = &mut self.wire;
        wire.run("START TRANSACTION READ ONLY").await?;
        let statement = wire.prepare(&query.text, query.values.len()).await?;
        let body = match query.returns {
            Returns::Columns => {
                let (columns, unique) = columns::described(wire, &statement.columns).await?;
                let described = json!({"columns": columns, "unique": unique});
                response(described.to_string().into_bytes())
            }
            Returns::Rows(most) => {
                let values: Vec<Value> = query.values.iter().map(value).collect();
                let columns = wire.execute(&statement, &values).await?;
                let mut batch = Batch::new();
                loop {
                    let row = timeout(silence(query, limits), wire.row(&columns)).await;
                    let Some(row) = row.map_err(|_| silent(query, limits))?? else {
                        break;
                    };
                    let json = json::row(
                        &row,
                        &query.nested,
                        query.server.zone,
                        limits.response_bytes,
                        query.told,
                    )?;
                    let position = json::told(&row, query.told)?;
                    if !batch.take(most, &json, position)? {
                        // The one row more than asked for is the last one.
                        self.is_spent = batch.came < most || wire.row(&columns).await?.is_some();
                        break;
                    }
                }
                batch.response()
            }
        };
        if !self.is_spent {
            wire.close(&statement).await?;
            wire.run("COMMIT").await?;
        }
        Ok(body)
    }
}

fn silent(query: &Query, limits: &Limits) -> Failure {
    Failure::new(
        Code::ReadTimeout,
        format!(
            "the server sent nothing for {} s",
            silence(query, limits).as_secs_f64()
        ),
    )
}

fn value(bound: &Bound) -> Value {
    match bound {
        Bound::Text(text) => Value::Bytes(text.clone().into_bytes()),
        Bound::Number(text) => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(number), _) => Value::Int(number),
            (_, Ok(number)) => Value::UInt(number),
            _ => Value::Bytes(text.clone().into_bytes()),
        },
        Bound::Real(text) => match text.parse() {
            Ok(number) => Value::Double(number),
            Err(_) => Value::Bytes(text.clone().into_bytes()),
        },
    }
}
