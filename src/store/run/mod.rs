//! `sync_runs`: the life of a run, from the queue to its end.
//!
//! A run that is running belongs to one worker by its fencing token. Every write of the worker names run, token
//! and the state `running`; if no row matches, the run was cancelled, deleted or taken, and the whole
//! transaction is rolled back.

/// `sync_runs.streams` from what it was, the plan $plan, and how streams ended ($ends); what is still to be read is then $rest.
macro_rules! streams_at_end {
    ($plan:literal, $ends:literal, $rest:literal) => {
        concat!(
            "(SELECT jsonb_object_agg(s.name, s.entry || CASE WHEN s.entry ->> 'state' IN ('reading', 'waiting') THEN jsonb_build_object('state', ", $rest,
            ") ELSE '{}' END || coalesce(", $ends, "::jsonb -> s.name, '{}'))
             FROM jsonb_each(", $plan, "::jsonb || coalesce(streams, '{}')) AS s(name, entry))"
        )
    };
}

mod end;
mod progress;
mod queue;
mod request;

use chrono::{DateTime, Utc};
use connector_service_core::source::Span;
use uuid::Uuid;

pub use self::end::*;
pub use self::progress::*;
pub use self::queue::*;
pub use self::request::*;
use super::{Db, Rows, read_uuid, uuid};
use crate::error::Result;

/// A run that this worker took up.
pub struct Claimed {
    pub run: Uuid,
    pub connector: Uuid,
    pub tenant: Uuid,
    pub kind: Kind,
    pub source: String,
    pub config: String,
    pub credentials: String,
    pub now: DateTime<Utc>,
    /// The time span of a backfill window.
    pub span: Option<Span>,
}

/// What a run is for. The words stand in `sync_runs.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Sync,
    Backfill,
    Upload,
    Check,
    Preview,
    /// Counts what webhooks delivered within an hour. Never queued.
    Webhook,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Sync => "sync",
            Kind::Backfill => "backfill",
            Kind::Upload => "upload",
            Kind::Check => "check",
            Kind::Preview => "preview",
            Kind::Webhook => "webhook",
        }
    }

    /// Reads a word; any other word is a sync.
    fn read(word: &str) -> Kind {
        match word {
            "backfill" => Kind::Backfill,
            "upload" => Kind::Upload,
            "check" => Kind::Check,
            "preview" => Kind::Preview,
            _ => Kind::Sync,
        }
    }
}

/// Whether the caller may see a run.
pub fn is_visible(db: &mut Db, run: Uuid) -> Result<bool> {
    let rows = db.run(
        "SELECT true FROM @extschema@.sync_runs WHERE run_id = $1",
        &[uuid(run).into()],
    )?;
    Ok(rows.count > 0)
}

fn read_pairs(rows: &Rows) -> Result<Vec<(Uuid, Uuid)>> {
    (0..rows.count)
        .map(|row| Ok((read_uuid(rows.need(row, 1)?), read_uuid(rows.need(row, 2)?))))
        .collect()
}
