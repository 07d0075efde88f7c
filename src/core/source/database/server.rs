//! The address of a database, and the login.

use std::time::Duration;

use chrono_tz::Tz;
use url::Url;

use crate::error::Failure;
use crate::secret::Secret;
use crate::source::settings::wrong;

/// The kind of server, whose rules a statement follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    Postgres,
    /// MySQL or MariaDB.
    MySql,
}

/// Where a database is, and who asks.
#[derive(Clone)]
pub struct Server {
    pub make: Make,
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub password: Option<Secret>,
    pub tls: Tls,
    pub statement_timeout: Duration,
    /// The zone of columns that have none, where it is known.
    pub zone: Option<Tz>,
    /// The place in the guard's words: https where it is encrypted.
    pub place: Url,
}

#[derive(Clone)]
pub enum Tls {
    /// `ca`: certificates in PEM; `None`: the system's.
    Verify {
        ca: Option<String>,
    },
    Off,
}

impl Server {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        make: Make,
        host: String,
        port: u16,
        database: String,
        user: String,
        password: Option<Secret>,
        tls: Tls,
        statement_timeout: Duration,
    ) -> Result<Server, Failure> {
        let scheme = match tls {
            Tls::Verify { .. } => "https",
            Tls::Off => "http",
        };
        let no_host = || wrong("\"host\" is not a name or an address");
        // A path, a user or another port in it would be somewhere else than it reads.
        if host.contains(['/', '@', '?', '#', '\\']) {
            return Err(no_host());
        }
        let bracketed = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host,
        };
        let place =
            Url::parse(&format!("{scheme}://{bracketed}:{port}/")).map_err(|_| no_host())?;
        let host = place.host_str().ok_or_else(no_host)?;
        Ok(Server {
            make,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            database,
            user,
            password,
            tls,
            statement_timeout,
            zone: None,
            place,
        })
    }
}
