//! Databases as sources: `postgres` and `mysql` (MariaDB, too).
//!
//! A stream is a table or a SELECT with key columns and, where there is one, a column that tells of changes. It is
//! read in batches, each by a statement and a short read-only transaction of its own, from where the one before
//! ended: (cursor, key) is compared with that of the last row, so that ties are no trouble and what is edited
//! meanwhile is read again further on. A stream without a cursor is read whole, and what it does not show is gone.
//!
//! What a batch looks like is judgement of a source, and pure; how it is fetched is in [`crate::fetch`].

mod begin;
mod column;
mod order;
mod position;
mod query;
mod rank;
mod reader;
mod server;
mod settings;
mod stamp;
mod statement;
mod table;
#[cfg(test)]
mod tests;

use self::settings::{CONFIG, CREDENTIALS, MYSQL_CONFIG};
pub(super) mod keys {
    pub use super::settings::{
        BATCH, CA, DATABASE, HOST, PASSWORD, PORT, STATEMENT_TIMEOUT, TLS, USERNAME,
    };
}
pub use self::column::Column;
pub use self::reader::BATCH;
pub(super) use self::reader::reader;
pub use self::server::{Make, Server, Tls};
pub use self::statement::{Bound, Query, Returns};
pub(super) use self::table::{From, Table};
use super::settings::Settings;
use super::{About, Definition, Field, Reader, Source};
use crate::error::Failure;

pub struct Postgres;
pub struct MySql;

impl Source for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn about(&self) -> About {
        About {
            kind: "database",
            streams: Vec::new(),
            credentials: CREDENTIALS,
            config: CONFIG,
            frequency: "hourly",
        }
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        open(Make::Postgres, CONFIG, connector)
    }
}

impl Source for MySql {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn about(&self) -> About {
        About {
            config: MYSQL_CONFIG,
            ..Postgres.about()
        }
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        open(Make::MySql, MYSQL_CONFIG, connector)
    }
}

fn open(
    make: Make,
    config: &'static [Field],
    connector: &Definition,
) -> Result<Box<dyn Reader>, Failure> {
    let settings = Settings::new(connector, config)?;
    reader(
        make,
        settings::tables(make, &settings)?,
        &settings,
        connector.limits,
    )
}
